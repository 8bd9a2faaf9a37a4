"""Loopback ports."""

from __future__ import annotations

import socket

from tests.support.procs import eventually

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


def ask(port: int, request: bytes, timeout: float = 10.0) -> bytes:
    """Connect, send `request`, and return the first that comes back. Raises OSError if nobody listens."""
    with socket.create_connection((HOST, port), timeout) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def accepts(port: int) -> bool:
    """Somebody listens on this loopback port now."""
    try:
        socket.create_connection((HOST, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def wait_listening(port: int, deadline: float = 10.0) -> None:
    """Wait until somebody listens on this loopback port. An AssertionError if nobody does in time."""

    def check() -> None:
        assert accepts(port), f"nobody listens on port {port}"

    eventually(check, deadline)
