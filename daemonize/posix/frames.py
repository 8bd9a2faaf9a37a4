"""Whole messages over a UNIX stream socket, each with descriptors (SCM_RIGHTS): the one framing there is.

    frame = kind (1 byte), length of the body (32 bit, network order), with which the descriptors go; body

Not a datagram: those have a greatest size, and the environment of a program may be larger. What is read is the head of
one frame and then its body, never a byte of the next: a descriptor arrives with whatever is read of the bytes it was sent
with, and nothing is hidden from a selector.

Both directions can be taken up again where they were left, by a call that would have to wait (BlockingIOError), or by an
exception of a signal handler. What a system call gives is therefore kept by the same call into C that makes it
(`list.extend(map(...))`): between two calls in Python, a handler may raise.
"""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from daemonize.channel_errors import (
    ChannelError,
    DescriptorsLost,
    MalformedMessage,
    MessageTooLarge,
    TruncatedMessage,
)

if TYPE_CHECKING:
    import _socket
    from collections.abc import Collection, Sequence

LIST, SCALAR, OBJECT, DESCRIPTOR, ERROR, KEEPERS = b"L", b"S", b"J", b"D", b"E", b"K"
PART, RESULT, FAILURE = b"P", b"R", b"F"
#: More the kernel does not take at once (SCM_MAX_FD, unix(7)).
MOST_DESCRIPTORS = 253
#: Name of each kind, and how many descriptors a frame of it may have: what is more is closed.
KINDS = {
    LIST: ("list", 0),
    SCALAR: ("scalar", 0),
    OBJECT: ("object", 0),
    DESCRIPTOR: ("descriptor", 1),
    ERROR: ("error", 0),
    KEEPERS: ("keeper's message", MOST_DESCRIPTORS),
    PART: ("part of a result", 0),
    RESULT: ("result", 0),
    FAILURE: ("failure", 0),
}
#: What is spoken on a channel.
CHANNELS = frozenset({LIST, SCALAR, OBJECT, DESCRIPTOR, ERROR})
#: What a task says to its owner.
TASKS = CHANNELS | {PART, RESULT, FAILURE}
MOST_BYTES = (1 << 32) - 1
_HEAD, _LENGTH = 5, 4
_ROOM = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
#: So much of a body is asked for at once, and no memory is taken for more.
_CHUNK = 1 << 20
# Numbers: what `socket` makes of them takes as long to be combined as a message to be read.
DONTWAIT = int(socket.MSG_DONTWAIT)
_WAITALL, _CTRUNC = int(socket.MSG_WAITALL), int(socket.MSG_CTRUNC)
_CLOEXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
NOSIGNAL = int(getattr(socket, "MSG_NOSIGNAL", 0))
PEEK = int(socket.MSG_PEEK)


def whole(kind: bytes, body: bytes) -> bytes:
    """A frame without descriptors, all of it: for a short one. Raises OverflowError: its length cannot be said."""
    return kind + len(body).to_bytes(_LENGTH, "big") + body


#: What most tasks say, that they have returned None; kind and body of it.
NOTHING, TOLD_NOTHING = whole(RESULT, b""), (RESULT, b"")


def alone(text: bytes, kinds: Collection[bytes]) -> tuple[bytes, bytes] | None:
    """Kind and body of a frame of one of these kinds, if the text is one, whole, without descriptors, and nothing else."""
    if text[:1] in kinds and int.from_bytes(text[1:_HEAD], "big") == len(text) - _HEAD:
        return text[:1], text[_HEAD:]
    return None


class Head(NamedTuple):
    """What is known of a frame before its body. size: of the body. lost: the kernel could not hand over its descriptors."""

    kind: bytes
    size: int
    fds: list[int]
    lost: bool


