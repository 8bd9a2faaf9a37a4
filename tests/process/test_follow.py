"""Following a file that a server appends to: every byte once, told by inotify or found by looking."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from daemonize.posix import follow
from daemonize.posix.follow import FileRelay
from daemonize.posix.loop import Loop
from daemonize.posix.streams import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=["inotify", "looking"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Told by the kernel, or by looking again and again."""
    if request.param == "inotify":
        monkeypatch.setattr(follow, "_BY_TIMER", -1.0)
    return str(request.param)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Closed after the test."""
    with contextlib.ExitStack() as stack:
        yield stack


class Following:
    """A followed file, a server's descriptor on it, and the pipe that it is relayed to."""

    def __init__(self, stack: contextlib.ExitStack, path: Path, before: bytes = b"", keep: int = 0) -> None:
        self.path, self.loop = path, Loop()
        path.write_bytes(before)
        self.write = self._own(stack, os.open(path, os.O_WRONLY | os.O_APPEND))
        source = self._own(stack, os.open(path, os.O_RDONLY))
        self.read, target = (self._own(stack, fd) for fd in os.pipe())
        self.target = target
        self.sink = Sink(target)
        stack.callback(self.sink.close)
        self.relay = FileRelay(self.loop, source, self.sink, keep=keep)
        stack.callback(self.relay.stop)
        self.received = b""

    @staticmethod
    def _own(stack: contextlib.ExitStack, fd: int) -> int:
        stack.callback(os.close, fd)
        return fd

    def say(self, data: bytes) -> None:
        """The server writes."""
        os.write(self.write, data)

    def run(self, until: Callable[[], bool]) -> None:
        """Run the loop as the wrapper does, reading what comes out."""
        while not until():
            self.take()
            self.loop.run_once(10 if self.relay.next_look is None else self.relay.next_look)
            if self.relay.next_look is not None:
                self.relay.look()
            self.take()

    def take(self) -> None:
        """What the caller has by now."""
        os.set_blocking(self.read, False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.read, 65536):
                self.received += data
        os.set_blocking(self.read, True)

    def expect(self, data: bytes) -> None:
        """Run until so much has come; it must be this."""
        self.run(lambda: len(self.received) >= len(data))
        assert self.received == data


