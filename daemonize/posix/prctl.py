"""prctl(2), ptrace(2), inotify(7) and timerfd, which Python does not offer, by the lightest way to the C library.

`_ctypes` alone: importing `ctypes` costs more than starting a server. Where `_ctypes` is not what it is in CPython,
`ctypes` does the same.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PTRACE_DETACH = 17
_PR_SET_CHILD_SUBREAPER = 36
_CLOCK_MONOTONIC = 1
_LONGEST_TIMER = 1e9  # what is longer than thirty years comes when it comes


def prepare() -> None:
    """Load what it takes: for one that is about to fork children that need it, each of which would load it itself."""
    dying_with_parent(0)


_found: dict[str, Callable[..., int]] = {}


def _function(name: str) -> Callable[..., int]:
    """A function of the C library. Raises OSError or AttributeError where there is none."""
    if name not in _found:
        _found[name] = _look_up(name)
    return _found[name]


def _look_up(name: str) -> Callable[..., int]:
    try:
        from _ctypes import call_function, dlopen, dlsym

        address = dlsym(dlopen(None, 0), name)  # type: ignore[arg-type]
    except ImportError:
        import ctypes

        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
        return function
    return lambda *arguments: call_function(address, arguments)


def _prctl(option: int, value: int) -> bool:
    try:
        return _function("prctl")(option, value, 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        return False


def become_subreaper() -> bool:
    """Orphans below this process become its children (PR_SET_CHILD_SUBREAPER); False where the system cannot."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def be_undumpable() -> bool:
    """No core file is written of this process, nor handed to a program that wants one (PR_SET_DUMPABLE)."""
    return _prctl(_PR_SET_DUMPABLE, 0)


def let_go(pid: int, number: int) -> bool:
    """Stop tracing a child that asked for it (ptrace(2), PTRACE_DETACH), and deliver the signal that stopped it."""
    try:
        return _function("ptrace")(_PTRACE_DETACH, pid, 0, number) == 0
    except (ImportError, OSError, AttributeError):
        return False


def die_with_parent(number: int) -> bool:
    """This process gets the signal when its parent ends (PR_SET_PDEATHSIG); False where the system cannot."""
    return _prctl(_PR_SET_PDEATHSIG, number)


def dying_with_parent(number: int) -> Callable[[], object]:
    """What does so when it is called: made before the fork, of which a child writes to little of its memory."""
    try:
        from _ctypes import call_function, dlopen, dlsym
        from functools import partial

        address = dlsym(dlopen(None, 0), "prctl")  # type: ignore[arg-type]
    except (ImportError, OSError, AttributeError):
        return lambda: die_with_parent(number)
    return partial(call_function, address, (_PR_SET_PDEATHSIG, number, 0, 0, 0))


def inotify(path: bytes, mask: int) -> int | None:
    """A non-blocking inotify(7) descriptor that watches path; None where there is none to be had."""
    import os

    try:
        fd = _function("inotify_init1")(os.O_CLOEXEC | os.O_NONBLOCK)
        if fd < 0:
            return None
    except (ImportError, OSError, AttributeError):
        return None
    if not watch_also(fd, path, mask):
        os.close(fd)
        return None
    return fd


def watch_also(fd: int, path: bytes, mask: int) -> bool:
    """Let an inotify(7) descriptor watch this path, too; False if it cannot be."""
    try:
        return _function("inotify_add_watch")(fd, path, mask) >= 0
    except (ImportError, OSError, AttributeError):
        return False


def timer() -> int | None:
    """A descriptor that is readable when its time has come (timerfd_create(2)); None where there is none to be had."""
    import os

    try:
        fd = _function("timerfd_create")(_CLOCK_MONOTONIC, os.O_CLOEXEC | os.O_NONBLOCK)
    except (ImportError, OSError, AttributeError):
        return None
    return fd if fd >= 0 else None


def set_timer(fd: int, seconds: float | None) -> None:
    """Let it be readable in so many seconds, 0 being at once, and not before; None: never."""
    import array

    # Zero would stop it.
    nanoseconds = 0 if seconds is None else max(int(min(seconds, _LONGEST_TIMER) * 1e9), 1)
    value = divmod(nanoseconds, 1_000_000_000)
    # Bytes are handed over as a pointer: a number would be cut to an int.
    _function("timerfd_settime")(fd, 0, array.array("l", (0, 0, *value)).tobytes(), None)
