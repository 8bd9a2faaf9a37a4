"""Free TCP ports for servers that are told theirs, without a race among those who take them here.

A port is free if nobody is bound to it. Between that and the moment at which the server binds it, it can be taken by another
program; so it is none of those that the kernel gives to who asks for any (ip_local_port_range), and it is held here by
an abstract UNIX socket of its name, which all processes of the same network namespace see, of every user, and which is
gone with whoever holds it. Who loses the race all the same (to a program that was told this very port) takes another one.
"""

from __future__ import annotations

import random
import socket
import sys
from errno import EADDRNOTAVAIL, EAFNOSUPPORT, EMFILE, ENFILE, EPERM
from typing import TYPE_CHECKING

from daemonize.errors import SetupError
from daemonize.posix.identity import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST, _MOST = 10_240, 65_535
#: The kernel's own range, where it does not tell.
_USUAL = (32_768, 60_999)
_TRIES = 1_000
_random = random.SystemRandom()
_ADDRESSES = (
    (socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET, ""),
    (socket.AF_INET6, "::1"),
    (socket.AF_INET6, "::"),
)


class Port:
    """A port that is free, and that nobody else gets from here until `close`. Raises SetupError."""

    def __init__(self) -> None:
        try:
            for number in _candidates():
                if self._take(number):
                    return
        except OSError as error:
            raise SetupError("find", "a free port", error) from None
        raise SetupError("find", "a free port", OSError(0, f"{_TRIES} were tried, and all are taken"))

    def _take(self, number: int) -> bool:
        lock = _hold(number)
        if lock is None:
            return False
        self.number, self._lock = number, lock
        try:
            taken = is_free(number)
        except BaseException:
            lock.close()
            raise
        if not taken:
            lock.close()
        return taken

    def close(self) -> None:
        """The server is gone, or has not got it."""
        self._lock.close()


def _candidates() -> Iterator[int]:
    """At random, so that two who cannot see each other (other systems, other namespaces) seldom take the same."""
    low, high = _given_by_kernel()
    below, above = range(_LEAST, low), range(high + 1, _MOST + 1)
    if not (below or above):
        below = range(_LEAST, _MOST + 1)
    for _ in range(_TRIES):
        index = _random.randrange(len(below) + len(above))
        yield below[index] if index < len(below) else above[index - len(below)]


def _given_by_kernel() -> tuple[int, int]:
    words = (read_file("/proc/sys/net/ipv4/ip_local_port_range") or b"").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else _USUAL


def _hold(number: int) -> socket.socket | None:
    """What keeps others who ask here from it; None if somebody has it."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        if sys.platform == "linux":
            lock.bind(f"\0daemonize/port/{number}")
    except OSError:
        lock.close()
        return None
    return lock


def is_free(number: int, *, again: bool = False) -> bool:
    """Whether a server could bind the port, on every address that this machine has of its own. Raises OSError (EMFILE).

    again: also after another, of which connections are left that the kernel has not forgotten (SO_REUSEADDR).
    """
    for family, address in _ADDRESSES:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as asking:
                asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, again)
                if family == socket.AF_INET6:
                    asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                asking.bind((address, number))
        except OSError as error:
            if error.errno in (EMFILE, ENFILE):
                raise  # that is our own want
            if not _is_missing(error):
                return False
    return True


def _is_missing(error: OSError) -> bool:
    """Whether it is the address family that there is none of, and not the port."""
    return error.errno in (EAFNOSUPPORT, EADDRNOTAVAIL, EPERM)