def test_what_is_appended_is_relayed(way: str, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """In order, each byte once; what was there before is not the launch's."""
    following = Following(stack, tmp_path / "log", before=b"old\n")
    whole = b""
    for word in (b"one\n", b"two\n", b"x" * 200_000, b"three\n"):
        following.say(word)
        whole += word
        following.expect(whole)

    assert following.relay.total == len(whole)
    assert following.relay.caught_up


def test_inotify_is_what_tells(way: str, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """The negative control of `way`: with inotify there is nothing to look at in between.

    At first there is none: whoever closes its watch waits longer than many a server takes to start.
    """
    following = Following(stack, tmp_path / "log")
    following.relay.look()

    assert (following.relay.next_look is None) == (way == "inotify")


def test_looks_become_rarer_and_frequent_again(
    stack: contextlib.ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent file is looked at less and less, at most every 50 ms; a word brings the eager looks back."""
    monkeypatch.setattr(follow, "_BY_TIMER", -1.0)
    monkeypatch.setattr(follow, "inotify", lambda _path, _mask: None)
    following = Following(stack, tmp_path / "log")
    waits = []
    for _ in range(10):
        waits.append(following.relay.next_look or 0)
        following.relay.look()
    following.say(b"word")
    following.relay.look()

    assert waits == sorted(waits)
    assert waits[-1] == 0.05
    assert following.relay.next_look == 0.001


def test_a_truncated_file_is_read_from_its_beginning(
    way: str, stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    """The server, or a rotation, has emptied it: what comes then is new."""
    following = Following(stack, tmp_path / "log", before=b"old words, many of them\n")
    following.say(b"one\n")
    following.expect(b"one\n")
    os.truncate(following.path, 0)
    following.run(lambda: following.relay.position == 0 or way == "inotify")
    following.say(b"two\n")

    following.expect(b"one\ntwo\n")


@pytest.mark.parametrize("before", [b"", b"old words\n" * 500])
def test_a_truncated_file_that_has_grown_again(
    way: str, stack: contextlib.ExitStack, tmp_path: Path, before: bytes
) -> None:
    """Between two looks it was emptied and became longer than it had been: not by its size, but by what is in it."""
    following = Following(stack, tmp_path / "log", before=before)
    following.say(b"one\n")
    following.expect(b"one\n")
    os.truncate(following.path, 0)
    following.say(b"two\n" * 5000)

    following.expect(b"one\n" + b"two\n" * 5000)


def test_a_file_that_was_truncated_before_the_first_word(
    way: str, stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    """What was there before the launch is known, too."""
    following = Following(stack, tmp_path / "log", before=b"old\n")
    os.truncate(following.path, 0)
    following.say(b"new words\n")

    following.expect(b"new words\n")


def test_a_removed_file_is_followed_on(way: str, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """It is the open file that is followed, whatever its name is now."""
    following = Following(stack, tmp_path / "log")
    os.rename(following.path, tmp_path / "log.1")
    following.say(b"one\n")
    following.expect(b"one\n")
    os.unlink(tmp_path / "log.1")
    following.say(b"two\n")

    following.expect(b"one\ntwo\n")


def test_a_mark_takes_all_that_is_there(way: str, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """What was written before the server was ready is relayed, though nobody has been told of it yet."""
    following = Following(stack, tmp_path / "log")
    following.say(b"last words\n")
    following.relay.mark()
    following.take()

    assert following.received == b"last words\n"
    assert following.relay.caught_up


def test_a_mark_takes_no_more(way: str, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """What is written afterwards is not the launch's, until there is no mark any more."""
    following = Following(stack, tmp_path / "log")
    following.say(b"one\n")
    following.relay.mark()
    following.say(b"two\n")
    for _ in range(3):
        following.loop.run_once(0)
        following.relay.look()
    following.take()
    assert following.received == b"one\n"
    assert following.relay.caught_up

    following.relay.unmark()
    following.say(b"three\n")
    following.expect(b"one\ntwo\nthree\n")


def test_a_fast_server_and_a_slow_reader(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """A server that goes on writing faster than the reader reads does not keep the wrapper: a mark is reached."""
    following = Following(stack, tmp_path / "log")
    following.say(b"x" * 200_000)
    following.relay.mark()
    taken = 0
    while not following.relay.caught_up:
        assert taken < 400_000
        following.say(b"y" * 20_000)
        taken += len(os.read(following.read, 10_000))
        following.loop.run_once(0)
        following.relay.look()
    following.take()

    assert taken + len(following.received) == 200_000


@pytest.mark.parametrize("after", [b"", b"longer than that\n"])
def test_a_file_that_is_truncated_after_a_mark(
    stack: contextlib.ExitStack, tmp_path: Path, after: bytes
) -> None:
    """What was not relayed by then has gone, and what comes is not the launch's: nobody waits for it."""
    following = Following(stack, tmp_path / "log")
    following.say(b"one\n")
    following.relay.mark()
    os.truncate(following.path, 0)
    following.say(after)
    following.relay.look()
    following.take()

    assert following.relay.caught_up
    assert following.received == b"one\n"


def test_a_stuck_reader_loses_nothing(way: str, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """While the reader does not read, nothing spins; when it reads again, it gets every byte."""
    following = Following(stack, tmp_path / "log", keep=10)
    data = os.urandom(500_000)
    following.say(data)
    for _ in range(100):
        following.loop.run_once(0)
        following.relay.look()
    assert following.relay.stalled
    assert not following.relay.caught_up
    assert following.relay.next_look is None
    assert not following.loop._poll.poll(0)

    following.expect(data)
    assert following.relay.tail == data[-10:]


def test_a_reader_that_left(way: str, stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """The rest is thrown away, and the file stays whole."""
    following = Following(stack, tmp_path / "log")
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, following.read)
    os.close(null)
    following.say(b"x" * 200_000)
    following.run(lambda: following.relay.total == 200_000)

    assert isinstance(following.sink.error, BrokenPipeError)
    assert following.relay.caught_up


class Busy(FileRelay):
    """A file whose server is always faster: for every chunk that is taken another has been written."""

    grow = staticmethod(lambda: None)

    def _take(self, data: bytes) -> None:
        self.grow()
        super()._take(data)


def test_a_fast_server_does_not_keep_the_loop(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """A server that writes faster than we copy cannot keep us from its end, the deadline, or a Ctrl-C: a look ends."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    with open(path, "ab", buffering=0) as write, open(path, "rb") as read:
        relay = Busy(Loop(), read.fileno(), Sink(None))
        stack.callback(relay.stop)
        relay.grow = lambda: write.write(b"x" * 65536) if relay.total < (64 << 20) else None  # type: ignore[assignment,method-assign]
        write.write(b"x" * 65536)
        relay.look()

        assert relay.total < 32 << 20


def test_a_large_file_takes_no_memory(tmp_path: Path) -> None:
    """Copied in small chunks, whatever its size."""
    code = """
import resource, os
from daemonize.posix import streams, follow
from daemonize.posix.loop import Loop
import sys
source = os.open(sys.argv[1], os.O_RDONLY)
relay = follow.FileRelay(Loop(), source, streams.Sink(1))
os.truncate(sys.argv[1], 1 << 29)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
while relay.total < 1 << 29:
    relay.look()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)
"""
    path = tmp_path / "large"
    path.write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", code, path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )

    assert int(done.stderr) < 8 * 1024
