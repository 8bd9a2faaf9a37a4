"""All that is known of a daemon: its record, and what its processes are doing now.

What this user may not look at (another's descriptors; all of it under hidepid) is None. A process that ends meanwhile is
left out: what is told of one is told of that one, and not of a later one with its pid.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import psutil

from daemonize.errors import SetupError
from daemonize.launcher.members import main_of, tree_of
from daemonize.posix.identity import EXITING, GONE, read_file, read_stat, standing
from daemonize.posix.sockdiag import bound, bound_near, listeners, listeners_near
from daemonize.posix.sockets import elsewhere, open_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from daemonize.posix.identity import Stat
    from daemonize.registry.record import Record

_PAGE = os.sysconf("SC_PAGE_SIZE")


def details(record: Record) -> dict[str, Any]:
    """The record, and with it: running, processes, listening, open, memory, cpu; fit for JSON.

    processes: of each that belongs to it pid, ppid, main, name, command (a list), state, user, started (seconds since the
    epoch), memory (bytes), cpu (seconds), threads, descriptors (how many). listening: addresses of all of them. open: of the
    main process's descriptors, by number, what they lead to. memory, cpu: of all together.

    The environment that was given with -E is told as it is, secrets included: the record is its owner's alone, and so is
    what is told of it.
    """
    told = record.fields
    found = main_of(record)
    main = found[0] if found else None
    members = _members(record, found)
    processes = [facts for stat in members if (facts := _facts(stat, main))]
    if main and all(facts["pid"] != main for facts in processes):
        if not main_of(record):
            main = None
        else:  # hidden from us
            processes.insert(0, {**dict.fromkeys(_NOTHING), "pid": main, "main": True})
    sockets = _sockets([stat.pid for stat in members])
    return {
        **told,
        "running": main is not None,
        "processes": processes,
        "listening": None if sockets is None else sorted(set(sockets.values())),
        "open": _open(main, sockets or {}) if main else None,
        "memory": _total(processes, "memory"),
        "cpu": _total(processes, "cpu"),
    }


def memory(pid: int) -> int | None:
    """Bytes of memory that a process has, itself alone; None if it is gone, or hidden."""
    try:
        return int((read_file(f"/proc/{pid}/statm") or b"").split()[1]) * _PAGE
    except (IndexError, ValueError):
        return None


# -- processes --------------------------------------------------------------------------------------------------------


def _members(record: Record, main: tuple[int, int] | None) -> list[Stat]:
    tree = tree_of(record, main, {record.drain or 0})
    return tree.living() if tree else []


_NOTHING = (
    "pid", "ppid", "main", "name", "command", "state", "user", "started", "memory", "cpu", "threads", "descriptors",
)  # fmt: skip


def _facts(stat: Stat, main: int | None) -> dict[str, Any] | None:
    """What is told of one process; None if it has ended."""
    try:
        process = psutil.Process(stat.pid)
        with process.oneshot():
            used = _ask(process.memory_info)
            times = _ask(process.cpu_times)
            facts = {
                "pid": stat.pid,
                "ppid": stat.ppid,
                "main": stat.pid == main,
                "name": stat.name,
                "command": _ask(process.cmdline),
                "state": _ask(process.status),
                "user": _ask(process.username),
                "started": _ask(process.create_time),
                "memory": used.rss if used else None,
                "cpu": round(times.user + times.system, 3) if times else None,
                "threads": stat.threads,
                "descriptors": _ask(process.num_fds),
            }
    except psutil.NoSuchProcess:
        return None
    after = read_stat(stat.pid)
    ended = after is None or after.start != stat.start or standing(stat.pid) in (EXITING, GONE)
    return None if ended else facts


def _ask(question: Callable[[], Any]) -> Any:
    """The answer; None if it is not for us. Raises psutil.NoSuchProcess."""
    try:
        return question()
    except psutil.ZombieProcess:  # the first thread has left, the others serve
        return None
    except (psutil.AccessDenied, OSError):
        return None


def _total(processes: Iterable[dict[str, Any]], name: str) -> Any:
    known = [facts[name] for facts in processes if facts[name] is not None]
    return round(sum(known), 3) if known else None


# -- descriptors ------------------------------------------------------------------------------------------------------


def _sockets(pids: list[int]) -> dict[int, str] | None:
    """Where these processes take connections or messages, by inode; None if none of them may be looked into."""
    known: dict[int, str] = {}
    try:
        for listener in listeners():
            known[listener.inode] = str(listener)
        for socket in bound(connected=False):
            if socket.name:
                known[socket.inode] = f"unix:{socket}"
    except SetupError:
        pass
    for pid in elsewhere(pids):
        try:
            known |= {listener.inode: str(listener) for listener in listeners_near(pid)}
            known |= {socket.inode: f"unix:{socket}" for socket in bound_near(pid) if socket.name}
        except OSError:
            continue
    found: dict[int, str] = {}
    hidden = 0
    for pid in pids:
        try:
            found |= {inode: known[inode] for inode in open_of(pid, known)}
        except OSError:
            hidden += 1
    return None if hidden and hidden == len(pids) else found


def _open(pid: int, sockets: dict[int, str]) -> dict[str, str] | None:
    """What the descriptors of a process lead to, by number; a socket that listens also by its address."""
    found = {}
    try:
        for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{number}")
            except FileNotFoundError:
                continue  # closed in between
            address = sockets.get(int(target[8:-1])) if target.startswith("socket:[") else None
            found[str(number)] = f"{target} {address}" if address else target
    except OSError:
        return None
    return found
