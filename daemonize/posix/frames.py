"""Whole messages over a UNIX stream socket between two processes of this package, each with descriptors (SCM_RIGHTS).

A message is its length (8 bytes), with which the descriptors go, and its bytes. Not a datagram: those have a greatest size,
and the environment of a program may be larger.
"""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = 8
#: More the kernel does not take at once (SCM_MAX_FD, unix(7)).
MOST_DESCRIPTORS = 253
_ROOM = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)


def send(sock: socket.socket, message: bytes, fds: Sequence[int] = ()) -> None:
    """Send a message; waits as long as nobody reads. Raises OSError: BrokenPipeError or ConnectionError if nobody will."""
    head = len(message).to_bytes(_HEAD, "little")
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = sock.sendmsg([head, message], ancillary, socket.MSG_NOSIGNAL)
    if sent < _HEAD + len(message):
        sock.sendall((head + message)[sent:], socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """The next message and its descriptors, which are the caller's to close, not inherited; None: there will be none.

    One that was cut off, as its sender was killed, is none.
    """
    fds: list[int] = []
    try:
        head = _receive_head(sock, fds)
        message = _receive_all(sock, int.from_bytes(head, "little")) if head else b""
    except OSError:
        head, message = b"", None
    if not head or message is None:
        for fd in fds:
            os.close(fd)
        return None
    return message, fds


def _receive_head(sock: socket.socket, fds: list[int]) -> bytes:
    head = b""
    while len(head) < _HEAD:
        data, ancillary, _flags, _address = sock.recvmsg(_HEAD - len(head), _ROOM, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
                fds += found
        if not data:
            return b""
        head += data
    return head


def _receive_all(sock: socket.socket, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        data = sock.recv(min(size, 1 << 20))
        if not data:
            return None
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
