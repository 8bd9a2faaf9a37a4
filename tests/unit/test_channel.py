"""Messages between two ends: none is lost, mixed, cut or taken for another; no descriptor is leaked."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonize import (
    AsyncMessageChannel,
    ChannelBroken,
    ChannelClosed,
    ChannelError,
    ChannelTimedOut,
    DescriptorsLost,
    InvalidState,
    MalformedMessage,
    MessageChannel,
    MessageTooLarge,
    PeerGone,
    RemoteError,
    TruncatedMessage,
    UnexpectedMessage,
    UnknownMessage,
    UsageError,
)
from daemonize.channel import codec
from daemonize.posix import frames
from tests.support import forked, messages, procs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Pair = tuple[MessageChannel, MessageChannel]
#: Larger than both buffers of a socket.
LARGE = 5_000_000


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends."""
    ours, theirs = MessageChannel.pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def bare() -> Iterator[tuple[MessageChannel, socket.socket]]:
    """A channel, and the other end, which says what no channel would."""
    ours, theirs = socket.socketpair()
    with MessageChannel(ours) as channel, theirs:
        yield channel, theirs


def head(kind: bytes, size: int) -> bytes:
    """Of a frame."""
    return kind + size.to_bytes(4, "big")


def descriptors() -> int:
    """How many are open here."""
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def nothing_leaks(*, closes: int = 0) -> Iterator[None]:
    """As many descriptors after the block as before, but for those that it closes."""
    before = descriptors()
    yield
    assert descriptors() == before - closes


def wait_until_asleep(thread: threading.Thread) -> None:
    """It is in a system call that waits; there is no event for that."""
    procs_stat = f"/proc/self/task/{thread.native_id}/stat"
    while procs.read(procs_stat).rpartition(b") ")[2][:1] != b"S":
        select.select([], [], [], 0.001)


# --- the tests of the original, by intent


@pytest.mark.parametrize(
    "strings",
    [
        ["hello"],
        ["hello", "my", "name", "is"],
        ["with spaces", " and more ", "\n\t\0"],
        [""],
        [],
        ["", "", ""],
        ["hello", "", "world", ""],
        ["ümlaut", "漢字", "\U0001f600"],
        ["x" * 70_000],
        [str(number) for number in range(70_000)],
    ],
    ids=lambda strings: f"{len(strings)}",
)
def test_a_list_arrives_as_it_was_written(pair: Pair, strings: list[str]) -> None:
    """Also one of 70,000 bytes, whose length a header of 16 bits cannot say; and what comes after it."""
    ours, theirs = pair
    with ThreadPoolExecutor(1) as other:
        written = other.submit(lambda: (ours.write(*strings), ours.write("next")))

        assert theirs.read() == strings
        assert theirs.read() == ["next"]
        written.result()


@pytest.mark.parametrize("data", [b"", b"hello", bytes(range(256)), os.urandom(LARGE)], ids=len)
def test_a_scalar_arrives_as_it_was_written(pair: Pair, data: bytes) -> None:
    """Empty, binary, and of megabytes."""
    ours, theirs = pair
    with ThreadPoolExecutor(1) as other:
        written = other.submit(ours.write_scalar, data)

        assert theirs.read_scalar() == data
        written.result()


def test_any_row_of_bytes_is_a_scalar(pair: Pair) -> None:
    """It is the bytes that are sent, of however many they are an item."""
    pair[0].write_scalar(bytearray(b"one"))
    pair[0].write_scalar(memoryview(b"two"))
    pair[0].write_scalar(memoryview(b"\1\0\2\0").cast("H"))

    assert [pair[1].read_scalar() for _ in range(3)] == [b"one", b"two", b"\1\0\2\0"]


@pytest.mark.parametrize("read", ["read", "read_scalar", "read_json", "recv_io", "skip"])
def test_the_end_is_none(pair: Pair, read: str) -> None:
    """After all messages, again and again, and whatever is asked for."""
    pair[0].write("last")
    pair[0].close()

    assert pair[1].read() == ["last"]
    assert [getattr(pair[1], read)() or None for _ in range(3)] == [None] * 3


def test_the_end_is_none_where_something_was_left_unread(pair: Pair) -> None:
    """The kernel calls that a reset of the connection; what was written before is there all the same."""
    ours, theirs = pair
    ours.write("a question that nobody reads")
    theirs.write("an answer")
    theirs.close()

    assert ours.read() == ["an answer"]
    assert ours.read() is None


def test_an_echo_by_another_process(pair: Pair) -> None:
    """Whatever is written comes back, and then the end."""
    ours, theirs = pair
    pid = os.fork()
    if pid == 0:
        ours.close()
        while (strings := theirs.read()) is not None:
            theirs.write(*strings)
        os._exit(0)
    theirs.close()
    for strings in (["hello"], [], ["a", "b" * 100_000]):
        ours.write(*strings)
        assert ours.read() == strings
    ours.close()

    assert os.waitpid(pid, 0)[1] == 0


