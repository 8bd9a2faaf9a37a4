"""`MessageChannel`: a channel whose calls wait."""

from __future__ import annotations

import os
import select
import socket
import threading
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from daemonize.channel import codec
from daemonize.channel.end import MAX_SIZE, End, checked_size
from daemonize.channel_errors import ChannelTimedOut
from daemonize.errors import InvalidState
from daemonize.posix import frames
from daemonize.units import seconds_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import EllipsisType

    #: Seconds, or text such as "5s"; None: for ever; ...: as the channel has it.
    Timeout = float | str | EllipsisType | None

_DAY = 86400.0


class _Deadline:
    """Until when a call may wait. action: `read` or `write`. timeout: seconds; None: for ever. Raises UsageError."""

    def __init__(self, action: str, timeout: float | str | None) -> None:
        seconds = None if timeout is None else seconds_of("timeout", timeout)
        self._action, self._timeout = action, seconds
        self._end = None if seconds is None else monotonic() + seconds
        self.flags = 0 if seconds is None else frames.DONTWAIT

    @property
    def _left(self) -> float | None:
        return None if self._end is None else min(max(self._end - monotonic(), 0.0), _DAY)

    def take(self, turn: threading.RLock) -> None:
        """Wait for the turn. Raises ChannelTimedOut."""
        while not turn.acquire(timeout=-1 if self._end is None else self._left or 0):
            self._check()

    def wait(self, fd: int, events: int) -> None:
        """Until something may have happened. Raises ChannelTimedOut."""
        self._check()
        poll = select.poll()
        poll.register(fd, events)
        left = self._left
        poll.poll(None if left is None else left * 1000)

    def _check(self) -> None:
        if self._timeout is not None and self._left == 0:
            raise ChannelTimedOut(self._action, self._timeout)


