"""Sockets that the server finds open when it starts: those of `--listen`, and those that we were handed ourselves.

They are bound, and listen, before anything is forked, so that clients can connect before there is a server: they wait in
the kernel's queue. The server has them as sd_listen_fds(3) says: from descriptor 3 on, with LISTEN_FDS, LISTEN_PID and
LISTEN_FDNAMES. One whose command line names a descriptor ({fd}) knows enough: gunicorn that is told of one in both ways
takes it twice, and dies of that. We close ours when it has its own, so that the clients of a dead one are refused.
"""

from __future__ import annotations

import copy
import os
from errno import EADDRINUSE

from daemonize import listen
from daemonize.errors import AlreadyRunning, SetupError, UsageError, printable
from daemonize.launcher.placeholders import fill
from daemonize.launcher.request import absolute
from daemonize.posix import binding
from daemonize.posix.fds import is_inherited
from daemonize.posix.sockdiag import Bound, Listener
from daemonize.posix.sockets import pack
from daemonize.readiness.port import Port, parse_address
from daemonize.readiness.unix import Unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from daemonize.launcher.account import Account
    from daemonize.launcher.claims import Claims
    from daemonize.launcher.request import Request
    from daemonize.posix.fds import Descriptors

FORMS = "[HOST:]PORT (HOST is a name, an IPv4 address, or an IPv6 address in []), unix:PATH, unix:@NAME"
_NAME = "listen"
_NAMED_BY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_LONGEST_NAME = 255
#: Specs in which placeholders are replaced.
_FILLED = ("http:", "https:", "exec:", "port:")
#: The port that stands for one that the kernel is yet to choose, while it is only looked whether a word can be.
_SOME_PORT = 1


class Given:
    """A socket that the server is given. name: in LISTEN_FDNAMES. fd: ours, -1 before there is one. port: None: has none.

    listener: as it is in the kernel's tables, as far as it is known; None: it does not listen.
    """

    fd = -1
    port: int | None = None
    listener: Listener | Bound | None = None

    def __init__(self, name: str, shown: str) -> None:
        self.name, self.shown = name, shown

    def bind(self, setting: Setting) -> None:
        """Make it. Raises AlreadyRunning, SetupError."""


class Setting:
    """For whom sockets are made. account: whose their files are to be, None: ours. claims: remove the files again."""

    def __init__(
        self, owner: Descriptors, claims: Claims, account: Account | None, umask: int | None
    ) -> None:
        self.owner, self.claims, self.account, self.umask = owner, claims, account, umask


class _Handed(Given):
    """One that we were handed."""

    def __init__(self, name: str, fd: int) -> None:
        found = binding.Open(fd)
        super().__init__(name, str(found))
        self.fd, self.port = fd, found.port
        if found.accepts and isinstance(found.address, bytes):
            self.listener = Bound(found.address, 0)
        elif found.accepts and isinstance(found.address, str):
            self.listener = Listener(pack(found.address), found.port or 0, 0, 0, dual=found.dual)

    def bind(self, setting: Setting) -> None:
        """It is bound already; from here on it is the launch's."""
        setting.owner.add(self.fd)


