"""Records of daemons, as they are read: by `daemonctl`, and by whoever looks for a daemon by its name."""

from __future__ import annotations

import os

from daemonize.daemon_errors import BadRecord, NoSuchDaemon
from daemonize.errors import SetupError, printable
from daemonize.posix.fds import is_locked
from daemonize.posix.identity import Identity
from daemonize.registry.content import VERSION, Head
from daemonize.registry.entry import lock_path, record_path
from daemonize.registry.fields import FIELDS
from daemonize.registry.names import is_name, similar
from daemonize.registry.private import (
    ExposedError,
    RefusedError,
    is_private,
    open_file,
    read_own,
    records_dirs,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_SUFFIX, _LOCK = b".json", b".lock"


class Record:
    """What is kept of one daemon.

    name. pid: of its main process, None where nobody knew; start: its start time, in clock ticks since boot; boot_id: of
    which boot. process: its name. explicit: it was given its name. since: start time of the first process of it. session:
    id of the session it was started in. token: `NAME=value` that marks its environment. former: those of earlier daemons
    of its name that have ended by themselves, and may have left processes. ready: it was ready, and not left running
    after a timeout. foreground: its parent stayed. by_option: it is a program with an option of its own to daemonize.
    began: when it was ready, in seconds since the epoch; seconds: how long that took. stopped: when it was stopped on
    purpose, or None. stdout, stderr: paths of the files its streams go to. pid_file: path, or None; pid_file_is_locked:
    it is the lock file, too. drain, drain_start: pid and start time of the drain, if there is one. notify_socket: what
    NOTIFY_SOCKET is in its environment, or None. listen: where the sockets listen that it was given. found: what made a
    readiness spec hold. directory: where it was started. program: the file that was executed. settings: keywords of
    launcher.request.Request.
    """

    name: str
    pid: int | None
    start: int
    boot_id: str
    explicit: bool
    since: int
    session: int
    token: str
    former: list[str]
    process: str
    ready: bool
    foreground: bool
    by_option: bool
    began: float
    seconds: float
    stopped: float | None
    stdout: str
    stderr: str
    pid_file: str | None
    pid_file_is_locked: bool
    drain: int | None
    drain_start: int
    notify_socket: str | None
    listen: list[str]
    found: dict[str, str]
    directory: str | None
    program: str | None
    settings: dict[str, Any]

    def __init__(self, fields: Mapping[str, object]) -> None:
        for field in FIELDS:
            setattr(self, field, fields[field])

    @property
    def fields(self) -> dict[str, object]:
        """All of them, as they are written."""
        return {field: getattr(self, field) for field in FIELDS}

    @property
    def identity(self) -> Identity | None:
        """Of the main process."""
        return None if self.pid is None else Identity(self.pid, self.start, self.boot_id)

    @property
    def command(self) -> list[str]:
        """The command: program and arguments."""
        return list(self.settings["command"])


def parse(text: bytes) -> Record:
    """Raises RefusedError, with a reason."""
    fields = _load(text)
    for field, fits in FIELDS.items():
        if field not in fields:
            raise RefusedError(f"it is damaged: '{field}' is missing")
        if not fits(fields[field]):
            raise RefusedError(f"it is damaged: '{field}' is not what it should be")
    return Record(fields)


def _of_name(name: str, record: Record) -> Record:
    if record.name != name:
        raise RefusedError(f"it is the record of {printable(record.name)}")
    return record


def parse_head(text: bytes) -> Head:
    """What a launch must know. Raises RefusedError."""
    record = parse(text)
    return Head(record.pid, record.start, record.boot_id, record.explicit)


class _Plain:
    """What `json.loads` tells its scanner."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_int, parse_float, parse_constant = int, float, float


def _read_json(text: bytes) -> Any:
    """As `json.loads`, whose scanner alone reads what a launch has written. Raises ValueError, RecursionError.

    `json` itself, and `re` for it, would be half of what `daemonctl stop` loads, and has to give back when it ends.
    """
    if text.isascii() and text.startswith(b"{") and text.endswith(b"}\n"):
        try:
            from _json import make_scanner

            value, end = make_scanner(_Plain)(text.decode("ascii"), 0)  # type: ignore[arg-type]
            if end == len(text) - 1:
                return value
        except Exception:  # noqa: BLE001, S110 (it is nobody's interface: whatever is not as it was, json can do)
            pass
    import json

    return json.loads(text)


def _load(text: bytes) -> dict[str, Any]:
    try:
        fields = _read_json(text)
    except (ValueError, RecursionError):
        raise RefusedError("it is damaged: it is no JSON") from None
    version = fields.get("version") if isinstance(fields, dict) else None
    if not isinstance(version, int):
        raise RefusedError("it is damaged: it is no record")
    if version > VERSION:
        raise RefusedError(f"it was written by a newer daemonize (version {version} of records)")
    return fields  # type: ignore[no-any-return]


class Registry:
    """The records of this user; none where there is no directory. Raises SetupError if that cannot be used."""

    def __init__(self) -> None:
        self.directory = self._find()

    @staticmethod
    def _find() -> bytes | None:
        try:
            directories = records_dirs(os.environb)
        except OSError as error:
            raise SetupError("find", "the directory of records", error) from None
        for directory in directories:
            if not is_private(directory):
                return None
        return directories[-1]

    @property
    def names(self) -> list[str]:
        """All that there is a record of, in the order of the alphabet. Raises SetupError."""
        records = (name for name in self._files if name.endswith(_SUFFIX) and not name.startswith(b"."))
        return sorted(os.fsdecode(name.removesuffix(_SUFFIX)) for name in records)

    @property
    def only_locked(self) -> list[str]:
        """Names that were claimed and have no record: perhaps somebody is starting a daemon. Raises SetupError."""
        locks = (name for name in self._files if name.startswith(b".") and name.endswith(_LOCK))
        names = (os.fsdecode(name[1:].removesuffix(_LOCK)) for name in locks)
        return sorted(name for name in names if not self.has(name))

    @property
    def _files(self) -> list[bytes]:
        if self.directory is None:
            return []
        try:
            return os.listdir(self.directory)
        except OSError as error:
            raise SetupError("read", os.fsdecode(self.directory), error) from None

    def read(self, name: str) -> Record:
        """The record of a daemon. Raises NoSuchDaemon, BadRecord."""
        if self.directory is None or not is_name(name):
            raise self.unknown(name)
        path = record_path(self.directory, name)
        try:
            text = read_own(path)
            if text is None:
                raise self.unknown(name)
            return _of_name(name, parse(text))
        except RefusedError as refused:
            exposed = isinstance(refused, ExposedError)
            raise BadRecord(name, os.fsdecode(path), str(refused), exposed=exposed) from None
        except OSError as error:
            raise BadRecord(name, os.fsdecode(path), error.strerror or str(error)) from None

    def unknown(self, name: str) -> NoSuchDaemon:
        """The error: there is no record of that name. Raises SetupError."""
        return NoSuchDaemon(name, similar(name, self.names))

    def has(self, name: str) -> bool:
        """Whether there is a record, of any use or none."""
        return (
            self.directory is not None
            and is_name(name)
            and os.path.lexists(record_path(self.directory, name))
        )

    def launcher(self, name: str) -> tuple[int | None, str] | None:
        """(pid, name) of who is starting a daemon of that name, as far as that is known; None: nobody is."""
        if self.directory is None or not is_name(name):
            return None
        try:
            fd = open_file(lock_path(self.directory, name), os.O_RDONLY)
        except (RefusedError, OSError):
            return None  # what cannot be locked is nobody's lock
        try:
            if not is_locked(fd):
                return None
            from daemonize.posix.holders import NOBODY, holder_of

            holder = holder_of(fd)
            return None if holder == NOBODY and not is_locked(fd) else holder[:2]
        finally:
            os.close(fd)
