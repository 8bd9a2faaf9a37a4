"""From the record of a daemon back to the launch that it was."""

from __future__ import annotations

import os
from errno import ENOENT
from typing import TYPE_CHECKING, Any

from daemonize.daemon_errors import BadRecord, NotPossible
from daemonize.errors import UsageError, printable
from daemonize.launcher.request import Request
from daemonize.notify import NAME
from daemonize.outcomes import NotExecuted
from daemonize.registry.entry import record_path
from daemonize.registry.private import settled
from daemonize.registry.record import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.registry.record import Record

_SECONDS = ("timeout", "stop_timeout")


def request_of(record: Record) -> Request:
    """What was asked for, under the same name; it is to be launched from `record.directory`.

    What was no option comes from whoever launches: environment, limits, umask. Raises NotPossible, BadRecord.
    """
    refuse_unrepeatable(record)
    settings = {name: _restored(name, value) for name, value in record.settings.items()}
    try:
        request = Request(**{**settings, "name": record.name})
    except (UsageError, TypeError, ValueError, AttributeError) as error:
        path = os.fsdecode(record_path(Registry().directory or b"", record.name))
        raise BadRecord(record.name, path, f"it is damaged: {error}") from None
    request.program = os.fsencode(record.program) if record.program is not None else None
    return request


def refuse_unrepeatable(record: Record) -> None:
    """Raises NotPossible for a daemon that only its starter can start again, or that cannot be from where it was."""
    go_to(record, lambda directory: os.stat(os.path.join(directory, ".")))
    if record.foreground:
        raise NotPossible(record.name, "ran in the foreground (-f): whoever started it is to start it again")
    kept = record.settings.get("keep_fds")
    if kept:
        numbers = ", ".join(map(str, kept)) if isinstance(kept, list) else kept
        raise NotPossible(
            record.name,
            f"was given descriptors (--keep-fd {numbers}) that only its starter has: start it anew",
        )


def go_to(record: Record, go: Callable[[str], object] = os.chdir) -> None:
    """Go where it was started: relative paths of its readiness specs begin there. Raises NotPossible."""
    if record.directory is None:
        return
    try:
        go(record.directory)
    except OSError as error:
        where = printable(record.directory)
        raise NotPossible(
            record.name, f"cannot be started from {where}, as it was: {error.strerror}"
        ) from None


def refuse_lost(record: Record) -> None:
    """Raises NotExecuted if the program is not there any more: nobody wants to hear that when it has been stopped."""
    if record.program is not None and not os.path.exists(record.program):
        failure = NotExecuted("exec", ENOENT, record.program)
        failure.command = [record.program]
        raise failure


def _restored(name: str, value: Any) -> Any:
    if name in _SECONDS and value == "infinity":
        return float("inf")
    if name == "limits" and isinstance(value, dict):
        return {limit: tuple(pair) if isinstance(pair, list) else pair for limit, pair in value.items()}
    return tuple(value) if isinstance(value, list) and name != "command" else value


def own_command_line(record: Record) -> tuple[str, list[str], dict[bytes, bytes]]:
    """Of a program with an option of its own to daemonize: the file to execute, its arguments, its environment."""
    command = record.command
    environment = {**os.environb, **settled(os.environb), NAME: os.fsencode(record.name)}
    return record.program or command[0], command, environment
