"""`AsyncMessageChannel`: a channel whose calls are awaited."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Self

from daemonize.channel import codec
from daemonize.channel.end import MAX_SIZE, End, checked_size
from daemonize.channel_errors import ChannelClosed
from daemonize.posix import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class AsyncMessageChannel:
    """One end of a channel, as `MessageChannel`, for asyncio; the other end may be of either class.

    sock: a UNIX stream socket, or its descriptor, which is the channel's own from now on. max_size: bytes of a message that
    is read without asking for more. The loop never waits for the other end. Timeouts are those of asyncio: a read that is
    cancelled loses nothing, also in the middle of a message; a write that is cancelled has sent nothing, or sends the rest
    by and by, before anything else. To be used in one loop, and by its thread only. Raises UsageError.
    """

    def __init__(self, sock: socket.socket | int, *, max_size: int = MAX_SIZE) -> None:
        self.max_size = checked_size(max_size)
        self._end = End(sock)
        self._reading, self._writing = asyncio.Lock(), asyncio.Lock()
        self._rest: asyncio.Task[None] | None = None
        self._waiting: dict[asyncio.Future[None], Callable[[int], object]] = {}

    @classmethod
    def pair(cls, *, max_size: int = MAX_SIZE) -> tuple[Self, Self]:
        """Both ends of a new channel. Raises OSError, UsageError."""
        checked_size(max_size)  # before there is anything to close
        one, other = socket.socketpair()
        return cls(one, max_size=max_size), cls(other, max_size=max_size)

    async def write(self, *strings: str | bytes) -> None:
        """Send a list of strings. Every write raises PeerGone, ChannelBroken, ChannelClosed, UsageError."""
        await self._send(frames.LIST, codec.body_of_list(strings))

    async def read(self, *, max_size: int | None = None) -> list[str] | None:
        """The next message, a list; None: there will be none.

        Every read raises UnexpectedMessage, MessageTooLarge, TruncatedMessage, MalformedMessage, ChannelClosed; and
        RemoteError, also UnknownMessage, where the other end has sent an error.
        """
        received = await self._receive(frames.LIST, max_size)
        return None if received is None else codec.list_of(received[0])

    async def write_scalar(self, data: codec.Bytes) -> None:
        """Send a byte string."""
        await self._send(frames.SCALAR, codec.body_of_scalar(data))

    async def read_scalar(self, *, max_size: int | None = None) -> bytes | None:
        """The next message, a byte string; None: there will be none. One of more than `max_size` bytes is not read."""
        received = await self._receive(frames.SCALAR, max_size)
        return None if received is None else received[0]

    async def write_json(self, value: dict[str, Any]) -> None:
        """Send a JSON object."""
        await self._send(frames.OBJECT, codec.body_of_object(value))

    async def read_json(self, *, max_size: int | None = None) -> dict[str, Any] | None:
        """The next message, a JSON object; None: there will be none."""
        received = await self._receive(frames.OBJECT, max_size)
        return None if received is None else codec.object_of(received[0])

    async def send_io(self, file: codec.HasFileno | int) -> None:
        """Send an open file, which stays open here as well."""
        await self._send(frames.DESCRIPTOR, b"", (codec.descriptor_of(file),))

    async def recv_io(self) -> int | None:
        """The next message, a descriptor, which is the caller's to close; None: there will be none. Also DescriptorsLost."""
        received = await self._receive(frames.DESCRIPTOR, None)
        return None if received is None else received[1][0]

    async def write_error(self, error: BaseException, *, message: str = "") -> None:
        """Send an exception, with its traceback, instead of an answer: the other end's next read raises RemoteError.

        message: the name of the message that it answers.
        """
        await self._send(frames.ERROR, codec.body_of_error(error, message))

    async def skip(self) -> bool:
        """Throw the next message away, whatever its kind and its size; False: there will be none."""
        return await self._receive(None, None) is not None

    async def _receive(self, kind: bytes | None, most: int | None) -> tuple[bytes, list[int]] | None:
        loop = asyncio.get_running_loop()
        async with self._reading:
            while True:
                self._end.check()
                try:
                    limit = self.max_size if most is None else checked_size(most)
                    return self._end.receive(kind, limit, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    await self._wait(loop.add_reader, loop.remove_reader)

    async def _send(self, kind: bytes, body: bytes | memoryview, fds: Sequence[int] = ()) -> None:
        loop = asyncio.get_running_loop()
        sending = frames.Sending(self._end.sock, kind, body, fds)
        async with self._writing:
            if self._rest:
                await asyncio.wait([self._rest])  # of a write that was cancelled
            while not self._begins(sending):
                await self._wait(loop.add_writer, loop.remove_writer)
            if sending.is_cut:
                # Not shield(): whoever is cancelled here will not hear of what becomes of the rest, and nor need anybody.
                self._rest = asyncio.create_task(self._finish(sending))
                self._rest.add_done_callback(_hear_out)
                await asyncio.wait([self._rest])
                self._rest.result()

    def _begins(self, sending: frames.Sending) -> bool:
        """Whether some of it has gone, or all."""
        try:
            self._end.push(sending, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return sending.sent > 0
        return True

    async def _finish(self, sending: frames.Sending) -> None:
        loop = asyncio.get_running_loop()
        try:
            while sending.is_cut:
                await self._wait(loop.add_writer, loop.remove_writer)
                self._begins(sending)
        finally:
            self._end.give_up(sending)

    async def _wait(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        """Until something may have happened. Raises ChannelClosed."""
        fd, future = self._end.fileno(), asyncio.get_running_loop().create_future()
        add(fd, _wake, future)
        self._waiting[future] = remove
        try:
            await future
        finally:
            if self._waiting.pop(future, None):
                remove(fd)

    @property
    def closed(self) -> bool:
        """Whether this end has been closed here."""
        return self._end.closed

    def fileno(self) -> int:
        """The descriptor. Raises ChannelClosed."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end, also in the middle of a message; a second time does nothing. Who waits gets ChannelClosed."""
        if self._end.closed:
            return
        self._end.closed = True
        waiting, self._waiting = self._waiting, {}
        for future, remove in waiting.items():
            remove(self._end.sock.fileno())
            if not future.done():
                future.set_exception(ChannelClosed())
        self._end.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _hear_out(task: asyncio.Task[None]) -> None:
    """An error of it is known, also where nobody has waited for it."""
    if not task.cancelled():
        task.exception()
