"""Changes of records, by whoever is not about to start a daemon: only with the lock of the name, as a launch has it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from time import sleep, time
from typing import TYPE_CHECKING

from daemonize.errors import BadRecord, NoSuchDaemon, NotPossible, SetupError
from daemonize.registry import content
from daemonize.registry.entry import lock_path, new_path, open_lock, record_path
from daemonize.registry.files import RefusedError, is_in_the_way, remove, write_new
from daemonize.registry.names import is_name
from daemonize.registry.record import Record, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator


#: So often, and after so many seconds, a lock is asked for that somebody else has.
_TRIES, _PAUSE = 10, 0.005


def mark_stopped(record: Record) -> None:
    """Put down that it was stopped on purpose, unless another of that name is there by now. Never raises."""
    try:
        directory = Registry().directory
        if directory is None:
            return
        for _ in range(_TRIES):
            if _put_down_stop(directory, record):
                return
            sleep(_PAUSE)  # a launch that is about to find that it runs has the lock for a moment, too
    except (NoSuchDaemon, BadRecord, SetupError, RefusedError, OSError):
        pass  # it has ended; that it was on purpose is not known, then


def _put_down_stop(directory: bytes, record: Record) -> bool:
    """False if somebody else has the lock. Raises NoSuchDaemon, BadRecord, SetupError, RefusedError, OSError."""
    with _locked(directory, record.name) as mine:
        found = Registry().read(record.name) if mine else None
        if found and found.token == record.token and found.stopped is None:
            found.stopped = time()
            path = new_path(directory, record.name)
            write_new(path, content.write(found.fields))
            os.rename(path, record_path(directory, record.name))
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
                raise NotPossible(name, "is being started by another process")
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
        record = registry.read(name)
    except (NoSuchDaemon, BadRecord):
        return  # whom it was about, nobody can say
    if record.identity is not None and record.identity.alive:
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
