"""The example server, unchanged, under a real dinit: `dinitctl start` returns when it is ready, and not before.

No package registry has dinit, and no release of Debian. To run these tests, build it from its own source (`./configure`,
`make -C src`: half a minute) and put `src` on PATH. Without it they are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import click_server, dinit, ports, procs
from tests.support.click_server import Greeting
from tests.support.programs import PYTHON, program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.dinit


PROCESS, BGPROCESS = "process", "bgprocess"


@pytest.fixture(params=[PROCESS, BGPROCESS])
def kind(request: pytest.FixtureRequest) -> str:
    """The type of the service: in the foreground with a descriptor to say "ready" on, and with --daemonize."""
    return str(request.param)


def service(directory: Path, kind: str, port: int, *options: str) -> dinit.Service:
    """A service that runs the example."""
    command, pid_file = click_server.command(port, *options), str(directory / "pid")
    if kind == PROCESS:
        return dinit.Service(str(directory / "service"), command)
    command += ["--daemonize", "--pid-file", pid_file]
    return dinit.Service(str(directory / "service"), command, pid_file=pid_file)


def stopped(server: dinit.Service) -> None:
    """Wait until it has ended. `dinitctl start` may say that it failed when its descriptor has closed, a moment earlier."""

    def check() -> None:
        assert server.show()["State"].startswith("STOPPED")

    procs.eventually(check, 20)


def test_start_returns_when_it_is_ready(tmp_path: Path, kind: str) -> None:
    """While it loads, it is starting; when `dinitctl start` returns, the port answers."""
    greeting, port = Greeting(tmp_path), ports.free_port()
    with service(tmp_path, kind, port, "--greeting", greeting.path) as server:
        with server.popen("start") as start:
            with greeting.asked() as answer:
                state, status = server.show()["State"], start.poll()
                answer("good day")
            start.communicate(timeout=20)
        answered = click_server.ask(port)
        running, said = server.show(), server.said

    assert (state, status) == ("STARTING", None)
    assert start.returncode == 0
    assert running["State"] == "STARTED"
    assert answered == ("good day", int(running["Process ID"]))
    assert said == f"listening on 127.0.0.1:{port}\n"


def test_stop(tmp_path: Path, kind: str) -> None:
    """When `dinitctl stop` returns it has ended, and nobody listens."""
    port = ports.free_port()
    with service(tmp_path, kind, port) as server:
        assert server.ctl("start").returncode == 0
        stop = server.ctl("stop")
        state, listening = server.show()["State"], ports.accepts(port)

    assert stop.returncode == 0
    assert state == "STOPPED"
    assert not listening


def test_restart(tmp_path: Path, kind: str) -> None:
    """`dinitctl restart` returns when another process is ready on the same port."""
    port = ports.free_port()
    with service(tmp_path, kind, port) as server:
        assert server.ctl("start").returncode == 0
        first = click_server.ask(port)
        restarted = server.ctl("restart")
        second = click_server.ask(port)

    assert restarted.returncode == 0
    assert second.pid != first.pid


def test_reload(tmp_path: Path, kind: str) -> None:
    """SIGHUP makes it read its greeting again; it stays started."""
    greeting, port = Greeting(tmp_path), ports.free_port()
    with service(tmp_path, kind, port, "--greeting", greeting.path) as server:
        with server.popen("start") as start, greeting.asked() as answer:
            answer("good day")
        first = click_server.ask(port)
        assert server.ctl("signal", "HUP").returncode == 0
        with greeting.asked() as answer:
            answer("good night")
        second, state = click_server.ask(port), server.show()["State"]

    assert start.returncode == 0
    assert second == ("good night", first.pid)
    assert state == "STARTED"


def test_one_that_fails(tmp_path: Path, kind: str) -> None:
    """`dinitctl start` fails, and the server's words are in its log."""
    with ports.taken() as port, service(tmp_path, kind, port) as server:
        start = server.ctl("start")
        stopped(server)
        said = server.said

    assert start.returncode == 1
    assert said == f"Error: port {port}: Address already in use\n"


# --- negative controls -----------------------------------------------------------------------------------------------


def test_control_one_that_never_notifies(tmp_path: Path) -> None:
    """Negative control: a server that listens and says nothing on the descriptor is never started; its time runs out."""
    port = ports.free_port()
    with (
        dinit.Service(
            f"{tmp_path}/service", program("tcp_echo", port, "holds"), "start-timeout = 2"
        ) as server,
        server.popen("start") as start,
    ):
        ports.wait_listening(port)
        status, state = start.poll(), server.show()["State"]
        out, _ = start.communicate(timeout=20)

    assert (status, state) == (None, "STARTING")
    assert start.returncode == 1
    assert "start timed out" in out


def test_control_one_that_closes_the_descriptor_unsaid(tmp_path: Path) -> None:
    """Negative control: it is the newline that says "ready"; a descriptor that is closed without one is a failure."""
    script = 'import os; os.close(int(os.environ["NOTIFY_FD"])); os.read(os.pipe()[0], 1)'
    with dinit.Service(f"{tmp_path}/service", [*PYTHON, "-c", script]) as server:
        start = server.ctl("start")
        stopped(server)

    assert start.returncode == 1
