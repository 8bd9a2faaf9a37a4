"""What must be known of a process before a copy of it may be made."""

from __future__ import annotations

import os
import time

from daemonize.posix.identity import has_proc, has_sleeper, read_file


def has_threads(patience: float = 0.0, besides: int = 0) -> bool:
    """Whether this process has more than one thread, of Python's or not: another may hold any lock when it is forked.

    patience: seconds that one is given which may be on its way out. Python has seen a thread off (join) before it is gone.
    besides: so many that are known to hold none do not count.
    """
    try:
        # Each has a directory there, which has a link to this one. Most callers have one, and many children.
        if 2 < os.stat("/proc/self/task").st_nlink <= 3 + besides:
            return False
    except OSError:
        pass
    until, pause = time.monotonic() + patience, 0.001
    while _count() > 1 + besides:
        # No event tells of its end. Whoever waits for something is not on his way out.
        if time.monotonic() >= until or has_sleeper(os.getpid(), besides):
            return True
        time.sleep(pause)
        pause *= 1.5
    return False


def _count() -> int:
    try:
        links = os.stat("/proc/self/task").st_nlink
    except OSError:
        links = 0
    if links > 2:
        return links - 2
    count = _status(b"Threads")
    if count is None:
        import threading

        return threading.active_count()
    return int(count)


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


#: What a child inherits of its parent beyond environment, directory, umask and descriptors, by the files of /proc that tell.
_TOLD = ("limits", "cgroup", "oom_score_adj")
_STATUS = (
    b"Uid", b"Gid", b"Groups", b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb", b"NoNewPrivs", b"Seccomp",
    b"Seccomp_filters", b"Cpus_allowed", b"Mems_allowed",
)  # fmt: skip
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts")


def surroundings() -> bytes:
    """What a process that was executed by this thread has from it, and no later order changes: to be compared.

    Users and groups, capabilities, limits, control group, niceness and scheduling, namespaces, root.
    """
    base = "/proc/thread-self" if has_proc() else ""
    told = [read_file(f"{base}/{name}") or b"" for name in _TOLD] if base else []
    status = (read_file(f"{base}/status") or b"").splitlines() if base else []
    told += [line for line in status if line.partition(b":")[0] in _STATUS]
    told += [_link(f"{base}/ns/{name}") for name in _NAMESPACES] if base else []
    ids = (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups()) if not base else ()
    scheduling = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else 0
    root = os.stat("/")
    more = (ids, os.getpriority(os.PRIO_PROCESS, 0), scheduling, root.st_dev, root.st_ino)
    return b"\n".join([*told, repr(more).encode()])


def _link(path: str) -> bytes:
    try:
        return os.fsencode(os.readlink(path))
    except OSError:
        return b""


def umask() -> int:
    """The umask of this process. Where /proc does not tell, it is 0 for a moment."""
    told = _status(b"Umask")
    if told is not None:
        return int(told, 8)
    mask = os.umask(0)
    os.umask(mask)
    return mask
