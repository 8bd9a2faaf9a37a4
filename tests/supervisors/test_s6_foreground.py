"""A server that knows nothing of s6, under a real s6-supervise by way of `daemonize -f`.

s6-supervise ── ./run, which becomes daemonize -f ── server
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, ports, procs, s6
from tests.support.programs import PYTHON, SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.servers


def http(port: int, *front: str) -> list[cli.Word]:
    """`daemonize -f` with a server that keeps its streams, and notifies nobody."""
    server = [*PYTHON, "-u", "-m", "http.server", str(port), "--bind", ports.HOST]
    return cli.command("-f", "-r", f"port:{port}", *front, *server)


def service(directory: Path, command: Sequence[cli.Word]) -> s6.Service:
    """A service that runs a command."""
    return s6.Service(str(directory / "service"), [str(word) for word in command])


def test_svwait_returns_when_it_serves(tmp_path: Path, trigger: Trigger) -> None:
    """While it loads, it is up and not ready; `s6-svwait -U` goes on waiting; when that returns, a client is served."""
    port = ports.free_port()
    held = [SHELL, "-c", 'head -c1 "$0" >/dev/null; exec "$@"', trigger.path]
    with service(tmp_path, http(port, *held)) as server:
        with server.waiting("U") as svwait:
            server.control("u")
            too_early = server.wait("U", 500)
            loading, state = svwait.poll(), server.show("up", "ready")
            trigger.release()
            status = svwait.wait(20)
        answered = ports.get(port)
        up, ready, pid = server.show("up", "ready", "pid")
        (process,) = procs.children(int(pid))
        held_by_it, variables = procs.descriptors(process.pid), procs.environment(process.pid)

    assert (too_early, loading, state) == (s6.TIMED_OUT, None, ["true", "false"])
    assert status == 0
    assert answered.startswith(b"HTTP/1.0 200 OK")
    assert (up, ready) == ("true", "true")
    # Nobody but us says to s6 that it is ready.
    assert s6.NOTIFICATION_FD not in held_by_it or held_by_it[s6.NOTIFICATION_FD].startswith("socket:")
    assert "NOTIFY_FD" not in variables


def test_its_words_are_the_services_before_and_after(tmp_path: Path) -> None:
    """They go where the service directory says, always."""
    port = ports.free_port()
    with service(tmp_path, http(port)) as server:
        server.control("u")
        assert server.wait("U") == 0
        ports.get(port, "/later")

        def said() -> None:
            assert server.said.startswith(f"Serving HTTP on {ports.HOST} port {port} ")
            assert '"GET /later HTTP/1.0" 404' in server.said

        procs.eventually(said)


def test_stop(tmp_path: Path) -> None:
    """`s6-svc -d` ends it by SIGTERM, as s6 sees; nobody listens any more."""
    port = ports.free_port()
    with service(tmp_path, http(port)) as server:
        server.control("u")
        assert server.wait("U") == 0
        server.control("d")
        status = server.wait("D")
        state = server.show("up", "signum")
        listening = ports.accepts(port)

    assert status == 0
    assert state == ["false", str(int(signal.SIGTERM))]
    assert not listening


def test_restart(tmp_path: Path) -> None:
    """`s6-svc -wR -r` returns when another process is ready on the same port."""
    port = ports.free_port()
    with service(tmp_path, http(port)) as server:
        server.control("u")
        assert server.wait("U") == 0
        (first,) = server.show("pid")
        status = server.control("r", "-wR", "-T20000")
        answered = ports.get(port)
        (second,) = server.show("pid")

    assert status == 0
    assert answered.startswith(b"HTTP/1.0 200 OK")
    assert second != first


def test_one_that_fails_is_never_ready(tmp_path: Path) -> None:
    """Its words and its status are what s6 has."""
    command = cli.command("-f", "-r", "port", *program("crashes_early", 7))
    with service(tmp_path, command) as server:
        server.control("o")

        def failed() -> None:
            assert server.show("up", "ready", "exitcode") == ["false", "false", "7"]

        procs.eventually(failed, 20)
        said, status = server.said, server.wait("U", 100)

    assert said == "boom\n"
    assert status == s6.TIMED_OUT


# --- negative controls -----------------------------------------------------------------------------------------------


def test_control_without_a_readiness_spec(tmp_path: Path) -> None:
    """Negative control: without --ready nobody has said how it becomes ready, and it does not say so itself."""
    port = ports.free_port()
    command = [word for word in http(port) if word not in {"-r", f"port:{port}"}]
    with service(tmp_path, command) as server:
        server.control("u")
        ports.wait_listening(port)
        status, state = server.wait("U", 300), server.show("up", "ready")

    assert status == s6.TIMED_OUT
    assert state == ["true", "false"]
