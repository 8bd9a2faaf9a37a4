"""Child servers, again and again: what goes wrong once in a thousand times."""

from __future__ import annotations

import os
import random
import signal
import threading
import warnings

import pytest

from daemonize import ChildServer, MessageChannel, ServerError
from tests.support import procs
from tests.support.child_servers import Echo, ask, owned

pytestmark = pytest.mark.stress


def test_start_and_stop_a_thousand_times() -> None:
    """Each answers, ends clean, and leaves no descriptor and no zombie."""
    server = Echo()
    for number in range(1000):
        with server:
            assert ask(server, "echo", str(number)) == [str(number)]
        assert server.exit_status == 0


def test_a_server_is_killed_at_any_moment() -> None:
    """Before, while and after it says that it is initialised: start works, or says what happened; stop always works."""
    chance, seen = random.Random(1), set()

    class Killed(Echo):
        def initialize_server(self) -> None:
            delay = chance.random() * 0.002

            def kill() -> None:
                threading.Event().wait(delay)
                os.kill(os.getpid(), signal.SIGKILL)

            chance.seed()
            threading.Thread(target=kill, daemon=True).start()

    for _ in range(200):
        chance.seed()
        server = Killed()
        try:
            server.start()
        except ServerError as error:
            seen.add(f"failed with {error.status}")
            continue
        seen.add("started")
        assert server.server.read(timeout=10) is None
        server.stop()
        assert server.exit_status == 137

    assert seen == {"failed with 137", "started"}


def test_an_owner_is_killed_at_any_moment() -> None:
    """While it starts a server, talks to it, or stops it: the server is gone."""
    chance = random.Random(2)

    class Tells(Echo):
        channel: MessageChannel

        def initialize_server(self) -> None:
            os.write(self.tell, b"%d\n" % os.getpid())

        tell: int

    for _ in range(100):
        told, tell = os.pipe()

        def start(_channel: MessageChannel, tell: int = tell) -> None:
            server = Tells(stop_timeout=0.1, keep_fds=[tell])
            server.tell = tell
            while True:
                with server:
                    server.server.write("hang")

        with owned(start) as (owner, _):
            os.close(tell)
            os.read(told, 1)
            threading.Event().wait(chance.random() * 0.03)
            os.kill(owner, signal.SIGKILL)
            with os.fdopen(told) as pids:
                pids.read()  # the end of file is that of the last server


def test_servers_beside_threads_that_print_and_fork() -> None:
    """Nobody waits for a lock for ever."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            os.waitpid(_short(), 0)
            warnings.catch_warnings()
            ChildServer()

    threads = [threading.Thread(target=work) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for thread in threads:
            thread.start()
        try:
            for number in range(200):
                with Echo() as server:
                    assert ask(server, "echo", str(number)) == [str(number)]
                assert procs.alive(os.getpid())
        finally:
            over.set()
            for thread in threads:
                thread.join()


def _short() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid
