"""The examples do what they say: they are what newcomers see first, and copy."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, ports, procs

if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLES = os.path.join(ROOT, "examples")
HTTP_SERVER = [sys.executable, os.path.join(EXAMPLES, "http_server.py")]
SHELL_SERVER = ["sh", os.path.join(EXAMPLES, "shell-server.sh")]
DEMO = [sys.executable, os.path.join(EXAMPLES, "demo.py")]
STEPS = 6


# --- http_server.py ------------------------------------------------------------------------------------------------


def test_http_server_answers_at_once() -> None:
    """The port it names answers the first request."""
    result = cli.run(*HTTP_SERVER, "--greeting", "good day")
    port = int(result.out.rpartition(b":")[2])
    answer = ports.get(port)
    pid = int(answer.split()[-1])
    procs.stop(pid)

    assert result.status == 0
    assert re.fullmatch(rb"serving on http://127\.0\.0\.1:\d+\n", result.out)
    assert result.err == b""
    assert b"good day from pid" in answer


def test_http_server_continues_in_its_log() -> None:
    """What it says once it is ready is in the file that --json names."""
    report = cli.run("--json", *HTTP_SERVER).json
    (port,) = [int(target) for target in listening(report["pid"])]
    ports.get(port, "/remember-me")
    procs.stop(report["pid"])
    with open(report["files"]["stderr"]) as file:
        log = file.read()

    assert '"GET /remember-me HTTP/1.0" 200' in log


def listening(pid: int) -> list[str]:
    """The TCP ports on which a process listens."""
    inodes = {target[8:-1] for target in procs.descriptors(pid).values() if target.startswith("socket:[")}
    rows = [line.split() for line in procs.read(f"/proc/{pid}/net/tcp").decode().splitlines()[1:]]
    return [str(int(row[1].partition(":")[2], 16)) for row in rows if row[3] == "0A" and row[9] in inodes]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            "greeting = hello\ncolour = blue\n",
            "server.conf, line 2: unknown option 'colour' (there are: port, ",
        ),
        ("port = http\n", "server.conf, line 1: 'http' is not a value for port\n"),
        (None, "server.conf: No such file or directory\n"),
    ],
)
def test_http_server_refuses_a_bad_configuration(tmp_path: Path, config: str | None, words: str) -> None:
    """Status 78 and one line that says where the mistake is."""
    path = tmp_path / "server.conf"
    if config is not None:
        path.write_text(config)
    result = cli.run(*HTTP_SERVER, "--config", path)

    assert result.status == 78
    assert result.err.startswith(f"http_server.py: {tmp_path}/{words}".encode())
    assert result.err.count(b"\n") == 1


def test_http_server_by_hand_keeps_its_streams() -> None:
    """Without daemonize it goes on talking to whoever started it."""
    with subprocess.Popen(
        HTTP_SERVER, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as server:
        assert server.stdout
        assert server.stderr
        port = int(server.stdout.readline().rpartition(b":")[2])
        ports.get(port)
        logged = server.stderr.readline()
        server.send_signal(signal.SIGINT)
        rest = server.stderr.read()

    assert b'"GET / HTTP/1.0" 200' in logged
    assert rest == b""
    assert server.returncode == 130


# --- shell-server.sh -----------------------------------------------------------------------------------------------


def test_shell_server_answers(tmp_path: Path) -> None:
    """It is ready when the FIFO can be written to, and leaves nothing when it is stopped."""
    fifo, log = tmp_path / "greeter", tmp_path / "greeter.log"
    result = cli.run(*SHELL_SERVER, fifo)
    pid = int(result.out.split()[-1])
    fifo.write_text("world\n")

    def check() -> None:
        assert log.read_text() == "hello, world\n"

    procs.eventually(check)
    procs.stop(pid)

    assert result.status == 0
    assert not fifo.exists()


def test_shell_server_fails_in_its_own_words(tmp_path: Path) -> None:
    """A FIFO that is there already belongs to another."""
    fifo = tmp_path / "greeter"
    fifo.touch()
    result = cli.run(*SHELL_SERVER, fifo)

    assert result.status == 1
    assert b"File exists" in result.err
    assert fifo.exists()


# --- demo.py -------------------------------------------------------------------------------------------------------


def test_demo_shows_the_main_job() -> None:
    """From ready to stopped, without colour codes when it is not on a terminal; a second run finds all as it was."""
    for _ in range(2):
        done = subprocess.run(DEMO, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True)

        assert done.returncode == 0
        assert done.stderr == ""
        assert "\033" not in done.stdout
        assert re.search(r"status 0: ready after \d+\.\d\d s, as pid \d+", done.stdout)
        assert re.search(r"answered in \d+ ms", done.stdout)
        assert "| http_server.py: bad.conf, line 3: unknown option 'colour'" in done.stdout
        assert re.search(r"status 78 after \d\.\d\d s", done.stdout)
        assert re.search(
            r"\| greeter: running since .*\n(.*\n)*6\. Stop it\n   \$ daemonctl stop greeter\n", done.stdout
        )
        assert "nothing is left running" in done.stdout


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_demo_can_be_interrupted(step: int) -> None:
    """Ctrl-C, which reaches the demo and the wrapper alike, at any step: it says so, and nothing is left."""
    with subprocess.Popen(
        DEMO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
    ) as demo:
        assert demo.stdout
        assert demo.stderr
        for line in demo.stdout:
            if line.startswith(f"{step}."):
                break
        os.killpg(demo.pid, signal.SIGINT)
        rest, said = demo.stdout.read(), demo.stderr.read()

    # The steps are short: the signal may come when the last one is over.
    assert demo.returncode == (0 if "Next:" in rest else 130)
    assert said == ""
    assert "nothing is left running" in rest


def test_demo_says_what_is_wrong(tmp_path: Path) -> None:
    """Where the server cannot start, the demo ends with what daemonize says about it, and not with a traceback."""
    done = subprocess.run(
        DEMO,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "DAEMONIZE_TIMEOUT": "1ms"},
    )

    assert done.returncode == 1
    assert "it did not start: " in done.stderr
    assert "was not ready within" in done.stderr
    assert "Traceback" not in done.stderr
