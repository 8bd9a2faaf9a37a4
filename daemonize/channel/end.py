"""One end of a channel, without any waiting: what threads and asyncio have in common."""

from __future__ import annotations

import errno
import select
import socket

from daemonize.channel import codec
from daemonize.channel_errors import (
    ChannelBroken,
    ChannelClosed,
    MessageTooLarge,
    PeerGone,
    TruncatedMessage,
    UnexpectedMessage,
)
from daemonize.errors import UsageError
from daemonize.posix import frames

#: Bytes of a message that are read without being asked for more.
MAX_SIZE = 64 << 20


def checked_size(size: object) -> int:
    """Bytes of a message, at most. Raises UsageError."""
    if not isinstance(size, int) or size < 0:
        raise UsageError(f"max_size is a number of bytes, and not {size!r}")
    return size


class End:
    """sock: its socket, or the descriptor of one, which is the end's own from now on. Raises UsageError."""

    def __init__(self, sock: socket.socket | int) -> None:
        self.sock = _owned(sock)
        self.reader = frames.Reader(self.sock, frames.CHANNELS)
        self.closed = False
        self._going: frames.Sending | None = None

    def receive(self, kind: bytes | None, most: int, flags: int) -> tuple[bytes, list[int]] | None:
        """The next message, of this kind (None: any, which is thrown away).

        An error is raised, whatever the kind. Raises BlockingIOError: it has not all come.
        """
        try:
            head = self.reader.head(flags)
            if head is None:
                self.check()
                return None
            if kind is None:
                self.reader.skip(flags)
                return b"", []
            if head.kind == frames.ERROR:
                most = codec.MOST_OF_ERROR
            elif head.kind != kind:
                raise UnexpectedMessage(frames.KINDS[kind][0], frames.KINDS[head.kind][0])
            if head.size > most:
                raise MessageTooLarge(head.size, most)
            received = self.reader.take(flags)
            if head.kind == frames.ERROR:
                raise codec.error_of(received[0])
            return received
        except (OSError, TruncatedMessage):
            self.check()
            raise

    def push(self, sending: frames.Sending, flags: int) -> None:
        """Send a message, or the rest of it. Raises PeerGone; BlockingIOError: it has not all gone."""
        self.check()
        if self._going and self._going is not sending and self._going.is_cut:
            raise ChannelBroken
        self._going = sending
        try:
            sending.go_on(flags)
            self._going = None
        except ConnectionError:
            self.check()
            raise PeerGone from None
        except OSError as error:
            self.check()
            if error.errno == errno.EBADF:
                raise UsageError("a descriptor that is not open cannot be sent") from None
            raise

    def give_up(self, sending: frames.Sending) -> None:
        """If that cuts a message off, the other end does not wait for the rest, and nothing more can be written."""
        if sending.is_cut:
            self.hang_up(socket.SHUT_WR)

    def hang_up(self, how: int) -> None:
        """Also for every copy of this end."""
        try:
            self.sock.shutdown(how)
        except OSError:
            pass  # the other side has gone

    @property
    def has_peer(self) -> bool:
        """Whether somebody has the other end; what that has written before may still be there."""
        poll = select.poll()
        poll.register(self.fileno(), 0)
        return not any(events & select.POLLHUP for _, events in poll.poll(0))

    def check(self) -> None:
        """Raises ChannelClosed."""
        if self.closed:
            raise ChannelClosed

    def fileno(self) -> int:
        """The descriptor. Raises ChannelClosed."""
        self.check()
        return self.sock.fileno()

    def close(self) -> None:
        """Give everything back."""
        self.sock.close()
        self.reader.close()

    def __del__(self) -> None:
        if "reader" in self.__dict__:
            self.reader.close()  # of the socket, that itself complains


def _owned(given: socket.socket | int) -> socket.socket:
    """A blocking socket that no program inherits. Raises UsageError, and then it is still the caller's."""
    if not isinstance(given, (int, socket.socket)):
        raise UsageError(
            f"a channel is made of a socket or a descriptor (os.dup(channel.fileno())), and not of {given!r}"
        )
    try:
        sock = socket.socket(fileno=given if isinstance(given, int) else given.fileno())
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(f"{given!r} is no open socket: {error}") from None
    if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        sock.detach()
        raise UsageError(f"a channel needs a UNIX stream socket, and {given!r} is none")
    if not isinstance(given, int):
        given.detach()
    sock.settimeout(None)
    sock.set_inheritable(False)
    return sock
