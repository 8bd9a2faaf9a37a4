"""The relay: every byte, in order, to whatever the caller has; and the reader never blocks the watching."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import random
import select
import socket
import subprocess
import sys
import termios
import threading
import tty
from typing import TYPE_CHECKING

import pytest

from daemonize.posix import streams
from daemonize.posix.loop import Loop
from daemonize.posix.streams import PipeRelay, Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 1_500_000  # several pipes full, and past the point where the pipe is enlarged
DATA = random.Random(1).randbytes(SIZE)


class Relaying:
    """A relay with a server's end to write to. hang_ups: how often the end of the server's side was announced."""

    def __init__(self, stack: contextlib.ExitStack, target: int | None, keep: int = 0) -> None:
        self.loop = Loop()
        self.source, self.write = os.pipe()
        stack.callback(os.close, self.source)
        stack.callback(self.close_write)
        self.sink = Sink(target)
        stack.callback(self.sink.close)
        self.hang_ups = 0
        self.relay = PipeRelay(self.loop, self.source, self.sink, keep=keep, on_hang_up=self._hung_up)
        stack.callback(self.relay.stop)

    def _hung_up(self) -> None:
        self.hang_ups += 1

    def close_write(self) -> None:
        """The server has closed its stream."""
        if self.write >= 0:
            os.close(self.write)
            self.write = -1

    def feed(self, data: bytes) -> threading.Thread:
        """Write as a server does, at the relay's pace, and close."""

        def server() -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(self.write, view) :]
            self.close_write()

        thread = threading.Thread(target=server)
        thread.start()
        return thread

    def run(self, until: Callable[[], bool]) -> None:
        """Run the loop until then; nothing here takes seconds."""
        while not until():
            before = self.relay.total
            self.loop.run_once(10)
            assert self.relay.total >= before

    def finish(self, data: bytes = DATA) -> None:
        """Feed everything and relay it to the end."""
        thread = self.feed(data)
        self.run(lambda: self.relay.finished and self.relay.caught_up)
        thread.join()