def test_a_program_that_is_executed_has_an_end(pair: Pair) -> None:
    """A channel is made of a number; what was not handed over is not inherited."""
    ours, theirs = pair
    code = (
        "import sys; from daemonize import MessageChannel\n"
        "with MessageChannel(int(sys.argv[1])) as channel: channel.write(*reversed(channel.read()))"
    )
    command = [sys.executable, "-c", code, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as program:
        theirs.close()
        ours.write("to", "and", "fro")

        assert ours.read() == ["fro", "and", "to"]
        assert ours.read() is None
    assert program.returncode == 0


def test_an_open_file_arrives(pair: Pair) -> None:
    """The very file; it is not inherited, and its sender keeps it."""
    with tempfile.TemporaryFile() as file:
        pair[0].send_io(file)
        pair[0].send_io(file.fileno())
        for _ in range(2):
            fd = pair[1].recv_io()
            assert fd is not None
            assert os.path.samestat(os.fstat(fd), os.fstat(file.fileno()))
            assert not os.get_inheritable(fd)
            os.close(fd)
        file.write(b"still open here")


def test_a_channel_can_be_sent_over_a_channel(pair: Pair) -> None:
    """It has a descriptor."""
    one, other = MessageChannel.pair()
    with one:
        pair[0].send_io(other)
        other.close()
        fd = pair[1].recv_io()
        assert fd is not None
        with MessageChannel(fd) as received:
            received.write("through the other one")
        assert one.read() == ["through the other one"]


def test_descriptors_right_after_and_between_other_messages(pair: Pair) -> None:
    """All are written before any is read: no read takes a byte of the next message, and with it the descriptor."""
    read, write = os.pipe()
    for _ in range(20):
        pair[0].write("a list", "of strings")
        pair[0].send_io(read)
        pair[0].write_scalar(b"a scalar")
        pair[0].send_io(read)
        pair[0].send_io(read)
        pair[0].write_json({"an": "object"})
    with nothing_leaks():
        for _ in range(20):
            assert pair[1].read() == ["a list", "of strings"]
            found = [pair[1].recv_io()]
            assert pair[1].read_scalar() == b"a scalar"
            found += [pair[1].recv_io(), pair[1].recv_io()]
            assert pair[1].read_json() == {"an": "object"}
            for fd in found:
                assert fd is not None
                assert os.path.samestat(os.fstat(fd), os.fstat(read))
                os.close(fd)
    os.close(read)
    os.close(write)


def test_a_thousand_messages_of_three_kilobytes(pair: Pair) -> None:
    """As fast as they can be written."""
    text = "x" * 3 * 1024
    with ThreadPoolExecutor(1) as other:
        written = other.submit(lambda: [pair[0].write(str(number), text) for number in range(1000)])

        assert [pair[1].read() for _ in range(1000)] == [[str(number), text] for number in range(1000)]
        written.result()


def test_mixed_messages_between_two_processes() -> None:
    """20,000 of every kind, both ways at once, and each is what was written."""
    with nothing_leaks():
        assert messages.exchange(1, 10_000) == (0, 0)


# --- strings, objects, and what cannot be written


@pytest.mark.parametrize("data", [b"\xff", b"\xc3", b"na\xefve", bytes(range(256))])
def test_bytes_that_are_not_utf_8_survive(pair: Pair, data: bytes) -> None:
    """Both ways: as the name of a file that somebody else has made."""
    pair[0].write(data, os.fsdecode(data))
    strings = pair[1].read()

    assert strings == [os.fsdecode(data)] * 2
    pair[1].write(*strings)
    assert [os.fsencode(string) for string in pair[0].read() or ()] == [data] * 2


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, True, "ü\udcff\ud800"]}, {"": {"deep": {}}}])
def test_an_object_arrives_as_it_was_written(pair: Pair, value: dict[str, Any]) -> None:
    """Whatever JSON can say."""
    pair[0].write_json(value)

    assert pair[1].read_json() == value


@pytest.mark.parametrize(
    "write",
    [
        lambda channel: channel.write("fine", 5),
        lambda channel: channel.write("\ud800"),
        lambda channel: channel.write(None),
        lambda channel: channel.write_scalar("text"),
        lambda channel: channel.write_scalar(memoryview(b"12345678")[::2]),
        lambda channel: channel.write_json([]),
        lambda channel: channel.write_json({"a": object()}),
        lambda channel: channel.write_json({"a": float("nan")}),
        lambda channel: channel.send_io("file"),
        lambda channel: channel.send_io(-1),
        lambda channel: channel.send_io(1 << 40),
        lambda channel: channel.send_io(999),
        lambda channel: channel.send_io(SimpleNamespace(fileno=lambda: "3")),
        lambda channel: channel.send_io(SimpleNamespace(fileno=3)),
        lambda _: MessageChannel(SimpleNamespace(fileno=lambda: None, detach=print)),  # type: ignore[arg-type]
        lambda _: MessageChannel(SimpleNamespace(fileno=lambda: "3", detach=print)),  # type: ignore[arg-type]
        lambda channel: channel.write("late", timeout=-1),
        lambda channel: channel.write("late", timeout=float("nan")),
        lambda channel: channel.read(timeout=-0.1),
        lambda channel: channel.read(timeout=[]),
        lambda channel: channel.read(max_size="1K"),
        lambda channel: channel.read_scalar(max_size=-1),
        lambda _: MessageChannel.pair(max_size=1.5),  # type: ignore[arg-type]
        lambda channel: channel.read(timeout=1j),
        lambda channel: channel.read(timeout=10**400),
    ],
)
def test_what_cannot_be_written_is_a_usage_error(
    pair: Pair, write: Callable[[MessageChannel], object]
) -> None:
    """Nothing of it is sent, and the channel is as before."""
    with pytest.raises(UsageError):
        write(pair[0])
    pair[0].write("next")

    assert pair[1].read() == ["next"]


def test_a_closed_file_cannot_be_sent(pair: Pair) -> None:
    """It has no descriptor any more."""
    with tempfile.TemporaryFile() as file:
        pass
    with pytest.raises(UsageError):
        pair[0].send_io(file)


def test_a_length_that_32_bits_cannot_say(pair: Pair) -> None:
    """Nothing is sent; the memory of it is never touched."""
    with pytest.raises(MessageTooLarge) as caught:
        pair[0].write_scalar(bytes(1 << 32))
    pair[0].write("next")

    assert (caught.value.size, caught.value.limit) == (1 << 32, (1 << 32) - 1)
    assert pair[1].read() == ["next"]


# --- another kind, and limits


KINDS: dict[str, tuple[Callable[[MessageChannel], object], Callable[[MessageChannel], object], object]] = {
    "list": (lambda channel: channel.write("a"), lambda channel: channel.read(), ["a"]),
    "scalar": (lambda channel: channel.write_scalar(b"a"), lambda channel: channel.read_scalar(), b"a"),
    "object": (lambda channel: channel.write_json({}), lambda channel: channel.read_json(), {}),
    "descriptor": (
        lambda channel: channel.send_io(0),
        lambda channel: os.close(channel.recv_io() or -1),
        None,
    ),
}


@pytest.mark.parametrize("found", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_a_message_of_another_kind_is_still_there(pair: Pair, wanted: str, found: str) -> None:
    """It is named, and read by the right call, or skipped; no descriptor of it is left."""
    with nothing_leaks():
        for _ in range(2):
            KINDS[found][0](pair[0])
        if wanted != found:
            for _ in range(2):
                with pytest.raises(UnexpectedMessage) as caught:
                    KINDS[wanted][1](pair[1])
                assert (caught.value.wanted, caught.value.found) == (wanted, found)
        assert KINDS[found][1](pair[1]) == KINDS[found][2]
        assert pair[1].skip()


def test_a_message_that_is_too_large_is_still_there(pair: Pair) -> None:
    """Nothing of it is read; it can be read with more, or skipped."""
    for _ in range(2):
        pair[0].write_scalar(b"12345")
    for _ in range(2):
        with pytest.raises(MessageTooLarge) as caught:
            pair[1].read_scalar(max_size=4)
        assert (caught.value.size, caught.value.limit) == (5, 4)
    assert pair[1].read_scalar(max_size=5) == b"12345"
    with pytest.raises(MessageTooLarge):
        pair[1].read_scalar(max_size=0)
    assert pair[1].skip()
    pair[0].write("next")

    assert pair[1].read() == ["next"]


@pytest.mark.parametrize("read", ["read", "read_scalar", "read_json"])
def test_a_limit_is_checked_before_the_body_comes(
    bare: tuple[MessageChannel, socket.socket], read: str
) -> None:
    """Four gigabytes are announced, and nothing is waited for, or allocated."""
    kind = {"read": b"L", "read_scalar": b"S", "read_json": b"J"}[read]
    bare[1].sendall(head(kind, (1 << 32) - 1))

    with pytest.raises(MessageTooLarge):
        getattr(bare[0], read)()


def test_what_is_announced_takes_no_memory(bare: tuple[MessageChannel, socket.socket]) -> None:
    """Also where four gigabytes are allowed: memory is taken for what has come."""
    bare[1].sendall(head(b"S", (1 << 32) - 1) + b"a little")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ChannelTimedOut):
        bare[0].read_scalar(max_size=1 << 32, timeout=0.01)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000


def test_a_large_message_is_skipped(pair: Pair) -> None:
    """And what comes after it is read."""
    with ThreadPoolExecutor(1) as other:
        written = other.submit(lambda: (pair[0].write_scalar(bytes(LARGE)), pair[0].write("next")))

        assert pair[1].skip()
        assert pair[1].read() == ["next"]
        written.result()


# --- errors


READS: dict[str, Callable[[MessageChannel], object]] = {
    "read": MessageChannel.read,
    "read_scalar": MessageChannel.read_scalar,
    "read_json": MessageChannel.read_json,
    "recv_io": MessageChannel.recv_io,
}


