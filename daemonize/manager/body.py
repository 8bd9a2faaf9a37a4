"""A function's side of the fork: a copy of the owner is made a process of its own, which calls it and tells the result."""

from __future__ import annotations

import pickle
from _signal import SIG_DFL, SIG_SETMASK, set_wakeup_fd
from _signal import pthread_sigmask as set_mask
from _signal import signal as set_handler
from collections.abc import Callable, Sequence
from fcntl import F_DUPFD_CLOEXEC, fcntl
from gc import enable, freeze
from os import _exit, close, getpid, getppid
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from daemonize.channel import MessageChannel
from daemonize.offspring import failures, mortal, settling
from daemonize.offspring.forking import flush
from daemonize.posix import frames
from daemonize.posix.frames import NOSIGNAL, NOTHING

if TYPE_CHECKING:
    from daemonize.manager.births import Function

#: Bytes of a result that the owner reads at once: between two of them, it looks at other tasks.
PART = 1 << 20
#: What the owner has looked up for a task: what is called; `sendall` of its socket; what lets the kernel kill it when its
#: owner ends; the number of the owner's socket; the owner's pid; signals that are not at their default; whether garbage is
#: collected; whether there is nothing to `_settle`.
Known: TypeAlias = tuple[
    Callable[..., object],
    Callable[[bytes, int], object],
    Callable[[], object],
    int,
    int,
    Sequence[int],
    bool,
    bool,
]


def live(task: Function, known: Known) -> NoReturn:
    """Be the task, in a process just forked within `Blocked`, to its end.

    A page of memory that is written to has to be copied, which takes longer than a system call. Python writes to some with
    each function of ours that is called, and for each attribute that is looked up by code which has not run before, as
    this never has: what every task needs is done in here, with what is known, and the rest by others.
    """
    call, say, dies, owners, owner, reset, collects, plain = known
    status, channel, me = 1, None, getpid()
    try:
        try:
            close(owners)
            freeze()
            if collects:
                enable()
            for number in reset:
                set_handler(number, SIG_DFL)
            set_wakeup_fd(-1)
            if plain:
                dies()
            if not plain or getppid() != owner:
                channel = _settle(task, owner)
            set_mask(SIG_SETMASK, ())
            result = call(channel) if channel else call()
            body = b"" if result is None else _packed(result)
        except SystemExit as error:
            status = settling.status_of(error)
        except BaseException as error:  # noqa: BLE001 (it is the result)
            _answer(task, me, channel, frames.FAILURE, failures.packed(_without_us(error)))
        else:
            if body or channel or getpid() != me:
                _answer(task, me, channel, frames.RESULT, body)
            else:
                say(NOTHING, NOSIGNAL)
            status = 0
    finally:
        # Nothing returns into the caller's stack, whatever was raised; what could not be told, its status tells.
        try:
            flush()
        finally:
            _exit(status)


def _packed(result: object) -> bytes:
    """Raises what its class does, with a note."""
    try:
        return pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        error.add_note(f"what the task returned, a {type(result).__qualname__}, cannot be pickled")
        raise


def _settle(task: Function, owner: int) -> MessageChannel | None:
    """What not every task needs. Its channel, if it is called with one.

    That is on a copy, which may be closed before the result is told, and is none of 0, 1 and 2, which it may write to.
    """
    settling.leave_event_loop()
    settling.seed()
    if task.streams:
        settling.take_streams(task.streams, threads=True)
        settling.free_imports()
    if task.memory is not None:
        settling.limit_memory(task.memory)
    mortal.end_with(owner, lasts=task.lasts)
    return MessageChannel(fcntl(task.sock.fileno(), F_DUPFD_CLOEXEC, 3)) if task.with_channel else None


def _answer(task: Function, me: int, channel: MessageChannel | None, kind: bytes, body: bytes) -> None:
    """Unless this is what the function has forked itself, which has come to its end as well. Raises OSError."""
    if getpid() != me:
        return
    if channel:
        # What another thread is just saying is said to its end: a result in the middle of it would make both nonsense.
        channel.take_turn()
    _tell(task, kind, body)


def _without_us(error: BaseException) -> BaseException:
    """Nor those who have wrapped the function for us, and say so in the way that pytest knows as well."""
    here = error.__traceback__
    while here and here.tb_next:
        here = here.tb_next
        if "__tracebackhide__" not in here.tb_frame.f_locals:
            break
    return error.with_traceback(here)


def _tell(task: Function, kind: bytes, body: bytes) -> None:
    """Raises OSError."""
    view, at = memoryview(body), 0
    while len(body) - at > PART:
        _send(task, frames.PART, view[at : at + PART])
        at += PART
    _send(task, kind, view[at:])


def _send(task: Function, kind: bytes, body: memoryview) -> None:
    sending = frames.Sending(task.sock, kind, body)
    try:
        sending.go_on(frames.DONTWAIT)
    except BlockingIOError:
        if not task.heard:
            task.bell.ask()
            task.heard = True
        sending.go_on()
