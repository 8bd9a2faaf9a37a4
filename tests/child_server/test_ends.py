"""A server ends when it is told to, and when its owner has ended, of whatever; and nothing is left of it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from daemonize import (
    ChildServer,
    InvalidState,
    MessageChannel,
    RemoteError,
    StillRunning,
    message_handler,
)
from tests.support import forked, procs
from tests.support.child_servers import Echo, Stubborn, ask, owned


def test_a_server_that_is_busy_gets_sigterm() -> None:
    """After its grace, and nothing is left below it either."""

    class Parent(Echo):
        @message_handler
        def spawn(self) -> None:
            child = subprocess.Popen(["sleep", "1000"])
            self.client.write(str(child.pid))

    server = Parent(stop_timeout=0.2).start()
    (child,) = ask(server, "spawn") or [""]
    assert ask(server, "hang") == ["hanging"]
    server.stop()

    assert server.exit_status == 128 + signal.SIGTERM
    assert procs.wait_ended(int(child))


def test_a_server_that_ignores_sigterm_is_killed_and_reaped() -> None:
    """No zombie stays: the guards look."""
    server = Stubborn(stop_timeout="100ms").start()
    assert ask(server, "hang") == ["hanging"]
    server.stop()

    assert server.exit_status == 128 + signal.SIGKILL


def test_a_clean_end_needs_no_signal() -> None:
    """Status 0, also where nothing was ever said, and at once."""
    began = time.monotonic()
    with Echo() as server:
        pass

    assert server.exit_status == 0
    assert time.monotonic() - began < 3


def test_stop_is_told_though_another_process_has_a_copy_of_the_channel() -> None:
    """A child of the owner that was forked meanwhile: a copy made by hand, since ours are closed at the fork."""
    server = Echo(stop_timeout=60).start()
    copy = os.dup(server.server.fileno())
    try:
        server.stop()
    finally:
        os.close(copy)

    assert server.exit_status == 0


def test_control_an_end_of_file_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where stop only closes its own end, such a copy keeps the server, and a signal has to end it."""
    monkeypatch.setattr(MessageChannel, "hang_up", MessageChannel.close)
    server = Echo(stop_timeout=0.2).start()
    copy = os.dup(server.server.fileno())
    try:
        server.stop()
    finally:
        os.close(copy)

    assert server.exit_status == 143


def test_a_forked_child_has_no_copy_of_the_channel() -> None:
    """It may not stop the server of its parent, nor use it, nor wait for its end."""
    with Echo() as server:

        def refused() -> list[str]:
            found = []
            for call in (server.stop, server.start, lambda: server.server):
                try:
                    call()
                except InvalidState as error:
                    found.append(str(error))
            sockets = [target for target in procs.descriptors(os.getpid()).values() if target == channel]
            with server_block():
                pass
            return [*found, str(len(sockets)), str(server.started)]

        def server_block() -> ChildServer:
            return _Exits(server)

        channel = procs.descriptors(os.getpid())[server.server.fileno()]
        answers = forked.call(refused)

        words = (
            f"Echo is the server of process {os.getpid()}, from which this one was forked: make another one"
        )
        assert answers == [words] * 3 + ["0", "False"]
        assert ask(server, "echo", "still there") == ["still there"]


class _Exits:
    """The end of a block that a forked child leaves."""

    def __init__(self, server: ChildServer) -> None:
        self.server = server

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, *details: object) -> None:
        self.server.__exit__(*details)


def test_somebody_else_reaps_the_server() -> None:
    """os.wait() of the owner's own: the status is not known then, and nothing else goes wrong."""
    server = Echo().start()
    server.server.write("quit")
    pid, _ = os.wait()

    assert pid == server.server_pid
    assert not server.alive
    server.stop()
    assert server.exit_status is None


def test_the_kernel_reaps_the_server() -> None:
    """SIGCHLD is ignored: start and stop work."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Echo() as server:
            assert ask(server, "echo", "a") == ["a"]
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert not server.started


def test_other_children_are_left_alone() -> None:
    """One that ends meanwhile is its parent's to reap, with its status."""
    other = os.fork()
    if other == 0:
        os._exit(7)
    procs.wait_ended(other)
    with Echo() as server:
        ask(server, "echo")
    _, status = os.waitpid(other, 0)

    assert os.waitstatus_to_exitcode(status) == 7


def test_a_server_that_nobody_stops() -> None:
    """Ends when it is collected, with a warning, and is reaped by the next start of another."""
    server = Echo().start()
    pid = server.server_pid
    assert pid
    with pytest.warns(ResourceWarning, match=f"<Echo: pid {pid}> was not stopped"):
        del server
    assert procs.wait_ended(pid)
    with Echo():
        assert not any(child.pid == pid for child in procs.children(os.getpid()))


