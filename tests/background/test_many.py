"""Many servers in a test suite that runs in several processes (pytest-xdist)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import procs
from tests.support.owners import ECHO, all_ended

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.family import Family

pytest.importorskip("xdist")
#: Each test starts one, and the last four of each worker run beside it.
SUITE = f"""
import os, socket, time
import pytest
from daemonize import BackgroundServer

COMMAND = {ECHO!r}
DIRECTORY = os.path.dirname(os.path.abspath(__file__))

@pytest.fixture(scope="session")
def running():
    servers = []
    yield servers
    for server in servers:
        server.stop()

def started():
    server = BackgroundServer(COMMAND, boot_timeout=30)
    server.start()
    with open(os.path.join(DIRECTORY, "started"), "a") as file:
        file.write(f"{{server.pid}} {{server.port}}\\n")
    return server

@pytest.mark.parametrize("number", range(200))
def test_start(number, running):
    server = started()
    running.append(server)
    assert server.stdout == f"listening on port {{server.port}}\\n"
    word = b"%d " % server.pid
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(word)
        assert client.recv(100) == word
    if len(running) > 4:
        running.pop(0).stop()
"""
HOLD = (
    SUITE.partition("@pytest.mark.parametrize")[0]
    + """
@pytest.mark.parametrize("number", range(4))
def test_hold(number, running):
    running.append(started())
    with open(os.path.join(DIRECTORY, "held"), "wb", buffering=0) as file:
        file.write(b".")
    while True:
        time.sleep(0.05)  # execnet, which ends the worker when its controller is gone, interrupts between two lines
"""
)


def suite(directory: Path, text: str, *options: str) -> list[str]:
    """The command line of a pytest that runs such a test suite, of somebody else's."""
    (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    path = directory / "test_suite.py"
    path.write_text(text)
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "4", *options, str(path)]


def begin(words: Sequence[str], directory: Path) -> subprocess.Popen[bytes]:
    """Start it; what it says goes to a file."""
    with open(directory / "said", "wb") as said:
        return subprocess.Popen(words, cwd=directory, stdin=subprocess.DEVNULL, stdout=said, stderr=said)


def servers(directory: Path) -> list[tuple[int, int]]:
    """Pid and port of those that were started, so far."""
    lines = (directory / "started").read_text().splitlines()
    return [(int(pid), int(port)) for pid, port in map(str.split, lines)]


@pytest.mark.timeout(120)
def test_two_hundred_starts_in_four_processes(tmp_path: Path, family: Family) -> None:
    """Every server has its own port and answers there; no start is lost to a clash, and nothing is left."""
    with begin(suite(tmp_path, SUITE), tmp_path) as run:
        assert run.wait(100) == 0, (tmp_path / "said").read_text()
    assert re.search(r"\b200 passed\b", (tmp_path / "said").read_text())
    started = servers(tmp_path)
    assert len(started) == len({pid for pid, _ in started}) == 200
    all_ended(family, 0.5)


def test_a_killed_controller_leaves_no_server(tmp_path: Path, family: Family) -> None:
    """SIGKILL of pytest in the middle of many tests: within some seconds there is no server, and no process at all."""
    (tmp_path / "started").touch()
    with begin(suite(tmp_path, SUITE), tmp_path) as run:

        def in_the_middle() -> None:
            assert len(servers(tmp_path)) >= 20

        try:
            procs.eventually(in_the_middle, 30)
        finally:
            run.kill()
    all_ended(family, 20)
    assert len(servers(tmp_path)) < 200


def test_a_killed_controller_of_tests_that_hang_leaves_no_server(tmp_path: Path, family: Family) -> None:
    """Its workers give up some seconds later (that is xdist's), and their servers go with them."""
    held = tmp_path / "held"
    os.mkfifo(held)
    fd = os.open(held, os.O_RDWR)
    try:
        with begin(suite(tmp_path, HOLD), tmp_path) as run:
            for _ in range(4):
                assert procs.readable(fd, 30)
                os.read(fd, 1)
            assert all(procs.alive(pid) for pid, _ in servers(tmp_path))
            run.kill()
    finally:
        os.close(fd)
    all_ended(family, 20)


def test_killed_workers_leave_no_server(tmp_path: Path, family: Family) -> None:
    """SIGKILL of a worker: its servers go at once, and xdist goes on with another worker."""
    held = tmp_path / "held"
    os.mkfifo(held)
    fd = os.open(held, os.O_RDWR)
    try:
        with begin(suite(tmp_path, HOLD, "--max-worker-restart=0"), tmp_path) as run:
            for _ in range(4):
                assert procs.readable(fd, 30)
                os.read(fd, 1)
            for worker in procs.children(run.pid):
                procs.send(worker.pid, 9, worker.start)
            for pid, _ in servers(tmp_path):
                assert procs.wait_ended(pid)
            run.kill()
    finally:
        os.close(fd)
    all_ended(family)
