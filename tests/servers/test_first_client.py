"""Clients that come before the server: none of many is refused, from before its program runs until after it is ready."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import held, ports, procs, python_servers
from tests.support.programs import Trigger, program
from tests.support.servers import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.family import Family

#: Connections of one crowd, and how many of them at a time.
CONNECTIONS, AT_ONCE = 10_000, 50

#: A server of one thread that takes what it was given, or else (for the control) binds itself.
PLAIN = """
import signal, socket, sys
import daemonize
signal.alarm(120)
given = daemonize.listen_fds(unset_environment=True)
if given:
    listener = socket.socket(fileno=given[0])
else:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
daemonize.ready()
while True:
    client, _ = listener.accept()
    with client:
        client.recv(65536)
        client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nplain is here")
"""


class Kind(NamedTuple):
    """A server: the words of its command, made in a directory; what its answers hold; the specs by which it is ready."""

    name: str
    command: Callable[[str], list[str]]
    answer: str
    ready: tuple[str, ...]


def plain(directory: str) -> list[str]:
    """It asks daemonize.listen_fds()."""
    return [sys.executable, write(directory, "plain.py", PLAIN)]


def gunicorn(directory: str) -> list[str]:
    """It takes a descriptor as an address."""
    write(directory, python_servers.APPLICATION, python_servers.WSGI)
    words = ["-b", "fd://{fd}", "--chdir", directory, "--no-control-socket", "--backlog", "4096"]
    return [sys.executable, "-m", "gunicorn", *words, "site_ready:application"]


def uvicorn(directory: str) -> list[str]:
    """It takes the number of a descriptor."""
    write(directory, python_servers.APPLICATION, python_servers.ASGI)
    words = ["--fd", "{fd}", "--no-access-log", "--backlog", "4096", "--app-dir", directory]
    return [sys.executable, "-m", "uvicorn", *words, "site_ready:application"]


HTTP = ("-r", "http://127.0.0.1:{port}/")
KINDS = [
    Kind("plain", plain, "plain is here", ()),
    Kind("gunicorn", gunicorn, "gunicorn is here", HTTP),
    Kind("uvicorn", uvicorn, "uvicorn is here", HTTP),
]


@contextlib.contextmanager
def held_before_exec(directory: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], Trigger]]:
    """A launch whose server has everything that it is given, and is not yet executed."""
    with Trigger(directory, "reached") as reached, Trigger(directory, "release") as release:
        argv = [sys.executable, "-P", held.__file__, "exec", os.fspath(directory), *words]
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        ) as wrapper:
            try:
                assert os.read(reached._fd, 100)
                yield wrapper, release
            finally:
                wrapper.kill()  # a test that has failed must not wait for it


@contextlib.contextmanager
def crowd(port: int, count: int, wanted: str) -> Iterator[subprocess.Popen[bytes]]:
    """So many clients at a port of this machine (tests/programs/connects.py)."""
    words = program("connects", port, AT_ONCE, count, wanted)
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, bufsize=0) as process:
        try:
            yield process
        finally:
            process.kill()


def counts(clients: subprocess.Popen[bytes]) -> dict[str, int]:
    """What the clients have seen, in the end."""
    out, _ = clients.communicate(timeout=50)
    assert clients.returncode == 0
    found: dict[str, int] = json.loads(out)
    return found


def listening_port(parent: int) -> int:
    """The port of the only socket of a server that is held before exec."""
    (server,) = procs.children(procs.children(parent)[0].pid)
    inode = procs.descriptors(server.pid)[3].removeprefix("socket:[").removesuffix("]")
    (line,) = [
        line for line in procs.read("/proc/net/tcp").splitlines() if line.split()[9:10] == [inode.encode()]
    ]
    return int(line.split()[1].partition(b":")[2], 16)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_client_is_refused(kind: Kind, tmp_path: Path, servers: Family) -> None:
    """10,000 connections on a port that the kernel has chosen, the first of them before the server is executed."""
    words = ["--listen", "127.0.0.1:0", *kind.ready, *kind.command(str(tmp_path))]
    with (
        held_before_exec(tmp_path, "--json", *words) as (wrapper, release),
        crowd(listening_port(wrapper.pid), CONNECTIONS, kind.answer) as clients,
    ):
        assert clients.stdout is not None
        assert clients.stdout.readline() == b"connected\n"
        release.release()
        assert wrapper.stdout is not None
        report = json.loads(wrapper.stdout.readline())
        assert wrapper.wait(20) == 0
        seen = counts(clients)

    assert report["listen"][0].startswith("127.0.0.1:")
    assert (seen["refused"], seen["failed"]) == (0, 0)
    assert seen["answered"] >= CONNECTIONS
    assert seen["after"] > AT_ONCE


def test_control_a_server_that_binds_for_itself(tmp_path: Path, servers: Family) -> None:
    """Negative control: the same server without --listen refuses whoever comes before it; and the same clients see it."""
    port = ports.free_port()
    with (
        held_before_exec(tmp_path, *plain(str(tmp_path)), str(port)) as (wrapper, release),
        crowd(port, 500, "plain is here") as clients,
    ):
        assert clients.stdout is not None
        assert clients.stdout.readline() == b"refused\n"
        release.release()
        assert wrapper.wait(20) == 0
        seen = counts(clients)

    assert seen["refused"] > 0
    assert seen["answered"] >= 500