def test_a_server_that_nobody_stops_where_warnings_are_errors() -> None:
    """Python can only show the error, and the server ends and is reaped all the same."""
    server = Echo().start()
    pid = server.server_pid or 0
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error")
        patch.setattr(sys, "unraisablehook", lambda _: None)
        del server
        gc.collect()
    assert procs.wait_ended(pid)
    Echo().start().stop()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_an_owner_that_just_exits() -> None:
    """Its server ends, by the end of file, as clean as by a stop."""
    script = (
        "import os\nfrom tests.support.child_servers import Echo\n"
        "class Says(Echo):\n    def finalize_server(self): os.write(1, b'finalized\\n')\n"
        "server = Says().start()\nprint(server.server_pid, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=os.getcwd(),
    )
    pid, said = done.stdout.split()

    assert said == "finalized"
    assert procs.wait_ended(int(pid))
    assert done.stderr == ""


def test_an_owner_that_is_killed_while_another_process_holds_its_channel() -> None:
    """No end of file comes: the idle server ends by the end of its owner.

    Negative control: without a pidfd and a signal, it does not.
    """
    for watches in (True, False):

        def start(channel: MessageChannel, watches: bool = watches) -> None:
            if not watches:
                _blind()
            server = Echo().start()
            copy = os.dup(server.server.fileno())
            holder = os.fork()
            if holder == 0:
                channel.read(timeout=None)  # until the test has gone on
                os._exit(0)
            channel.write(str(server.server_pid), str(holder), str(copy))

        with owned(start) as (owner, channel):
            pid, holder, _ = map(int, channel.read() or ())
            os.kill(owner, signal.SIGKILL)
            assert procs.wait_ended(owner)
            assert procs.wait_ended(pid, timeout=10 if watches else 0.3) is watches
            procs.send(holder, signal.SIGKILL)
            assert procs.wait_ended(pid)


def _blind() -> None:
    from daemonize.child_server import birth, owner

    birth.pidfd_open = lambda _pid: None  # type: ignore[assignment]
    owner.OWNER_ENDED = None


def test_an_owner_that_is_killed_while_a_handler_works() -> None:
    """The handler has its grace, is then left by an exception, and the server is finalized."""
    told, tell = os.pipe()

    class Finalized(Echo):
        def finalize_server(self) -> None:
            os.write(tell, b"finalized")

    def start(channel: MessageChannel) -> None:
        server = Finalized(stop_timeout=0.2, keep_fds=[tell]).start()
        channel.write(str(server.server_pid), *(ask(server, "hang") or ()))

    with owned(start) as (owner, channel):
        pid, hanging = channel.read() or ("", "")
        assert hanging == "hanging"
        os.kill(owner, signal.SIGKILL)
        os.close(tell)
        with os.fdopen(told, "rb") as said:
            assert said.read() == b"finalized"
        assert procs.wait_ended(int(pid))


def test_a_handler_that_swallows_everything_dies_with_the_owner() -> None:
    """By SIGTERM, or SIGKILL."""

    class Swallows(Stubborn):
        @message_handler
        def swallow(self) -> None:
            self.client.write("swallowing")
            while True:
                try:
                    time.sleep(1000)
                except BaseException:  # noqa: BLE001, S112 (the subject of the test)
                    continue

    def start(channel: MessageChannel) -> None:
        server = Swallows(stop_timeout=0.1).start()
        channel.write(str(server.server_pid), *(ask(server, "swallow") or ()))

    with owned(start) as (owner, channel):
        pid, _ = channel.read() or ("", "")
        os.kill(owner, signal.SIGKILL)
        assert procs.wait_ended(int(pid))


def test_what_the_owner_has_still_written_is_handled() -> None:
    """An owner that writes its last messages and leaves loses nothing: the handler ends its work, and there is another."""
    told, tell = os.pipe()

    class Saves(ChildServer):
        def initialize_server(self) -> None:
            self.owner = os.pidfd_open(os.getppid())

        @message_handler
        def save(self, text: str) -> None:
            procs.readable(self.owner)  # it has gone, and the signal has come
            os.write(tell, text.encode())

    def start(_channel: MessageChannel) -> None:
        server = Saves(keep_fds=[tell]).start()
        server.server.write("save", "first,")
        server.server.write("save", "last")
        os.kill(os.getpid(), signal.SIGKILL)

    with owned(start):
        os.close(tell)
        with os.fdopen(told) as said:
            assert said.read() == "first,last"


def test_the_thread_that_started_the_server_ends() -> None:
    """The kernel says that the parent has ended: it has not, and a handler goes on."""
    import threading

    server = Echo(stop_timeout=0.1)

    def start() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            server.start()
        server.server.write("hang")
        server.server.read()

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    try:
        assert server.alive
        pid = server.server_pid
        assert pid
        # The signal has come by now, or comes in this moment: it is handled before the one that is sent after it.
        signals = procs.status(pid)["SigCgt"]
        assert int(signals, 16) >> (signal.SIGRTMAX - 1) & 1
        assert not procs.wait_ended(pid, timeout=0.5)
    finally:
        server.stop()


