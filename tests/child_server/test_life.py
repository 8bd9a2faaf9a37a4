"""A server is there from the end of `start` to the end of `stop`, and never anything else: what upstream tests, and more."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import tempfile
import warnings
from typing import TYPE_CHECKING

import pytest

from daemonize import (
    ChannelTimedOut,
    ChildServer,
    InvalidState,
    PeerGone,
    RemoteError,
    ServerAlreadyStarted,
    ServerNotStarted,
    UnknownMessage,
    message_handler,
)
from tests.support import procs
from tests.support.child_servers import Echo, ask

if TYPE_CHECKING:
    from collections.abc import Callable

# --- upstream --------------------------------------------------------------------------------------------------------


def test_start_and_stop_again_and_again() -> None:
    """The same object, another process each time, and no zombie of any."""
    server, pids = Echo(), set()
    for _ in range(5):
        server.start()
        assert server.started
        pids.add(server.server_pid)
        assert ask(server, "pid") == [str(server.server_pid)]
        server.stop()
        assert not server.started

    assert len(pids) == 5
    assert server.exit_status == 0


def test_a_second_start_is_refused() -> None:
    """The first goes on."""
    with Echo() as server:
        with pytest.raises(
            ServerAlreadyStarted, match=f"Echo has already been started \\(pid {server.server_pid}\\)"
        ):
            server.start()
        assert ask(server, "echo", "still there") == ["still there"]


def test_what_is_not_started() -> None:
    """Cannot be stopped, nor spoken to; nor can it again when it has been stopped."""
    server = Echo()
    for words in (r"has not been started: call start\(\) first", r"has been stopped: call start\(\) again"):
        with pytest.raises(ServerNotStarted, match=f"Echo {words}"):
            server.stop()
        with pytest.raises(ServerNotStarted):
            _ = server.server
        assert (server.started, server.alive, server.server_pid) == (False, False, None)
        server.start()
        server.stop()


def test_random_numbers_differ() -> None:
    """From start to start, though all are copies of one process."""
    server, numbers = Echo(), set()
    for _ in range(4):
        with server:
            numbers.update(ask(server, "random") or ())

    assert len(numbers) == 4


def test_a_killed_server() -> None:
    """Is told: nothing more comes, and nobody reads. It works again after stop and start."""
    server = Echo().start()
    assert server.server_pid
    os.kill(server.server_pid, signal.SIGKILL)
    assert procs.wait_ended(server.server_pid)

    assert server.server.read() is None
    with pytest.raises(PeerGone):
        server.server.write("echo")
    assert (server.started, server.alive, server.exit_status) == (True, False, 137)
    server.stop()
    assert server.exit_status == 137
    with server:
        assert ask(server, "echo", "again") == ["again"]
        assert server.exit_status is None


def test_messages_of_every_kind() -> None:
    """Lists, scalars and descriptors, mixed, in order, also of three kilobytes, a thousand times."""

    class Mixed(ChildServer):
        @message_handler
        def mixed(self, text: str) -> None:
            data, fd = self.client.read_scalar(), self.client.recv_io()
            assert data is not None
            assert fd is not None
            os.write(fd, data)
            self.client.write(text, "")
            self.client.write_scalar(data)
            self.client.send_io(fd)
            os.close(fd)

    with Mixed() as server, tempfile.TemporaryFile() as file:
        for number in range(1000):
            text, data = f"{number} {'x' * 3000}", number.to_bytes(4) * 700
            server.server.write("mixed", text)
            server.server.write_scalar(data)
            server.server.send_io(file)
            assert server.server.read() == [text, ""]
            assert server.server.read_scalar() == data
            fd = server.server.recv_io()
            assert fd is not None
            assert os.path.sameopenfile(fd, file.fileno())
            os.close(fd)
        assert os.fstat(file.fileno()).st_size == 1000 * 2800


def test_hooks_run_where_they_are_to() -> None:
    """before_fork in the owner; initialize and finalize in the server, the latter also when the channel ends."""
    told, tell = os.pipe()

    class Hooks(Echo):
        def _say(self, what: str) -> None:
            os.write(tell, f"{what} {os.getpid()}\n".encode())

        def before_fork(self) -> None:
            self._say("before_fork")

        def initialize_server(self) -> None:
            self._say("initialize")

        def finalize_server(self) -> None:
            self._say("finalize")

    with os.fdopen(told) as lines, Hooks(keep_fds=[tell]) as server:
        pid = server.server_pid
        server.stop()
        os.close(tell)
        assert lines.read() == f"before_fork {os.getpid()}\ninitialize {pid}\nfinalize {pid}\n"


# --- handlers --------------------------------------------------------------------------------------------------------


def test_the_three_ways_to_define_a_handler() -> None:
    """Decorated, by name, by function; a name of its own, several names; one that a subclass overrides."""

    class Named(ChildServer):
        def __init__(self) -> None:
            super().__init__()
            self.define_message_handler("by name", "_by_name")
            self.define_message_handler("by function", lambda: self.client.write("function"))

        @message_handler("one")
        @message_handler("two words")
        def several(self) -> None:
            self.client.write("several")

        @message_handler
        def overridden(self) -> None:
            self.client.write("base")

        def _by_name(self) -> None:
            self.client.write("name")

    class Below(Named):
        def overridden(self) -> None:
            self.client.write("below")

    with Below() as server:
        for message, answer in {
            "by name": "name",
            "by function": "function",
            "one": "several",
            "two words": "several",
            "overridden": "below",
        }.items():
            assert ask(server, message) == [answer]


def test_a_subclass_that_forgets_to_call_its_base() -> None:
    """Is a server all the same."""

    class Forgetful(Echo):
        def __init__(self) -> None:
            self.value = 1

    with Forgetful() as server:
        assert ask(server, "echo", "a") == ["a"]


@pytest.mark.parametrize("message", [["frobnicate"], [], ["", "a"], ["initialize_server"], ["_handler_of"]])
def test_an_unknown_message_is_answered_so(message: list[str]) -> None:
    """And the server goes on."""
    with Echo() as server:
        server.server.write(*message)
        with pytest.raises(UnknownMessage) as caught:
            server.server.read()

        assert caught.value.message == "".join(message[:1])
        assert "echo, fail, hang" in str(caught.value)
        assert ask(server, "echo", "still there") == ["still there"]


def test_an_exception_in_a_handler_is_answered() -> None:
    """With its traceback, and the name of the message; so are too few arguments."""
    with Echo() as server:
        with pytest.raises(RemoteError) as caught:
            ask(server, "fail", "no such thing")
        with pytest.raises(RemoteError, match=r"TypeError: .*missing 1 required positional argument"):
            ask(server, "fail")

        assert (caught.value.type, caught.value.text, caught.value.message) == (
            "ValueError",
            "no such thing",
            "fail",
        )
        assert "raise ValueError(text)" in caught.value.traceback
        assert "body.py" not in caught.value.traceback
        assert ask(server, "echo", "still there") == ["still there"]


def test_what_is_no_message_is_refused() -> None:
    """A scalar that nobody asked for, one that is too large, an error: the next message is handled."""
    with Echo(max_size=100) as server:
        server.server.write_scalar(b"surprise")
        with pytest.raises(RemoteError, match="UnexpectedMessage"):
            server.server.read()
        server.server.write("echo", "x" * 200)
        with pytest.raises(RemoteError, match="MessageTooLarge"):
            server.server.read()
        server.server.write_error(ValueError("mine"))
        with pytest.raises(RemoteError, match="mine"):
            server.server.read()
        assert ask(server, "echo", "still there") == ["still there"]


@pytest.mark.parametrize("message", [["frobnicate"], ["fail", "boom"]])
def test_a_strict_server_ends(message: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """With status 1, and a traceback on its stderr; it is finalized."""
    server = Echo(strict=True).start()
    server.server.write(*message)

    assert server.server.read() is None
    server.stop()
    assert server.exit_status == 1
    assert (
        "boom" if message[1:] else "there is no handler for the message 'frobnicate'"
    ) in capfd.readouterr().err


def test_a_strict_server_whose_owner_does_not_wait_ends_in_peace() -> None:
    """What it cannot answer any more is no failure: a clean end has status 0."""
    server = Echo(strict=True).start()
    for _ in range(100):
        server.server.write("echo", "nobody reads this")
    server.stop()

    assert server.exit_status == 0


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_a_handler_may_leave(status: int) -> None:
    """By sys.exit, whose status is the server's."""
    server = Echo().start()
    server.server.write("leave", str(status))
    assert server.server.read() is None
    server.stop()

    assert server.exit_status == status


