"""What is asked of a launch, and the checks that need no process."""

from __future__ import annotations

import os

from daemonize.errors import SetupError, UsageError, printable
from daemonize.units import MOST_KEPT_LOGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    StrPath = str | bytes | os.PathLike[str]
    #: Soft limit, or soft and hard (None: as it is); -1: unlimited.
    Limit = int | tuple[int, int | None]

START_TIMEOUT = 90.0
STOP_TIMEOUT = 10.0
#: All there is between the least and the greatest niceness.
MOST_NICE = 40
_MOST = (1 << 63) - 1


class Request:
    """One launch. Text may be str (with surrogate escapes for bytes that are not UTF-8), bytes or path-like.

    command: the argument list. ready: readiness specs, all of which must hold; none: `streams`, or `started` with
    stdout or stderr. timeout: seconds to become ready; None: 90, without limit in the foreground. stop_timeout: seconds.
    on_timeout: `stop` or `leave`. strict: anything on stderr before ready is a failure. directory: to run in.
    environment: added (or replaced) variables. clear_environment: start from nothing. stdout, stderr: files to write to.
    append: do not truncate them. log_rotate: (bytes beyond which a log is rotated, old ones that are kept). timestamps:
    before every line of the logs. stdin: a file to read. keep_fds: descriptors (3 and up) the server inherits.
    foreground: stay its parent. listen: `[NAME=]ADDRESS` of sockets that it finds open. user, chroot, umask, nice, core,
    limits: as `daemonize.context`. safe: as root, refuse a program that others may write to. pid_file, lock_file: paths.
    watchdog: the readiness spec by which the service manager's watchdog is fed, in the foreground. name: of the daemon, of
    which there is one at a time (None: it is named after the command).

    assigns_pid: each `NAME=VALUE` for its environment, with %d for its pid. hands_on: whether sockets that this process was
    handed (LISTEN_FDS) are for the server. is_registered: whether there is to be a record of the daemon.
    program: the file to execute, where that has been found before. For servers that are the caller's own program: shown_as:
    its name (None: the command's). makes_context: whether it is given its context; else it makes that itself.
    """

    def __init__(
        self,
        command: Sequence[StrPath],
        *,
        ready: Sequence[str] = (),
        timeout: float | None = None,
        on_timeout: str = "stop",
        stop_timeout: float = STOP_TIMEOUT,
        strict: bool = False,
        directory: StrPath | None = None,
        environment: Mapping[str, str] | None = None,
        clear_environment: bool = False,
        stdout: StrPath | None = None,
        stderr: StrPath | None = None,
        append: bool = False,
        log_rotate: tuple[int, int] | None = None,
        timestamps: bool = False,
        stdin: StrPath | None = None,
        keep_fds: Sequence[int] = (),
        foreground: bool = False,
        listen: Sequence[str] = (),
        user: str | int | None = None,
        chroot: StrPath | None = None,
        umask: int | None = None,
        nice: int = 0,
        core: bool | None = None,
        limits: Mapping[str, Limit] | None = None,
        safe: bool = False,
        pid_file: StrPath | None = None,
        lock_file: StrPath | None = None,
        watchdog: str | None = None,
        name: str | None = None,
    ) -> None:
        if isinstance(command, (str, bytes)) or not command:
            raise UsageError("the command must be a list: the program and its arguments")
        self.command = [encode(word, "an argument") for word in command]
        if not all(isinstance(spec, str) for spec in ready):
            raise UsageError("a readiness spec must be text")
        #: Whether a server that takes part is to move its streams to its log when it is ready. In the foreground they have
        #: a reader for as long as it runs, and stay with him, unless that is asked for.
        self.names_readiness = bool(ready)
        self.moves_streams = self.names_readiness or not foreground
        self.ready = tuple(ready) or (("started",) if stdout or stderr else ("streams",))
        if timeout is None:
            timeout = float("inf") if foreground else START_TIMEOUT
        self.timeout, self.on_timeout, self.stop_timeout = timeout, on_timeout, stop_timeout
        self.strict, self.append, self.foreground = strict, append, foreground
        self.log_rotate = _rotation(log_rotate)
        self.timestamps = timestamps
        self.chroot, self.stdin = absolute(chroot), absolute(stdin)
        self.directory = absolute(directory, b"/" if chroot else None)
        self.stdout, self.stderr = absolute(stdout), absolute(stderr)
        self.environment = _variables(environment or {})
        self.clear_environment = clear_environment
        self.keep_fds = tuple(keep_fds)
        if not all(isinstance(address, str) for address in listen):
            raise UsageError("an address to listen on must be text")
        self.listen = tuple(listen)
        self.user, self.umask, self.nice, self.core, self.limits = user, umask, nice, core, dict(limits or {})
        self.safe, self.pid_file, self.lock_file = safe, absolute(pid_file), absolute(lock_file)
        self.watchdog = watchdog
        self.name = name
        self.shown_as: bytes | None = None
        self.program: bytes | None = None
        self.assigns_pid: tuple[bytes, ...] = ()
        self.hands_on = False
        self.is_registered = True
        self.makes_context = True
        self._check()

    @property
    def needs_context(self) -> bool:
        """Whether more than the directory is to be changed for the server."""
        asked = (self.user, self.chroot, self.umask, self.core)
        return bool(self.nice or self.limits) or any(value is not None for value in asked)

    @property
    def has_drain(self) -> bool:
        """Whether a drain stands between the server and its logs for as long as the server runs."""
        return self.timestamps or self.log_rotate is not None

    @property
    def variables(self) -> set[bytes]:
        """The names of those that the server is given, whatever else is in its environment."""
        return {*self.environment, *(text.partition(b"=")[0] for text in self.assigns_pid)}

    @property
    def asked(self) -> dict[str, object]:
        """The keywords that make this request again, but for those that are as they are by default."""
        usual = {
            **(Request.__init__.__kwdefaults__ or {}),
            "timeout": float("inf") if self.foreground else START_TIMEOUT,
        }
        found = {name: getattr(self, name) for name in usual if name != "ready" or self.names_readiness}
        changed = {name: value for name, value in found.items() if value not in (usual[name], (), {})}
        return {"command": self.command, **changed}

    @property
    def shown(self) -> list[str]:
        """The command as text."""
        command = [self.shown_as, *self.command[1:]] if self.shown_as else self.command
        return [os.fsdecode(word) for word in command]

    def _check(self) -> None:
        if self.on_timeout not in ("stop", "leave"):
            raise UsageError(
                f"'{printable(self.on_timeout)}' is not what can be done on a timeout; write stop or leave"
            )
        if not self.timeout > 0 or not self.stop_timeout >= 0:
            given = f"{self.timeout:g} and {self.stop_timeout:g}"
            raise UsageError(
                f"a timeout must be longer than nothing, and a stop timeout not negative, unlike {given}"
            )
        if self.pid_file and self.pid_file in (self.stdout, self.stderr):
            raise UsageError(f"{printable(os.fsdecode(self.pid_file))} cannot be pid file and log in one")
        if self.append and not (self.stdout or self.stderr):
            raise UsageError("to append, name a file for stdout or stderr (-o, -e)")
        self._check_logs()
        if self.watchdog is not None and not self.foreground:
            raise UsageError("a watchdog is fed as long as the server runs, by who stays its parent: add -f")
        if self.foreground and self.on_timeout == "leave":
            raise UsageError("in the foreground nothing can be left running on a timeout")
        check_settings(user=self.user, umask=self.umask, nice=self.nice, core=self.core, limits=self.limits)
        for fd in self.keep_fds:
            _check_kept(fd)

    def _check_logs(self) -> None:
        goes_on_in_log = self.moves_streams and "streams" in self.ready
        if self.has_drain and self.foreground and not (self.stdout or self.stderr or goes_on_in_log):
            raise UsageError(
                "in the foreground no log is kept that could be rotated or stamped: name a file (-o, -e)"
            )


