"""Servers whose first process exits before they listen: ready is all that their exit says, reachable comes later.

A spec that says both is in tests/support/known_servers.py.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, ports, procs
from tests.support.servers import ROOT, launched, need, stop

if TYPE_CHECKING:
    import os

pytestmark = pytest.mark.servers

#: With and without the spec that names what they do; what they are told apart by is the same.
SPECS = pytest.mark.parametrize("spec", [(), ("--ready", "exit")], ids=["streams", "exit"])


def memcached(port: int | str) -> list[str]:
    """`-d`: it forks, and its first process exits before the other one listens."""
    user = ["-u", "root"] if ROOT else []
    return [need("memcached"), "-d", *user, "-l", ports.HOST, "-p", str(port), "-U", "0"]


def redis(directory: str | os.PathLike[str], port: int | str) -> list[str]:
    """`--daemonize yes`: it forks, and its first process exits before the other one listens."""
    options = {"daemonize": "yes", "bind": ports.HOST, "port": port, "save": "", "dir": directory}
    return [
        need("redis-server"),
        *(str(word) for name, value in options.items() for word in (f"--{name}", value)),
    ]


@SPECS
def test_memcached_is_reachable_eventually(spec: tuple[str, ...]) -> None:
    """The adopted process is the main process: it is the one that answers, and that a signal stops."""
    port = ports.free_port()
    with launched(*spec, *memcached(port)) as report:
        ports.wait_listening(port)
        answer = ports.ask(port, b"stats\r\nquit\r\n")

    assert f"STAT pid {report['pid']}\r\n".encode() in answer


def test_memcached_with_a_bad_option_ends_with_its_own_words_and_status() -> None:
    """What is wrong with its command line it knows before it forks."""
    result = cli.run(*memcached("99999999"))

    assert result.status == 64
    assert result.err == b"ERROR: Invalid port number 99999999.\n"


@SPECS
def test_redis_is_reachable_eventually(spec: tuple[str, ...], tmp_path: os.PathLike[str]) -> None:
    """The adopted process is the main process: it is the one that answers, and that a signal stops."""
    port = ports.free_port()
    with launched(*spec, *redis(tmp_path, port)) as report:
        ports.wait_listening(port)
        answer = ports.ask(port, b"INFO server\r\nQUIT\r\n")

    assert f"process_id:{report['pid']}\r\n".encode() in answer


def test_redis_with_a_bad_option_ends_with_its_own_words_and_status(tmp_path: os.PathLike[str]) -> None:
    """What is wrong with its configuration it knows before it forks."""
    result = cli.run(*redis(tmp_path, "nonsense"))

    assert result.status == 1
    assert b"FATAL CONFIG FILE ERROR" in result.err
    assert b'port "nonsense"' in result.err


def test_http_server_behind_a_shell_serves_on(tmp_path: os.PathLike[str]) -> None:
    """A server that keeps our pipe and logs every request to it lives on, and its log is kept."""
    port, path, requests = ports.free_port(), "/" + "x" * 2000, 100
    script = f'"$0" -m http.server --bind {ports.HOST} {port} & exit 0'
    with launched("sh", "-c", script, sys.executable) as report:
        ports.wait_listening(port)
        answers = [ports.get(port, path) for _ in range(requests)]
        serving = procs.command_line(report["pid"])
        stop(report)
    with open(report["files"]["stderr"], "rb") as file:
        log = file.read()

    assert report["drain"]
    assert "http.server" in serving
    assert all(answer.startswith(b"HTTP/1.0 404 ") for answer in answers)
    assert log.count(b'"GET ' + path.encode()) == requests


def test_http_server_behind_a_shell_fails_without_a_drain(tmp_path: os.PathLike[str]) -> None:
    """Negative control: whoever takes its first words and leaves, makes it fail at the next request."""
    port = ports.free_port()
    script = f'"$0" -m http.server --bind {ports.HOST} {port} & echo $!'
    with subprocess.Popen(
        ["sh", "-c", script, sys.executable],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as shell:
        assert shell.stdout
        pid = int(shell.stdout.readline())
        ports.wait_listening(port)
    answer = ports.get(port)
    procs.stop(pid)

    assert answer == b""
