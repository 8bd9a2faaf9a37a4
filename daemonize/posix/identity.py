"""Who a process is and how it stands: pid, start time and boot id; exiting, asleep or busy.

A pid alone is never an identity: the kernel hands it to the next process. A pidfd cannot be taken over; where the
system has none, pid and start time are compared before every signal.

Whether a process is dying shows in /proc/PID/task/*/stat (proc(5)): the kernel sets PF_EXITING in the flags of every
thread *before* it closes the descriptors, and only much later can the process be reaped.
"""

from __future__ import annotations

import os
import select
from errno import EMFILE, ENFILE, ESRCH

from daemonize.posix import signals

PF_EXITING = 0x4
PF_KTHREAD = 0x200000

#: How a process stands. GONE: dead or never there. EXITING: every thread is on its way out. ASLEEP: every thread waits
#: (or is stopped). BUSY: some thread runs. UNKNOWN: the kernel does not tell.
GONE, EXITING, ASLEEP, BUSY, UNKNOWN = "gone", "exiting", "asleep", "busy", "unknown"


class Stat:
    """The fields of /proc/PID/stat that are used here.

    start: clock ticks since boot. cpu: clock ticks of CPU time used. threads: how many the process has, all told.
    """

    __slots__ = ("cpu", "flags", "name", "pgrp", "pid", "ppid", "session", "start", "state", "threads")

    def __init__(self, data: bytes) -> None:
        # The name is in parentheses and may contain anything, parentheses and newlines included.
        head, _, tail = data.rpartition(b")")
        pid, _, name = head.partition(b"(")
        fields = tail.split()
        self.pid = int(pid)
        self.name = name.decode("utf-8", "backslashreplace")
        self.state = fields[0].decode()
        self.ppid, self.pgrp, self.session = int(fields[1]), int(fields[2]), int(fields[3])
        self.flags = int(fields[6])
        self.cpu = int(fields[11]) + int(fields[12])
        self.threads, self.start = int(fields[17]), int(fields[19])

    @property
    def exiting(self) -> bool:
        """On its way out, or a zombie."""
        return bool(self.flags & PF_EXITING) or self.state in "ZX"


def read_file(path: str) -> bytes | None:
    """A whole small file of /proc; None if it is not there or may not be read."""
    opened: list[int] = []
    try:
        # By one call into C: after os.open() a signal handler may raise, before anybody has the descriptor.
        opened.extend(map(os.open, (path,), (os.O_RDONLY | os.O_CLOEXEC,)))
        chunks = []
        while chunk := os.read(opened[0], 65536):
            chunks.append(chunk)
        return b"".join(chunks)
    except OSError:  # there is none, or (ESRCH) it ended between open and read
        return None
    finally:
        for fd in opened:
            os.close(fd)


def read_stat(pid: int, task: int | None = None) -> Stat | None:
    """The state of a process, or of one of its threads; None if there is no such process or no /proc."""
    if not has_proc():
        return None
    data = read_file(f"/proc/{pid}/stat" if task is None else f"/proc/{pid}/task/{task}/stat")
    return Stat(data) if data else None


def has_proc() -> bool:
    """Whether /proc tells of the processes that we know by their pids.

    It may be that of another pid namespace (a container with the host's /proc): there our pids are those of strangers.
    """
    global _proc_of  # noqa: PLW0603 (asked at every look, and the same for the life of a process)
    me = os.getpid()
    if _proc_of[0] != me:
        try:
            _proc_of = (me, os.readlink("/proc/self") == str(me))
        except OSError:
            _proc_of = (me, False)
    return _proc_of[1]


_proc_of = (0, False)  # (pid that asked, answer): a child is asked anew


