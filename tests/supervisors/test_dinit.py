"""The example server, unchanged, under a real dinit: `dinitctl start` returns when it is ready, and not before.

No package registry has dinit, and no release of Debian. To run these tests, build it from its own source (`./configure`,
`make -C src`: half a minute) and put `src` on PATH. Without it they are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import click_server, dinit, ports
from tests.support.click_server import Greeting
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.dinit


def service(directory: Path, command: Sequence[str], *lines: str) -> dinit.Service:
    """A service that runs a command; `lines` go to its description."""
    return dinit.Service(str(directory / "service"), command, *lines)


def test_start_returns_when_it_is_ready(tmp_path: Path) -> None:
    """While it loads, it is starting; when `dinitctl start` returns, the port answers."""
    greeting, port = Greeting(tmp_path), ports.free_port()
    with service(tmp_path, click_server.command(port, "--greeting", greeting.path)) as server:
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


def test_stop(tmp_path: Path) -> None:
    """`dinitctl stop` ends it, with status 0 of its own."""
    port = ports.free_port()
    with service(tmp_path, click_server.command(port)) as server:
        assert server.ctl("start").returncode == 0
        stopped = server.ctl("stop")
        state, listening = server.show()["State"], ports.accepts(port)

    assert stopped.returncode == 0
    assert state == "STOPPED"
    assert not listening


def test_restart(tmp_path: Path) -> None:
    """`dinitctl restart` returns when another process is ready on the same port."""
    port = ports.free_port()
    with service(tmp_path, click_server.command(port)) as server:
        assert server.ctl("start").returncode == 0
        first = click_server.ask(port)
        restarted = server.ctl("restart")
        second = click_server.ask(port)

    assert restarted.returncode == 0
    assert second.pid != first.pid


def test_reload(tmp_path: Path) -> None:
    """SIGHUP makes it read its greeting again; it stays started."""
    greeting, port = Greeting(tmp_path), ports.free_port()
    with service(tmp_path, click_server.command(port, "--greeting", greeting.path)) as server:
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


def test_one_that_fails(tmp_path: Path) -> None:
    """`dinitctl start` fails, and the server's words are in its log."""
    with ports.taken() as port, service(tmp_path, click_server.command(port)) as server:
        start, state, said = server.ctl("start"), server.show()["State"], server.said

    assert start.returncode == 1
    assert state.startswith("STOPPED")
    assert said == f"Error: port {port}: Address already in use\n"


# --- negative controls -----------------------------------------------------------------------------------------------


def test_control_one_that_never_notifies(tmp_path: Path) -> None:
    """Negative control: a server that listens and says nothing on the descriptor is never started; its time runs out."""
    port = ports.free_port()
    with (
        service(tmp_path, program("tcp_echo", port, "holds"), "start-timeout = 2") as server,
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
    script = 'eval "exec $NOTIFY_FD>&-"; exec sleep 100'
    with service(tmp_path, ["bash", "-c", script]) as server:
        start, state = server.ctl("start"), server.show()["State"]

    assert start.returncode == 1
    assert state.startswith("STOPPED")
