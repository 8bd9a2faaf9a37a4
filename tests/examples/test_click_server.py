"""examples/click_server.py started in every way that needs no supervisor. Under those: tests/supervisors, tests/systemd."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, click_server, ports, procs

if TYPE_CHECKING:
    from pathlib import Path

FOREGROUND, COMMAND, OPTION = "foreground", "daemonize", "--daemonize"


def run(how: str, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Start it, and wait for what was started to end: at the latest when the server is ready, if that goes on behind."""
    words = click_server.command(port, *options)
    words = {FOREGROUND: words, COMMAND: [cli.COMMAND, *words], OPTION: [*words, "--daemonize"]}[how]
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("how", [COMMAND, OPTION])
def test_it_answers_at_once(how: str) -> None:
    """Status 0 and its own words, and the port answers the first attempt; SIGTERM ends it."""
    port = ports.free_port()
    done = run(how, port)
    answered = click_server.ask(port)
    procs.stop(answered.pid)

    assert (done.returncode, done.stdout, done.stderr) == (0, f"listening on 127.0.0.1:{port}\n", "")
    assert answered.greeting == "hello"


def test_the_files_of_the_option(tmp_path: Path) -> None:
    """--pid-file has its pid, --log-file what it says once it is ready."""
    port, greeting, log = ports.free_port(), tmp_path / "greeting", tmp_path / "log"
    greeting.write_text("good day\n")
    done = run(
        OPTION, port, "--greeting", str(greeting), "--pid-file", f"{tmp_path}/pid", "--log-file", str(log)
    )
    answered = click_server.ask(port)
    greeting.unlink()
    procs.send(answered.pid, signal.SIGHUP)

    def complained() -> None:
        assert log.read_text() == f"Error: {greeting}: No such file or directory\n"

    procs.eventually(complained)
    written = (tmp_path / "pid").read_text()
    procs.stop(answered.pid)

    assert done.returncode == 0
    assert written == f"{answered.pid}\n"
    assert answered.greeting == "good day"


@pytest.mark.parametrize("how", [FOREGROUND, COMMAND, OPTION])
def test_its_mistakes_are_its_own_words(how: str, tmp_path: Path) -> None:
    """Status and message are the same however it is started."""
    with ports.taken() as port:
        taken = run(how, port)
    missing = run(how, port, "--greeting", f"{tmp_path}/missing")

    assert (taken.returncode, taken.stdout) == (1, "")
    assert taken.stderr == f"Error: port {port}: Address already in use\n"
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == f"Error: {tmp_path}/missing: No such file or directory\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_by_hand_it_keeps_its_streams(number: int, tmp_path: Path) -> None:
    """ready() changes nothing for one that is started by hand: it goes on talking to its terminal, and a signal ends it."""
    greeting = tmp_path / "greeting"
    greeting.write_text("good day\n")
    with subprocess.Popen(
        click_server.command(0, "--greeting", str(greeting)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        assert server.stderr
        port = int(server.stdout.readline().rpartition(":")[2])
        answered = click_server.ask(port)
        greeting.unlink()
        server.send_signal(signal.SIGHUP)
        complaint = server.stderr.readline()
        server.send_signal(number)
        out, err = server.communicate(timeout=20)

    assert answered == ("good day", server.pid)
    assert complaint == f"Error: {greeting}: No such file or directory\n"
    assert (out, err, server.returncode) == ("", "", 0)
