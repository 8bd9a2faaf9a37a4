"""`start_synchronously`: the server in the caller's own process, which is afterwards what it was."""

from __future__ import annotations

import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from daemonize import (
    MessageChannel,
    RemoteError,
    ServerAlreadyStarted,
    UnknownMessage,
    UsageError,
    message_handler,
)
from tests.support.child_servers import Echo


def state() -> tuple[object, ...]:
    """Of signals."""
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return handlers, signal.pthread_sigmask(signal.SIG_BLOCK, [])


class Steps(Echo):
    """Notes what is done, and by whom."""

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__(strict=strict)
        self.steps: list[object] = []
        self.define_signal_handler(signal.SIGHUP, lambda *_: self.steps.append("hup"))

    def before_fork(self) -> None:
        """Never."""
        self.steps.append("before_fork")

    def initialize_server(self) -> None:
        """With the signals of a server."""
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self.steps += [os.getpid(), signal.getsignal(signal.SIGUSR1), masked]
        signal.raise_signal(signal.SIGHUP)

    def finalize_server(self) -> None:
        """At the end."""
        self.steps.append("finalized")

    @message_handler
    def note(self) -> None:
        """A message."""
        self.steps.append("noted")


@pytest.mark.parametrize("ends", ["end of file", "quit", "strict", "exit"])
def test_everything_is_put_back(ends: str) -> None:
    """However it ends: handlers and mask; all hooks have run but before_fork."""
    ours, theirs = socket.socketpair()
    server = Steps(strict=ends == "strict")
    handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    before = state()
    try:
        with MessageChannel(ours) as channel:
            channel.write("note")
            if ends == "end of file":
                channel.hang_up()
            else:
                channel.write(*{"quit": ["quit"], "strict": ["nothing"], "exit": ["leave", "3"]}[ends])
            if ends in ("strict", "exit"):
                with pytest.raises((UnknownMessage, SystemExit)):
                    server.start_synchronously(theirs)
            else:
                server.start_synchronously(theirs)
        assert state() == before
    finally:
        signal.signal(signal.SIGUSR1, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    assert server.steps == [os.getpid(), signal.SIG_DFL, set(), "hup", "noted", "finalized"]
    assert not server.started


def test_an_initialisation_that_fails() -> None:
    """Is raised; the server is not finalized, as it has never begun; signals are put back."""

    class Fails(Steps):
        def initialize_server(self) -> None:
            raise LookupError

    ours, theirs = socket.socketpair()
    server, before = Fails(), state()
    with ours, pytest.raises(LookupError):
        server.start_synchronously(theirs)

    assert state() == before
    assert server.steps == []
    assert theirs.fileno() == -1


def test_in_another_thread() -> None:
    """It works without handlers of signals, and signals are left alone; with some it is refused."""
    ours, theirs = socket.socketpair()
    before = state()
    with MessageChannel(ours) as channel, ThreadPoolExecutor() as pool:
        running = pool.submit(Echo().start_synchronously, theirs)
        channel.write("echo", "from a thread")
        assert channel.read(timeout=10) == ["from a thread"]
        assert state() == before
        channel.write("fail", "x")
        with pytest.raises(RemoteError):
            channel.read(timeout=10)
        channel.hang_up()
        running.result()

        one, other = socket.socketpair()
        with one, other, pytest.raises(UsageError, match="only the main thread"):
            pool.submit(Steps().start_synchronously, one).result()


def test_one_at_a_time() -> None:
    """Neither twice, nor beside a child."""
    one, other = socket.socketpair()

    class Again(Echo):
        @message_handler
        def again(self) -> None:
            self.start_synchronously(other)

    ours, theirs = socket.socketpair()
    with MessageChannel(ours) as channel, one, other:
        channel.write("again")
        channel.write("quit")
        Again().start_synchronously(theirs)
        with pytest.raises(RemoteError, match="ServerAlreadyStarted"):
            channel.read()
        with Echo() as server, pytest.raises(ServerAlreadyStarted):
            server.start_synchronously(one)


@pytest.mark.parametrize("sock", [-1, None, "socket"])
def test_what_is_no_socket(sock: object) -> None:
    """Is refused, and the server may be started."""
    server, before, threads = Echo(), state(), threading.active_count()
    with pytest.raises(UsageError, match=r"is no open socket|is made of a socket"):
        server.start_synchronously(sock)  # type: ignore[arg-type]
    with server:
        pass

    assert state() == before
    assert threading.active_count() == threads