def check_settings(
    *, user: object, umask: object, nice: object, core: object, limits: Mapping[str, object] | None
) -> None:
    """Of the right kind? Wrong ones would come to light only where nobody can be told. Raises UsageError."""
    if not (user is None or _is_number(user, 0, 1 << 32) or _is_name(user)):
        raise UsageError(f"user must be USER[:GROUP] or a number, not {user!r}")
    if umask is not None and not _is_number(umask, 0, 0o777):
        raise UsageError(f"umask must be a number from 0 to 0o777, not {umask!r}")
    if not _is_number(nice, -MOST_NICE, MOST_NICE):
        raise UsageError(f"nice must be a number from -{MOST_NICE} to {MOST_NICE}, not {nice!r}")
    if not (core is None or isinstance(core, bool)):
        raise UsageError(f"core must be True, False or None, not {core!r}")
    for name, value in (limits or {}).items():
        if not isinstance(name, str):
            raise UsageError(f"the name of a limit must be text, not {name!r}")
        if not _is_limit(value):
            raise UsageError(
                f"the limit of {printable(str(name))} must be a number, or (soft, hard), not {value!r}"
            )


def _rotation(value: Any) -> tuple[int, int] | None:
    """Two numbers, if it is asked for. Raises UsageError."""
    if value is None:
        return None
    limit, keep = value if isinstance(value, tuple) and len(value) == 2 else (0, 0)
    if not (_is_number(limit, 1, _MOST) and _is_number(keep, 0, MOST_KEPT_LOGS)):
        raise UsageError(f"logs are rotated at (bytes, how many are kept), not {value!r}")
    return limit, keep