def test_quitting_the_main_loop() -> None:
    """After the message; from a signal handler at once, however the server waits."""

    class Quits(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.define_signal_handler(signal.SIGUSR1, lambda _number, _frame: self.quit_main())

    for quitting in (True, False):
        server = Quits().start()
        assert server.server_pid
        if quitting:
            server.server.write("quit")
        else:
            os.kill(server.server_pid, signal.SIGUSR1)
        assert server.server.read(timeout=10) is None
        server.stop()
        assert server.exit_status == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_server_cannot_be_copied(copied: Callable[[object], object]) -> None:
    """The end of a copy would be the end of the server."""
    with Echo() as server:
        with pytest.raises(TypeError, match="Echo stands for a process, and cannot be copied or pickled"):
            copied(server)
        assert ask(server, "echo", "still here") == ["still here"]


def test_what_is_only_for_the_server() -> None:
    """Its owner is told so; and the server that it is none."""

    class Confused(Echo):
        @message_handler
        def starts(self) -> None:
            self.start()

        @message_handler
        def stops(self) -> None:
            self.stop()

    with Confused() as server:
        with pytest.raises(InvalidState, match="only Confused itself, in its own process"):
            _ = server.client
        with pytest.raises(InvalidState, match="only Confused itself, in its own process"):
            server.quit_main()
        for message in ("starts", "stops"):
            with pytest.raises(RemoteError, match="this is Confused itself: only its owner"):
                ask(server, message)


def test_what_a_handler_returns_is_no_answer() -> None:
    """Whoever waits for it would wait for ever: the server says so, and here, where warnings are errors, it answers so."""

    class Returns(Echo):
        def initialize_server(self) -> None:
            warnings.simplefilter("error")

        @message_handler
        def sum(self, *numbers: str) -> int:
            return sum(map(int, numbers))

    with (
        Returns() as server,
        pytest.raises(RemoteError, match="the handler of 'sum' returns is not sent") as caught,
    ):
        ask(server, "sum", "1", "2")
    assert "in the other process:\nTraceback" in caught.value.__notes__[0]


def test_a_timeout_for_every_call() -> None:
    """Of the owner's end; a call may have another one."""

    class Silent(Echo):
        @message_handler
        def nothing(self) -> None:
            pass

    with Silent(timeout="10ms") as server:
        server.server.write("nothing")
        with pytest.raises(ChannelTimedOut, match=r"within 0\.01 s"):
            server.server.read()
        with pytest.raises(ChannelTimedOut, match=r"within 0\.005 s"):
            server.server.read(timeout="5ms")
        assert ask(server, "echo", "a") == ["a"]


def test_one_that_has_closed_its_end_is_about_to_end() -> None:
    """Also while it finalizes: who has read the end of file is not told that it lives. Its status comes with its end."""
    held, release = os.pipe()

    class Lingers(Echo):
        @message_handler
        def close(self) -> None:
            self.client.close()

        def finalize_server(self) -> None:
            os.read(held, 1)

    server = Lingers(keep_fds=[held]).start()
    try:
        assert server.alive
        server.server.write("close")
        assert server.server.read() is None
        assert (server.alive, server.exit_status) == (False, None)
        os.write(release, b"x")
    finally:
        server.stop()
        os.close(held)
        os.close(release)
    assert server.exit_status == 0