class Reader:
    """Reads one frame after the other from a socket. kinds: all others are nonsense.

    flags: MSG_DONTWAIT, and BlockingIOError is raised where one would have to wait; the next call goes on from there.
    Nonsense and truncation are for ever: there is no telling where the next frame begins.
    """

    def __init__(self, sock: _socket.socket, kinds: frozenset[bytes]) -> None:
        self._recv, self._recvmsg, self._kinds = sock.recv, sock.recvmsg, kinds
        self._arrived: list[tuple[bytes, list[tuple[int, int, bytes]], int, Any]] = []
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._counted = 0, 0
        self._failed: ChannelError | None = None

    def head(self, flags: int = 0) -> Head | None:
        """Of the next frame, which is not taken off by that; None: there is none, and will be none.

        Raises TruncatedMessage, MalformedMessage, OSError.
        """
        while self._head is None:
            self._check()
            text = b"".join(part[0] for part in self._arrived)
            if len(text) == _HEAD:
                self._parse(text)
            elif not self._receive_head(_HEAD - len(text), flags):
                if text:
                    self._fail(TruncatedMessage(len(text)))
                return None
        return self._head

    def _receive_head(self, size: int, flags: int) -> bool:
        """Some more of it; False: there is no more."""
        try:
            self._arrived.extend(map(self._recvmsg, (size,), (_ROOM,), (flags | _CLOEXEC,)))
        except ConnectionResetError:
            return False  # the other end was closed with something unread: that, too, is its end
        if self._arrived[-1][0]:
            return True
        del self._arrived[-1]
        return False

    def _parse(self, text: bytes) -> None:
        kind, size = text[:1], int.from_bytes(text[1:], "big")
        if kind not in self._kinds or (kind == DESCRIPTOR and size):
            self._fail(MalformedMessage(f"no frame begins with {text.hex(' ')}"))
        fds = _descriptors(self._arrived)
        # The kernel hands over as many as the limit allows, and says so: never a part instead of all.
        lost = any(part[2] & _CTRUNC for part in self._arrived)
        most = 0 if lost else KINDS[kind][1]
        self._head = Head(kind, size, fds[:most], lost)
        _close(fds[most:])

    def take(self, flags: int = 0) -> tuple[bytes, list[int]]:
        """The frame whose head has been read: its body, and its descriptors: the caller's to close, and not inherited.

        Raises TruncatedMessage, OSError; DescriptorsLost and MalformedMessage when the frame has been taken off.
        """
        head = self._receive_body(flags, keeps=True)
        body = b"".join(self._parts)
        self._head, self._arrived, self._parts, self._counted = None, [], [], (0, 0)
        if head.lost:
            raise DescriptorsLost
        if head.kind == DESCRIPTOR and not head.fds:
            raise MalformedMessage("there is no descriptor with it")
        return body, head.fds

    def skip(self, flags: int = 0) -> None:
        """Take the frame off whose head has been read. Raises TruncatedMessage, OSError."""
        head = self._receive_body(flags, keeps=False)
        self._head, self._arrived, self._parts, self._counted = None, [], [], (0, 0)
        _close(head.fds)

    def _receive_body(self, flags: int, *, keeps: bool) -> Head:
        self._check()
        assert self._head
        while (left := self._head.size - self._count(keeps=keeps)) > 0:
            try:
                # The kernel closes descriptors that come where nobody asks for any.
                asked = flags or _WAITALL
                self._parts.extend(map(self._recv, (min(left, _CHUNK),), (asked,)))
                ended = not self._parts[-1]
            except ConnectionResetError:
                ended = True
            if ended:
                self._fail(TruncatedMessage(self._count(keeps=keeps), self._head.size))
        return self._head

    def _count(self, *, keeps: bool) -> int:
        """Bytes of the body that have come."""
        number, size = self._counted
        for index in range(number, len(self._parts)):
            size += len(self._parts[index])
            self._counted = index + 1, size
            if not keeps:
                self._parts[index] = b""
        return size

    def _check(self) -> None:
        if self._failed:
            raise type(self._failed)(*self._failed.args)

    def _fail(self, error: ChannelError) -> NoReturn:
        self.close()
        self._failed = error
        raise error

    def close(self) -> None:
        """Descriptors of a frame that nobody has taken are closed. Not the socket."""
        fds = self._head.fds if self._head else _descriptors(self._arrived)
        self._head, self._arrived, self._parts, self._counted = None, [], [], (0, 0)
        _close(fds)


def _descriptors(arrived: Sequence[tuple[bytes, list[tuple[int, int, bytes]], int, Any]]) -> list[int]:
    found = array.array("i")
    for part in arrived:
        for level, kind, content in part[1]:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
    if not _CLOEXEC:
        for fd in found:
            os.set_inheritable(fd, False)
    return found.tolist()


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class Sending:
    """One frame on its way out. Raises MessageTooLarge: its length cannot be said in 32 bit."""

    def __init__(
        self, sock: _socket.socket, kind: bytes, body: bytes | memoryview, fds: Sequence[int] = ()
    ) -> None:
        if len(body) > MOST_BYTES:
            raise MessageTooLarge(len(body), MOST_BYTES)
        self._sendmsg, self._body = sock.sendmsg, body
        self._head = kind + len(body).to_bytes(_LENGTH, "big")
        self._ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._counts: list[int] = []

    @property
    def sent(self) -> int:
        """Bytes, of the head as well."""
        return sum(self._counts)

    @property
    def is_cut(self) -> bool:
        """Whether a part of it has gone: what is sent now, other than the rest, would be taken for that."""
        return 0 < self.sent < _HEAD + len(self._body)

    def go_on(self, flags: int = 0) -> None:
        """Send it, or the rest of it. flags: as for a `Reader`. Raises OSError: ConnectionError if nobody will read it."""
        whole = _HEAD + len(self._body)
        while (sent := sum(self._counts)) < whole:
            ancillary = () if sent else self._ancillary
            self._counts.extend(map(self._sendmsg, (self._rest(sent),), (ancillary,), (flags | NOSIGNAL,)))

    def _rest(self, sent: int) -> list[bytes | memoryview]:
        if sent < _HEAD:
            return [self._head[sent:], self._body]
        return [memoryview(self._body)[sent - _HEAD :]]


def send(sock: socket.socket, message: bytes, fds: Sequence[int] = ()) -> None:
    """Send a keeper's message; waits as long as nobody reads. Raises OSError: ConnectionError if nobody will."""
    Sending(sock, KEEPERS, message, fds).go_on()


def receive(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """The next keeper's message and its descriptors, as `Reader.take` gives them; None: there will be none.

    One that was cut off, as its sender was killed, is none.
    """
    reader = Reader(sock, frozenset({KEEPERS}))
    try:
        return reader.take() if reader.head() else None
    except (ChannelError, OSError):
        return None
    finally:
        reader.close()
