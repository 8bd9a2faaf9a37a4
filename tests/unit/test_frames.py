"""Whole messages over a stream socket: none is lost, joined, cut, or taken for another, and no descriptor is leaked."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonize.posix import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_messages_arrive_as_they_were_sent(messages: list[bytes]) -> None:
    """One by one, also empty ones, and then the end."""
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            for message in messages:
                frames.send(ours, message)
        assert [frames.receive(theirs) for _ in messages] == [(message, []) for message in messages]
        assert frames.receive(theirs) is None


@given(st.binary(max_size=40), st.data())
def test_a_message_that_was_cut_off_is_none(message: bytes, data: st.DataObject) -> None:
    """Its sender was killed in the middle of it, wherever that is."""
    ours, theirs = socket.socketpair()
    whole = b"K" + len(message).to_bytes(4, "big") + message
    with theirs:
        with ours:
            ours.sendall(whole[: data.draw(st.integers(0, len(whole) - 1))])
        assert frames.receive(theirs) is None


def test_a_message_larger_than_any_buffer(pair: Pair) -> None:
    """The sender waits for the reader."""
    ours, theirs = pair
    large = os.urandom(1 << 16) * 160
    sending = threading.Thread(target=frames.send, args=(ours, large))
    sending.start()
    received = frames.receive(theirs)
    sending.join()

    assert received == (large, [])


@pytest.mark.parametrize("count", [1, 3, frames.MOST_DESCRIPTORS])
def test_descriptors_go_with_their_message(pair: Pair, count: int) -> None:
    """To that message and no other, in order, and not inherited by what is executed."""
    ours, theirs = pair
    pipes = [os.pipe() for _ in range(count)]
    frames.send(ours, b"before")
    frames.send(ours, b"with", [write for _, write in pipes])
    frames.send(ours, b"after")
    for _, write in pipes:
        os.close(write)

    assert frames.receive(theirs) == (b"before", [])
    received = frames.receive(theirs)
    assert received
    assert received[0] == b"with"
    assert frames.receive(theirs) == (b"after", [])
    assert not any(os.get_inheritable(fd) for fd in received[1])
    for number, fd in enumerate(received[1]):
        os.write(fd, b"%d" % number)
        os.close(fd)
    assert [os.read(read, 9) for read, _ in pipes] == [b"%d" % number for number in range(count)]
    for read, _ in pipes:
        os.close(read)


def test_descriptors_of_a_message_that_was_cut_off_are_closed(pair: Pair) -> None:
    """Nobody would know of them."""
    ours, theirs = pair
    read, write = os.pipe()
    socket.send_fds(ours, [b"K" + (100).to_bytes(4, "big") + b"not all of it"], [write])
    os.close(write)
    ours.shutdown(socket.SHUT_WR)

    assert frames.receive(theirs) is None
    assert os.read(read, 1) == b""  # nobody has the other end
    os.close(read)


def test_nobody_reads(pair: Pair) -> None:
    """An error, and no signal."""
    ours, theirs = pair
    theirs.close()

    with pytest.raises(BrokenPipeError):
        frames.send(ours, b"anybody?")
