"""A function's side of the fork: a copy of the owner is made a process of its own, which calls it and tells the result."""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
from _signal import SIG_DFL, SIG_SETMASK, set_wakeup_fd
from _signal import pthread_sigmask as set_mask
from _signal import signal as set_handler
from sys import modules
from typing import TYPE_CHECKING, NoReturn

from daemonize.channel import MessageChannel
from daemonize.offspring import failures, forking, mortal, settling
from daemonize.posix import frames, signals

if TYPE_CHECKING:
    import _socket

    from daemonize.manager.bell import Bell
    from daemonize.manager.births import Function

#: Bytes of a result that the owner reads at once: between two of them, it looks at other tasks.
PART = 1 << 20
_NOTHING = frames.whole(frames.RESULT, b"")


class Birth:
    """What a task is given that is known before the fork. sock: its end; owners: the number of the other. bell: the owner's.

    owner: pid of who forks it. lasts: whether the thread does that forks it. reset: signals that are not at their default.
    streams: what is to be stdout and stderr; None: there are no threads, and they are what they were. collects: whether
    garbage is collected. has_more: whether it takes more than every task needs.
    heard: whether the owner listens before its end. pid: the task's own.
    """

    __slots__ = (
        "bell",
        "collects",
        "has_more",
        "heard",
        "lasts",
        "owner",
        "owners",
        "pid",
        "reset",
        "sock",
        "streams",
        "task",
    )

    def __init__(self, task: Function, sock: _socket.socket, owners: int, bell: Bell) -> None:
        self.task, self.sock, self.owners, self.bell = task, sock, owners, bell
        self.heard, self.pid = task.with_channel, 0
        self.owner, self.lasts = os.getpid(), mortal.lasts()
        self.reset, self.collects = signals.changed(), gc.isenabled()
        self.streams = settling.streams_there_are() if task.threads else None
        self.has_more = (
            task.threads
            or task.memory is not None
            or "numpy.random" in modules
            or ("asyncio" in modules and settling.is_in_event_loop())
        )


def live(birth: Birth) -> NoReturn:
    """Be the task, in a process just forked with all signals blocked, to its end.

    A page of memory that is written to has to be copied, which takes longer than a system call, and each function of ours
    that is called writes to some: what every task needs is done in here, and the rest by others.
    """
    status, task, birth.pid, channel = 1, birth.task, os.getpid(), None
    try:
        try:
            os.close(birth.owners)
            gc.freeze()
            if birth.collects:
                gc.enable()
            for number in birth.reset:
                set_handler(number, SIG_DFL)
            set_wakeup_fd(-1)
            if birth.has_more:
                _settle(birth)
            mortal.end_with(birth.owner, lasts=birth.lasts)
            set_mask(SIG_SETMASK, ())
            if task.with_channel:
                channel = _channel(birth.sock)
            result = task.call(channel) if channel else task.call()
            body = b"" if result is None else _packed(result)
        except SystemExit as error:
            status = settling.status_of(error)
        except BaseException as error:  # noqa: BLE001 (it is the result)
            _answer(birth, channel, frames.FAILURE, failures.packed(_without_us(error)))
        else:
            _answer(birth, channel, frames.RESULT, body)
            status = 0
    finally:
        # Nothing returns into the caller's stack, whatever was raised; what could not be told, its status tells.
        try:
            forking.flush()
        finally:
            os._exit(status)


def _packed(result: object) -> bytes:
    """Raises what its class does, with a note."""
    try:
        return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        error.add_note(f"what the task returned, a {type(result).__qualname__}, cannot be pickled")
        raise


def _settle(birth: Birth) -> None:
    settling.leave_event_loop()
    settling.seed()
    if birth.streams:
        settling.take_streams(birth.streams, threads=True)
        settling.free_imports()
    if birth.task.memory is not None:
        settling.limit_memory(birth.task.memory)


def _channel(sock: _socket.socket) -> MessageChannel:
    """On a copy: it may be closed before the result is told. Not 0, 1 or 2, which the function may write to."""
    return MessageChannel(fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


def _answer(birth: Birth, channel: MessageChannel | None, kind: bytes, body: bytes) -> None:
    """Unless this is what the function has forked itself, which has come to its end as well. Raises OSError."""
    if os.getpid() != birth.pid:
        return
    if channel:
        # What another thread is just saying is said to its end: a result in the middle of it would make both nonsense.
        channel.take_turn()
    if kind == frames.RESULT and not body:
        birth.sock.sendall(_NOTHING, frames.NOSIGNAL)
    else:
        _tell(birth, kind, body)


def _without_us(error: BaseException) -> BaseException:
    """Nor those who have wrapped the function for us, and say so in the way that pytest knows as well."""
    here = error.__traceback__
    while here and here.tb_next:
        here = here.tb_next
        if "__tracebackhide__" not in here.tb_frame.f_locals:
            break
    return error.with_traceback(here)


def _tell(birth: Birth, kind: bytes, body: bytes) -> None:
    """Raises OSError."""
    view, at = memoryview(body), 0
    while len(body) - at > PART:
        _send(birth, frames.PART, view[at : at + PART])
        at += PART
    _send(birth, kind, view[at:])


def _send(birth: Birth, kind: bytes, body: memoryview) -> None:
    sending = frames.Sending(birth.sock, kind, body)
    try:
        sending.go_on(frames.DONTWAIT)
    except BlockingIOError:
        if not birth.heard:
            birth.bell.ask()
            birth.heard = True
        sending.go_on()
