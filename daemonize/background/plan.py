"""From what a `BackgroundServer` was asked for to a request for the launcher, with the ports it gets this time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from daemonize.background.ports import Port, is_free
from daemonize.errors import AlreadyRunning, UsageError, printable
from daemonize.launcher import kinds
from daemonize.launcher.placeholders import PORT, fill
from daemonize.launcher.request import Request
from daemonize.outcomes import Exited
from daemonize.readiness import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemonize.errors import DaemonizeError
    from daemonize.launcher.request import StrPath

_SHELL = "/bin/sh"
#: More `{portN}` than anybody needs.
_MOST_PORTS = 100


class _Ports(Sequence[int]):
    """The ports of one start, from 0 on: the one that was asked for, and others, chosen when they are used."""

    def __init__(self, given: int | None) -> None:
        self._given = given
        self.chosen: dict[int, Port] = {}

    def __len__(self) -> int:
        return _MOST_PORTS

    def __getitem__(self, index: Any) -> Any:
        if index == 0 and self._given:
            return self._given
        if index not in self.chosen:
            self.chosen[index] = Port()
        return self.chosen[index].number

    @property
    def used(self) -> list[int]:
        """By number."""
        numbers = {0} if self._given else set[int]()
        return [self[index] for index in sorted(numbers | self.chosen.keys())]

    def close(self) -> None:
        """Others may have them."""
        chosen, self.chosen = self.chosen, {}  # several threads may stop the server
        for port in chosen.values():
            port.close()


class _Looked(Sequence[int]):
    """Stands for the ports while it is only looked which there are. first: whether the first one is used."""

    first = False

    def __len__(self) -> int:
        return _MOST_PORTS

    def __getitem__(self, index: Any) -> Any:
        self.first = self.first or index == 0
        return 1


class Plan:
    """What is asked for. settings: of the request. Raises UsageError."""

    def __init__(
        self,
        command: str | Sequence[StrPath],
        port: int | None,
        ready: str | Sequence[str] | None,
        env: Mapping[str, str] | None,
        listen: str | Sequence[str] | None,
        **settings: Any,
    ) -> None:
        self._words = _words(command)
        self._port, self._environment, self._settings = port, _texts(env or {}), settings
        self._listen, self._ready = kinds.several(listen), kinds.several(ready)
        self._ports = _Ports(port)
        self._last_command: list[str] = []
        self._last: list[int] = []
        self._check()

    def _check(self) -> None:
        """What cannot be is said now, and not when it is started."""
        port = self._port
        if not (port is None or is_port(port)):
            raise UsageError(f"port must be a number from 0 to 65535 (0: any that is free), not {port!r}")
        if self._listen and port is not None:
            raise UsageError("a server that is given its sockets has the port of those: leave port away")
        if self._listen and not self._ready:
            raise UsageError(
                "a server that is given its sockets is to say, or to show, that it is ready: "
                "ready='notify', 'http://127.0.0.1:{port}/', 'log:REGEX' or another spec"
            )
        looked = _Looked()
        request = self._build(looked)
        for asked, spec in zip(self._ready, request.ready, strict=False) if not self._listen else ():
            _check_spec(asked, spec)
        if not self._ready:
            self._ready = ("port",) if port is None and not looked.first else ("port:{port}",)

    @property
    def command(self) -> list[str]:
        """As it is executed, if it has been; else as it was asked for."""
        return self._last_command or self._words

    @property
    def ports(self) -> list[int]:
        """Those that are known before there is a server: `{port}`, `{port2}` and so on."""
        return self._last or ([self._port] if self._port else [])

    def request(self) -> Request:
        """For a start, with ports that are free now, where it is not said which. Raises SetupError."""
        self.release_ports()
        request = self._build(self._ports)
        self.take_over(request.shown, self._ports.used)
        return request

    def take_over(self, command: list[str], ports: list[int]) -> None:
        """This is the command of the server there is, and these are its ports."""
        self._last_command, self._last = command, ports

    def release_ports(self) -> None:
        """The server is gone."""
        self._ports.close()

    def has_lost_port(self, error: DaemonizeError) -> bool:
        """Whether a launch has failed of it that somebody else has taken a port that was free."""
        if not isinstance(error, (Exited, AlreadyRunning)):
            return False
        try:
            return any(not is_free(port.number, again=True) for port in self._ports.chosen.values())
        except OSError:
            return False

    def _build(self, ports: Sequence[int]) -> Request:
        fill = (lambda text: text) if self._listen else (lambda text: _fill(text, ports))
        request = Request(
            [fill(word) for word in self._words],
            ready=tuple(fill(spec) if _is_filled(spec) else spec for spec in self._ready),
            environment={name: fill(value) for name, value in self._environment.items()},
            listen=self._listen,
            foreground=True,
            **self._settings,
        )
        request.is_registered = False
        return request


def _words(command: object) -> list[str]:
    if isinstance(command, (str, bytes)):
        return [_SHELL, "-c", os.fsdecode(command)]
    if not isinstance(command, Iterable):
        raise UsageError(f"the command must be a list of words, or text for the shell, not {command!r}")
    words = list(command)
    if not words:
        raise UsageError("the command is empty: name at least a program")
    for word in words:
        if not isinstance(word, (str, bytes, os.PathLike)):
            raise UsageError(f"an argument of the command must be text, not {word!r}: write {str(word)!r}")
    return [os.fsdecode(word) for word in words]


def _texts(env: Mapping[Any, Any]) -> dict[str, str]:
    for name, value in env.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise UsageError(f"what is in env must be text, not {name!r}: {value!r}")
    return dict(env)


def _check_spec(asked: str, spec: str) -> None:
    """Raises UsageError that says it as it was written."""
    try:
        parse(spec)
    except UsageError as error:
        raise UsageError(str(error).replace(f"'{printable(spec)}'", f"'{printable(asked)}'")) from None


def is_port(value: object) -> bool:
    """Whether it is the number of a TCP port, or 0."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 16


def _is_filled(spec: object) -> bool:
    """Whether placeholders of a spec are replaced: braces mean something else in a regular expression."""
    return isinstance(spec, str) and not spec.startswith("log:")


def _fill(text: str, ports: Sequence[int]) -> str:
    return os.fsdecode(fill(os.fsencode(text), ports, ports, (PORT,)))
