"""Changes of records, by whoever is not about to start a daemon: only with the lock of the name, as a launch has it."""

from __future__ import annotations

import os
from time import sleep, time

from daemonize.daemon_errors import BadRecord, NoSuchDaemon, NotPossible
from daemonize.errors import SetupError
from daemonize.registry import content
from daemonize.registry.entry import lock_path, new_path, open_lock, record_path
from daemonize.registry.names import is_name
from daemonize.registry.private import RefusedError, is_in_the_way, read_own, remove, write_new
from daemonize.registry.record import Record, Registry, parse

#: So often, and after so many seconds, a lock is asked for that somebody else has.
_TRIES, _PAUSE = 10, 0.005


class StopMark:
    """That a daemon is stopped on purpose. It is put down when it has been told to end, and counts when it has.

    Before, because somebody waits for that end; if it does not come, the mark is taken back.
    """

    def __init__(self, record: Record) -> None:
        self._name, self._token, self._moment = record.name, record.token, time()

    def put_down(self) -> None:
        """It has been told to end. Never raises: then it is not known that it was on purpose."""
        self._change(None, self._moment)

    def take_back(self) -> None:
        """It has not ended. Never raises."""
        self._change(self._moment, None)

    def _change(self, before: float | None, after: float | None) -> None:
        """From one time of the stop to another, unless somebody else has changed it. Never raises."""
        try:
            directory = Registry().directory
            for _ in range(_TRIES if directory else 0):
                if self._try_to_change(directory or b"", before, after):
                    return
                sleep(_PAUSE)  # a launch that is about to find that it runs has the lock for a moment, too
        except (NoSuchDaemon, BadRecord, SetupError, RefusedError, OSError):
            pass

    def _try_to_change(self, directory: bytes, before: float | None, after: float | None) -> bool:
        """False if somebody else has the lock. Raises NoSuchDaemon, BadRecord, SetupError, RefusedError, OSError."""
        with _Lock(directory, self._name) as mine:
            found = Registry().read(self._name) if mine else None
            if found and (found.token, found.stopped) == (self._token, before):
                found.stopped = after
                new = new_path(directory, self._name)
                write_new(new, content.write(found.fields))
                os.rename(new, record_path(directory, self._name))
        return mine


def forget(name: str) -> None:
    """Remove a record, of any use or none. Raises NoSuchDaemon, NotPossible if it runs or is being started, SetupError."""
    registry = Registry()
    directory = registry.directory
    if directory is None or not (registry.has(name) or _is_blocked(directory, name)):
        raise registry.unknown(name)
    path = lock_path(directory, name)
    try:
        with _Lock(directory, name) as mine:
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


class _Lock:
    """The lock of a name, in a `with`; False if somebody else has it. Raises OSError."""

    def __init__(self, directory: bytes, name: str) -> None:
        try:
            self._fd = open_lock(directory, name)
        except RefusedError:
            remove(lock_path(directory, name))  # whatever lies there has never been anybody's lock
            self._fd = open_lock(directory, name)

    def __enter__(self) -> bool:
        return self._fd is not None

    def __exit__(self, *_exc: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