class Odd(Exception):
    """What cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


def failure() -> Exception:
    """One with a traceback."""
    try:
        int("no number")
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("read", READS)
def test_an_error_is_raised_by_whatever_is_read_next(pair: Pair, read: str) -> None:
    """With type, text, message and traceback; it has been taken off then."""
    pair[0].write_error(failure(), message="count")
    pair[0].write("next")
    with pytest.raises(RemoteError) as caught:
        READS[read](pair[1])

    assert (caught.value.type, caught.value.message) == ("ValueError", "count")
    assert "no number" in caught.value.text
    assert 'int("no number")' in caught.value.traceback
    assert str(caught.value).startswith("the message 'count' was answered with an error: ValueError: invalid")
    assert pair[1].read() == ["next"]


def test_an_error_is_skipped(pair: Pair) -> None:
    """As any message."""
    pair[0].write_error(failure())
    pair[0].write("next")

    assert pair[1].skip()
    assert pair[1].read() == ["next"]


def test_an_error_comes_whatever_the_limit(pair: Pair) -> None:
    """The limit of a read is for what was asked for."""
    pair[0].write_error(failure())

    with pytest.raises(RemoteError):
        pair[1].read_scalar(max_size=3)


def test_an_unknown_message_is_told_from_other_errors(pair: Pair) -> None:
    """By its class."""
    pair[0].write_error(UnknownMessage.of("frobnicate", ["open", "close"]))
    with pytest.raises(UnknownMessage) as caught:
        pair[1].read()

    assert caught.value.message == "frobnicate"
    assert (
        str(caught.value)
        == "there is no handler for the message 'frobnicate' (messages with a handler: close, open)"
    )


def test_an_error_is_shortened(pair: Pair) -> None:
    """However long it is: both ends of its traceback are there. One that cannot be shown has its type."""

    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        raise ValueError("\U0001f600" * 100_000)

    with pytest.raises(ValueError) as caught:
        deep(300)
    with ThreadPoolExecutor() as pool:
        pool.submit(pair[0].write_error, caught.value, message="m" * 10_000)
        with pytest.raises(RemoteError) as received:
            pair[1].read(max_size=0)
    pair[0].write_error(Odd())
    with pytest.raises(RemoteError) as odd:
        pair[1].read()

    assert len(received.value.text) < 4001
    assert len(received.value.traceback) < 16_001
    assert received.value.traceback.startswith("Traceback")
    assert (odd.value.type.rpartition(".")[2], odd.value.text) == ("Odd", "")


@pytest.mark.parametrize(
    ("error", "message"), [("text", ""), (None, ""), (ValueError, ""), (ValueError(), 3)]
)
def test_what_is_no_error(pair: Pair, error: Any, message: Any) -> None:
    """Nothing has been sent then."""
    with pytest.raises(UsageError, match="an error is an exception and the name of a message"):
        pair[0].write_error(error, message=message)
    pair[0].write("next")

    assert pair[1].read() == ["next"]


# --- the codec: any split, truncation, surplus descriptors, nonsense


Sent = list[str] | bytes | dict[str, Any] | RemoteError
STRINGS = st.lists(st.binary(max_size=40).map(os.fsdecode), max_size=5)
OBJECTS = st.dictionaries(
    st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=9), st.none()), max_size=4
)
TEXTS = st.text(max_size=20)
ERRORS = st.builds(RemoteError, TEXTS, TEXTS, TEXTS, TEXTS)
SENT = st.lists(st.one_of(STRINGS, st.binary(max_size=300), OBJECTS, ERRORS), max_size=6)


def frame_of(message: Sent) -> bytes:
    """As it goes over the socket."""
    if isinstance(message, list):
        body = codec.body_of_list(message)
        return head(frames.LIST, len(body)) + body
    if isinstance(message, bytes):
        return head(frames.SCALAR, len(message)) + message
    if isinstance(message, RemoteError):
        body = codec.body_of_error(message, "")
        return head(frames.ERROR, len(body)) + body
    body = codec.body_of_object(message)
    return head(frames.OBJECT, len(body)) + body


@given(SENT, st.data())
def test_any_split(sent: list[Sent], data: st.DataObject) -> None:
    """However the bytes come, and however often somebody has tried to read in between, the messages are what they were."""
    whole = b"".join(map(frame_of, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    ours, theirs = socket.socketpair()
    received: list[messages.Message | RemoteError | None] = []

    def try_all(channel: MessageChannel) -> None:
        while len(received) < len(sent):
            kind = sent[len(received)]
            reads: dict[Any, Any] = {list: channel.read, bytes: channel.read_scalar, dict: channel.read_json}
            try:
                received.append(reads.get(type(kind), channel.read)(timeout=0))
            except RemoteError as error:
                received.append(error)
            except ChannelTimedOut:
                return

    with MessageChannel(ours) as channel, theirs:
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            theirs.sendall(whole[start:end])
            try_all(channel)
        theirs.close()

        assert list(map(comparable, received)) == list(map(comparable, sent))
        assert channel.read() is None


def comparable(message: object) -> object:
    """Errors are alike if all they say is."""
    if isinstance(message, RemoteError):
        kind = UnknownMessage if message.type == "UnknownMessage" else RemoteError
        return kind.__name__, *message.args
    return message


@given(st.one_of(STRINGS, st.binary(max_size=300), OBJECTS, ERRORS), st.data())
def test_any_truncation(message: Sent, data: st.DataObject) -> None:
    """What was cut off is not the end of file, and not a message: again and again, whatever is asked."""
    whole = frame_of(message)
    size = data.draw(st.integers(1, len(whole) - 1))
    ours, theirs = socket.socketpair()
    with MessageChannel(ours) as channel:
        with theirs:
            theirs.sendall(whole[:size])
        reads: dict[Any, Any] = {list: channel.read, bytes: channel.read_scalar, dict: channel.read_json}
        read = reads.get(type(message), channel.read)
        for _ in range(2):
            with pytest.raises(TruncatedMessage) as caught:
                read()
        with pytest.raises(TruncatedMessage):
            channel.skip()

    if size < 5:
        assert (caught.value.received, caught.value.size) == (size, None)
    else:
        assert (caught.value.received, caught.value.size) == (size - 5, len(whole) - 5)


@given(st.one_of(STRINGS, st.binary(max_size=300), OBJECTS), st.integers(1, 5), st.data())
def test_any_surplus_descriptors(message: Sent, count: int, data: st.DataObject) -> None:
    """Wherever they come, they are closed, and the message is what it was."""
    whole = frame_of(message)
    at = data.draw(st.integers(0, len(whole) - 1))
    ours, theirs = socket.socketpair()
    with MessageChannel(ours) as channel, theirs, nothing_leaks():
        theirs.sendall(whole[:at])
        socket.send_fds(theirs, [whole[at:]], [0] * count)
        read = {list: channel.read, bytes: channel.read_scalar, dict: channel.read_json}[type(message)]

        assert read() == message


@given(st.binary(min_size=1, max_size=60), st.integers(0, 3))
def test_random_bytes(data: bytes, count: int) -> None:
    """They are an error of the channel, or by chance a message: never another error, nor a wait, nor a leak."""
    with nothing_leaks():
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(theirs, [data], [0] * count)
        channel = MessageChannel(ours)
        for read in (channel.read, channel.read_scalar, channel.read_json, channel.recv_io, channel.skip):
            with contextlib.suppress(ChannelError):
                received = read()
                if isinstance(received, int) and not isinstance(received, bool):
                    os.close(received)
        channel.close()


@given(st.binary(max_size=60))
def test_random_bodies(body: bytes) -> None:
    """A body that is no list, or no object, is named; the next message is read."""
    ours, theirs = socket.socketpair()
    with MessageChannel(ours) as channel, theirs:
        theirs.sendall(head(b"L", len(body)) + body + head(b"J", len(body)) + body)
        theirs.sendall(head(b"E", len(body)) + body + frame_of(["next"]))
        for read in (channel.read, channel.read_json, channel.read):
            with contextlib.suppress(MalformedMessage):
                read()

        assert channel.read() == ["next"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{", b"{}{}", b'{"a": NaN}', b'{"a": -Infinity}', b"\xff{}", '{"a": 1}'.encode("utf-16"),
        b'{"a":' * 100_000, b"9" * 10_000,
    ],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_object(bare: tuple[MessageChannel, socket.socket], body: bytes) -> None:
    """Each is named, none is another error; the next message is read."""
    channel, theirs = bare
    with ThreadPoolExecutor(1) as other:
        sent = other.submit(theirs.sendall, head(b"J", len(body)) + body + frame_of(["next"]))
        with pytest.raises(MalformedMessage):
            channel.read_json()
        assert channel.read() == ["next"]
        sent.result()


@pytest.mark.parametrize(
    "text", [head(b"X", 1), head(b"\0", 0), head(b"K", 3), head(b"D", 1), b"GET / HTTP/1.1\r\n"]
)
def test_nonsense_is_for_ever(bare: tuple[MessageChannel, socket.socket], text: bytes) -> None:
    """There is no telling where the next message begins; what came with it is closed. What keepers say is nonsense here."""
    channel, theirs = bare
    with nothing_leaks():
        socket.send_fds(theirs, [text + frame_of(["next"])], [0])
        for read in (channel.read, channel.recv_io, channel.skip):
            with pytest.raises(MalformedMessage):
                read()


def test_a_message_of_a_descriptor_without_one(bare: tuple[MessageChannel, socket.socket]) -> None:
    """It is nonsense, and the next one is read."""
    channel, theirs = bare
    theirs.sendall(head(b"D", 0) + frame_of(["next"]))
    with pytest.raises(MalformedMessage):
        channel.recv_io()

    assert channel.read() == ["next"]


def test_of_many_descriptors_one_is_given(bare: tuple[MessageChannel, socket.socket]) -> None:
    """The first; the others are closed."""
    channel, theirs = bare
    read, write = os.pipe()
    with nothing_leaks():
        socket.send_fds(theirs, [head(b"D", 0)], [read, write, 0, 1, 2])
        fd = channel.recv_io()
        assert fd is not None
        assert os.path.samestat(os.fstat(fd), os.fstat(read))
        os.close(fd)
    os.close(read)
    os.close(write)


def test_descriptors_that_cannot_be_received_are_an_error(bare: tuple[MessageChannel, socket.socket]) -> None:
    """Where no more may be open: those that did come are closed, and the next message is read."""
    channel, theirs = bare
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with nothing_leaks():
        free = os.dup(0)
        os.close(free)
        socket.send_fds(theirs, [head(b"D", 0)], [0] * 3)
        theirs.sendall(frame_of(["next"]))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 2, limits[1]))
        try:
            with pytest.raises(DescriptorsLost):
                channel.recv_io()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        assert channel.read() == ["next"]


@pytest.mark.parametrize("what", ["refused", "truncated", "unread", "half a head"])
def test_closing_takes_descriptors_that_nobody_has_taken(what: str) -> None:
    """Of a message that was refused, cut off, or never read."""
    with nothing_leaks():
        ours, theirs = socket.socketpair()
        with MessageChannel(ours) as channel, theirs:
            size = 2 if what in ("truncated", "half a head") else 5
            socket.send_fds(theirs, [head(b"D", 0)[:size]], [0])
            if what == "truncated":
                theirs.close()
            if what != "unread":
                with pytest.raises((UnexpectedMessage, TruncatedMessage, ChannelTimedOut)):
                    channel.read(timeout=0)


def test_a_channel_that_nobody_closes_leaks_no_descriptor() -> None:
    """It is complained of, as any socket is."""
    with nothing_leaks():
        ours, theirs = socket.socketpair()
        channel = MessageChannel(ours)
        with theirs:
            socket.send_fds(theirs, [head(b"D", 0)], [0])
            with pytest.raises(UnexpectedMessage):
                channel.read()
        with pytest.warns(ResourceWarning):
            del channel


# --- timeouts, and ends in the middle


@pytest.mark.parametrize("timeout", [0, 0.01])
@pytest.mark.parametrize("read", ["read", "read_scalar", "read_json", "recv_io", "skip"])
def test_nothing_comes_in_time(pair: Pair, read: str, timeout: float) -> None:
    """A TimeoutError, by the call's timeout or the channel's; nothing is lost."""
    with pytest.raises(TimeoutError):
        getattr(pair[0], read)(timeout=timeout)
    pair[0].timeout = timeout
    with pytest.raises(ChannelTimedOut) as caught:
        getattr(pair[0], read)()
    pair[1].write("late")

    assert (caught.value.action, caught.value.timeout) == ("read", timeout)
    assert pair[0].read(timeout=None) == ["late"]


def test_a_timeout_is_for_the_whole_message(bare: tuple[MessageChannel, socket.socket]) -> None:
    """Whoever sends a byte now and then does not hold the reader; what he has sent is not lost."""
    channel, theirs = bare
    whole = frame_of(["hello"])
    stop = threading.Event()

    def drip() -> int:
        for number in range(len(whole) - 1):
            theirs.sendall(whole[number : number + 1])
            if stop.wait(0.02):
                return number + 1
        return len(whole) - 1

    with ThreadPoolExecutor(1) as other:
        dripped = other.submit(drip)
        with pytest.raises(ChannelTimedOut):
            channel.read(timeout=0.1)
        stop.set()
    theirs.sendall(whole[dripped.result() :])

    assert channel.read() == ["hello"]


def test_nobody_reads_in_time(pair: Pair) -> None:
    """Nothing of a message was sent: the channel is whole. A part of one was: it is broken, and the reader is told so."""
    ours, theirs = pair
    sent = 0
    with contextlib.suppress(ChannelTimedOut):
        while True:
            ours.write("x" * 1000, timeout=0.01)
            sent += 1
    with pytest.raises(ChannelTimedOut) as caught:
        ours.write("x" * 1000, timeout=0.01)
    assert (caught.value.action, caught.value.timeout) == ("write", 0.01)
    assert [theirs.read() for _ in range(sent)] == [["x" * 1000]] * sent
    ours.write("whole", timeout=0.01)
    assert theirs.read() == ["whole"]

    with pytest.raises(ChannelTimedOut):
        ours.write_scalar(bytes(LARGE), timeout=0.01)
    for _ in range(2):
        with pytest.raises(ChannelBroken):
            ours.write("more")
    with pytest.raises(TruncatedMessage):
        theirs.read_scalar()
    theirs.write("the other direction")
    assert ours.read() == ["the other direction"]


def test_nobody_is_there(pair: Pair) -> None:
    """A BrokenPipeError, and no signal; also in the middle of a message, and where something was left unread."""
    ours, theirs = pair
    with ThreadPoolExecutor(1) as other:
        written = other.submit(ours.write_scalar, bytes(LARGE))
        with pytest.raises(MessageTooLarge):
            theirs.read_scalar(max_size=0)
        theirs.close()
        with pytest.raises(PeerGone):
            written.result()
    with pytest.raises(ChannelBroken):
        ours.write("hello?")
    one, other_end = MessageChannel.pair()
    with one:
        one.write("unread")
        other_end.close()
        for _ in range(3):
            with pytest.raises(BrokenPipeError):
                one.write("hello?")


class Interrupted(Exception):
    """What a signal handler raises."""


@contextlib.contextmanager
def interrupted_by(handle: Callable[..., object]) -> Iterator[None]:
    """A signal about every millisecond."""
    before, over = signal.signal(signal.SIGUSR1, handle), threading.Event()

    def interrupt() -> None:
        while not over.wait(0.001):
            os.kill(os.getpid(), signal.SIGUSR1)

    with ThreadPoolExecutor(1) as other:
        interrupting = other.submit(interrupt)
        try:
            yield
        finally:
            over.set()
            interrupting.result()
            signal.signal(signal.SIGUSR1, before)


def test_signals_disturb_nobody(pair: Pair) -> None:
    """EINTR, in the middle of messages of megabytes, in both directions."""
    seen: list[int] = []
    data = os.urandom(LARGE)
    with interrupted_by(lambda number, _: seen.append(number)), ThreadPoolExecutor(1) as other:
        for _ in range(5):
            written = other.submit(pair[0].write_scalar, data)
            assert pair[1].read_scalar() == data
            written.result()
            read = other.submit(pair[1].read_scalar)
            pair[0].write_scalar(data)
            assert read.result() == data
        while not seen:
            select.select([], [], [], 0.001)


def test_a_handler_that_raises_in_the_middle_of_a_message(pair: Pair) -> None:
    """Whatever the moment, the next call goes on from there: what is read is whole, and in order.

    Only what a call was about to return is gone with it, if the handler raises then.
    """
    count, interruptions, reading = 500, 0, False

    def interrupt(*_: object) -> None:
        nonlocal reading, interruptions
        if reading:
            reading, interruptions = False, interruptions + 1
            raise Interrupted

    def say_all() -> None:
        for number in range(count):
            pair[0].write_scalar(number.to_bytes(4) * 50_000)
            pair[0].send_io(0)
        pair[0].close()

    received: list[bytes] = []
    with nothing_leaks(closes=1), ThreadPoolExecutor(1) as other:
        said = other.submit(say_all)
        with interrupted_by(interrupt):
            while True:
                scalar: bytes | None = b""
                with contextlib.suppress(Interrupted):
                    try:
                        reading = True
                        scalar = pair[1].read_scalar()
                        reading = False
                    except UnexpectedMessage:
                        reading = False
                        pair[1].skip()  # it follows a scalar that was about to be returned
                if scalar is None:
                    break
                if scalar:
                    received.append(scalar)
                    os.close(pair[1].recv_io() or -1)
        said.result()
    numbers = [int.from_bytes(scalar[:4]) for scalar in received]

    assert [number.to_bytes(4) * 50_000 for number in numbers] == received
    assert sorted(set(numbers)) == numbers
    assert interruptions
    assert count - len(numbers) <= interruptions / 2


def test_a_handler_that_raises_in_the_middle_of_a_write() -> None:
    """What is read is whole, or the channel is broken, and both ends are told so: never is one message taken for another."""
    count, interruptions, broken, writing = 30, 0, 0, False

    def interrupt(*_: object) -> None:
        nonlocal writing, interruptions
        if writing:
            writing, interruptions = False, interruptions + 1
            raise Interrupted

    def read_all(channel: MessageChannel) -> list[bytes | None]:
        received: list[bytes | None] = []
        try:
            while (scalar := channel.read_scalar()) is not None:
                received.append(scalar)
        except TruncatedMessage:
            received.append(None)
        return received

    for _ in range(50):
        ours, theirs = MessageChannel.pair()
        is_broken = False
        with ours, theirs, ThreadPoolExecutor(1) as other:
            reading = other.submit(read_all, theirs)
            with interrupted_by(interrupt):
                for number in range(count):
                    with contextlib.suppress(Interrupted):
                        try:
                            writing = True
                            ours.write_scalar(bytes([number]) * 300_000)
                            writing = False
                        except ChannelBroken:
                            writing = False
                            is_broken = True
                    if is_broken:
                        break
            ours.close()
            received = reading.result()
        whole = [scalar for scalar in received if scalar is not None]
        assert [scalar[:1] * 300_000 for scalar in whole] == whole
        assert (len(received) > len(whole)) >= is_broken
        broken += is_broken

    assert interruptions > 0
    assert broken > 0


def test_a_handler_cannot_use_the_channel_in_the_middle_of_a_call(pair: Pair) -> None:
    """It would wait for itself for ever, or mix its message with another; it can close the channel."""
    errors: list[BaseException] = []

    def use(*_: object) -> None:
        try:
            pair[0].read()
        except InvalidState as error:
            errors.append(error)
        pair[0].close()

    with interrupted_by(use), pytest.raises(ChannelClosed):
        pair[0].read()

    assert errors


# --- closing


def test_what_is_closed_says_so() -> None:
    """Each call; closing again does nothing; the descriptor is gone, and is no number of another file."""
    ours, theirs = MessageChannel.pair()
    with ours:
        pass
    ours.close()
    theirs.close()
    calls: list[Callable[[], object]] = [
        ours.read, ours.write, lambda: ours.write_scalar(b""), ours.recv_io, lambda: ours.send_io(0), ours.fileno, ours.skip
    ]  # fmt: skip

    assert ours.closed
    for call in calls:
        with pytest.raises(ChannelClosed):
            call()


@pytest.mark.parametrize("timeout", [None, 60])
def test_closing_in_the_middle_of_a_message(
    bare: tuple[MessageChannel, socket.socket], timeout: float | None
) -> None:
    """It was not the other end that cut it off."""
    channel, theirs = bare
    theirs.sendall(head(b"S", LARGE) + b"a part")
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(channel.read_scalar, timeout=timeout)
        wait_until_asleep(next(iter(other._threads)))
        channel.close()
        with pytest.raises(ChannelClosed):
            reading.result()


@pytest.mark.parametrize("call", ["read", "write"])
@pytest.mark.parametrize("timeout", [None, 60])
def test_closing_ends_the_call_of_another_thread(pair: Pair, call: str, timeout: float | None) -> None:
    """It raises, at once; the descriptor is not closed under it, where it could be that of another file by now."""
    errors: list[type[BaseException]] = []

    def wait() -> None:
        try:
            if call == "read":
                pair[0].read(timeout=timeout)
            else:
                pair[0].write_scalar(bytes(LARGE), timeout=timeout)
        except ChannelError as error:
            errors.append(type(error))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        wait_until_asleep(thread)
    pair[0].close()
    for thread in threads:
        thread.join()

    assert errors == [ChannelClosed] * 3


def test_a_forked_copy_may_be_closed(pair: Pair) -> None:
    """It does no harm to the channel, also where a thread of the parent's was in the middle of a call."""
    ours, theirs = pair
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(ours.read)
        wait_until_asleep(next(iter(other._threads)))
        assert forked.call(lambda: (ours.close(), theirs.close())) == (None, None)
        theirs.write("still", "there")

        assert reading.result() == ["still", "there"]
    ours.write("both ways")
    assert theirs.read() == ["both ways"]


