"""A function's side of the fork: a copy of the owner is made a process of its own, which calls it and tells the result."""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from daemonize.channel import MessageChannel
from daemonize.offspring import failures, forking, mortal, settling
from daemonize.posix import frames, signals

if TYPE_CHECKING:
    import _socket
    import io
    from collections.abc import Callable

#: Bytes of a result that the owner reads at once: between two of them, it looks at other tasks.
PART = 1 << 20


class Birth(NamedTuple):
    """What a task is given. with_channel: whether it is called with one. sock: its end. owner: pid of who forks it.

    lasts: whether the thread does that forks it. reset: signals that are not at their default. streams: what is to be stdout
    and stderr; None: there are no threads, and they are what they were. collects: whether garbage is collected.
    """

    function: Callable[..., Any]
    with_channel: bool
    sock: _socket.socket
    owners: _socket.socket
    owner: int
    lasts: bool
    memory: int | None
    reset: tuple[int, ...]
    streams: tuple[io.TextIOWrapper | None, io.TextIOWrapper | None] | None
    collects: bool


def live(birth: Birth) -> NoReturn:
    """Be the task, in a process just forked with all signals blocked, to its end."""
    status = 1
    try:
        status = _live(birth)
    finally:
        # Nothing returns into the caller's stack, whatever was raised; what could not be told, its status tells.
        try:
            forking.flush()
        finally:
            os._exit(status)


def _live(birth: Birth) -> int:
    channel = None
    try:
        try:
            _settle(birth)
            channel = _channel(birth.sock) if birth.with_channel else None
            result = birth.function(channel) if channel else birth.function()
            body = b"" if result is None else pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
        except SystemExit as error:
            return settling.status_of(error)
        except BaseException as error:  # noqa: BLE001 (it is the result)
            body = failures.packed(_without_us(error))
            _silence(channel)
            _tell(birth.sock, frames.FAILURE, body)
            return 1
        _silence(channel)
        _tell(birth.sock, frames.RESULT, body)
    except OSError:
        return 1  # the channel was cut off, or nobody is there who could be told
    return 0


def _settle(birth: Birth) -> None:
    """What was written to must be copied: no more than has to be."""
    birth.owners.close()
    gc.freeze()
    if birth.collects:
        gc.enable()
    for number in birth.reset:
        signals.handle(number, signals.SIG_DFL)
    settling.leave_event_loop()
    if birth.streams:
        settling.take_streams(birth.streams, threads=True)
        settling.free_imports()
    if birth.memory is not None:
        settling.limit_memory(birth.memory)
    settling.seed()
    mortal.end_with(birth.owner, lasts=birth.lasts)
    signals.restore_mask(())


def _channel(sock: _socket.socket) -> MessageChannel:
    """On a copy: it may be closed before the result is told. Not 0, 1 or 2, which the function may write to."""
    return MessageChannel(fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def _silence(channel: MessageChannel | None) -> None:
    """What another thread is just saying is said to its end: a result in the middle of it would make both nonsense."""
    if channel:
        channel.take_turn()


def _without_us(error: BaseException) -> BaseException:
    """Nor those who have wrapped the function for us, and say so in the way that pytest knows as well."""
    here = error.__traceback__
    while here and here.tb_next:
        here = here.tb_next
        if "__tracebackhide__" not in here.tb_frame.f_locals:
            break
    return error.with_traceback(here)


def _tell(sock: _socket.socket, kind: bytes, body: bytes) -> None:
    """Raises OSError."""
    view, at = memoryview(body), 0
    while len(body) - at > PART:
        frames.Sending(sock, frames.PART, view[at : at + PART]).go_on()
        at += PART
    frames.Sending(sock, kind, view[at:]).go_on()
