"""Loopback ports."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from tests.support.procs import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"


def free_port() -> int:
    """A loopback port that is free now, for TCP and for UDP alike, and was never connected to."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind((HOST, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((HOST, port))
            except OSError:
                continue
            return port


@contextlib.contextmanager
def taken() -> Iterator[int]:
    """A loopback port on which we listen ourselves, for as long as the block lasts."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


def connected(port: int, timeout: float = 10.0) -> socket.socket:
    """A connection to a loopback port. Raises OSError if nobody listens."""
    return socket.create_connection((HOST, port), timeout)


def ask(port: int, request: bytes, timeout: float = 10.0) -> bytes:
    """Connect, send `request`, and return all that comes back until the server closes. OSError if nobody listens."""
    with connected(port, timeout) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return answer.read()


def get(port: int, path: str = "/") -> bytes:
    """One HTTP request; the whole answer, status line and headers included."""
    return ask(port, f"GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())


def look_up(port: int, name: str, timeout: float = 10.0) -> bytes:
    """Ask a DNS server for the address of `name`, with one datagram that is not repeated; its four bytes, or b""."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = labels + b"\0" + b"\0\1" + b"\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(timeout)
        udp.connect((HOST, port))
        udp.send(b"\x12\x34" + b"\1\0" + b"\0\1\0\0\0\0\0\0" + question)
        answer = udp.recv(512)
    record = answer[12 + len(question) :]
    return record[-4:]


def accepts(port: int) -> bool:
    """Somebody listens on this loopback port now."""
    try:
        connected(port).close()
    except ConnectionRefusedError:
        return False
    return True


def wait_listening(port: int, deadline: float = 10.0) -> None:
    """Wait until somebody listens on this loopback port. An AssertionError if nobody does in time."""

    def check() -> None:
        assert accepts(port), f"nobody listens on port {port}"

    eventually(check, deadline)
