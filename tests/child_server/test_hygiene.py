"""A server is a process of its own: signals, descriptors, randomness, streams. Nothing of its owner's goes on there."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import random
import signal
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daemonize import ChildServer, RemoteError, message_handler
from daemonize.child_server import live
from tests.support import procs
from tests.support.child_servers import Echo, ask

#: What Python ignores.
PYTHONS = {signal.SIGPIPE, signal.SIGXFSZ}


def numbers(mask: str) -> set[int]:
    """The signals of a mask of /proc/PID/status."""
    return {number for number in signal.valid_signals() if int(mask, 16) >> (number - 1) & 1}


# --- signals ---------------------------------------------------------------------------------------------------------


def test_signals_are_reset() -> None:
    """Whatever the owner handles, ignores or blocks; SIGHUP is ignored. Negative control: the owner has it all."""
    handlers = {
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        signal.SIGRTMIN: signal.signal(signal.SIGRTMIN, signal.SIG_IGN),
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGINT])
    try:
        with Echo() as server:
            assert server.server_pid
            theirs, ours = procs.status(server.server_pid), procs.status(os.getpid())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)

    assert numbers(theirs["SigIgn"]) == PYTHONS | {signal.SIGHUP}
    assert numbers(theirs["SigCgt"]) == {signal.SIGRTMAX}
    assert numbers(theirs["SigBlk"]) == set()
    assert {signal.SIGTERM, signal.SIGRTMIN} <= numbers(ours["SigIgn"])
    assert numbers(ours["SigBlk"]) >= {signal.SIGUSR2, signal.SIGINT}


@pytest.mark.parametrize("name", ["SIGHUP", "HUP", "SIGTERM", "USR1"])
def test_a_handler_of_a_signal_fires(name: str) -> None:
    """Also that of SIGHUP, which upstream never called."""

    class Hears(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.define_signal_handler(name, self.hear)

        def hear(self, number: int, _frame: object) -> None:
            self.client.write(signal.Signals(number).name)

    with Hears() as server:
        assert server.server_pid
        os.kill(server.server_pid, getattr(signal, f"SIG{name.removeprefix('SIG')}"))

        assert server.server.read(timeout=10) == [f"SIG{name.removeprefix('SIG')}"]
        assert ask(server, "echo", "still there") == ["still there"]


def test_sighup_is_ignored_unless_somebody_handles_it() -> None:
    """As upstream promises. Negative control: at its default, it ends the server."""
    for default in (False, True):
        server = Echo()
        if default:
            server.define_signal_handler("HUP", signal.SIG_DFL)
        with server:
            assert server.server_pid
            os.kill(server.server_pid, signal.SIGHUP)
            if default:
                assert server.server.read(timeout=10) is None
            else:
                assert ask(server, "echo", "still there") == ["still there"]
        assert server.exit_status == (129 if default else 0)


def test_a_handler_that_is_defined_in_the_server() -> None:
    """Holds at once; of a message as well."""

    class Defines(Echo):
        def initialize_server(self) -> None:
            self.define_signal_handler(signal.SIGUSR1, lambda *_: self.client.write("usr1"))
            self.define_message_handler("late", lambda: self.client.write("late"))

    with Defines() as server:
        assert server.server_pid
        os.kill(server.server_pid, signal.SIGUSR1)
        assert server.server.read(timeout=10) == ["usr1"]
        assert ask(server, "late") == ["late"]


def test_a_handler_cannot_be_defined_in_a_thread_of_the_server() -> None:
    """Python has no way to: it is said in a line."""

    class Threaded(Echo):
        @message_handler
        def define(self) -> None:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(self.define_signal_handler, "USR1", lambda *_: None).result()

    with (
        Threaded() as server,
        pytest.raises(RemoteError, match="UsageError: only the main thread of a server"),
    ):
        ask(server, "define")


def test_a_handler_that_raises_ends_the_server(capfd: pytest.CaptureFixture[str]) -> None:
    """With a traceback and status 1, and it is finalized; with SystemExit it ends in peace."""

    def handler(_number: int, _frame: object) -> None:
        raise LookupError("from the handler")

    class Ends(Echo):
        def finalize_server(self) -> None:
            os.write(1, b"finalized\n")

    for function, status in ((handler, 1), (lambda *_: sys.exit(4), 4)):
        server = Ends()
        server.define_signal_handler(signal.SIGTERM, function)
        server.start()
        assert server.server_pid
        os.kill(server.server_pid, signal.SIGTERM)
        assert server.server.read(timeout=10) is None
        server.stop()
        said = capfd.readouterr()
        assert server.exit_status == status
        assert said.out == "finalized\n"
        assert ("from the handler" in said.err) is (status == 1)


# --- descriptors -----------------------------------------------------------------------------------------------------


def test_descriptors_are_swept() -> None:
    """The server has 0, 1 and 2, its channel, what wakes it, its owner's pidfd, what it was to keep, and nothing else."""
    secret, kept = os.open("/etc/passwd", os.O_RDONLY), os.open("/etc/hosts", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        with Echo(keep_fds=[kept]) as server:
            ask(server, "echo")  # what it tells of its start, it has closed by then
            assert server.server_pid
            found = procs.descriptors(server.server_pid)
            ours = procs.descriptors(os.getpid())
    finally:
        os.close(secret)
        os.close(kept)

    others = sorted(target.partition(":")[0] for fd, target in found.items() if fd > 2)
    assert others == sorted(["/etc/hosts", "anon_inode", "pipe", "pipe", "socket"])
    assert found[kept] == "/etc/hosts"
    assert {fd: found[fd] for fd in (0, 1, 2)} == {fd: ours[fd] for fd in (0, 1, 2)}


def test_control_descriptors_that_are_not_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without that, what its owner has open is open in the server."""
    monkeypatch.setattr(live.fds, "sweep", lambda _keep: None)
    with open("/etc/passwd"), Echo() as server:
        assert server.server_pid
        assert "/etc/passwd" in procs.descriptors(server.server_pid).values()


def test_an_owner_without_standard_streams() -> None:
    """None of the server's own becomes one of them, by chance."""
    script = (
        "import os, sys\nfrom tests.support.child_servers import Echo, ask\n"
        "say = os.dup(1)\nfor fd in (0, 1, 2): os.close(fd)\n"
        "with Echo() as server:\n"
        "    os.write(say, ask(server, 'echo', 'fine')[0].encode())\n"
        "    for fd in (0, 1, 2): os.write(say, os.readlink(f'/proc/{server.server_pid}/fd/{fd}').encode())\n"
        "os.write(say, b' '.join(b'open' for fd in (0, 1, 2) if os.path.exists(f'/proc/self/fd/{fd}')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=30)

    assert done.stdout == b"fine" + 3 * b"/dev/null"


# --- what else an owner has ------------------------------------------------------------------------------------------


def test_what_the_owner_has_buffered_is_said_once() -> None:
    """By nobody but the owner; and what the owner is to do at its exit is done by nobody else. Old streams still work."""
    script = (
        "import atexit, logging, sys\nfrom daemonize import ChildServer, message_handler\n"
        "atexit.register(lambda: print('at exit'))\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s')\nold = sys.stdout\n"
        "class Says(ChildServer):\n"
        "    @message_handler\n    def say(self):\n"
        "        print('said', end=' '); logging.warning('logged'); old.write('kept\\n'); self.client.write()\n"
        "print('buffered', end=' ')\n"
        "with Says() as server:\n    server.server.write('say'); server.server.read()\n"
        "print('over')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=30)

    assert done.stdout == b"buffered said logged\nkept\nover\nat exit\n"
    assert done.stderr == b""


def test_what_runs_at_exit_is_not_the_servers(capfd: pytest.CaptureFixture[str]) -> None:
    """However it ends."""
    hook = lambda: os.write(1, b"at exit")  # noqa: E731
    atexit.register(hook)
    try:
        server = Echo().start()
        server.server.write("leave", "3")
        server.server.read()
        server.stop()
    finally:
        atexit.unregister(hook)

    assert server.exit_status == 3
    assert capfd.readouterr().out == ""


def test_numpy_is_seeded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is loaded: its generator as well as Python's, which does so by itself."""
    numpy: Any = types.ModuleType("numpy.random")
    numpy.generator = random.Random(1)
    numpy.seed = numpy.generator.seed
    monkeypatch.setitem(sys.modules, "numpy.random", numpy)

    class Draws(ChildServer):
        @message_handler
        def draw(self) -> None:
            self.client.write(str(numpy.generator.random()))

    drawn = set()
    for _ in range(3):
        with Draws() as server:
            drawn.update(ask(server, "draw") or ())

    assert len(drawn) == 3
    numpy.seed = lambda: None  # negative control: a copy of the owner's generator is what it is there
    with Draws() as server:
        assert ask(server, "draw") == [str(random.Random(1).random())]


def test_an_owner_in_an_event_loop() -> None:
    """The server may run one of its own, in handlers; the owner's goes on, and hears of its signals."""

    class Loops(Echo):
        @message_handler
        def loop(self) -> None:
            async def work() -> str:
                await asyncio.sleep(0)
                return "worked"

            self.client.write(asyncio.run(work()))

    async def owner() -> list[str] | None:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        with Loops() as server:
            assert server.server_pid
            answer = ask(server, "loop")
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.wait_for(heard.wait(), 10)
            assert ask(server, "echo", "still there") == ["still there"]
        loop.remove_signal_handler(signal.SIGUSR1)
        return answer

    assert asyncio.run(owner()) == ["worked"]


def test_loggers_go_on() -> None:
    """A handler that was made before the fork writes to the server's stderr."""
    stream = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("test of a child server")
    logger.addHandler(stream)

    class Logs(Echo):
        @message_handler
        def log(self) -> None:
            logger.warning("logged")
            self.client.write("done")

    try:
        with Logs() as server:
            assert ask(server, "log") == ["done"]
    finally:
        logger.removeHandler(stream)
