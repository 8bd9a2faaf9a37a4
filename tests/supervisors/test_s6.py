"""The example server, unchanged, under a real s6-supervise: `s6-svwait -U` returns when it is ready, and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import click_server, ports, procs, s6
from tests.support.click_server import Greeting
from tests.support.programs import SHELL, program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.servers


def service(directory: Path, command: Sequence[str]) -> s6.Service:
    """A service that runs a command."""
    return s6.Service(str(directory / "service"), command)


def test_svwait_returns_when_it_is_ready(tmp_path: Path) -> None:
    """While it loads, it is up and not ready; `s6-svwait -U` goes on waiting; when that returns, the port answers."""
    greeting, port = Greeting(tmp_path), ports.free_port()
    with service(tmp_path, click_server.command(port, "--greeting", greeting.path)) as server:
        with server.waiting("U") as svwait:
            server.control("u")
            with greeting.asked() as answer:
                # It has looked, and has waited in vain.
                too_early = server.wait("U", 100)
                loading, state = svwait.poll(), server.show("up", "ready")
                answer("good day")
            status = svwait.wait(20)
        answered = click_server.ask(port)
        up, ready, pid = server.show("up", "ready", "pid")

    assert (too_early, loading, state) == (s6.TIMED_OUT, None, ["true", "false"])
    assert status == 0
    assert (up, ready) == ("true", "true")
    assert answered == ("good day", int(pid))


def test_its_words_are_the_services_before_and_after(tmp_path: Path) -> None:
    """Without the streams protocol nothing is re-pointed: what it says goes where the service directory says, always."""
    missing = tmp_path / "greeting"
    missing.write_text("good day\n")
    port = ports.free_port()
    with service(tmp_path, click_server.command(port, "--greeting", str(missing))) as server:
        server.control("u")
        assert server.wait("U") == 0
        early = server.said
        missing.unlink()
        server.control("h")

        def complained() -> None:
            assert f"Error: {missing}: No such file or directory" in server.said

        procs.eventually(complained)
        answered = click_server.ask(port)

    assert early == f"listening on 127.0.0.1:{port}\n"
    assert answered.greeting == "good day"


def test_stop(tmp_path: Path) -> None:
    """`s6-svc -d` ends it, with status 0 of its own."""
    port = ports.free_port()
    with service(tmp_path, click_server.command(port)) as server:
        server.control("u")
        assert server.wait("U") == 0
        server.control("d")
        status = server.wait("D")
        state = server.show("up", "exitcode")
        listening = ports.accepts(port)

    assert status == 0
    assert state == ["false", "0"]
    assert not listening


def test_restart(tmp_path: Path) -> None:
    """`s6-svc -wR -r` returns when another process is ready on the same port."""
    port = ports.free_port()
    with service(tmp_path, click_server.command(port)) as server:
        server.control("u")
        assert server.wait("U") == 0
        first = click_server.ask(port)
        # s6-svc watches before it acts, and goes on watching as `s6-svwait -R` does: that alone might look too late.
        status = server.control("r", "-wR", "-T20000")
        second = click_server.ask(port)

    assert status == 0
    assert second.pid != first.pid


def test_reload(tmp_path: Path) -> None:
    """SIGHUP makes it read its greeting again; it stays ready, and says so on no descriptor that is long closed."""
    greeting, port = Greeting(tmp_path), ports.free_port()
    with service(tmp_path, click_server.command(port, "--greeting", greeting.path)) as server:
        server.control("u")
        with greeting.asked() as answer:
            answer("good day")
        assert server.wait("U") == 0
        first = click_server.ask(port)
        server.control("h")
        with greeting.asked() as answer:
            answer("good night")
        second = click_server.ask(port)
        state = server.show("up", "ready")

    assert (first.greeting, second.greeting) == ("good day", "good night")
    assert second.pid == first.pid
    assert state == ["true", "true"]


def test_one_that_fails_is_never_ready(tmp_path: Path) -> None:
    """Its words and its status are what s6 has; `s6-svwait -U` does not say that it is ready."""
    with ports.taken() as port, service(tmp_path, click_server.command(port)) as server:
        # Up once: a service that ended by itself would be started again.
        server.control("o")

        def failed() -> None:
            assert server.show("up", "ready", "exitcode") == ["false", "false", "1"]

        procs.eventually(failed, 20)  # s6-svwait would take the moment before for the one after
        said, status = server.said, server.wait("U", 100)

    assert said == f"Error: port {port}: Address already in use\n"
    assert status == s6.TIMED_OUT


# --- negative controls -----------------------------------------------------------------------------------------------


def test_control_one_that_never_notifies(tmp_path: Path) -> None:
    """Negative control: a server that listens and says nothing on the descriptor is up, and `s6-svwait -U` times out."""
    port = ports.free_port()
    with service(tmp_path, program("tcp_echo", port, "holds")) as server:
        server.control("u")
        ports.wait_listening(port)
        status, state = server.wait("U", 300), server.show("up", "ready")

    assert status == s6.TIMED_OUT
    assert state == ["true", "false"]


def test_control_a_shell_that_notifies(tmp_path: Path) -> None:
    """Negative control: it is the newline on descriptor 3 that is waited for, whoever writes it."""
    script = f"echo >&{s6.NOTIFICATION_FD}; exec sleep 100"
    with service(tmp_path, [SHELL, "-c", script]) as server:
        server.control("u")

        assert server.wait("U") == 0