def test_a_forked_copy_may_be_used(pair: Pair) -> None:
    """Where the parent does not: the turn of a thread that was not forked is not waited for."""
    ours, theirs = pair
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(ours.read)
        wait_until_asleep(next(iter(other._threads)))
        forked.call(lambda: (theirs.write("from the child"), ours.write("to the parent")))

        assert reading.result() == ["from the child"]
    assert theirs.read() == ["to the parent"]


# --- threads, selectors, sockets


def test_messages_of_many_threads_never_mix(pair: Pair) -> None:
    """Some larger than any buffer; each arrives once, and whole."""
    ours, theirs = pair
    texts = [str(number) * (LARGE // 10 if number % 10 == 0 else 10) for number in range(100)]
    with ThreadPoolExecutor(8) as readers, ThreadPoolExecutor(8) as writers:
        reads = [readers.submit(theirs.read) for _ in texts]
        writes = [writers.submit(ours.write, text, text) for text in texts]
        received = [read.result() for read in reads]
        for write in writes:
            write.result()

    assert sorted(received) == sorted([text, text] for text in texts)


def test_a_thread_waits_for_its_turn_only_so_long(pair: Pair) -> None:
    """Its own timeout, whatever that of the thread which has the turn."""
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(pair[0].read)
        wait_until_asleep(next(iter(other._threads)))
        with pytest.raises(ChannelTimedOut):
            pair[0].read(timeout=0.01)
        pair[1].write("for the first")

        assert reading.result() == ["for the first"]


def test_a_selector_sees_every_message(pair: Pair) -> None:
    """One read takes one message: the next one is still to be seen, and at the end there is nothing."""
    with selectors.DefaultSelector() as selector:
        selector.register(pair[1], selectors.EVENT_READ)
        for number in range(10):
            pair[0].write(str(number))
            pair[0].write_scalar(b"")
        seen: list[object] = []
        while selector.select(0):
            seen.append(pair[1].read() if len(seen) % 2 == 0 else pair[1].read_scalar())
        assert seen == [value for number in range(10) for value in ([str(number)], b"")]
        pair[0].close()
        assert selector.select(0)
        assert pair[1].read() is None
        pair[1].close()
        selector.unregister(pair[1])


def test_a_socket_becomes_the_channels_own() -> None:
    """It is not closed twice, or under the channel; a default of the program, or O_NONBLOCK, changes nothing."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    os.set_inheritable(theirs.fileno(), True)
    socket.setdefaulttimeout(0.001)
    try:
        with MessageChannel(ours) as one, MessageChannel(theirs.detach()) as other:
            assert ours.fileno() == -1
            assert not os.get_inheritable(other.fileno())
            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(one.read)
                wait_until_asleep(next(iter(pool._threads)))
                os.set_blocking(one.fileno(), False)  # as somebody may who has a copy
                other.write("late")
                assert reading.result() == ["late"]
                reading = pool.submit(one.read_scalar)
                other.write_scalar(bytes(LARGE))
                assert reading.result() == bytes(LARGE)
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("kind", ["datagram", "tcp", "file", "closed", "negative"])
def test_what_is_no_unix_stream_socket(kind: str) -> None:
    """It is refused, and still its owner's."""
    sockets = {"datagram": (socket.AF_UNIX, socket.SOCK_DGRAM), "tcp": (socket.AF_INET, socket.SOCK_STREAM)}
    if kind in sockets:
        with socket.socket(*sockets[kind]) as sock:
            for given in (sock, sock.fileno()):
                with pytest.raises(UsageError):
                    MessageChannel(given)
                assert os.fstat(sock.fileno())
        with pytest.raises(UsageError):
            MessageChannel(sock)
        return
    with tempfile.TemporaryFile() as file, pytest.raises(UsageError):
        MessageChannel({"file": file.fileno(), "closed": 999, "negative": -1}[kind])


def test_errors_can_be_sent_over_a_channel(pair: Pair) -> None:
    """They survive pickling: what one process is told, another can be."""
    pair[0].write_scalar(pickle.dumps(TruncatedMessage(3, 5)))

    assert str(pickle.loads(pair[1].read_scalar() or b"")) == str(TruncatedMessage(3, 5))  # noqa: S301 (our own)


def test_a_channel_is_not_made_of_another() -> None:
    """That one would lose its descriptor, and close a stranger's: nothing is taken. A copy of the descriptor will do."""
    one, other = MessageChannel.pair()
    with one, other:
        for kind in (MessageChannel, AsyncMessageChannel):
            with pytest.raises(UsageError, match="is made of a socket or a descriptor"):
                kind(one)  # type: ignore[arg-type]
        with MessageChannel(os.dup(one.fileno())) as copy:
            copy.write("a")
        one.write("b")
        assert (other.read(), other.read()) == (["a"], ["b"])


def test_whether_somebody_has_the_other_end() -> None:
    """Also where what he has written has not been read."""
    one, other = MessageChannel.pair()
    with one:
        other.write("a")
        assert one.has_peer
        other.close()
        assert not one.has_peer
        assert one.read() == ["a"]


@pytest.mark.parametrize("timeout", ["soon", -1, [], float("nan"), "-1s"])
def test_timeouts_that_cannot_be(timeout: Any) -> None:
    """UsageError; text with a unit can."""
    one, other = MessageChannel.pair()
    with one, other:
        with pytest.raises(UsageError, match=r"timeout|duration|'soon'"):
            one.read(timeout=timeout)
        with pytest.raises(ChannelTimedOut):
            one.read(timeout="1ms")
