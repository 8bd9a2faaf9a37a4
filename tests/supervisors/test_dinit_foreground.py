"""A server that knows nothing of dinit, under a real dinit by way of `daemonize -f`: see test_dinit.py for where that is.

dinit ── daemonize -f ── server
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import cli, dinit, ports, procs
from tests.support.programs import PYTHON, SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.dinit


def http(port: int, *front: str) -> list[cli.Word]:
    """`daemonize -f` with a server that keeps its streams, and notifies nobody."""
    server = [*PYTHON, "-u", "-m", "http.server", str(port), "--bind", ports.HOST]
    return cli.command("-f", "-r", f"port:{port}", *front, *server)


def service(directory: Path, command: Sequence[cli.Word], *lines: str) -> dinit.Service:
    """A service that runs a command in the foreground."""
    return dinit.Service(str(directory / "service"), [str(word) for word in command], *lines)


def test_start_returns_when_it_serves(tmp_path: Path, trigger: Trigger) -> None:
    """While it loads, it is starting; when `dinitctl start` returns, a client is served."""
    port = ports.free_port()
    held = [SHELL, "-c", 'echo loading; head -c1 "$0" >/dev/null; exec "$@"', trigger.path]
    with service(tmp_path, http(port, *held)) as server:
        with server.popen("start") as start:

            def loads() -> None:
                assert server.said == "loading\n"

            procs.eventually(loads)
            state, status = server.show()["State"], start.poll()
            trigger.release()
            start.communicate(timeout=20)
        answered = ports.get(port)
        running = server.show()
        (process,) = procs.children(int(running["Process ID"]))
        variables = procs.environment(process.pid)

    assert (state, status) == ("STARTING", None)
    assert start.returncode == 0
    assert answered.startswith(b"HTTP/1.0 200 OK")
    assert running["State"] == "STARTED"
    assert "NOTIFY_FD" not in variables


def test_stop(tmp_path: Path) -> None:
    """When `dinitctl stop` returns it has ended, and nobody listens."""
    port = ports.free_port()
    with service(tmp_path, http(port)) as server:
        assert server.ctl("start").returncode == 0
        stop = server.ctl("stop")
        state, listening = server.show()["State"], ports.accepts(port)

    assert stop.returncode == 0
    assert state == "STOPPED"
    assert not listening


def test_one_that_fails(tmp_path: Path) -> None:
    """`dinitctl start` fails, and the server's words are in its log."""
    command = cli.command("-f", "-r", "port", *program("crashes_early", 7))
    with service(tmp_path, command) as server:
        start = server.ctl("start")

        def stopped() -> (
            None
        ):  # it may be known to have failed when its descriptor has closed, a moment earlier
            assert server.show()["State"].startswith("STOPPED")

        procs.eventually(stopped, 20)
        said = server.said

    assert start.returncode == 1
    assert said == "boom\n"


# --- negative controls -----------------------------------------------------------------------------------------------


def test_control_without_a_readiness_spec(tmp_path: Path) -> None:
    """Negative control: without --ready nobody has said how it becomes ready; its time runs out."""
    port = ports.free_port()
    command = [word for word in http(port) if word not in {"-r", f"port:{port}"}]
    with service(tmp_path, command, "start-timeout = 2") as server, server.popen("start") as start:
        ports.wait_listening(port)
        status, state = start.poll(), server.show()["State"]
        out, _ = start.communicate(timeout=20)

    assert (status, state) == (None, "STARTING")
    assert start.returncode == 1
    assert "start timed out" in out
