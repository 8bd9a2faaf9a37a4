"""Programs that own a `BackgroundServer`, each a process of its own, for what cannot be shown inside pytest."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.support import procs
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.family import Family

#: A server that sends back what it receives, on the port it is told, and has said which when it listens.
ECHO = program("tcp_echo", "{port}", "holds", "first")
_PRELUDE = """
import asyncio, json, os, resource, signal, socket, sys, threading, time
import daemonize
from daemonize import BackgroundServer
command = sys.argv[1:]
kept = []
def say(*words):
    os.write(1, json.dumps(words).encode() + b"\\n")
def hear():
    return sys.stdin.readline().strip()
def started(**settings):
    server = BackgroundServer(command, **settings)
    server.start()
    kept.append(server)  # one that nobody holds any more is stopped
    wrapper, keeper = parents(server)
    say(server.pid, wrapper, keeper, server.port)
    return server
def parents(server):
    def above(pid):
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    wrapper = above(server.pid)
    return wrapper, above(wrapper)
"""


class Owner:
    """One such program, started. Both its streams are pipes; it says lines of JSON, and hears words."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.pid = process, process.pid

    def says(self) -> list[Any]:
        """The next that it says; an AssertionError with its stderr if it ends instead."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.finish()
        said: list[Any] = json.loads(line)
        return said

    def tell(self, word: str = "") -> None:
        """What it hears."""
        assert self.process.stdin
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()

    def finish(self, timeout: float = 30) -> tuple[int, bytes, bytes]:
        """Wait for its end, and for those of both streams: its status, and what it has said beyond."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def end(self) -> None:
        """SIGKILL; returns when it has ended."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def owning(code: str, *command: str, python: str = sys.executable, **options: Any) -> Iterator[Owner]:
    """An owner, which is killed after the block. The code finds `BackgroundServer`, the server's `command`, `say`, `hear`.

    `started(...)` starts one and says its pid, and those of its wrapper and keeper, and its port.
    """
    given: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **options,
    }
    words = [python, "-c", _PRELUDE + code, *(command or ECHO)]
    with subprocess.Popen(words, **given) as process:
        try:
            yield Owner(process)
        finally:
            process.kill()


def run(code: str, *command: str, **options: Any) -> list[list[Any]]:
    """Run an owner to its end: all that it has said. It exits 0, with nothing on stderr."""
    with owning(code, *command, **options) as owner:
        status, out, err = owner.finish()
    assert (status, err) == (0, b"")
    return [json.loads(line) for line in out.splitlines()]


def all_ended(family: Family, within: float = 10.0) -> None:
    """Wait until every process of the test has ended by itself; an AssertionError that names who has not."""
    for process in family.living():
        procs.wait_ended(process.pid, within, process.start)
    family.nobody()


def above(pid: int | None) -> int:
    """Pid of the parent: of a server's wrapper, of a wrapper's keeper."""
    process = procs.stat(pid or 0)
    assert process is not None, f"there is no process {pid}"
    return process.ppid


def shell(*commands: list[str]) -> str:
    """Text for the shell that starts each in its background, and waits."""
    return " & ".join([*(" ".join(words) for words in commands), "wait"])


def environment(**changes: str) -> dict[str, str]:
    """That of this process with some variables changed."""
    return {**os.environ, **changes}
