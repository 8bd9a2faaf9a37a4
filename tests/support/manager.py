"""A service manager as far as a server sees one: the socket of sd_notify(3), and the descriptor of s6 and dinit."""

from __future__ import annotations

import os
import secrets
import socket
from typing import TYPE_CHECKING, Self

from tests.support import procs

if TYPE_CHECKING:
    from types import TracebackType


class Manager:
    """Listens on a datagram socket: in the directory, or without one at an abstract address."""

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        unique = f"daemonize-test-{secrets.token_hex(8)}"
        self.address = f"@{unique}" if directory is None else os.path.join(directory, "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0"))

    @property
    def environ(self) -> dict[str, str]:
        """What a server has to find in its environment."""
        return {"NOTIFY_SOCKET": self.address}

    def read(self) -> dict[str, str]:
        """The next message, when it comes; an AssertionError after ten seconds."""
        assert procs.readable(self._socket.fileno()), "nobody has said anything"
        pairs = [line.partition("=") for line in self._socket.recv(65536).decode().split("\n")]
        return {name: value for name, _, value in pairs}

    def fill(self) -> int:
        """Fill its queue with messages of FILL=1; how many that took."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(self.address.replace("@", "\0"))
            for count in range(100_000):
                try:
                    sender.send(b"FILL=1")
                except BlockingIOError:
                    return count
        raise AssertionError("it has no end")

    def rest(self) -> list[dict[str, str]]:
        """The messages that are there now."""
        found = []
        while procs.readable(self._socket.fileno(), 0):
            found.append(self.read())
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        if not self.address.startswith("@"):
            os.unlink(self.address)
