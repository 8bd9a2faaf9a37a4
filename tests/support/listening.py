"""Small servers that listen somewhere, written as code; strangers that were there before them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, ports, procs, users

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.support.users import Account

#: Executes the words after the third with sockets at descriptors from 3 on, and the variables changed (None: removed).
_HAND = """
import ast, os, socket, sys
addresses, names, changes = map(ast.literal_eval, sys.argv[1:4])
given = []
for address in addresses:
    kind = socket.AF_UNIX if isinstance(address, (str, bytes)) else socket.AF_INET
    kind = socket.AF_INET6 if ":" in address[0] else kind
    given.append(socket.socket(kind))
    if kind == socket.AF_INET6:
        given[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    given[-1].bind(address)
    given[-1].listen()
away = [os.dup2(s.fileno(), 100 + n) for n, s in enumerate(given)]
for n, fd in enumerate(away):
    os.dup2(fd, 3 + n)
    os.close(fd)
variables = {"LISTEN_FDS": str(len(given)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names}
kept = {name: value for name, value in {**os.environ, **variables, **changes}.items() if value is not None}
os.closerange(3 + len(given), 100)
os.execve(sys.argv[4], sys.argv[4:], kept)
"""
PRELUDE = """
import os, select, signal, socket, sys
signal.alarm(120)
kept = []
def listen(host, port, **options):
    kept.append(socket.create_server((host, port), **options))
def listen6(host, port, **options):
    listen(host, port, family=socket.AF_INET6, **options)
def bind(name, kind=socket.SOCK_STREAM):
    kept.append(socket.socket(socket.AF_UNIX, kind))
    kept[-1].bind(name)
    return kept[-1]
def say(*words):
    os.write(1, b" ".join(str(word).encode() for word in words) + b"\\n")
def wait(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 1)
    os.close(fd)
def stay():
    select.select([], [], [])
def parent():
    if os.fork():
        return True
    signal.alarm(120)
def hide():
    import ctypes
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
"""


def server(*code: str) -> list[str]:
    """The argument list of a server that does this, and stays. Any user can be it."""
    return [users.python(), "-S", "-E", "-c", "\n".join([PRELUDE, *code, "stay()"])]


@contextlib.contextmanager
def stranger(*code: str, account: Account | None = None) -> Iterator[int]:
    """A process that is no server of ours, when it has done this; its pid."""
    front = users.become(account) if account else []
    command = [*front, *server(*code, 'say("done")')]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"done\n"
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def as_nobody(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, called by an ordinary user."""
    with users.open_directory() as directory:
        command = [*users.become(users.NOBODY), users.python(), "-m", "daemonize", *words]
        environment = cli.environ({**users.environ(), "DAEMONIZE_STATE_DIR": f"{directory}/state"})
        with subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def in_own_network(*command: str) -> list[str]:
    """Words that run a command in a network namespace of its own, with loopback; skips where there can be none."""
    words = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if subprocess.run([*words, "true"], capture_output=True, check=False, timeout=20).returncode:
        pytest.skip("no network namespace here")
    return [*words, *command]


def cpu_share(pid: int, seconds: float) -> float:
    """How much of one CPU a process uses in the next seconds. An AssertionError if it ends in the meantime."""
    before = _ticks(pid)
    assert not procs.wait_ended(pid, seconds), "it has ended"
    return (_ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / seconds


def _ticks(pid: int) -> int:
    fields = procs.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


def handed(
    names: Sequence[str],
    *words: str,
    addresses: Sequence[object] = (),
    environment: Mapping[str, str | None] | None = None,
) -> list[str]:
    """The words of a command (a path first) that is executed as systemd would: it is given a socket for each name.

    addresses: what they are bound to, by default any loopback port. environment: changes to it, after LISTEN_*.
    """
    bound = addresses or [(ports.HOST, 0)] * len(names)
    given = [repr(list(bound)), repr(":".join(names)), repr(dict(environment or {}))]
    return [sys.executable, "-S", "-E", "-c", _HAND, *given, *words]
