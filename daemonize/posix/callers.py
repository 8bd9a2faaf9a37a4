"""What must be known of a process before a copy of it may be made."""

from __future__ import annotations

import os
import time

from daemonize.posix.identity import has_sleeper, read_file


def has_threads(patience: float = 0.0) -> bool:
    """Whether this process has more than one thread, of Python's or not: another may hold any lock when it is forked.

    patience: seconds that one is given which may be on its way out. Python has seen a thread off (join) before it is gone.
    """
    until, pause = time.monotonic() + patience, 0.001
    while _counts_several():
        # No event tells of its end. Whoever waits for something is not on his way out.
        if time.monotonic() >= until or has_sleeper(os.getpid()):
            return True
        time.sleep(pause)
        pause *= 1.5
    return False


def _counts_several() -> bool:
    count = _status(b"Threads")
    if count is None:
        import threading

        return threading.active_count() > 1
    return int(count) > 1


def resident() -> int:
    """Bytes of memory that this process has, which would be copied on write; 0 where that is not known."""
    size = _status(b"VmRSS")
    return int(size.split()[0]) * 1024 if size else 0


def _status(field: bytes) -> bytes | None:
    """One line of /proc/self/status (proc_pid_status(5))."""
    for line in (read_file("/proc/self/status") or b"").splitlines():
        name, _, value = line.partition(b":")
        if name == field:
            return value
    return None
