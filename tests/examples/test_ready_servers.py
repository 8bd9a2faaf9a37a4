"""The servers of examples/ that take part: each is ready when `daemonize` returns, and not a moment before."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, ports, procs
from tests.support.manager import Manager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLES = os.path.join(ROOT, "examples")
NAMES = [
    "asyncio_server.py",
    "threaded_server.py",
    pytest.param("ready-server.sh", marks=pytest.mark.servers),
    pytest.param("server.c", marks=pytest.mark.servers),
]
#: What each says on its stdout or stderr about a client.
LATER = re.compile(rb"left|accepting connection")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The server in C."""
    if not shutil.which("cc"):
        pytest.skip("there is no cc (make test-servers)")
    path = str(tmp_path_factory.mktemp("c") / "server")
    words = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o", path, os.path.join(EXAMPLES, "server.c")]
    subprocess.run(["cc", *words], check=True, stdin=subprocess.DEVNULL, timeout=50)
    return path


@pytest.fixture
def server(request: pytest.FixtureRequest) -> list[str]:
    """The argument list of a server."""
    name: str = request.param
    if name == "server.c":
        return [request.getfixturevalue("compiled")]
    path = os.path.join(EXAMPLES, name)
    if name.endswith(".py"):
        return [sys.executable, path]
    if not shutil.which("socat"):
        pytest.skip("there is no socat (make test-servers)")
    return ["sh", path]


each = pytest.mark.parametrize("server", NAMES, indirect=True)


def greet(port: int) -> bytes:
    """Be a client that says one line and hears one. Raises OSError if nobody listens."""
    with ports.connected(port) as client, client.makefile("rb") as answer:
        client.sendall(b"world\n")
        return answer.readline()


def port_of(said: bytes) -> int:
    """The port that a server says it listens on."""
    words, _, number = said.rpartition(b" ")
    assert words == b"listening on port"
    return int(number)


@contextlib.contextmanager
def by_hand(server: list[str], **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server without `daemonize`, its streams pipes; it is stopped at the end of the block."""
    with subprocess.Popen(
        server,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **variables},
        bufsize=0,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@each
def test_it_answers_at_once_and_goes_on_in_its_log(server: list[str]) -> None:
    """The first request after `daemonize` has returned is answered; nothing is left of the caller's streams."""
    report = cli.run("--json", *server)
    port = port_of(report.err.strip())
    answer = greet(port)
    files = [report.json["files"]["stdout"], report.json["files"]["stderr"]]
    found = procs.descriptors(report.json["pid"])

    def logged() -> None:
        with open(files[0], "rb") as out, open(files[1], "rb") as err:
            assert LATER.search(out.read() + err.read())

    procs.eventually(logged)
    procs.stop(report.json["pid"])

    assert report.status == 0
    assert answer in {b"world\n", b"hello, world\n"}
    assert [found[1], found[2]] == files


@each
def test_by_hand_it_keeps_its_streams(server: list[str], tmp_path: Path) -> None:
    """Without `daemonize`, also below a server that has left its own variables in the environment."""
    log = str(tmp_path / "log")
    with by_hand(server, DAEMONIZE_STREAMS="1:1,1:2", DAEMONIZE_STDOUT=log, DAEMONIZE_STDERR=log) as process:
        assert process.stdout
        greet(port_of(process.stdout.readline()))
        line = process.stdout.readline()
        while not LATER.search(line):
            line = process.stdout.readline()
            assert line, "it has said nothing of its client"

    assert not os.path.exists(log)


@each
def test_a_port_that_is_taken_is_its_failure(server: list[str]) -> None:
    """In its own words, with its own status."""
    with by_hand(server) as process:
        assert process.stdout
        port = port_of(process.stdout.readline())
        done = cli.run(*server, str(port))

    assert done.status == 1
    assert b"ddress already in use" in done.err


@each
def test_a_log_that_cannot_be_opened_is_said(server: list[str], tmp_path: Path) -> None:
    """To the caller, who can still hear it: the server is ready all the same, or fails in these words."""
    log = str(tmp_path / "missing" / "log")
    done = cli.run("--json", "-E", f"DAEMONIZE_STDOUT={log}", *server)
    if done.status == 0:
        procs.stop(done.json["pid"])

    assert log.encode() in done.err


# Not the shell server: it speaks the streams protocol alone.
@pytest.mark.parametrize("server", [NAMES[0], NAMES[1], NAMES[3]], indirect=True)
@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_it_tells_a_manager(server: list[str], kind: str, tmp_path: Path) -> None:
    """The same server, with sd_notify."""
    with (
        Manager(tmp_path if kind == "path" else None) as manager,
        by_hand(server, **manager.environ) as process,
    ):
        said = manager.read()
        assert process.stdout
        answer = greet(port_of(process.stdout.readline()))
        pid = process.pid

    assert said == {"READY": "1", "STATUS": "serving", "MAINPID": str(pid)}
    assert answer == b"world\n"


@pytest.mark.servers
def test_the_server_in_c_writes_to_the_descriptor_of_s6_and_dinit(compiled: str) -> None:
    """A newline, and then the end of file: it has let go of it."""
    read, write = os.pipe()
    with subprocess.Popen(
        [compiled],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=[write],
        env={**os.environ, "NOTIFY_FD": str(write)},
    ) as process:
        os.close(write)
        with open(read, "rb") as pipe:
            said = pipe.read()
        process.terminate()

    assert said == b"\n"


@pytest.mark.parametrize("server", NAMES[:2], indirect=True)
def test_it_stops_cleanly(server: list[str]) -> None:
    """SIGTERM: it says that it stops, and exits 0."""
    with Manager() as manager:
        with by_hand(server, **manager.environ) as process:
            manager.read()
        said = manager.rest()

    assert process.returncode == 0
    assert said == [{"STOPPING": "1"}]