class Reader:
    """Somebody who reads on the caller's side, in a thread, until end of file."""

    def __init__(self, fd: int) -> None:
        self.fd, self.data = fd, b""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        chunks = []
        with contextlib.suppress(OSError):  # EIO: the end of a pty
            while chunk := os.read(self.fd, 65536):
                chunks.append(chunk)
        self.data = b"".join(chunks)

    def result(self) -> bytes:
        """All that came."""
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.data


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Closed after the test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=["splice", "copy", "keep"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """With splice(2), without it, and (keep > 0) with every byte looked at. Returns `keep`."""
    if request.param == "copy":
        monkeypatch.setattr(streams, "_splice", None)
    return 1000 if request.param == "keep" else 0


def pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe that is closed after the test, unless it was before."""
    ends = os.pipe()
    for end in ends:
        stack.callback(shut, end)
    return ends


def shut(fd: int) -> None:
    """Close it if it is open."""
    with contextlib.suppress(OSError):
        os.close(fd)


def set_flags(fd: int) -> int:
    """The status flags that everybody shares who has this open file."""
    return fcntl.fcntl(fd, fcntl.F_GETFL)


# -- every byte -------------------------------------------------------------------------------------------------------


def test_to_a_pipe(stack: contextlib.ExitStack, way: int) -> None:
    """A reader that keeps up gets the very bytes."""
    read, write = pipe(stack)
    relaying, reader = Relaying(stack, write, way), Reader(read)
    relaying.finish()
    relaying.sink.close()
    shut(write)

    assert reader.result() == DATA
    assert relaying.hang_ups == 1
    assert relaying.relay.tail == (DATA[-way:] if way else b"")


@pytest.mark.parametrize("append", [False, True])
def test_to_a_file(stack: contextlib.ExitStack, way: int, append: bool, tmp_path: Path) -> None:
    """At the file's offset, or appended; what was there before stays; the offset is where the caller goes on."""
    path = tmp_path / "file"
    path.write_bytes(b"before\n")
    fd = os.open(path, os.O_WRONLY | (os.O_APPEND if append else 0))
    stack.callback(os.close, fd)
    os.lseek(fd, 0 if append else 7, os.SEEK_SET)
    relaying = Relaying(stack, fd, way)
    relaying.finish()
    os.write(fd, b"after\n")

    assert path.read_bytes() == b"before\n" + DATA + b"after\n"
    assert not relaying.sink.error


def test_to_a_socket(stack: contextlib.ExitStack, way: int) -> None:
    """A socket of the caller's gets the bytes and stays blocking."""
    near, far = socket.socketpair()
    stack.enter_context(near)
    stack.enter_context(far)
    relaying, reader = Relaying(stack, near.fileno(), way), Reader(far.fileno())
    relaying.finish()
    blocking = not set_flags(near.fileno()) & os.O_NONBLOCK
    relaying.sink.close()
    near.shutdown(socket.SHUT_WR)

    assert reader.result() == DATA
    assert blocking


def test_to_a_terminal(stack: contextlib.ExitStack, way: int) -> None:
    """A terminal shows all of it, and is not made non-blocking for the shell that shares it."""
    terminal, mine = open_terminal(stack)
    relaying, reader = Relaying(stack, terminal, way), Reader(mine)
    text = b"".join(b"%06d\tline\n" % number for number in range(10_000))
    relaying.finish(text)
    blocking = not set_flags(terminal) & os.O_NONBLOCK
    relaying.sink.close()
    termios.tcdrain(terminal)
    os.close(terminal)

    assert reader.result() == text
    assert blocking


def test_to_a_terminal_that_cannot_be_opened_anew(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's terminal (su), or no /proc: small portions, and still every byte."""
    terminal, mine = open_terminal(stack)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        relaying = Relaying(stack, terminal)
    reader = Reader(mine)
    text = b"".join(b"%06d\tline\n" % number for number in range(2_000))
    relaying.finish(text)
    relaying.sink.close()
    termios.tcdrain(terminal)
    os.close(terminal)

    assert reader.result() == text


def refuse(*_arguments: object) -> int:
    """As open(2) on another user's terminal."""
    raise PermissionError(errno.EACCES, "Permission denied")


def open_terminal(stack: contextlib.ExitStack) -> tuple[int, int]:
    """A pty in raw mode: (the terminal, its other end)."""
    mine, terminal = pty.openpty()
    tty.setraw(terminal)
    stack.callback(shut, mine)
    stack.callback(shut, terminal)
    return terminal, mine


@pytest.mark.parametrize("target", ["/dev/null", None])
def test_to_nowhere(stack: contextlib.ExitStack, way: int, target: str | None) -> None:
    """Read to the end and thrown away."""
    fd = os.open(target, os.O_WRONLY) if target else None
    if fd is not None:
        stack.callback(os.close, fd)
    relaying = Relaying(stack, fd, way)
    relaying.finish()

    assert relaying.relay.total == SIZE
    assert not relaying.sink.error


def test_two_streams_to_one_descriptor(stack: contextlib.ExitStack, way: int) -> None:
    """`2>&1`: both streams arrive whole on the one pipe."""
    read, write = pipe(stack)
    first, second = Relaying(stack, write, way), Relaying(stack, write, way)
    second.relay.stop()
    second.loop = first.loop
    second.relay = PipeRelay(first.loop, second.source, second.sink, keep=way, on_hang_up=second._hung_up)
    reader = Reader(read)
    threads = [first.feed(b"a" * SIZE), second.feed(b"b" * SIZE)]
    first.run(lambda: all(r.relay.finished and r.relay.caught_up for r in (first, second)))
    for thread in threads:
        thread.join()
    first.sink.close()
    second.sink.close()
    shut(write)
    data = reader.result()

    assert (data.count(b"a"), data.count(b"b"), len(data)) == (SIZE, SIZE, 2 * SIZE)


def test_splice_is_what_moves_the_bytes(stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of `way`: with splice only the beginning is read into memory, without it everything is."""
    taken: list[int] = []
    take = PipeRelay._take
    monkeypatch.setattr(PipeRelay, "_take", lambda self, data: (taken.append(len(data)), take(self, data))[1])
    null = os.open("/dev/null", os.O_WRONLY)
    stack.callback(os.close, null)
    Relaying(stack, null).finish()
    assert streams._BULK < sum(taken) <= streams._BULK + streams._CHUNK
    taken.clear()

    monkeypatch.setattr(streams, "_splice", None)
    Relaying(stack, null).finish()

    assert sum(taken) == SIZE


# -- readers that misbehave -------------------------------------------------------------------------------------------


def test_a_reader_that_leaves(stack: contextlib.ExitStack, way: int) -> None:
    """`| head -1`: the server is read to its end all the same, and nobody dies of SIGPIPE."""
    read, write = pipe(stack)
    relaying = Relaying(stack, write, way)
    os.write(relaying.write, b"first\n")
    relaying.run(lambda: relaying.relay.total > 0)
    assert os.read(read, 100) == b"first\n"
    os.close(read)
    relaying.finish()

    assert relaying.relay.total == SIZE + 6
    assert isinstance(relaying.sink.error, BrokenPipeError)


def test_a_socket_whose_reader_leaves(stack: contextlib.ExitStack, way: int) -> None:
    """The same for a socket."""
    near, far = socket.socketpair()
    stack.enter_context(near)
    far.close()
    relaying = Relaying(stack, near.fileno(), way)
    relaying.finish()

    assert relaying.relay.total == SIZE
    assert isinstance(relaying.sink.error, BrokenPipeError)


def test_a_full_device(stack: contextlib.ExitStack, way: int) -> None:
    """`> /dev/full`: noted, and the server goes on."""
    full = os.open("/dev/full", os.O_WRONLY)
    stack.callback(os.close, full)
    relaying = Relaying(stack, full, way)
    relaying.finish()

    assert relaying.relay.total == SIZE
    assert relaying.sink.error is not None
    assert relaying.sink.error.errno == errno.ENOSPC


def test_a_descriptor_for_reading_only(stack: contextlib.ExitStack, way: int) -> None:
    """A caller's stdout that cannot be written to ends the relaying, not the server."""
    null = os.open("/dev/null", os.O_RDONLY)
    stack.callback(os.close, null)
    relaying = Relaying(stack, null, way)
    relaying.finish()

    assert relaying.relay.total == SIZE


def test_a_descriptor_that_is_not_open(stack: contextlib.ExitStack) -> None:
    """Nothing to relay to: everything is thrown away, and the reason is kept."""
    relaying = Relaying(stack, 987)
    relaying.finish()

    assert relaying.sink.error is not None
    assert relaying.sink.error.errno == errno.EBADF


def fill(fd: int) -> int:
    """Fill a pipe to the brim without waiting; how many bytes that took."""
    os.set_blocking(fd, False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        for size in (65536, 4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    count += os.write(fd, b"x" * size)
    os.set_blocking(fd, True)
    return count


def test_the_end_is_seen_while_the_reader_is_stuck(stack: contextlib.ExitStack, way: int) -> None:
    """A reader that does not read delays nothing but its own bytes; when it reads, it gets all of them."""
    read, write = pipe(stack)
    filled = fill(write)
    relaying = Relaying(stack, write, way)
    os.write(relaying.write, b"last words\n")
    relaying.run(lambda: relaying.relay.stalled)
    relaying.close_write()
    relaying.run(lambda: relaying.relay.hung_up)
    assert not relaying.relay.finished or relaying.relay.stalled
    assert relaying.hang_ups == 1

    reader = Reader(read)
    relaying.run(lambda: relaying.relay.finished and relaying.relay.caught_up)
    relaying.sink.close()
    shut(write)

    assert reader.result() == b"x" * filled + b"last words\n"
    assert relaying.hang_ups == 1


def test_a_stuck_reader_costs_no_time(stack: contextlib.ExitStack, way: int) -> None:
    """While the reader is stuck the loop sleeps, before the end of the server's side and after it: no busy waiting."""
    _, write = pipe(stack)
    fill(write)
    relaying = Relaying(stack, write, way)
    os.write(relaying.write, b"words")
    relaying.run(lambda: relaying.relay.stalled)
    assert idle(relaying.loop)

    relaying.close_write()
    relaying.run(lambda: relaying.relay.hung_up)

    assert idle(relaying.loop)


def idle(loop: Loop) -> bool:
    """Whether a round of the loop finds nothing to do (after at most a few that do)."""
    for _ in range(5):
        if not loop._poll.poll(0):
            return True
        loop.run_once(0)
    return False


def test_a_slow_reader_slows_the_server_and_loses_nothing(stack: contextlib.ExitStack, way: int) -> None:
    """Back-pressure: the relay never holds more than a pipe and a chunk, however slow the reader."""
    read, write = pipe(stack)
    relaying = Relaying(stack, write, way)
    thread = relaying.feed(DATA)
    received = b""
    while len(received) < SIZE:
        relaying.loop.run_once(0)
        assert relaying.relay.total - len(received) <= (1 << 21)
        if select.select([read], [], [], 0)[0]:
            received += os.read(read, 10_000)
    thread.join()

    assert received == DATA


def test_many_words_find_room(stack: contextlib.ExitStack, way: int) -> None:
    """What the server says word by word takes no more room in the caller's pipe than if it had said it there itself."""
    read, write = pipe(stack)
    relaying = Relaying(stack, write, way)
    for number in range(500):
        os.write(relaying.write, b"%09d\n" % number)
        relaying.loop.run_once(10)
    assert not relaying.relay.stalled

    relaying.close_write()
    relaying.run(lambda: relaying.relay.finished)

    assert os.read(read, SIZE) == b"".join(b"%09d\n" % number for number in range(500))


@pytest.mark.parametrize("chunk", [1, 100, 2049, 3000, 4095, 4096, 65536])
def test_a_server_that_waits_for_our_reader_is_seen(
    stack: contextlib.ExitStack, way: int, chunk: int
) -> None:
    """`full` is true when the server could write no more, however it cuts what it says: the timeout then stands still."""
    _, write = pipe(stack)
    fill(write)
    relaying = Relaying(stack, write, way)
    os.write(relaying.write, b"x")
    relaying.run(lambda: relaying.relay.stalled)
    assert not relaying.relay.full

    os.set_blocking(relaying.write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(relaying.write, b"y" * chunk)

    assert relaying.relay.full


def test_another_writer_on_the_callers_pipe_never_blocks_us(
    stack: contextlib.ExitStack, way: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may fill the caller's pipe between our look and our write: then we wait in the loop, not in write(2)."""
    read, write = pipe(stack)
    relaying = Relaying(stack, write, way)
    look = streams.is_writable

    def filled_after_the_look(fd: int) -> bool:
        writable = look(fd)
        if fd == relaying.sink.fd and writable:
            fill(write)
        return writable

    monkeypatch.setattr(streams, "is_writable", filled_after_the_look)
    os.write(relaying.write, b"words")
    rescue = threading.Timer(5, os.read, (read, 65536))  # were we blocked, somebody has to let us go
    rescue.start()
    relaying.run(lambda: relaying.relay.total > 0)
    in_time = rescue.is_alive()
    rescue.cancel()
    rescue.join()

    assert in_time


# -- marks ------------------------------------------------------------------------------------------------------------


def test_a_mark_covers_what_is_there(stack: contextlib.ExitStack, way: int) -> None:
    """After `mark`, caught up means: all that was in the pipe then is with the reader; the end is not needed."""
    read, write = pipe(stack)
    relaying = Relaying(stack, write, way)
    os.write(relaying.write, b"a" * 3000)
    relaying.relay.mark()
    assert not relaying.relay.caught_up
    relaying.run(lambda: relaying.relay.caught_up)

    assert not relaying.relay.finished
    assert os.read(read, 5000) == b"a" * 3000


def test_a_mark_takes_no_more(stack: contextlib.ExitStack, way: int) -> None:
    """What is written afterwards stays in the pipe, for the drain, and wakes nobody; until there is no mark any more."""
    read, write = pipe(stack)
    relaying = Relaying(stack, write, way)
    os.write(relaying.write, b"one\n")
    relaying.relay.mark()
    relaying.run(lambda: relaying.relay.caught_up)
    os.write(relaying.write, b"two\n")
    relaying.loop.run_once(0)

    assert not relaying.loop._poll.poll(0)
    assert relaying.relay.total == 4
    relaying.relay.unmark()
    relaying.run(lambda: relaying.relay.total == 8)
    assert os.read(read, 100) == b"one\ntwo\n"


def test_the_end_after_a_mark(stack: contextlib.ExitStack, way: int) -> None:
    """At the end nobody can add anything: all of it is the launch's."""
    read, write = pipe(stack)
    relaying = Relaying(stack, write, way)
    os.write(relaying.write, b"one\n")
    relaying.relay.mark()
    relaying.run(lambda: relaying.relay.caught_up)
    os.write(relaying.write, b"two\n")
    relaying.close_write()
    relaying.run(lambda: relaying.relay.finished)

    assert relaying.relay.caught_up
    assert os.read(read, 100) == b"one\ntwo\n"


def test_a_fast_server_and_a_slow_reader(stack: contextlib.ExitStack, way: int) -> None:
    """A server that goes on writing faster than the reader reads does not keep the wrapper: a mark is reached."""
    read, write = pipe(stack)
    relaying = Relaying(stack, write, way)
    os.set_blocking(relaying.write, False)
    relaying.relay.mark()
    taken = 0
    while relaying.relay.total < 1 << 19 or not relaying.relay.caught_up:
        assert taken < 1 << 22
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(relaying.write, b"y" * 65536)
        if relaying.relay.total < 1 << 19:
            relaying.relay.unmark()
            relaying.relay.mark()
        relaying.loop.run_once(0)
        if relaying.relay.stalled:
            taken += len(os.read(read, 4096))

    assert relaying.relay.total < 1 << 22


def test_an_empty_pipe_is_caught_up_at_once(stack: contextlib.ExitStack, way: int) -> None:
    """Nothing said, nothing to wait for."""
    _, write = pipe(stack)
    relaying = Relaying(stack, write, way)
    assert not relaying.relay.caught_up
    relaying.relay.mark()

    assert relaying.relay.caught_up


def test_the_tail_is_the_last_of_it(stack: contextlib.ExitStack) -> None:
    """`keep` bytes at most, whatever the portions."""
    relaying = Relaying(stack, None, 10)
    for word in (b"one ", b"two ", b"three "):
        os.write(relaying.write, word)
        relaying.loop.run_once(10)
    relaying.close_write()
    relaying.run(lambda: relaying.relay.finished)

    assert relaying.relay.tail == b"two three "


def test_the_pipe_stays_when_relaying_stops(stack: contextlib.ExitStack, way: int) -> None:
    """After `stop` nothing is taken any more: what comes is for the drain."""
    relaying = Relaying(stack, None, way)
    relaying.relay.stop()
    os.write(relaying.write, b"later")
    relaying.loop.run_once(0)

    assert relaying.relay.total == 0
    assert os.read(relaying.source, 10) == b"later"


# -- memory -----------------------------------------------------------------------------------------------------------

RELAY_A_GIGABYTE = """
import os, resource, sys
from daemonize.posix import streams
from daemonize.posix.loop import Loop
keep, splice = int(sys.argv[1]), sys.argv[2] == "splice"
if not splice:
    streams._splice = None
loop = Loop()
relay = streams.PipeRelay(loop, 0, streams.Sink(1), keep=keep, on_hang_up=lambda: None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
while not relay.finished:
    loop.run_once(None)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(relay.total, grown, file=sys.stderr)
"""


@pytest.mark.parametrize("how", ["splice", "copy", "keep"])
def test_a_gigabyte_takes_no_memory(how: str) -> None:
    """The relay's memory does not grow with what goes through it."""
    size = 1 << 30
    arguments = [sys.executable, "-c", RELAY_A_GIGABYTE, "65536" if how == "keep" else "0", how]
    with (
        subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE) as server,
        subprocess.Popen(
            arguments, stdin=server.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as relay,
    ):
        assert relay.stderr
        words = relay.stderr.read().split()

    assert int(words[0]) == size
    assert int(words[1]) < 8 * 1024  # KiB
