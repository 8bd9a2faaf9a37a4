"""Who holds a lock, or a socket: asked only when one is taken, to be able to say by whom."""

from __future__ import annotations

import os

from daemonize.posix.identity import all_pids, has_proc, read_file, read_stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: pid, name and uid of a process; None, "" and None for what is not known.
Holder = tuple[int | None, str, int | None]
NOBODY: Holder = (None, "", None)


def holder_of(fd: int) -> Holder:
    """Who holds the flock(2) of the file: the oldest process that has it, or at least whose process it is.

    A lock lives as long as any process has the open file it was taken through: /proc/PID/fdinfo shows that, also of those
    that inherited it. /proc/locks knows only who took it, a launch that is long gone as a rule, and whose pid may be
    another's by now. So it is believed in one case: that process lives, and may not be looked into. Then its user is known.
    """
    if not has_proc():
        return NOBODY
    status, name = os.fstat(fd), os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
    oldest, hidden = oldest_of(lambda pid: _holds(pid, status, name))
    if oldest is not NOBODY:
        return oldest
    taker = _taker(status)
    return (None, "", _uid(taker)) if taker in hidden else NOBODY


def oldest_of(holds: Callable[[int], bool]) -> tuple[Holder, set[int]]:
    """The oldest process that holds something, and the pids of those that may not be looked into."""
    holders, hidden = [], set()
    for pid in all_pids():
        try:
            if holds(pid):
                holders.append(pid)
        except PermissionError:
            hidden.add(pid)
        except OSError:
            pass  # it has ended
    stats = [stat for stat in map(read_stat, holders) if stat]
    if not stats:
        return NOBODY, hidden
    oldest = min(stats, key=lambda stat: (stat.start, stat.pid))
    return (oldest.pid, oldest.name, None), hidden


def _holds(pid: int, status: os.stat_result, name: str) -> bool:
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{number}"
        try:
            # By name first: stat(2) of a stranger's file may wait for a server that does not answer (NFS).
            if os.path.basename(os.readlink(path)) != name or not os.path.samestat(os.stat(path), status):
                continue
        except FileNotFoundError:
            continue  # closed in between
        if b"FLOCK" in (read_file(f"/proc/{pid}/fdinfo/{number}") or b""):
            return True
    return False


def _taker(status: os.stat_result) -> int | None:
    """The pid of the process that took the lock, as /proc/locks has it."""
    file = b"%02x:%02x:%d" % (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
    for line in (read_file("/proc/locks") or b"").splitlines():
        words = line.split()  # of one that waits for the lock, the second word is an arrow
        if len(words) > 5 and words[1] == b"FLOCK" and words[5] == file:
            return int(words[4])
    return None


def _uid(pid: int) -> int | None:
    """The effective uid of a process: the owner of /proc/PID is root where a server has changed its user."""
    for line in (read_file(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[2])
    return None
