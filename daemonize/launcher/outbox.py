"""Messages for a service manager, in order, without ever waiting for it: the wrapper has a server to look after.

While the manager's queue is full, what is said once stays here, and is sent when there is room (systemd reads soon; one that
is stopped does not). Words that are said again and again are dropped then: the next will do.
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket
from typing import TYPE_CHECKING

from daemonize.posix.loop import POLLOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.posix.loop import Loop

#: Messages that wait at most. A server that reloads more often than its manager reads has said enough.
_MOST = 64


class Outbox:
    """address: as in NOTIFY_SOCKET; empty: nobody is told anything. say: is told once of what cannot be sent."""

    def __init__(self, loop: Loop, address: bytes, say: Callable[[str], None]) -> None:
        self._loop, self._say = loop, say
        self._address = b"\0" + address[1:] if address.startswith(b"@") else address
        self._socket: socket | None = None
        self._waiting: list[bytes] = []
        self._complained = False

    def send(self, *lines: bytes, words: bool = False) -> bool:
        """Send a message, now or later; whether it has been sent. words: later is too late."""
        message = b"\n".join(lines)
        if not self._address or not message:
            return False
        if not self._waiting and self._sends(message):
            self._complained = False
            return True
        if not self._complained:
            self._complained = True
            self._say("the service manager cannot be told now: NOTIFY_SOCKET takes nothing")
        if not words and self._socket and len(self._waiting) < _MOST:
            self._waiting.append(message)
            self._loop.watch(self._socket.fileno(), POLLOUT, self._flush)
        return False

    @property
    def is_full(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def withdraw(self, line: bytes) -> None:
        """Messages with this line are no longer true."""
        self._waiting = [message for message in self._waiting if line not in message.split(b"\n")]

    def close(self) -> None:
        """What can be sent now is sent; the rest is dropped."""
        self._flush(0)
        self._disconnect()

    def _sends(self, message: bytes) -> bool:
        """False: there is no room for it, or (there is no socket then) nobody listens."""
        try:
            self._connected().send(message)
        except BlockingIOError:
            return False
        except OSError:
            self._disconnect()
        else:
            return True
        try:
            self._connected().send(message)  # a manager that has started itself anew
        except OSError:
            self._disconnect()
            return False
        return True

    def _connected(self) -> socket:
        # Connected: poll(2) says of any other datagram socket that it is writable, be the receiver's queue full or not.
        if self._socket is None:
            made = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
            try:
                made.connect(self._address)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _flush(self, _events: int) -> None:
        while self._waiting and self._sends(self._waiting[0]):
            del self._waiting[0]
        if not self._socket:
            self._waiting.clear()
        elif not self._waiting:
            self._loop.forget(self._socket.fileno())

    def _disconnect(self) -> None:
        if self._socket:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