class _Tcp(Given):
    """[HOST:]PORT."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        host, self.port = parse_address(text, least=0)
        try:
            self._address = binding.find(host, self.port) if host else None
        except OSError as error:
            raise SetupError("find an address of", f"the host '{host}' of --listen {text}", error) from None
        self._know()

    def _know(self) -> None:
        packed = pack(self._address[0]) if self._address else bytes(16)
        self.listener = Listener(packed, self.port or 0, 0, 0, dual=True)

    def bind(self, setting: Setting) -> None:
        """See Given."""
        try:
            self.fd = binding.listen_at(self._address, self.port or 0, setting.owner)
        except OSError as error:
            if error.errno == EADDRINUSE and self.port:
                self._refuse_taken()
            raise SetupError("listen on", self.shown, error) from None
        bound = binding.Open(self.fd)
        self.shown, self.port = str(bound), bound.port
        self._know()

    def _refuse_taken(self) -> None:
        """Say by whom, as the spec `port` does. Raises AlreadyRunning."""
        address = self._address[0] if self._address else ""
        host = f"[{address}]:" if ":" in address else address and f"{address}:"
        text = f"{host}{self.port}"
        try:
            Port(f"port:{text}", text).refuse_taken(())
        except OSError:
            pass
        raise AlreadyRunning("port", str(self.port))  # by one who is bound to it and does not listen


class _Unix(Given):
    """unix:PATH, unix:@NAME."""

    def __init__(self, name: str, text: str) -> None:
        path = text.removeprefix("unix:")
        self._is_abstract = path.startswith("@")
        self._probe = Unix(text, path)  # it refuses what can be no name
        if self._is_abstract:
            self._name = b"\0" + os.fsencode(path[1:])
        else:
            self._name = absolute(path) or b""
            if len(self._name) > binding.LONGEST_PATH:
                most = f"{len(self._name)} bytes; the path of a socket has at most {binding.LONGEST_PATH}"
                raise UsageError(f"from / on it has {most}")
            self._probe = Unix(text, os.fsdecode(self._name))
        super().__init__(name, binding.shown_name(self._name))
        self.listener = Bound(self._name, 0)

    def bind(self, setting: Setting) -> None:
        """See Given."""
        try:
            self.fd = self._bind_name(setting) if self._is_abstract else self._bind_file(setting)
        except OSError as error:
            if error.errno == EADDRINUSE:
                self._probe.refuse_taken(())
                raise AlreadyRunning("socket", self._probe.shown) from None
            raise SetupError("listen on", self.shown, error) from None

    def _bind_name(self, setting: Setting) -> int:
        return binding.listen_to(self._name, setting.owner)

    def _bind_file(self, setting: Setting) -> int:
        file = binding.SocketFile(self._name, setting.owner, setting.account)
        try:
            return file.listen(setting.umask, lambda: self._probe.refuse_taken(()))
        finally:
            setting.claims.add(file)


class Sockets:
    """All of a launch, in the order in which the server has them. Raises UsageError, SetupError.

    outer: our environment, out of which what was meant for us is taken. say: is told what cannot be used of it.
    """

    def __init__(
        self, request: Request, outer: MutableMapping[bytes, bytes], say: Callable[[str], None]
    ) -> None:
        self.all: list[Given] = []
        if request.hands_on:
            self.all += _handed(say)
        made = [parse(text) for text in request.listen]
        self.all += made
        for name in listen.VARIABLES:
            outer.pop(name, None)
        self._asked = request
        self.request = copy.copy(request)
        if self.all:
            self._check(request)
            _refuse_twice([given.listener for given in made if given.listener])
            self._add_to(self.request)

    def bind(self, setting: Setting) -> None:
        """Make all of them, or none. Raises AlreadyRunning, SetupError."""
        for given in self.all:
            given.bind(setting)
        self._fill()

    @property
    def shown(self) -> list[str]:
        """Where they listen: 127.0.0.1:80, [::]:80, unix:/run/socket."""
        return [given.shown for given in self.all]

    @property
    def listeners(self) -> list[Listener | Bound]:
        """Those that listen, as the kernel's tables would show them."""
        return [given.listener for given in self.all if given.listener]

    @property
    def numbers(self) -> range:
        """The descriptors at which the server has them."""
        return range(listen.FIRST, listen.FIRST + len(self.all))

    @property
    def placed(self) -> dict[int, int]:
        """What the server is to have at which descriptor number."""
        return dict(zip(self.numbers, self.fds, strict=True))

    @property
    def fds(self) -> list[int]:
        """Our own descriptors of them."""
        return [given.fd for given in self.all]

    def _check(self, request: Request) -> None:
        for fd in request.keep_fds:
            if fd in self.numbers:
                raise UsageError(f"descriptor {fd} cannot be kept: it is where the server finds a socket")
        for name in () if self._are_named else listen.VARIABLES:
            if name in request.environment:
                raise UsageError(f"{name.decode()} cannot be given: it tells the server of its sockets")

    def _add_to(self, request: Request) -> None:
        """Our own copy of the request, with what there is for the server, as far as it is known."""
        if not self._are_named:
            names = ":".join(given.name for given in self.all)
            told = {listen.COUNT: b"%d" % len(self.all), listen.NAMES: os.fsencode(names)}
            request.environment = {**request.environment, **told}
            request.assigns_pid = (*request.assigns_pid, listen.PID + b"=%d")
        self._fill()

    @property
    def _ports(self) -> list[int | None]:
        return [_SOME_PORT if given.port == 0 else given.port for given in self.all]

    @property
    def _are_named(self) -> bool:
        """Whether the command has a placeholder for a descriptor."""
        others = range(len(self.all))
        return any(self._fill_in(word) != fill(word, others, self._ports) for word in self._asked.command)

    def _fill(self) -> None:
        asked, filled = self._asked, self.request
        filled.command = [self._fill_in(word) for word in asked.command]
        filled.ready = tuple(self._specify(spec) for spec in asked.ready)
        filled.watchdog = None if asked.watchdog is None else self._specify(asked.watchdog)

    def _specify(self, spec: str) -> str:
        return os.fsdecode(self._fill_in(os.fsencode(spec))) if spec.startswith(_FILLED) else spec

    def _fill_in(self, word: bytes) -> bytes:
        return fill(word, self.numbers, self._ports)


def parse(text: str) -> Given:
    """[NAME=]ADDRESS. Raises UsageError, with the forms it could have had; SetupError for a name without an address."""
    name, equals, rest = text.partition("=")
    is_named = 0 < len(name) <= _LONGEST_NAME and bool(equals) and set(name) <= _NAMED_BY
    address = rest if is_named else text
    kind = _Unix if address.startswith("unix:") else _Tcp
    try:
        return kind(name if is_named else _NAME, address)
    except UsageError as error:
        raise UsageError(
            f"'{printable(text)}' cannot be listened on: {error}; it can be {FORMS}; NAME= before it names it"
        ) from None


def _handed(say: Callable[[str], None]) -> Sequence[Given]:
    """What whoever executed us has handed to us, by name and descriptor."""
    if not listen.is_addressed():
        say("LISTEN_FDS is ignored: LISTEN_PID says that it is for another process")
        return []
    # Before they are taken: at such a number may be something of our own by now.
    strange = any(not is_inherited(fd) for fd in listen.numbers())
    found = {} if strange else listen.listen_fds_with_names()
    if not found:
        say("LISTEN_FDS is ignored: it, or LISTEN_FDNAMES, is not as sd_listen_fds(3) has it")
    return [_Handed(name, fd) for fd, name in found.items()]


def _refuse_twice(listeners: Sequence[Listener | Bound]) -> None:
    """Raises UsageError if two of those that we are to make cannot both be."""
    for at, one in enumerate(listeners):
        for other in listeners[:at]:
            if _exclude(one, other):
                both = f"{printable(str(one))} and {printable(str(other))}"
                raise UsageError(f"the server cannot be given {both}: one takes the other's place")


def _exclude(one: Listener | Bound, other: Listener | Bound) -> bool:
    """Whether there cannot be both."""
    if isinstance(one, Bound) or isinstance(other, Bound):
        return isinstance(one, Bound) and isinstance(other, Bound) and one.name == other.name
    return (
        bool(one.port)
        and one.port == other.port
        and (one.overlaps(other.address) or other.overlaps(one.address))
    )
