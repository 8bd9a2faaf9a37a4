"""Signals as things to read: handlers only enqueue, one loop acts.

`SignalQueue` works everywhere (Python's wakeup descriptor). `SignalDescriptor` is signalfd(2), for the one caller that
must know who sent a signal. Neither may be used in a process that is not ours.
"""

from __future__ import annotations

import os
import sys

from daemonize.posix import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from types import FrameType
    from typing import Any
else:
    import _signal  # `signal` makes enums of everything, and takes longer to import than a server to start

SIGALRM, SIGCHLD, SIGCONT, SIGHUP = _signal.SIGALRM, _signal.SIGCHLD, _signal.SIGCONT, _signal.SIGHUP
SIGINT, SIGKILL, SIGQUIT, SIGTERM = _signal.SIGINT, _signal.SIGKILL, _signal.SIGQUIT, _signal.SIGTERM
SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU = _signal.SIGSTOP, _signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU
SIGPIPE, SIGTRAP, SIGXFSZ = _signal.SIGPIPE, _signal.SIGTRAP, _signal.SIGXFSZ
SIG_DFL = _signal.SIG_DFL
SIGUSR1, SIGUSR2, SIGVTALRM, SIGWINCH = _signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGVTALRM, _signal.SIGWINCH

if hasattr(_signal, "pidfd_send_signal"):
    pidfd_send_signal = _signal.pidfd_send_signal

_IGNORED_BY_PYTHON = frozenset((_signal.SIGPIPE, _signal.SIGXFSZ))
_KERNEL = 0x80  # SI_KERNEL: the terminal, not a process


def block(numbers: Iterable[int]) -> AbstractSet[int]:
    """Block these signals in this thread; returns the mask that was there before."""
    return _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)


_ALL = frozenset(_signal.valid_signals())
#: Those that a process may have its own way with.
_CAUGHT = _ALL - {_signal.SIGKILL, _signal.SIGSTOP}


def valid() -> AbstractSet[int]:
    """All signals of this system."""
    return _ALL


def block_all() -> AbstractSet[int]:
    """Block every signal that can be blocked in this thread; returns the mask that was there before."""
    return block(_ALL)


def restore_mask(mask: Iterable[int]) -> None:
    """Set the mask of this thread."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


class SigpipeBlocked:
    """A context in which writing to a closed pipe is an error (EPIPE), and never a signal.

    The signal goes to the thread that wrote, so one that came in here is taken back before it is let in again. For callers
    of the library, who may have SIGPIPE at its default as command-line tools do. Other signals are left as they are: a
    wrapper that blocks them in here (`Wrapper._detach`) does so for good.
    """

    def __enter__(self) -> None:
        self._before = _signal.SIGPIPE in _signal.sigpending()
        self._mask = block((_signal.SIGPIPE,))

    def __exit__(self, *_exc: object) -> None:
        if not self._before and _signal.SIGPIPE in _signal.sigpending():
            _signal.sigwait((_signal.SIGPIPE,))
        if _signal.SIGPIPE not in self._mask:
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGPIPE,))


def set_defaults() -> None:
    """Default disposition for every signal. exec(2) keeps what is ignored: Python ignores SIGPIPE, nohup SIGHUP."""
    for number in _ALL:
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except OSError:
            pass  # SIGKILL, SIGSTOP


class AllDefault:
    """A context in which every signal is blocked, and at its default; both may be changed. Main thread only.

    Handlers, and the mask of this thread, are put back. A handler that Python does not know (faulthandler) is left alone,
    since nobody could do that.
    """

    def __enter__(self) -> None:
        self._mask = block_all()
        self._handlers = {number: _signal.getsignal(number) for number in valid()}
        for number, handler in self._handlers.items():
            if handler not in (None, _signal.SIG_DFL):
                _signal.signal(number, _signal.SIG_DFL)

    def __exit__(self, *_exc: object) -> None:
        block_all()
        for number, handler in self._handlers.items():
            if handler is not None and _signal.getsignal(number) is not handler:
                _signal.signal(number, handler)
        restore_mask(self._mask)


class TimeLimit:
    """A context in which TimeoutError is raised when it has used so many seconds of CPU time. For the main thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._handler = _signal.signal(_signal.SIGVTALRM, _too_long)
        self._timer = _signal.setitimer(_signal.ITIMER_VIRTUAL, self._seconds)

    def __exit__(self, *_exc: object) -> None:
        _signal.setitimer(_signal.ITIMER_VIRTUAL, *self._timer)
        _signal.signal(_signal.SIGVTALRM, _signal.SIG_DFL if self._handler is None else self._handler)


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError


#: All timers that send a signal (setitimer(2)).
_TIMERS = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)


def timers() -> dict[int, tuple[float, float]]:
    """The timers that run: seconds until each fires, and of its interval. A forked process has none."""
    running = {which: _signal.getitimer(which) for which in _TIMERS}
    return {which: values for which, values in running.items() if any(values)}


def set_timers(values: Mapping[int, tuple[float, float]]) -> None:
    """Start, or with zeros stop, these timers."""
    for which, (seconds, interval) in values.items():
        _signal.setitimer(which, seconds, interval)


def ignored() -> set[int]:
    """The signals that are ignored, but for those that Python itself ignores."""
    return {int(number) for number in valid() if is_ignored(number)} - _IGNORED_BY_PYTHON


