"""What a message costs: a `MessageChannel` and a `multiprocessing.Pipe` between the bench and a forked child, in turn.

The child echoes what it is sent, or takes it and says when it has all come. Nobody's start is in the numbers.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from launching import CannotMeasureError

from daemonize import MessageChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Round trips, large messages and their bytes, descriptors, of one number of a pair.
TRIPS, PARTS, PART, SENT = 2000, 100, 1_000_000, 2000
WORDS = ["open", "/var/log/some/file.log", "r"]
END, DATA = b"end", bytes(PART)


@contextmanager
def child(work: Callable[[], None]) -> Iterator[None]:
    """Works until the end of the block. Raises CannotMeasureError: it failed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    try:
        yield
    finally:
        _, status = os.waitpid(pid, 0)
    if status:
        raise CannotMeasureError(f"row 9: the other process ended with status {status}")


def per_second(count: int, work: Callable[[], object]) -> float:
    """How often it was done, of so many times."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def echoed_by_channel() -> float:
    """Round trips of a short list per second."""
    ours, theirs = MessageChannel.pair()

    def echo() -> None:
        ours.close()
        while (strings := theirs.read()) is not None:
            theirs.write(*strings)

    def trips() -> None:
        for _ in range(TRIPS):
            ours.write(*WORDS)
            ours.read()

    with child(echo), ours:
        theirs.close()
        ours.write(*WORDS)  # it is there
        ours.read()
        return per_second(TRIPS, trips)


def echoed_by_pipe() -> float:
    """The same list, by `multiprocessing.Pipe`."""
    ours, theirs = multiprocessing.Pipe()

    def echo() -> None:
        ours.close()
        try:
            while True:
                theirs.send(theirs.recv())
        except EOFError:
            pass

    def trips() -> None:
        for _ in range(TRIPS):
            ours.send(WORDS)
            ours.recv()

    with child(echo), ours:
        theirs.close()
        ours.send(WORDS)
        ours.recv()
        return per_second(TRIPS, trips)


def echoed_as_bytes_by_channel() -> float:
    """Round trips of a short scalar per second."""
    ours, theirs = MessageChannel.pair()

    def echo() -> None:
        ours.close()
        while (data := theirs.read_scalar()) is not None:
            theirs.write_scalar(data)

    def trips() -> None:
        for _ in range(TRIPS):
            ours.write_scalar(END)
            ours.read_scalar()

    with child(echo), ours:
        theirs.close()
        ours.write_scalar(END)
        ours.read_scalar()
        return per_second(TRIPS, trips)


def echoed_as_bytes_by_pipe() -> float:
    """The same bytes, which `multiprocessing.Pipe` does not have to pickle."""
    ours, theirs = multiprocessing.Pipe()

    def echo() -> None:
        ours.close()
        try:
            while True:
                theirs.send_bytes(theirs.recv_bytes())
        except EOFError:
            pass

    def trips() -> None:
        for _ in range(TRIPS):
            ours.send_bytes(END)
            ours.recv_bytes()

    with child(echo), ours:
        theirs.close()
        ours.send_bytes(END)
        ours.recv_bytes()
        return per_second(TRIPS, trips)


def through_channel() -> float:
    """Megabytes per second, in messages of one."""
    ours, theirs = MessageChannel.pair()

    def take() -> None:
        ours.close()
        while theirs.read_scalar() not in (END, None):
            pass
        theirs.write_scalar(END)

    def send() -> None:
        for _ in range(PARTS):
            ours.write_scalar(DATA)
        ours.write_scalar(END)
        ours.read_scalar()

    with child(take), ours:
        theirs.close()
        return per_second(PARTS * PART, send) / 1e6


def through_pipe() -> float:
    """The same, by `multiprocessing.Pipe`."""
    ours, theirs = multiprocessing.Pipe()

    def take() -> None:
        ours.close()
        while theirs.recv_bytes() != END:
            pass
        theirs.send_bytes(END)

    def send() -> None:
        for _ in range(PARTS):
            ours.send_bytes(DATA)
        ours.send_bytes(END)
        ours.recv_bytes()

    with child(take), ours:
        theirs.close()
        return per_second(PARTS * PART, send) / 1e6


def handed_over_by_channel() -> float:
    """Descriptors per second, each of them closed by whoever takes it."""
    ours, theirs = MessageChannel.pair()

    def take() -> None:
        ours.close()
        for _ in range(SENT):
            os.close(theirs.recv_io() or -1)
        theirs.write_scalar(END)

    def send() -> None:
        for _ in range(SENT):
            ours.send_io(0)
        ours.read_scalar()

    with child(take), ours:
        theirs.close()
        return per_second(SENT, send)


def handed_over_bare() -> float:
    """The same by `socket.send_fds` and `socket.recv_fds`, each with one byte."""
    ours, theirs = socket.socketpair()

    def take() -> None:
        ours.close()
        for _ in range(SENT):
            os.close(socket.recv_fds(theirs, 1, 1)[1][0])
        theirs.sendall(END)

    def send() -> None:
        for _ in range(SENT):
            socket.send_fds(ours, [b"x"], [0])
        ours.recv(len(END))

    with child(take), ours:
        theirs.close()
        return per_second(SENT, send)