def test_survivors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even SIGKILL does not help (here: nobody sends it), stop says who is left, and may be called again."""
    from daemonize.offspring import process

    server = Stubborn(stop_timeout=0.1).start()
    ask(server, "hang")
    with monkeypatch.context() as patched:
        patched.setattr(process.stop, "default_plan", lambda grace: ((signal.SIGTERM, grace),))
        with pytest.raises(StillRunning, match=f"pid {server.server_pid}"):
            server.stop()
    assert server.alive
    server.stop()
    assert server.exit_status == 137


# --- processes of the server's own -----------------------------------------------------------------------------------


def test_a_child_of_the_server_does_not_hide_its_end() -> None:
    """It was forked by a handler, and lives on: the owner sees the end of the server all the same."""

    class Forks(Echo):
        @message_handler
        def fork(self) -> None:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            self.client.write(str(pid))

    with Forks() as server:
        (pid,) = ask(server, "fork") or [""]
        assert server.server_pid
        os.kill(server.server_pid, signal.SIGKILL)
        assert server.server.read(timeout=10) is None
        procs.stop(int(pid))


def test_a_server_of_a_server() -> None:
    """Is its owner's alone: it ends with that, also when that is killed."""

    class Outer(Echo):
        @message_handler
        def inner(self) -> None:
            self.nested = Echo().start()
            self.client.write(str(self.nested.server_pid), *(ask(self.nested, "echo", "from within") or ()))

    with Outer() as server:
        pid, answer = ask(server, "inner") or ("", "")
        assert answer == "from within"
        assert server.server_pid
        os.kill(server.server_pid, signal.SIGKILL)
        assert procs.wait_ended(int(pid))


def test_a_server_that_has_become_another_user_dies_with_its_owner() -> None:
    """The kernel forgets the signal when a process changes its user: it is asked once more after initialize_server."""
    forked.need_root()

    class Drops(Echo):
        def initialize_server(self) -> None:
            os.setgroups([])
            os.setgid(forked.NOBODY)
            os.setuid(forked.NOBODY)

    def start(channel: MessageChannel) -> None:
        server = Drops(stop_timeout=0.1).start()
        channel.write(str(server.server_pid), *(ask(server, "hang") or ()))

    with owned(start) as (owner, channel):
        pid, _ = channel.read() or ("", "")
        os.kill(owner, signal.SIGKILL)
        assert procs.wait_ended(int(pid))


def test_two_servers_of_one_owner_know_nothing_of_each_other() -> None:
    """The first ends, though the second was forked while it lived."""
    first, second = Echo(stop_timeout=60).start(), Echo(stop_timeout=60).start()
    channel = procs.descriptors(os.getpid())[first.server.fileno()]
    assert second.server_pid
    assert channel not in procs.descriptors(second.server_pid).values()
    first.stop()
    assert ask(second, "echo", "a") == ["a"]
    second.stop()


@pytest.mark.parametrize("spared", ["client", ""])
def test_a_server_that_closes_all_its_descriptors_leaves(spared: str) -> None:
    """Instead of asking for ever what happens on a number that is none."""

    class Closer(Echo):
        @message_handler
        def close_all(self, spared: str) -> None:
            client = self.client.fileno()
            for fd in range(3, 100):
                with contextlib.suppress(OSError):
                    if not spared or fd != client:
                        os.close(fd)

    with Closer() as server:
        assert ask(server, "close_all", spared) is None
        assert procs.wait_ended(server.server_pid or 0)
    assert server.exit_status == 0


def test_an_owner_that_is_killed_as_it_writes(capfd: pytest.CaptureFixture[str]) -> None:
    """Half a message is its end, of which the server says nothing."""

    def start(channel: MessageChannel) -> None:
        server = Echo().start()
        os.write(server.server.fileno(), b"L\0\0\0\x10half")
        channel.write(str(server.server_pid))
        channel.read()

    with owned(start) as (owner, channel):
        (pid,) = channel.read() or [""]
        os.kill(owner, signal.SIGKILL)
        assert procs.wait_ended(int(pid))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("garbage", [b"garbage" * 9, b"L\0\0\0\5\0\0\0\5x"])
def test_garbage_is_answered_with_an_error(garbage: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """And is the end: there is no telling where the next message begins."""
    with Echo() as server:
        os.write(server.server.fileno(), garbage)
        with pytest.raises(RemoteError, match="MalformedMessage"):
            server.server.read(timeout=10)
        assert server.server.read(timeout=10) is None
    assert server.exit_status == 0
    assert capfd.readouterr().err == ""
