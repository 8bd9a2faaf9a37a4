"""A daemon's record as a unit of systemd that does the same.

What systemd can wait for by itself is left to it: `notify`, `started`, `exit`. Around any other readiness spec, and where
something else was asked that systemd has no word for, the unit is one of Type=notify around `daemonize -f` (Type=forking
around `daemonize` for `exit`): readiness is then what it was.

Directives are systemd's own where it has them, but for those that would bind, or blind, `daemonize` as well: limits, a new
root, some variables. They stand on its command line.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from daemonize.daemon_errors import NotPossible
from daemonize.errors import printable
from daemonize.launcher import unittext
from daemonize.launcher.request import START_TIMEOUT, STOP_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemonize.registry.record import Record

#: The types of units for what systemd can wait for.
_TYPES = {"notify": "notify", "started": "exec", "exit": "forking"}
#: What needs `daemonize`, whatever is waited for.
_DAEMONIZE_ONLY = ("listen", "pid_file", "lock_file", "strict", "safe", "clear_environment", "watchdog")
#: Variables that mean something to `daemonize` itself, or to what executes it.
_FOR_US = (
    "PYTHON", "LD_", "NOTIFY_", "WATCHDOG_", "LISTEN_", "MAINPID", "DAEMONIZE_", "SSL_CERT_",
    "HOME", "USER", "LOGNAME", "SHELL",
)  # fmt: skip
#: Seconds that systemd waits longer than `daemonize`, which can say what it was waiting for.
_MARGIN = 5.0
#: A longer line is no line for systemd.
_LONGEST_LINE = 1 << 20
_NICEST, _MEANEST = 19, -20
#: What is said of, or by, other settings.
_KNOWN = frozenset(
    (
        "command", "ready", "timeout", "on_timeout", "stop_timeout", "directory", "environment", "stdout", "stderr",
        "append", "stdin", "name", "keep_fds", "user", "chroot", "umask", "nice", "core", "limits", "log_rotate",
        "timestamps", "foreground", "name", *_DAEMONIZE_ONLY,
    )
)  # fmt: skip


def systemd_unit(record: Record, daemonize_command: str, *, system: bool | None = None) -> str:
    """The text of a unit that starts the daemon as it was started.

    daemonize_command: absolute path of `daemonize`. system: for the system manager, else for that of a user; None: as who
    asks is root or not. Raises NotPossible for what cannot be said in a unit.
    """
    unit = _Unit(record, daemonize_command, system=os.geteuid() == 0 if system is None else system)
    text = "\n".join(unit.lines()) + "\n"
    if any(len(line.encode()) >= _LONGEST_LINE for line in text.split("\n")):
        raise _impossible(record, "its command line is too long for a line of a unit")
    return text


def _impossible(record: Record, why: str) -> NotPossible:
    return NotPossible(record.name, f"cannot be exported to systemd: {why}")


def _own(record: Record) -> dict[str, Any]:
    """Of a program with an option of its own to daemonize, which sees to all else itself: it exits when it is ready."""
    kept = {name: value for name, value in record.settings.items() if name in ("timeout", "stop_timeout")}
    return {"ready": ["exit"], **kept}


class _Unit:
    """A unit that is being written. kind: its Type=. wrapped: the command is `daemonize`, around the server."""

    def __init__(self, record: Record, daemonize_command: str, *, system: bool) -> None:
        self.record, self.system = record, system
        self.settings = _own(record) if record.by_option else record.settings
        self._daemonize = daemonize_command
        self._command = record.command
        self._program = record.program or self._command[0]
        for path in (self._program, daemonize_command):
            if not path.startswith("/"):
                raise _impossible(record, f"the path of the program {printable(path)} is not known")
        if not unittext.is_program(daemonize_command):
            raise _impossible(record, f"it executes no program of this name: {printable(daemonize_command)}")
        self._ready: list[str] = list(self.settings.get("ready") or self._default())
        self._where = record.directory or "/"
        kind = _TYPES.get(self._ready[0]) if len(self._ready) == 1 else None
        drained = bool(self.settings.get("log_rotate") or self.settings.get("timestamps"))
        keeps = drained and bool(self.settings.get("stdout") or self.settings.get("stderr"))
        self.wrapped = kind is None or keeps or not self._is_native()
        self.kind = "notify" if self.wrapped and kind != "forking" else kind
        self._foreground = self.kind != "forking"
        self._timeout = self._seconds("timeout", float("inf") if record.foreground else START_TIMEOUT)
        self._stop_timeout = self._seconds("stop_timeout", STOP_TIMEOUT)
        #: Where its streams go on the command line of `daemonize`: what a server opens for itself is named to it there.
        self._names_files = self.wrapped and (keeps or "streams" in self._ready or not self._foreground)
        self._leaves_to_journal = drained and not self._names_files

    def _default(self) -> tuple[str]:
        named = self.settings.get("stdout") or self.settings.get("stderr")
        return ("started",) if named or self.record.foreground else ("streams",)

    def _seconds(self, name: str, default: float) -> float:
        return float(self.settings.get(name, default))

    def _is_native(self) -> bool:
        """Whether systemd has a word for all that was asked for."""
        settings = self.settings
        paths = [settings.get(name) for name in ("stdin", "stdout", "stderr", "chroot", "directory")]
        return (
            not any(settings.get(name) for name in _DAEMONIZE_ONLY)
            and unittext.is_program(self._program)
            and all(unittext.is_path(path) for path in (*paths, self._where) if path)
            and all(map(self._is_variable, self._environment.items()))
            and all(map(unittext.is_account, self._account))
        )

    @property
    def _environment(self) -> dict[str, str]:
        return dict(self.settings.get("environment") or {})

    @staticmethod
    def _is_variable(item: tuple[str, str]) -> bool:
        return unittext.is_name(item[0]) and unittext.is_value(item[1])

    @property
    def _account(self) -> list[str]:
        """User, and group if one was named."""
        user = self.settings.get("user")
        return [] if user is None else str(user).split(":", 1)

    @property
    def _is_given_user(self) -> bool:
        """Whether `daemonize` changes the user: what is opened before, as root, could not be opened otherwise."""
        if not self.wrapped or not self._account:
            return False
        opens = any(self.settings.get(name) for name in ("pid_file", "lock_file", "chroot", "safe"))
        return opens or self._names_files or not all(map(unittext.is_account, self._account))

    # -- the text -----------------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """All lines."""
        where = "/etc/systemd/system" if self.system else "~/.config/systemd/user"
        name = printable(self.record.name)
        yield f"# The daemon {name}, exported by daemonctl. To install: {where}/{name}.service"
        yield "# It gets the environment of systemd, and not that of the shell that it was started from."
        yield from self._remarks()
        yield "[Unit]"
        yield f"Description={unittext.path(name)}"
        yield ""
        yield "[Service]"
        yield from self._service()
        yield from self._surroundings()
        yield from self._streams()
        yield f"ExecStart={self._exec()}"
        yield ""
        yield "[Install]"
        yield f"WantedBy={'multi-user' if self.system else 'default'}.target"

    def _remarks(self) -> Iterator[str]:
        """What cannot be said, or is not what it was."""
        settings = self.settings
        for fd in settings.get("keep_fds") or ():
            yield f"# It was given descriptor {fd} (--keep-fd), for which systemd has no equivalent."
        if settings.get("on_timeout") == "leave":
            yield "# It was to be left running on a timeout (--on-timeout=leave); systemd stops what is not ready in time."
        if self._leaves_to_journal:
            yield "# What it says is in the journal, which has time stamps, and is rotated by itself."
        if self._account and not self.system:
            yield "# The unit of a user runs as that user, whatever -u said."
        if settings.get("chroot") and not self.system:
            yield "# Only root can change the root directory (--chroot)."
        if not all(map(unittext.is_text, [self._program, *self._command, *self._options()])):
            yield "# Not all words of its command line are UTF-8: `systemctl status` and `systemctl show` may fail on it."
        for name in sorted(settings.keys() - _KNOWN):
            yield f"# It was started with {printable(name)}={settings[name]!r}, which is not in this unit."

    def _service(self) -> Iterator[str]:
        yield f"Type={self.kind}"
        if self.kind == "notify":
            # Any process of the server may tell `daemonize` that it is ready, so any may tell systemd.
            yield f"NotifyAccess={'main' if self.wrapped else 'all'}"
        if self.wrapped and self._foreground:
            yield "KillMode=mixed"
        if self.kind == "forking" and (pid_file := self.record.pid_file or self.settings.get("pid_file")):
            if not unittext.is_path(pid_file):
                raise _impossible(
                    self.record, f"systemd takes no pid file with this name: {printable(pid_file)}"
                )
            yield f"PIDFile={unittext.path(pid_file)}"
        longer = self._stop_timeout + _MARGIN if self.wrapped else 0.0
        yield f"TimeoutStartSec={unittext.duration(self._timeout + longer)}"
        yield f"TimeoutStopSec={unittext.duration(self._stop_timeout)}"

    def _surroundings(self) -> Iterator[str]:
        """Who, where, and with what."""
        settings = self.settings
        chroot = settings.get("chroot")
        if self._account and self.system and not self._is_given_user:
            yield from (
                f"{key}={value}" for key, value in zip(("User", "Group"), self._account, strict=False)
            )
        if chroot and self.system and not self.wrapped:
            yield f"RootDirectory={unittext.path(chroot)}"
        yield from self._directory(settings.get("directory"), chroot)
        for name, value in self._environment.items():
            if self._is_for_the_unit(name, value):
                yield f"Environment={unittext.quote(f'{name}={value}')}"
        if (umask := settings.get("umask")) is not None:
            yield f"UMask={umask:04o}"
        if nice := settings.get("nice"):
            yield f"Nice={min(max(nice, _MEANEST), _NICEST)}"
        if not self.wrapped:
            yield from self._limits()

    def _directory(self, asked: str | None, chroot: str | None) -> Iterator[str]:
        """Where nobody asked for the directory, and it cannot be entered any more, it is of no consequence."""
        if chroot and not self.wrapped:
            yield f"WorkingDirectory={unittext.path(asked or '/')}"
        elif asked and not self.wrapped:
            yield f"WorkingDirectory={unittext.path(asked)}"
        elif unittext.is_path(self._where):
            yield f"WorkingDirectory=-{unittext.path(self._where)}"

    def _is_for_the_unit(self, name: str, value: str) -> bool:
        return self._is_variable((name, value)) and not (self.wrapped and name.startswith(_FOR_US))

    def _limits(self) -> Iterator[str]:
        if (core := self.settings.get("core")) is not None:
            yield f"LimitCORE={'infinity' if core else 0}"
        for name, value in (self.settings.get("limits") or {}).items():
            # Of one number the hard limit stays what it is, as far as it can be: as large as may be.
            soft, hard = value if isinstance(value, (list, tuple)) else (value, None)
            numbers = ("infinity" if number in (-1, None) else str(number) for number in (soft, hard))
            yield f"Limit{'NOFILE' if name == 'ofile' else name.upper()}={':'.join(numbers)}"

    def _streams(self) -> Iterator[str]:
        settings = self.settings
        if self._names_files:
            return
        if stdin := settings.get("stdin"):
            yield from self._stream("Input", stdin, "file")
        way = "append" if settings.get("append") else "truncate"
        if stdout := settings.get("stdout"):
            yield from self._stream("Output", stdout, way)
        if stderr := settings.get("stderr"):
            yield from self._stream("Error", stderr, way)
        elif stdout:
            yield "StandardError=journal"  # else it would go where stdout goes

    @staticmethod
    def _stream(which: str, path: str, way: str) -> Iterator[str]:
        if path == os.devnull:
            yield f"Standard{which}=null"
        elif unittext.is_path(path):
            yield f"Standard{which}={way}:{unittext.path(path)}"

    # -- the command line ---------------------------------------------------------------------------------------------

    def _exec(self) -> str:
        if not self.wrapped:
            first, *rest = self._command
            return " ".join([unittext.program(self._program, first), *map(unittext.argument, rest)])
        words = [*self._options(), "--", self._program, *self._command[1:]]
        first = unittext.program(self._daemonize, self._daemonize)
        return " ".join([first, *map(unittext.argument, words)])

    def _options(self) -> Iterator[str]:
        """Those of `daemonize`."""
        settings = self.settings
        if self._foreground:
            yield "-f"
        for spec in self._ready:
            yield from ("--ready", spec)
        yield from ("--timeout", unittext.duration(self._timeout))
        if "stop_timeout" in settings:
            yield from ("--stop-timeout", unittext.duration(self._stop_timeout))
        yield from (f"--{name.replace('_', '-')}" for name in ("strict", "safe") if settings.get(name))
        if settings.get("clear_environment"):
            yield "--clear-env"
        for name, value in self._environment.items():
            if settings.get("clear_environment") or not self._is_for_the_unit(name, value):
                yield from ("--env", f"{name}={value}")
        yield from self._places()
        yield from self._bounds()
        for address in settings.get("listen") or ():
            yield from ("--listen", address)
        for name in ("pid_file", "lock_file", "watchdog"):
            if given := settings.get(name):
                yield from (f"--{name.replace('_', '-')}", given)
        yield from self._files()

    def _places(self) -> Iterator[str]:
        settings = self.settings
        if self.record.explicit:
            yield from ("--name", self.record.name)
        directory = settings.get("directory")
        if not directory and not unittext.is_path(self._where):
            directory = None if settings.get("chroot") else self._where
        if directory:
            yield from ("--chdir", directory)
        if self.system and (chroot := settings.get("chroot")):
            yield from ("--chroot", chroot)
        if self.system and self._is_given_user:
            yield from ("--user", ":".join(self._account))

    def _bounds(self) -> Iterator[str]:
        if (core := self.settings.get("core")) is not None:
            yield "--core" if core else "--no-core"
        for name, value in (self.settings.get("limits") or {}).items():
            soft, hard = value if isinstance(value, (list, tuple)) else (value, None)
            numbers = [soft] if hard is None else [soft, hard]
            yield from ("--limit", f"{name}=" + ":".join("unlimited" if n == -1 else str(n) for n in numbers))

    def _files(self) -> Iterator[str]:
        """Where its streams go, as far as systemd is not told."""
        settings = self.settings
        named = {option: settings.get(name) for option, name in (("-o", "stdout"), ("-e", "stderr"))}
        if not self._names_files:
            named = {option: path for option, path in named.items() if path and not unittext.is_path(path)}
        elif not any(named.values()) and self._foreground and not settings.get("chroot"):
            # In the background they are its own logs, without being asked for.
            logs = {"-o": self.record.stdout, "-e": self.record.stderr}
            named = {option: path for option, path in logs.items() if path != os.devnull}
            if named:
                yield "-a"
        if settings.get("append") and any(named.values()):
            yield "-a"
        if self._names_files and (rotation := settings.get("log_rotate")):
            yield from ("--log-rotate", ":".join(map(str, rotation)))
        if self._names_files and settings.get("timestamps"):
            yield "--timestamps"
        for option, file in named.items():
            if file:
                yield from (option, file)
        if (stdin := settings.get("stdin")) and (self._names_files or not unittext.is_path(stdin)):
            yield from ("--stdin", stdin)
