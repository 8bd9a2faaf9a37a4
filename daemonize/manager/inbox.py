"""What a task has said, as far as it has come: nothing here waits.

Messages of a channel, one by one; then parts of a result, and the last of it; or a failure.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from termios import FIONREAD
from typing import TYPE_CHECKING, Any

from daemonize.channel import codec
from daemonize.channel_errors import ChannelError, DescriptorsLost
from daemonize.posix import frames

if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

#: How each kind of message is read.
_READ: dict[bytes, Callable[[bytes], Any]] = {
    frames.LIST: codec.list_of,
    frames.SCALAR: bytes,
    frames.OBJECT: codec.object_of,
    frames.ERROR: codec.error_of,
}
_INT = struct.Struct("i")
#: What a task says last.
_LAST = (frames.RESULT, frames.FAILURE)
#: Bytes of it: so much memory Python takes out of its own.
_SHORT = 448


class Inbox:
    """sock: the owner's end, which is the inbox's own from now on. fd: its descriptor.

    heard: whether that is watched, until `ended`: what most tasks say comes at their end, and is looked at then.

    ended: nothing more will come. told: (kind, body) of a result or a failure. broken: why what came makes no sense, or
    cannot be kept.
    """

    __slots__ = ("_parts", "_reader", "_sock", "broken", "ended", "fd", "heard", "told")

    def __init__(self, sock: _socket.socket, heard: bool) -> None:
        self._sock, self.fd, self.heard = sock, sock.fileno(), heard
        self._reader: frames.Reader | None = None
        self._parts: list[bytes] = []
        self.ended = False
        self.told: tuple[bytes, bytes] | None = None
        self.broken: ChannelError | MemoryError | None = None

    def take(self, most: int | None) -> list[Any]:
        """Messages that have come, at most so many: lists, bytes, dicts; an int is a descriptor, the caller's to close.

        most: None: all that are there now, and not what others may go on to say who have the task's descriptor. An error is
        a message, too (RemoteError, DescriptorsLost). A result is none.
        """
        messages: list[Any] = []
        if self._reader is None:
            if self._has_told_all():
                return messages
            self._reader = frames.Reader(self._sock, frames.TASKS)
        for _ in range(self._waiting if most is None else most):
            if self.ended or not self._take_one(self._reader, messages):
                break
        return messages

    @property
    def _waiting(self) -> int:
        """How many messages there can be at the most: of the shortest kind, and the one that has been half read."""
        size = fcntl.ioctl(self.fd, FIONREAD, bytes(_INT.size))
        return int(_INT.unpack(size)[0]) // len(frames.NOTHING) + 2

    def _has_told_all(self) -> bool:
        """Most tasks say one thing, and that is short: it takes no reader then."""
        try:
            text = self._sock.recv(_SHORT, frames.DONTWAIT | frames.PEEK)
        except OSError:
            return False
        self.told = frames.TOLD_NOTHING if text == frames.NOTHING else frames.alone(text, _LAST)
        self.ended = self.told is not None
        return self.ended

    def _take_one(self, reader: frames.Reader, messages: list[Any]) -> bool:
        """False: no more has come."""
        try:
            head = reader.head(frames.DONTWAIT)
            if head is None:
                self.ended = True
                return False
            body, fds = reader.take(frames.DONTWAIT)
            if head.kind == frames.DESCRIPTOR:
                messages.append(fds[0])
            elif head.kind in _READ:
                messages.append(_READ[head.kind](body))
            else:
                self._note(head.kind, body)
        except BlockingIOError:
            return False
        except DescriptorsLost as error:
            messages.append(error)
        except (ChannelError, OSError) as error:
            self.broken = error if isinstance(error, ChannelError) else None
            self.ended = True
            self._refuse()
        except MemoryError as error:
            # There is none for this one, and may be for others: what there was of it is given back.
            self._parts.clear()
            reader.close()
            self.broken, self.ended = error, True
            self._refuse()
        return True

    def _refuse(self) -> None:
        """Whoever writes more is told that nobody reads it, and does not wait for a reader."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side has gone

    def _note(self, kind: bytes, body: bytes) -> None:
        self._parts.append(body)
        if kind != frames.PART:
            self.told = kind, b"".join(self._parts) if len(self._parts) > 1 else body
            self._parts.clear()
            self.ended = True

    def close(self) -> None:
        """Give everything back."""
        if self._reader:
            self._reader.close()
        self._sock.close()