def unignore(numbers: Iterable[int]) -> None:
    """Undo that these are ignored, where they still are: as if Python had found them at their default."""
    for number in numbers:
        if is_ignored(number):
            _signal.signal(
                number, _signal.default_int_handler if number == _signal.SIGINT else _signal.SIG_DFL
            )


def handled() -> list[int]:
    """The signals that have a handler of Python's, or of the program's."""
    asked = _signal.getsignal
    found: list[int] = []
    for number in _CAUGHT:
        if callable(asked(number)):
            found.append(number)  # noqa: PERF401 (a comprehension is a function, and is made for each call: blocked.py)
    return found


def changed() -> tuple[int, ...]:
    """The signals that are handled or ignored, but for those that Python itself ignores, or does not know (faulthandler)."""
    found, asked = [], _signal.getsignal
    for number in _CAUGHT:
        handler = asked(number)
        if handler == _signal.SIG_DFL:
            continue
        if number not in _IGNORED_BY_PYTHON or handler != _signal.SIG_IGN:
            found.append(number)
    return tuple(found)


def ignore(number: int) -> None:
    """Ignore the signal from now on."""
    _signal.signal(number, _signal.SIG_IGN)


def handle(number: int, handler: Callable[[int, FrameType | None], object] | int) -> None:
    """Set a handler, or what `signal` calls SIG_DFL or SIG_IGN. For the main thread."""
    _signal.signal(number, handler if callable(handler) else int(handler))


def end_on_interrupt() -> None:
    """Let SIGINT end this process at once, where Python would raise KeyboardInterrupt."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def die_of(number: int) -> None:
    """End this process by the signal, as another that it stands for has ended; without a second core file.

    Returns where that cannot be: the first process of a pid namespace is not ended by signals of its own.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    prctl.be_undumpable()
    changeable = {number} & valid()  # two are glibc's own, which are never caught or blocked here
    for one in changeable - {SIGKILL, SIGSTOP}:
        _signal.signal(one, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, changeable)


def is_ignored(number: int) -> bool:
    """Whether the signal is ignored, as under nohup(1)."""
    return _signal.getsignal(number) == _signal.SIG_IGN


def _enqueue(_number: int, _frame: FrameType | None) -> None:
    """The byte on the wakeup descriptor says it all."""


class SignalSource:
    """Something to read signals from: `fd` becomes readable when there are some."""

    fd: int
    #: Nothing more will come: fd need not be watched any longer.
    ended = False

    def read(self) -> list[tuple[int, int | None]]:
        """What has arrived: (signal, pid of the sender; 0: the kernel, for the terminal; None: not known), in order."""
        raise NotImplementedError  # pragma: no cover (every subclass has its own)

    def close(self) -> None:
        """Put back what was there before."""


class SignalQueue(SignalSource):
    """Caught signals, as bytes on a descriptor (`fd`). Main thread only; `close` puts the old handlers back."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self._wakeup = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers: dict[int, Any] = {number: _signal.signal(number, _enqueue) for number in numbers}

    @property
    def descriptors(self) -> tuple[int, int]:
        """Both ends, for those who close everything else."""
        return self.fd, self._write

    def read(self) -> list[tuple[int, int | None]]:
        """What has arrived: (signal, None), in order. The descriptor is also told of signals that others handle."""
        try:
            return [(number, None) for number in os.read(self.fd, 4096) if number in self._handlers]
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Restore what was there before."""
        for number, handler in self._handlers.items():
            _signal.signal(number, _signal.SIG_DFL if handler is None else handler)
        _signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._write)


def _parse(record: bytes) -> tuple[int, int | None]:
    """(ssi_signo, ssi_pid) of a struct signalfd_siginfo; pid 0 where the kernel itself is the sender.

    None: a process outside of our pid namespace, who has no pid in it (`docker stop`).
    """
    number, _, code, pid = (int.from_bytes(record[at : at + 4], sys.byteorder) for at in (0, 4, 8, 12))
    return number, 0 if code == _KERNEL else pid or None


class SignalDescriptor(SignalSource):
    """signalfd(2): blocked signals on a descriptor, with their sender. Raises OSError where the system has none."""

    def __init__(self, numbers: Iterable[int]) -> None:
        import ctypes

        numbers = tuple(numbers)
        mask = sum([1 << (number - 1) for number in numbers])
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "signalfd"):
            raise OSError(0, "no signalfd")
        # glibc's sigset_t is 1024 bits, in words of the machine's byte order.
        words = ctypes.create_string_buffer(128)
        ctypes.memmove(words, ctypes.byref(ctypes.c_uint64(mask)), 8)
        self._mask = block(numbers)
        self.fd = libc.signalfd(-1, words, os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            restore_mask(self._mask)
            raise OSError(ctypes.get_errno(), "signalfd")

    def read(self) -> list[tuple[int, int | None]]:
        """What has arrived, in order: see SignalSource."""
        try:
            data = os.read(self.fd, 128 * 32)
        except BlockingIOError:
            return []
        return [_parse(data[at : at + 128]) for at in range(0, len(data), 128)]

    def close(self) -> None:
        """Restore the mask that was there before."""
        os.close(self.fd)
        restore_mask(self._mask)
