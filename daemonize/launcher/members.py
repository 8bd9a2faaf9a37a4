"""The processes that belong to a daemon, by its record."""

from __future__ import annotations

import os

from daemonize.notify import ID
from daemonize.posix.identity import all_pids, is_this_boot, read_file, read_stat
from daemonize.posix.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from daemonize.registry.record import Record

_MARK = ID + b"="


def main_of(record: Record) -> tuple[int, int] | None:
    """(pid, start time) of its main process; None if that does not run."""
    identity = record.identity
    return (identity.pid, identity.start) if identity and identity.alive else None


def tree_of(record: Record, main: tuple[int, int] | None, exclude: Collection[int] = ()) -> Tree | None:
    """Where to look for what belongs to it, also what earlier daemons of its name have left; None: it is of another boot.

    Of another boot nothing can be left, and its numbers are others' by now. main: as of main_of. exclude: pids.
    """
    if not is_this_boot(record.boot_id):
        return None
    stat = read_stat(main[0]) if main else None
    # The number of the session is only safe while a process that is certainly ours keeps it from being given away.
    session = record.session if stat and stat.session == record.session else None
    since = 0 if record.former else record.since
    return Tree({main[0]} if main else (), session, _tokens(record), exclude=exclude, since=since)


def marked() -> dict[bytes, list[tuple[int, str]]]:
    """(pid, name) of every process that bears the mark of a launch, by that. One look, for many daemons."""
    found: dict[bytes, list[tuple[int, str]]] = {}
    for pid in all_pids():
        for word in (read_file(f"/proc/{pid}/environ") or b"").split(b"\0"):
            stat = read_stat(pid) if word.startswith(_MARK) else None
            if stat and not stat.exiting:
                found.setdefault(word, []).append((pid, stat.name))
    return found


def left_of(record: Record, marks: Mapping[bytes, list[tuple[int, str]]]) -> list[tuple[int, str]]:
    """(pid, name) of what runs of a daemon that has ended. marks: as of `marked`."""
    if not is_this_boot(record.boot_id):
        return []
    return sorted(process for token in _tokens(record) for process in marks.get(token, ()))


def _tokens(record: Record) -> list[bytes]:
    return [os.fsencode(token) for token in (record.token, *record.former)]
