"""A channel in asyncio: the loop is never held up, and who is cancelled loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import (
    AsyncMessageChannel,
    ChannelBroken,
    ChannelClosed,
    MalformedMessage,
    MessageChannel,
    MessageTooLarge,
    PeerGone,
    RemoteError,
    TruncatedMessage,
    UnexpectedMessage,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

LARGE = 5_000_000


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """In debug mode, in which what is never awaited, and what holds the loop, is said."""
    asyncio.run(coroutine, debug=True)


async def is_waiting(*tasks: asyncio.Task[Any]) -> None:
    """Whatever can happen now has happened, and these have not ended."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


def test_every_kind_of_message() -> None:
    """Each as it was written, in order, and then the end."""

    async def main() -> None:
        ours, theirs = AsyncMessageChannel.pair()
        async with ours, theirs:
            await ours.write("a", "", os.fsdecode(b"\xff"))
            await ours.write_scalar(bytes(range(256)))
            await ours.send_io(0)
            await ours.write_json({"an": ["object"]})
            await ours.write("skipped")
            ours.close()

            assert await theirs.read() == ["a", "", "\udcff"]
            assert await theirs.read_scalar() == bytes(range(256))
            fd = await theirs.recv_io()
            assert fd is not None
            assert os.path.samestat(os.fstat(fd), os.fstat(0))
            os.close(fd)
            assert await theirs.read_json() == {"an": ["object"]}
            assert await theirs.skip()
            assert not await theirs.skip()
            ends = [
                await theirs.read(),
                await theirs.read_scalar(),
                await theirs.read_json(),
                await theirs.recv_io(),
            ]
            assert ends == [None] * 4

    run(main())


def test_the_errors_are_the_same() -> None:
    """Another kind, too large, nonsense, cut off, nobody there, what cannot be written, closed."""

    async def main() -> None:
        ours, theirs = AsyncMessageChannel.pair()
        async with ours, theirs:
            await ours.write_scalar(b"12345")
            with pytest.raises(UnexpectedMessage):
                await theirs.read()
            with pytest.raises(MessageTooLarge):
                await theirs.read_scalar(max_size=4)
            assert await theirs.read_scalar() == b"12345"
            await ours.write_error(LookupError("not here"), message="find")
            with pytest.raises(RemoteError, match="'find' was answered with an error: LookupError: not here"):
                await theirs.read_json()
            with pytest.raises(UsageError):
                await ours.write("\ud800")
            theirs.close()
            with pytest.raises(PeerGone):
                await ours.write("hello?")
            with pytest.raises(ChannelClosed):
                await theirs.read()
            with pytest.raises(ChannelClosed):
                theirs.fileno()
            assert theirs.closed
        for text, error in ((b"nonsense", MalformedMessage), (b"L\0", TruncatedMessage)):
            one, other = socket.socketpair()
            with other:
                other.sendall(text)
            async with AsyncMessageChannel(one) as channel:
                for _ in range(2):
                    with pytest.raises(error):
                        await channel.read()

    run(main())


def test_the_loop_goes_on() -> None:
    """While one task waits for a message of megabytes, which comes from a thread, others work; and the other way round."""

    async def main() -> None:
        one, other = socket.socketpair()
        data = os.urandom(LARGE)
        with MessageChannel(other) as theirs, ThreadPoolExecutor(1) as pool:
            async with AsyncMessageChannel(one) as ours:
                reading = asyncio.create_task(ours.read_scalar())
                await is_waiting(reading)
                theirs.write_scalar(b"short")
                assert await reading == b"short"
                written = pool.submit(theirs.write_scalar, data)
                assert await ours.read_scalar() == data
                written.result()
                writing = asyncio.create_task(ours.write_scalar(data))
                await is_waiting(writing)
                read = pool.submit(theirs.read_scalar)
                await writing
                assert read.result() == data

    run(main())