def _is_limit(value: object) -> bool:
    if not isinstance(value, tuple):
        return _is_number(value, -1, _MOST)
    soft, hard = value if len(value) == 2 else (None, None)
    return _is_number(soft, -1, _MOST) and (hard is None or _is_number(hard, -1, _MOST))


def _is_number(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value and bool(os.fsencode(value))


def _check_kept(fd: int) -> None:
    if not isinstance(fd, int):
        raise UsageError(f"keep_fds must be a list of descriptors, and {fd!r} is none")
    if fd < 3:
        raise UsageError(f"descriptor {fd} cannot be kept: 0, 1 and 2 are the server's own streams")
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        raise UsageError(f"descriptor {fd} cannot be kept: it is not open") from None


def encode(text: StrPath, what: str) -> bytes:
    """The bytes that the kernel gets. Raises UsageError for a NUL byte, which it cannot take."""
    data = os.fsencode(text)
    if b"\0" in data:
        raise UsageError(f"{what} contains a NUL byte")
    return data


def absolute(path: StrPath | None, base: bytes | None = None) -> bytes | None:
    """The absolute path, from `base` or the current directory. Raises UsageError, SetupError."""
    if path is None:
        return None
    data = encode(path, "a path")
    if not data:
        raise UsageError("a path cannot be empty")
    try:
        return _tidy(data if data.startswith(b"/") else os.path.join(base or os.getcwdb(), data))
    except FileNotFoundError as error:
        raise SetupError("find the directory of", os.fsdecode(data), error) from None


def _tidy(path: bytes) -> bytes:
    """Without what means nothing. `..` stays, because after a symlink it means something, and a last slash: a directory."""
    last = b"/" if path.endswith((b"/", b"/.")) else b""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    return b"/" + b"/".join(parts) + (last if parts else b"")


def _variables(given: Mapping[str, str | bytes]) -> dict[bytes, bytes]:
    result = {}
    for name, value in given.items():
        key = encode(name, "the name of a variable")
        if not key or b"=" in key:
            raise UsageError(f"'{printable(name)}' cannot be the name of a variable")
        if not isinstance(value, (str, bytes)):
            raise UsageError(f"the value of {printable(str(name))} must be text, not {value!r}")
        result[key] = encode(value, f"the value of {printable(name)}")
    return result
