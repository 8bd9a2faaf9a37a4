"""`port`, `port:[HOST:]PORT`: the server listens, on any TCP port, or on this one.

HOST is a name or a number ([::1] in brackets); a socket that listens on all addresses does for every HOST. What counts is
whose socket it is: a forked worker's will do, in a network namespace of its own as well; a stranger's never.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from daemonize.errors import UsageError, printable
from daemonize.posix import sockdiag
from daemonize.posix.sockets import elsewhere, pack, resolve
from daemonize.readiness.listening import Listening

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemonize.posix.sockdiag import Bound, Listener

_MOST = 65535
_LOOPBACK = ("127.0.0.1", "::1")
_USUAL = (bytes((127, 0, 0, 1)), bytes(15) + b"\1")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")


class Port(Listening):
    """Waits for a listener of the server's tree."""

    what = "port"
    #: Few have a network namespace of their own, or listen but at addresses that nobody on this machine would think of.
    asks_members = 4

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        self._host, self._port = parse_address(argument) if ":" in spec else ("", 0)
        self._addresses: list[str] = []
        self._packed: list[bytes] = []
        self._tables: sockdiag.Tables | None = None
        if self._port:
            self.shown, self.nothing = str(self._port), "nobody listens there"

    def refuse_taken(self, kept: Iterable[int]) -> Sequence[Listener | Bound]:
        """Find the addresses of HOST first."""
        self._resolve()
        return super().refuse_taken(kept)

    def met_by(self, sockets: Sequence[Listener | Bound]) -> bool:
        """See Probe."""
        self._resolve()
        listeners = [socket for socket in sockets if isinstance(socket, sockdiag.Listener)]
        return any(self._port in (0, found.port) and self._matches(found, wide=False) for found in listeners)

    def _resolve(self) -> None:
        if self._host and not self._addresses:
            self._addresses = resolve(self._host)
            self._packed = [pack(address) for address in self._addresses]

    def there(self, members: Sequence[int], *, wide: bool = False) -> list[Listener]:
        """See Listening."""
        # At every fourth look all is looked at: where /proc does not tell, there are no members.
        if self._turn % self.asks_members and not (wide or self._seen) and self._is_quiet():
            return []
        found = sockdiag.listeners(self._port, self._tables)
        for pid in elsewhere(members):
            try:
                found += sockdiag.listeners_near(pid, self._port)
            except OSError:
                pass  # it has ended
        return [listener for listener in found if self._matches(listener, wide)]

    def _is_quiet(self) -> bool:
        """Whether nobody takes connections where most would: to know that of all addresses takes ten times as long."""
        if not (self._port and self._tables):
            return False
        try:
            return not any(
                sockdiag.listener_at(address, self._port, self._tables) for address in self._packed or _USUAL
            )
        except OSError:
            return False  # it is not told so

    def _matches(self, listener: Listener, wide: bool) -> bool:
        fits = listener.overlaps if wide else listener.covers
        return not self._host or any(map(fits, self._packed))

    def executed(self, now: float) -> None:
        """From now on it looks often."""
        self._tables = sockdiag.Tables()
        super().executed(now)

    def close(self) -> None:
        """See Probe."""
        if self._tables:
            self._tables.close()

    def answers(self) -> str:
        """See Listening."""
        for address in self._addresses or _LOOPBACK:
            if _answers(address, self._port):
                return f"[{address}]:{self._port}" if ":" in address else f"{address}:{self._port}"
        return ""


def parse_address(text: str, least: int = 1) -> tuple[str, int]:
    """[HOST:]PORT: the host (empty where there is none) and the port, from `least` on. Raises UsageError."""
    host, colon, number = text.rpartition(":")
    # Before int(): it takes other digits, too, and no end of them.
    is_number = number.isascii() and number.isdecimal() and len(number) <= len(str(_MOST))
    if not is_number or not least <= int(number) <= _MOST:
        raise UsageError(f"a port is a number from {least} to {_MOST}")
    if colon and not _is_host(host):
        raise UsageError(
            f"{printable(repr(host))} is neither a name, nor an IPv4 address, nor an IPv6 address in []"
        )
    return host, int(number)


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            return ":" in host and bool(pack(host[1:-1]))
        except (OSError, ValueError):
            return False
    return bool(host) and set(host) <= _NAME


def _answers(address: str, port: int) -> bool:
    from _socket import (
        AF_INET,
        AF_INET6,
        SO_ERROR,
        SOCK_CLOEXEC,
        SOCK_NONBLOCK,
        SOCK_STREAM,
        SOL_SOCKET,
        socket,
    )

    try:
        asking = socket(AF_INET6 if ":" in address else AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
    except OSError:
        return False
    try:
        asking.connect_ex((address, port))
        # On one machine there is nothing to wait for: the answer is there, or there is none.
        poll = select.poll()
        poll.register(asking.fileno(), select.POLLOUT)
        return bool(poll.poll(1)) and asking.getsockopt(SOL_SOCKET, SO_ERROR) == 0
    finally:
        asking.close()
