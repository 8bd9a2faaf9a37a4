"""Changes of records, by whoever is not about to start a daemon: only with the lock of the name, as a launch has it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from time import sleep, time
from typing import TYPE_CHECKING

from daemonize.errors import NotPossible, SetupError
from daemonize.registry import content
from daemonize.registry.entry import lock_path, new_path, open_lock, record_path
from daemonize.registry.names import is_name
from daemonize.registry.private import RefusedError, is_in_the_way, read_own, remove, write_new
from daemonize.registry.record import Record, Registry, parse

if TYPE_CHECKING:
    from collections.abc import Iterator


#: So often, and after so many seconds, a lock is asked for that somebody else has.
_TRIES, _PAUSE = 10, 0.005


class StopMark:
    """What is to be put down of a daemon that is being stopped; made ready while it ends, for somebody waits for that."""

    def __init__(self, record: Record) -> None:
        self._record, self._directory = record, b""
        self._before: bytes | None = None
        try:
            self._directory = Registry().directory or b""
            self._before = read_own(record_path(self._directory, record.name)) if self._directory else None
            found = parse(self._before) if self._before else None
        except (SetupError, RefusedError, OSError):
            found = None
        is_ours = found is not None and found.token == record.token and found.stopped is None
        self._fields = found.fields if found and is_ours else None

    def put_down(self) -> None:
        """It was stopped on purpose, unless somebody has changed its record meanwhile. Never raises."""
        try:
            for _ in range(_TRIES if self._fields else 0):
                if self._put_down():
                    return
                sleep(_PAUSE)  # a launch that is about to find that it runs has the lock for a moment, too
        except (RefusedError, OSError):
            pass  # it has ended; that it was on purpose is not known, then

    def _put_down(self) -> bool:
        """False if somebody else has the lock. Raises RefusedError, OSError."""
        name = self._record.name
        path = record_path(self._directory, name)
        with _locked(self._directory, name) as mine:
            if mine and self._fields and read_own(path) == self._before:
                new = new_path(self._directory, name)
                write_new(new, content.write({**self._fields, "stopped": time()}))
                os.rename(new, path)
        return mine


def forget(name: str) -> None:
    """Remove a record, of any use or none. Raises NoSuchDaemon, NotPossible if it runs or is being started, SetupError."""
    registry = Registry()
    directory = registry.directory
    if directory is None or not (registry.has(name) or _is_blocked(directory, name)):
        raise registry.unknown(name)
    path = lock_path(directory, name)
    try:
        with _locked(directory, name) as mine:
            if not mine:
                who = registry.launcher(name)
                by = f" by pid {who[0]}" if who and who[0] else ""
                raise NotPossible(name, f"is being started{by}: wait for that, or interrupt it")
            _refuse_running(registry, name)
            for path in (record_path(directory, name), new_path(directory, name), lock_path(directory, name)):
                remove(path)
    except OSError as error:
        raise SetupError("remove", os.fsdecode(path), error) from None


def _is_blocked(directory: bytes, name: str) -> bool:
    """Whether a launch of that name would be refused though there is no record."""
    return is_name(name) and any(is_in_the_way(path(directory, name)) for path in (lock_path, new_path))


def _refuse_running(registry: Registry, name: str) -> None:
    try:
        # Also a record that others may use: it may well be about one that runs.
        text = read_own(record_path(registry.directory or b"", name), exposed=True)
        record = parse(text) if text else None
    except (RefusedError, OSError):
        return  # whom it was about, nobody can say
    if record and record.identity is not None and record.identity.alive:
        raise NotPossible(name, f"is running (pid {record.pid}); to stop it first: daemonctl stop {name}")


@contextmanager
def _locked(directory: bytes, name: str) -> Iterator[bool]:
    """With the lock of a name; False if somebody else has it. Raises OSError."""
    try:
        fd = open_lock(directory, name)
    except RefusedError:
        remove(lock_path(directory, name))  # whatever lies there has never been anybody's lock
        fd = open_lock(directory, name)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)
