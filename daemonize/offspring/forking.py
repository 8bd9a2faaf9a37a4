"""The fork of a process that is not ours, in which other threads may live; the owner's side."""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings

from daemonize.posix import callers
from daemonize.posix.child import fork_alone

#: Seconds that a thread has to be gone which Python has seen off.
_PATIENCE = 0.02
#: Threads of ours, which hold no lock that a child could need.
harmless: set[int] = set()
#: Threads of ours that fork, and in between call what they were given, which may hold locks. They live beside the main
#: thread, and nobody can help that.
dispatching: set[int] = set()
#: The process that has been warned.
warned: list[int] = []
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def fork_quietly(*, threads: bool) -> int:
    """Python has warned of threads by now, in our words (3.12 and later do so in their own as well)."""
    if not threads or sys.version_info < (3, 12):
        return fork_alone()
    if threading.get_ident() in dispatching:  # type: ignore[unreachable, unused-ignore]
        _ignore_for_good()
        return fork_alone()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
        return fork_alone()


def _ignore_for_good() -> None:
    """Python's own warning of threads at our forks: another thread may be in a block which puts filters back, too."""
    ignored = (
        "ignore",
        re.compile(".*multi-threaded", re.IGNORECASE),
        DeprecationWarning,
        re.compile(r"daemonize\."),
        0,
    )
    if warnings.filters[:1] != [ignored]:
        warnings.filterwarnings("ignore", ignored[1].pattern, DeprecationWarning, ignored[3].pattern)


def flush(*, threads: bool = False) -> None:
    """What we have buffered is not to be said by the child as well.

    Another thread may be writing just now, which has the lock: in the child, those streams are not used then.
    """
    if threads:
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112 (whatever the user has put there)
            continue


def has_threads() -> bool:
    """Whether another thread lives here, but for those of ours that are harmless."""
    return threading.get_ident() in dispatching or callers.has_threads(_PATIENCE, besides=len(harmless))


def warn(name: str, kind: str) -> None:
    """Once in a process, at the caller's line, if threads live that are not ours. kind: what starts: a `server`, a `task`.

    A thread of ours that forks has no caller: whoever gave it the task is to be warned.
    """
    if os.getpid() in warned or threading.get_ident() in dispatching:
        return
    if not callers.has_threads(_PATIENCE, besides=len(harmless) + len(dispatching)):
        return
    warnings.warn(
        f"{name} is started by fork(2) while other threads live: a lock that one of them holds is held for ever "
        f"in the {kind}. Start {kind}s before threads, or see the README for what is safe",
        RuntimeWarning,
        stacklevel=_levels(),
    )
    warned[:] = [os.getpid()]


def _levels() -> int:
    """How far above its own line the caller's is."""
    frame, level = sys._getframe(1), 1  # noqa: SLF001 (as warnings does)
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


# In a forked child they are not there.
os.register_at_fork(after_in_child=harmless.clear)
os.register_at_fork(after_in_child=dispatching.clear)
