"""The processes that belong to a daemon, by its record."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daemonize.posix.identity import is_this_boot, read_stat
from daemonize.posix.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Collection

    from daemonize.registry.record import Record


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
    tokens = [os.fsencode(token) for token in (record.token, *record.former)]
    since = 0 if record.former else record.since
    return Tree({main[0]} if main else (), session, tokens, exclude=exclude, since=since)


def left_of(record: Record) -> list[tuple[int, str]]:
    """(pid, name) of all that runs and belongs to it."""
    tree = tree_of(record, main_of(record), {record.drain or 0})
    return [(stat.pid, stat.name) for stat in tree.living()] if tree else []
