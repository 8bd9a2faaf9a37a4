"""Messages of every kind, as chance will have them, sent to another process that sends each of them back."""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING, Any

from daemonize import MessageChannel

if TYPE_CHECKING:
    from collections.abc import Iterator

Message = list[str] | bytes | dict[str, Any] | int
#: Lengths of strings: most are short, and a few fill a socket.
LENGTHS = (0, 1, 20, 20, 20, 20, 300, 300, 3000, 70_000)


def mixed(seed: int, count: int, file: int) -> Iterator[Message]:
    """So many messages, the same ones for the same seed. file: the descriptor that is sent."""
    chance = random.Random(seed)
    text = "".join(map(chr, range(1, 256))) * 300
    for number in range(count):
        kind, length = chance.random(), chance.choice(LENGTHS)
        if kind < 0.4:
            yield [f"message {number}", *(text[: length // 2] for _ in range(chance.randrange(3)))]
        elif kind < 0.7:
            yield number.to_bytes(4) + text[:length].encode("latin-1")
        elif kind < 0.9:
            yield {"number": number, "text": text[: length // 8]}
        else:
            yield file


def write(channel: MessageChannel, message: Message) -> None:
    """As what it is."""
    if isinstance(message, list):
        channel.write(*message)
    elif isinstance(message, bytes):
        channel.write_scalar(message)
    elif isinstance(message, dict):
        channel.write_json(message)
    else:
        channel.send_io(message)


def read_like(channel: MessageChannel, message: Message) -> Message | None:
    """The next one, of the same kind as this."""
    if isinstance(message, list):
        return channel.read()
    if isinstance(message, bytes):
        return channel.read_scalar()
    return channel.read_json() if isinstance(message, dict) else channel.recv_io()


def is_same(one: Message | None, other: Message) -> bool:
    """Equal; of two descriptors: the same open file. The first descriptor is closed."""
    if not isinstance(other, int) or not isinstance(one, int):
        return one == other
    is_same = os.path.samestat(os.fstat(one), os.fstat(other))
    os.close(one)
    return is_same


def send_back(channel: MessageChannel, messages: Iterator[Message]) -> None:
    """In the other process: each that is as it should be; to the end."""
    for expected in messages:
        received = read_like(channel, expected)
        assert is_same(os.dup(received) if isinstance(received, int) else received, expected)
        assert received is not None
        write(channel, received)
        if isinstance(received, int):
            os.close(received)
    assert channel.read() is None


def exchange(seed: int, count: int) -> tuple[int, int]:
    """So many messages there, and as many back; how many were wrong, and the wait status of the other process."""
    read, write_end = os.pipe()
    ours, theirs = MessageChannel.pair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            send_back(theirs, mixed(seed, count, read))
            status = 0
        finally:
            os._exit(status)
    theirs.close()

    def say_all() -> None:
        for message in mixed(seed, count, read):
            write(ours, message)

    saying = threading.Thread(target=say_all)
    saying.start()
    wrong = sum(not is_same(read_like(ours, expected), expected) for expected in mixed(seed, count, read))
    saying.join()
    ours.close()
    os.close(read)
    os.close(write_end)
    return wrong, os.waitpid(pid, 0)[1]