def all_pids() -> list[int]:
    """Every process that /proc shows; nothing without /proc."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()] if has_proc() else []


def _tasks(pid: int) -> list[Stat] | None:
    """The threads of a process; None where they cannot be listed."""
    process = read_stat(pid)
    if process and process.threads == 1:
        return [process]  # it is its only thread; most servers have one when they are looked at
    try:
        ids = os.listdir(f"/proc/{pid}/task") if has_proc() else None
    except OSError:
        return None
    if ids is None:
        return None
    return [stat for stat in (read_stat(pid, int(task)) for task in ids) if stat]


def standing(pid: int) -> str:
    """How the process stands: GONE, EXITING, ASLEEP, BUSY or UNKNOWN.

    A leader thread that has left (state Z) says nothing as long as another thread lives. EXITING is what one look saw:
    a thread that was born during the look is not in it, so the end itself must be waited for, or another look taken.
    """
    tasks = _tasks(pid)
    if tasks is None:
        # There is no /proc, or one that hides other users' processes (hidepid).
        return UNKNOWN if _exists(pid) else GONE
    living = [task for task in tasks if not task.exiting]
    if not living:
        return EXITING
    return ASLEEP if all(task.state in "STt" for task in living) else BUSY


def is_below(pid: int, ancestor: int) -> bool:
    """Whether pid is the process `ancestor`, or one of its descendants."""
    while pid > 1 and pid != ancestor:
        stat = read_stat(pid)
        pid = stat.ppid if stat else 0
    return pid == ancestor


def is_process(pid: int) -> bool:
    """Whether it is the number of a process, not of another thread of one: /proc shows those, too, if asked by name."""
    return b"\nTgid:\t%d\n" % pid in (read_file(f"/proc/{pid}/status") or b"")


def has_sleeper(pid: int, besides: int = 0) -> bool:
    """Whether a thread of the process waits for something, besides so many. One that is on its way out does not."""
    return sum(task.state in "STt" and not task.exiting for task in _tasks(pid) or ()) > besides


def holds_descriptors(pid: int, *fds: int) -> bool:
    """Whether a living thread of the process has all these descriptors open. False also where we may not look."""
    for task in _tasks(pid) or ():
        if not task.exiting:
            try:
                for fd in fds:
                    os.lstat(f"/proc/{pid}/task/{task.pid}/fd/{fd}")
            except OSError:
                continue
            return True
    return False


#: Descriptors that a hold on a process never takes: without any, /proc cannot be read, and everybody would seem to be gone.
_SPARE = 8


def pidfd_open(pid: int) -> int | None:
    """A descriptor of the process (pidfd_open(2)), readable when it has ended; None where there is none to be had."""
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
    if fd < _SPARE or fd + _SPARE < os.sysconf("SC_OPEN_MAX"):
        return fd
    os.close(fd)
    return None


def wait_for_end(pid: int, timeout: float) -> bool:
    """Wait at most `timeout` seconds for the end of a process; True also where it cannot be waited for.

    Raises ProcessLookupError where there is none.
    """
    fd = pidfd_open(pid)
    if fd is None:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    ended = bool(poll.poll(timeout * 1000))
    os.close(fd)
    return ended


def _is_full() -> bool:
    """Whether no descriptor is to be had."""
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (EMFILE, ENFILE)
    return False


class Process:
    """A hold on one process that its pid cannot betray: a pidfd, or pid and start time. Close it when done.

    Raises ProcessLookupError when there is no such process, as of 0 and below: those are process groups to kill(2).
    """

    def __init__(self, pid: int) -> None:
        if pid <= 0:
            raise ProcessLookupError(ESRCH, f"no process has the pid {pid}")
        self.pid = pid
        self.fd = pidfd_open(pid)
        stat = read_stat(pid)
        if stat is None and self.fd is not None and _is_full():
            # It was the last descriptor, and nothing could be read any more: pid and start time will do.
            os.close(self.fd)
            self.fd, stat = None, read_stat(pid)
        if stat is None and self.fd is None:
            os.kill(pid, 0)
        self.name = stat.name if stat else "?"
        self.start = stat.start if stat else 0
        self.ppid = stat.ppid if stat else 0
        self.session = stat.session if stat else 0

    @property
    def ended(self) -> bool:
        """Whether it has ended (a zombie has)."""
        if self.fd is not None:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            return bool(poll.poll(0))
        stat = read_stat(self.pid)
        if stat:
            return stat.start != self.start or (stat.state in "ZX" and standing(self.pid) in (EXITING, GONE))
        if has_proc():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def send(self, number: int) -> bool:
        """Send a signal; False if it has ended. Raises PermissionError."""
        try:
            if self.fd is not None:
                signals.pidfd_send_signal(self.fd, number)
            elif self.ended:
                return False
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class Identity:
    """Who a process is, for as long as the machine runs and beyond: comparable, and good to be written down."""

    __slots__ = ("boot_id", "pid", "start")

    def __init__(self, pid: int, start: int, boot_id: str) -> None:
        self.pid, self.start, self.boot_id = pid, start, boot_id

    @classmethod
    def of(cls, pid: int, start: int) -> Identity:
        """The identity of a process of this boot, by pid and start time (clock ticks since boot)."""
        return cls(pid, start, current_boot_id())

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie, or one that is exiting, does not)."""
        stat = read_stat(self.pid)
        if (stat and stat.start != self.start and self.start) or (stat is None and not _exists(self.pid)):
            return False
        if not is_this_boot(self.boot_id):
            return False
        if stat is None:
            return _runs(self.pid)  # hidden from us (hidepid, no /proc)
        return standing(self.pid) not in (EXITING, GONE)

    def __eq__(self, other: object) -> bool:
        """Equal when pid, start time and boot id are."""
        return isinstance(other, Identity) and self._key() == other._key()

    def __hash__(self) -> int:
        """By pid, start time and boot id."""
        return hash(self._key())

    def __repr__(self) -> str:
        """All three parts."""
        return f"Identity(pid={self.pid}, start={self.start}, boot_id={self.boot_id!r})"

    def _key(self) -> tuple[int, int, str]:
        return self.pid, self.start, self.boot_id


def _exists(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _runs(pid: int) -> bool:
    try:
        process = Process(pid)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    ended = process.ended
    process.close()
    return not ended


def is_this_boot(boot_id: str) -> bool:
    """Whether that is the boot we live in: also where one of both is not known (no /proc), which proves nothing."""
    current = current_boot_id()
    return not (boot_id and current) or boot_id == current


def current_boot_id() -> str:
    """The kernel's name for this boot; empty where it has none."""
    return (read_file("/proc/sys/kernel/random/boot_id") or b"").decode("ascii", "replace").strip()
