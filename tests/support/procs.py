"""Processes as the kernel shows them: facts from /proc, ends from pidfds. Nothing here sleeps to synchronise."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PF_EXITING = 0x4
PF_KTHREAD = 0x200000
#: Signals 32 and 33 in a mask of /proc/PID/status. They are glibc's own: what posix_spawn(3) starts, as make does, ignores
#: them, and so do its descendants; no program can change that through glibc. Leave them out of any comparison.
GLIBC_SIGNALS = 0b11 << 31
#: The dispositions of a process that blocks, ignores and catches nothing.
CLEAN = {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}
T = TypeVar("T")


class Process(NamedTuple):
    """One line of /proc/PID/stat, as far as the tests need it. `start` tells two holders of one pid apart."""

    pid: int
    name: str
    state: str
    ppid: int
    pgid: int
    sid: int
    flags: int
    start: int

    @property
    def ended(self) -> bool:
        """A zombie: it has ended, and only waits to be reaped."""
        return self.state in "ZX"


def read(path: str) -> bytes:
    """The content of a /proc file; empty if the process is gone or the file is not ours to read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def stat(pid: int, task: int | None = None) -> Process | None:
    """The process (or one task of it) as it is now; None if there is none."""
    text = read(f"/proc/{pid}/stat" if task is None else f"/proc/{pid}/task/{task}/stat")
    if not text:
        return None
    # The name stands in brackets and may hold anything, brackets and spaces included.
    head, _, tail = text.rpartition(b") ")
    number, _, name = head.partition(b" (")
    field = tail.split()
    return Process(
        pid=int(number),
        name=os.fsdecode(name),
        state=field[0].decode(),
        ppid=int(field[1]),
        pgid=int(field[2]),
        sid=int(field[3]),
        flags=int(field[6]),
        start=int(field[19]),
    )


def pids() -> set[int]:
    """Every pid there is."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def processes(among: Iterable[int] | None = None) -> list[Process]:
    """Every process, or those of the given pids that exist, in order of pid."""
    found = (stat(pid) for pid in sorted(pids() if among is None else among))
    return [process for process in found if process]


def children(pid: int) -> list[Process]:
    """The processes whose parent is `pid`, zombies included."""
    return [process for process in processes() if process.ppid == pid]


def tree(pid: int) -> list[Process]:
    """All descendants of `pid`, parents before their children."""
    everyone = processes()
    found: list[Process] = []
    parents = {pid}
    while parents:
        generation = [process for process in everyone if process.ppid in parents]
        found += generation
        parents = {process.pid for process in generation}
    return found


def alive(pid: int) -> bool:
    """There is such a process, and it has not ended."""
    process = stat(pid)
    return process is not None and not process.ended


def exiting(pid: int) -> bool:
    """Every task of it is on its way out (or it is gone): no line of the program will run any more."""
    with contextlib.suppress(OSError):
        tasks = [stat(pid, int(task)) for task in os.listdir(f"/proc/{pid}/task")]
        return all(task is None or task.flags & PF_EXITING for task in tasks)
    return True


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status: {"Name": "sleep", "SigIgn": "0000000000001000", ...}; empty if there is no such process."""
    lines = os.fsdecode(read(f"/proc/{pid}/status")).splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def dispositions(text: bytes) -> dict[str, int]:
    """The signal masks in a text of /proc/PID/status."""
    fields = dict(line.split(":\t", 1) for line in text.decode().splitlines() if ":\t" in line)
    return {name: int(fields[name], 16) & ~GLIBC_SIGNALS for name in CLEAN}


def command_line(pid: int) -> str:
    """The command line of a process as one would type it, cut to a readable length; its name if it has none."""
    words = os.fsdecode(read(f"/proc/{pid}/cmdline")).rstrip("\0").split("\0")
    process = stat(pid)
    return " ".join(words)[:200] or (f"[{process.name}]" if process else "(gone)")


def descriptors(pid: int) -> dict[int, str]:
    """The open descriptors of a process and what each points at; empty if it is gone."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with (a server may have overwritten it)."""
    entries = os.fsdecode(read(f"/proc/{pid}/environ")).split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries) if name}


def carrying(variable: str, among: Iterable[int] | None = None) -> list[Process]:
    """The living processes that were started with `variable` in their environment."""
    needle = os.fsencode(variable) + b"="
    return [
        process
        for process in processes(among)
        if any(entry.startswith(needle) for entry in _environ(process).split(b"\0"))
    ]


def _environ(process: Process) -> bytes:
    """/proc/PID/environ. In the middle of exec(2) a process has neither that nor arguments: then it is looked at again."""
    if process.ended or process.flags & PF_KTHREAD:
        return b""
    end = time.monotonic() + 1.0
    while not (text := read(f"/proc/{process.pid}/environ")):
        if read(f"/proc/{process.pid}/cmdline"):
            return read(f"/proc/{process.pid}/environ")  # it may have been executed between the two looks
        now = stat(process.pid)
        if now is None or now.ended or now.flags & PF_EXITING or time.monotonic() > end:
            break
        os.sched_yield()
    return text


@contextlib.contextmanager
def watching(pid: int, start: int | None = None) -> Iterator[int | None]:
    """A pidfd of the process, for as long as the block lasts; None if it is gone (or another holds its pid)."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Only a start time read after the pidfd was opened proves that both speak of the same process.
        process = stat(pid)
        yield pidfd if process and start in (None, process.start) else None
    finally:
        os.close(pidfd)


def wait_ended(pid: int, timeout: float = 10.0, start: int | None = None) -> bool:
    """Wait until the process has ended (not until it is reaped). False: it still runs after `timeout` seconds."""
    with watching(pid, start) as pidfd:
        return pidfd is None or readable(pidfd, timeout)


def readable(fd: int, timeout: float = 10.0) -> bool:
    """Wait until there is something to read, or end of file, or (a pidfd) the process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def send(pid: int, number: int, start: int | None = None) -> bool:
    """Send a signal to just this process. False: it is gone."""
    with watching(pid, start) as pidfd:
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        return True


def stop(pid: int, number: int = signal.SIGTERM, timeout: float = 10.0) -> None:
    """Signal a process (SIGTERM) and wait until it has ended; an AssertionError if it does not."""
    process = stat(pid)
    if process and send(pid, number, process.start):
        ended = wait_ended(pid, timeout, process.start)
        assert ended, f"{command_line(pid)} (pid {pid}) still runs {timeout:g} s after signal {number}"


def eventually(check: Callable[[], T], deadline: float = 5.0) -> T:
    """What `check` returns once it raises neither AssertionError nor OSError, and is not False; in `deadline` s, an error.

    For the few things of which the kernel tells nobody (a port that begins to listen). It looks often at first.
    """
    end = time.monotonic() + deadline
    pause = 0.001
    while True:
        try:
            found = check()
            assert found is not False
            return found
        except (AssertionError, OSError):
            if time.monotonic() >= end:
                raise
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