class MessageChannel:
    """One end of a channel. sock: a UNIX stream socket, or its descriptor, which is the channel's own from now on.

    timeout: seconds that a call may wait that is not given its own; None: for ever; 0: not at all. max_size: bytes of a
    message that is read without asking for more. Any number of threads may read and write: they take turns.

    There is no buffer: in a selector, the channel is readable when there is something to read. A call may still wait for the
    rest of a message, unless its timeout is 0; what has come by then is not lost. After UnexpectedMessage and
    MessageTooLarge, read or skip that message before the selector is asked again. Raises UsageError.
    """

    def __init__(
        self, sock: socket.socket | int, *, timeout: float | str | None = None, max_size: int = MAX_SIZE
    ) -> None:
        self.timeout, self.max_size = timeout, checked_size(max_size)
        self._end = End(sock)
        self.renew_turns()
        _channels.add(weakref.ref(self, _channels.discard))

    @classmethod
    def pair(cls, *, timeout: float | str | None = None, max_size: int = MAX_SIZE) -> tuple[Self, Self]:
        """Both ends of a new channel. Raises OSError, UsageError."""
        checked_size(max_size)  # before there is anything to close
        one, other = socket.socketpair()
        return cls(one, timeout=timeout, max_size=max_size), cls(other, timeout=timeout, max_size=max_size)

    def write(self, *strings: str | bytes, timeout: Timeout = ...) -> None:
        """Send a list of strings; it may be empty, and so may they.

        Every write raises PeerGone, ChannelTimedOut, ChannelClosed, UsageError; and ChannelBroken if one before it failed
        when a part of its message had already gone.
        """
        self._send(frames.LIST, codec.body_of_list(strings), timeout)

    def read(self, *, max_size: int | None = None, timeout: Timeout = ...) -> list[str] | None:
        """The next message, a list; None: there will be none. Bytes that are not UTF-8 are surrogates (os.fsencode).

        Every read raises UnexpectedMessage, MessageTooLarge, TruncatedMessage, MalformedMessage, ChannelTimedOut,
        ChannelClosed; and RemoteError, also UnknownMessage, where the other end has sent an error.
        """
        received = self._receive(frames.LIST, max_size, timeout)
        return None if received is None else codec.list_of(received[0])

    def write_scalar(self, data: codec.Bytes, *, timeout: Timeout = ...) -> None:
        """Send a byte string."""
        self._send(frames.SCALAR, codec.body_of_scalar(data), timeout)

    def read_scalar(self, *, max_size: int | None = None, timeout: Timeout = ...) -> bytes | None:
        """The next message, a byte string; None: there will be none. One of more than `max_size` bytes is not read."""
        received = self._receive(frames.SCALAR, max_size, timeout)
        return None if received is None else received[0]

    def write_json(self, value: dict[str, Any], *, timeout: Timeout = ...) -> None:
        """Send a JSON object."""
        self._send(frames.OBJECT, codec.body_of_object(value), timeout)

    def read_json(self, *, max_size: int | None = None, timeout: Timeout = ...) -> dict[str, Any] | None:
        """The next message, a JSON object; None: there will be none."""
        received = self._receive(frames.OBJECT, max_size, timeout)
        return None if received is None else codec.object_of(received[0])

    def send_io(self, file: codec.HasFileno | int, *, timeout: Timeout = ...) -> None:
        """Send an open file, which stays open here as well. What it buffers is not sent."""
        self._send(frames.DESCRIPTOR, b"", timeout, (codec.descriptor_of(file),))

    def recv_io(self, *, timeout: Timeout = ...) -> int | None:
        """The next message, a descriptor, which is the caller's to close and not inherited; None: there will be none.

        Also raises DescriptorsLost: the message has been taken off, and the next one can be read.
        """
        received = self._receive(frames.DESCRIPTOR, None, timeout)
        return None if received is None else received[1][0]

    def write_error(self, error: BaseException, *, message: str = "", timeout: Timeout = ...) -> None:
        """Send an exception, with its traceback, instead of an answer: the other end's next read raises RemoteError.

        message: the name of the message that it answers.
        """
        self._send(frames.ERROR, codec.body_of_error(error, message), timeout)

    def skip(self, *, timeout: Timeout = ...) -> bool:
        """Throw the next message away, whatever its kind and its size; False: there will be none."""
        return self._receive(None, None, timeout) is not None

    def _receive(
        self, kind: bytes | None, most: int | None, timeout: Timeout
    ) -> tuple[bytes, list[int]] | None:
        deadline = _Deadline("read", self.timeout if timeout is ... else timeout)
        most = self.max_size if most is None else checked_size(most)
        turn = _refuse_handlers(self._reading)
        try:
            deadline.take(turn)
            while True:
                self._end.check()
                try:
                    return self._end.receive(kind, most, deadline.flags)
                except BlockingIOError:
                    deadline.wait(self._end.fileno(), select.POLLIN)
        finally:
            # Nothing in Python before it: a handler may raise between any two calls, also as the turn is taken.
            try:
                turn.release()
            except RuntimeError:
                pass  # we have never had it

    def _send(self, kind: bytes, body: bytes | memoryview, timeout: Timeout, fds: Sequence[int] = ()) -> None:
        deadline = _Deadline("write", self.timeout if timeout is ... else timeout)
        sending = frames.Sending(self._end.sock, kind, body, fds)
        turn = _refuse_handlers(self._writing)
        try:
            deadline.take(turn)
            while True:
                try:
                    self._end.push(sending, deadline.flags)
                    return
                except BlockingIOError:
                    deadline.wait(self._end.fileno(), select.POLLOUT)
        finally:
            try:
                self._end.give_up(sending)
            finally:
                try:
                    turn.release()
                except RuntimeError:
                    pass  # we have never had it

    @property
    def closed(self) -> bool:
        """Whether this end has been closed here."""
        return self._end.closed

    @property
    def has_peer(self) -> bool:
        """Whether somebody has the other end; what that has written may still be read. Raises ChannelClosed."""
        return self._end.has_peer

    def fileno(self) -> int:
        """The descriptor. Raises ChannelClosed."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end; a second time does nothing. A call that another thread is in raises ChannelClosed.

        Copies of this end in other processes, as in a forked child, stay what they are, unless there was such a call.
        """
        if self._end.closed:
            return
        self._end.closed = True
        turns = self._reading, self._writing
        for turn in turns:
            if not turn.acquire(blocking=False):
                self._end.hang_up(socket.SHUT_RDWR)
                turn.acquire()
        self._end.close()
        for turn in turns:
            turn.release()

    def hang_up(self) -> None:
        """As `close`, and for every copy of this end, too: the other side is told that this is the end of it."""
        self._end.hang_up(socket.SHUT_RDWR)
        self.close()

    def take_turn(self) -> None:
        """Wait until no thread is in a call that writes; from then on, none but this one gets into any."""
        self._writing.acquire()

    def renew_turns(self) -> None:
        """In a forked child: the threads that were in a call are not there."""
        self._reading, self._writing = threading.RLock(), threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refuse_handlers(turn: threading.RLock) -> threading.RLock:
    """Not this thread's turn once more, above its own call: its messages would mix. Raises InvalidState."""
    if turn._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 (as threading.Condition does)
        raise InvalidState("a signal handler cannot use a channel in the middle of a call of its own thread")
    return turn


#: Each ends with its channel. A WeakSet has Python called in every child, which takes longer than most are there.
_channels: set[weakref.ref[MessageChannel]] = set()


def _renew_all() -> None:
    for known in list(_channels):
        channel = known()
        if channel:
            channel.renew_turns()


os.register_at_fork(after_in_child=_renew_all)