def test_a_read_that_is_cancelled_loses_nothing() -> None:
    """Wherever in the message; the next one goes on from there."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        whole = b"L\0\0\0\x09\0\0\0\x05hello"
        async with AsyncMessageChannel(ours) as channel:
            with theirs:
                for number in range(len(whole)):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.001):
                            await channel.read()
                    theirs.sendall(whole[number : number + 1])
                assert await channel.read() == ["hello"]
            assert await channel.read() is None

    run(main())


def test_messages_and_cancelled_reads_by_turns() -> None:
    """However a cancellation falls together with a message, each is read once."""

    async def main() -> None:
        ours, theirs = AsyncMessageChannel.pair()
        received: list[list[str] | None] = []

        async def read() -> None:
            received.append(await theirs.read())

        async with ours, theirs:
            for number in range(300):
                reading = asyncio.create_task(read())
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                await ours.write(str(number))
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading
            ours.close()
            while len(received) < 300:
                await read()
        assert received == [[str(number)] for number in range(300)]

    run(main())


def test_a_write_that_is_cancelled() -> None:
    """Before its message has begun, nothing of it is sent; after that, all of it is, before anything else."""

    async def main() -> None:
        ours, theirs = AsyncMessageChannel.pair()
        async with ours, theirs:
            first = asyncio.create_task(ours.write("first", "x" * LARGE))
            await is_waiting(first)
            second = asyncio.create_task(ours.write("second"))
            third = asyncio.create_task(ours.write("third"))
            await is_waiting(first, second, third)
            for task in (first, second):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

            assert await theirs.read() == ["first", "x" * LARGE]
            await third
            assert await theirs.read() == ["third"]
            await ours.write("fourth")
            assert await theirs.read() == ["fourth"]

    run(main())


def test_the_rest_of_a_cancelled_write_goes_although_nothing_follows() -> None:
    """The other end does not wait for ever."""

    async def main() -> None:
        ours, theirs = AsyncMessageChannel.pair()
        async with ours, theirs:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await ours.write_scalar(bytes(LARGE))

            assert await theirs.read_scalar() == bytes(LARGE)

    run(main())


def test_the_other_end_goes_in_the_middle_of_a_cancelled_write() -> None:
    """Whoever writes next is told that the channel is broken; nothing else is said to anybody."""

    async def main() -> None:
        ours, theirs = AsyncMessageChannel.pair()
        async with ours, theirs:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await ours.write_scalar(bytes(LARGE))
            theirs.close()
            with pytest.raises(ChannelBroken):
                await ours.write("more")

    run(main())


def test_many_tasks_read_and_write() -> None:
    """Each message arrives once, and whole."""

    async def main() -> None:
        ours, theirs = AsyncMessageChannel.pair()
        texts = [str(number) * (100_000 if number % 10 == 0 else 10) for number in range(100)]
        async with ours, theirs, asyncio.TaskGroup() as group:
            reads = [group.create_task(theirs.read()) for _ in texts]
            for text in texts:
                group.create_task(ours.write(text, text))
            received = [await read for read in reads]
        assert received == [[text, text] for text in texts]

    run(main())


@pytest.mark.parametrize("call", ["read", "write"])
def test_closing_ends_what_waits(call: str) -> None:
    """It raises ChannelClosed, at once, and the loop watches nothing that may be another file by now."""

    async def main() -> None:
        ours, theirs = AsyncMessageChannel.pair()
        async with theirs:
            tasks = [
                asyncio.create_task(ours.read() if call == "read" else ours.write("x" * LARGE))
                for _ in range(3)
            ]
            await is_waiting(*tasks)
            number = ours.fileno()
            ours.close()
            ours.close()
            assert not asyncio.get_running_loop().remove_reader(number)
            assert not asyncio.get_running_loop().remove_writer(number)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [ChannelClosed] * 3

    run(main())


def test_the_end_of_the_loop_in_the_middle_of_a_message() -> None:
    """The other end is told that it was cut off; it does not wait for the rest for ever."""
    one, other = socket.socketpair()
    channels: list[AsyncMessageChannel] = []

    async def main() -> None:
        channels.append(AsyncMessageChannel(one))
        writing = asyncio.create_task(channels[0].write_scalar(bytes(LARGE)))
        await is_waiting(writing)

    run(main())
    with MessageChannel(other) as theirs, pytest.raises(TruncatedMessage):
        theirs.read_scalar()
    channels[0].close()
