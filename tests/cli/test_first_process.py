"""`daemonize -f` as the first process of a pid namespace, as a container has one: it reaps, and stands for the server.

pytest ── unshare ─│─ daemonize -f (pid 1) ── server
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, procs
from tests.support.programs import PYTHON, SHELL, program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.family import Family

#: What each of them is to reap.
ORPHANS = 200
#: Has orphans, some of whom are going to fail, that end as soon as nobody can write to its stdin any more; says that they
#: are there, and exits 0 when it is told to end.
BEREAVES = f"""
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
for number in range({ORPHANS}):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os.read(0, 1)
            os._exit(number % 4)
        os._exit(0)
    os.waitpid(child, 0)
os.write(1, b"bereft\\n")
while True:
    signal.pause()
"""
#: A first process that starts a server and reaps nobody else.
CARELESS = """
import os, signal, sys
server = os.fork()
if server == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: os.kill(server, signal.SIGTERM))
os._exit(os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]) & 255)
"""
#: Says that it is there, and ends with this status on SIGTERM.
CATCHES = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"
#: Says that it is there, and has no handler.
STAYS = [SHELL, "-c", "echo up; exec sleep 100"]


@contextlib.contextmanager
def first(*command: cli.Word) -> Iterator[tuple[subprocess.Popen[bytes], procs.Process]]:
    """unshare(1), which ends as the first process does, and that process, by its pid out here; its stdin is a pipe."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
    if (
        os.geteuid()
        or subprocess.run([*words, "true"], capture_output=True, timeout=20, check=False).returncode
    ):
        pytest.skip("no pid namespace here")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*words, *command], bufsize=0, **pipes) as unshare:  # type: ignore[call-overload]
        try:
            (process,) = procs.eventually(lambda: _one(procs.children(unshare.pid)))
            yield unshare, process
        finally:
            unshare.kill()


def _one(found: list[procs.Process]) -> list[procs.Process]:
    assert len(found) == 1
    return found


def said(unshare: subprocess.Popen[bytes]) -> bytes:
    """The next line."""
    assert unshare.stdout
    return bytes(unshare.stdout.readline())


def server_of(process: procs.Process) -> procs.Process:
    """The only child."""
    (server,) = procs.children(process.pid)
    return server


def zombies(pid: int) -> int:
    """How many of its children have ended and not been reaped, when none of its orphans lives any more."""
    found = procs.children(pid)
    assert len([child for child in found if not child.ended]) == 1
    return len(found) - 1


BEREAVING = [*PYTHON, "-c", BEREAVES]
FOREGROUND = cli.command("-f")


def test_orphans_are_reaped(family: Family) -> None:
    """All of them, while the server goes on; and that some of them have failed is not the server's fault."""
    with first(*FOREGROUND, *BEREAVING) as (unshare, process):
        assert said(unshare) == b"bereft\n"
        assert len(procs.eventually(lambda: adopted(process.pid))) == ORPHANS + 1
        assert unshare.stdin
        unshare.stdin.close()
        procs.eventually(lambda: none_left(process.pid), 20)
        server = server_of(process)
        assert procs.status(server.pid)["NSpid"].split()[-1] != "1"
        assert procs.send(process.pid, signal.SIGTERM, process.start)
        assert unshare.wait(20) == 0
    family.nobody()


def adopted(pid: int) -> list[procs.Process]:
    """Its children, when all orphans are among them."""
    found = procs.children(pid)
    assert len(found) > ORPHANS
    return found


def none_left(pid: int) -> None:
    """An AssertionError as long as it has more children than the server, dead ones included."""
    assert len(procs.children(pid)) == 1


def test_control_of_reaping(family: Family) -> None:
    """Negative control: a first process that waits for its server alone has as many zombies."""
    with first(*PYTHON, "-c", CARELESS, *BEREAVING) as (unshare, process):
        assert said(unshare) == b"bereft\n"
        assert unshare.stdin
        unshare.stdin.close()
        assert procs.eventually(lambda: zombies(process.pid), 20) == ORPHANS
        assert procs.send(process.pid, signal.SIGTERM, process.start)
        assert unshare.wait(20) == 0
    family.nobody()


@pytest.mark.parametrize("options", [(), ("-r", "started")], ids=["starting", "ready"])
def test_a_signal_from_outside(options: Sequence[str], family: Family) -> None:
    """As of `docker stop`: it is passed on, and the server's status is ours."""
    with first(*cli.command("-f", *options), SHELL, "-c", CATCHES) as (unshare, process):
        assert said(unshare) == b"up\n"
        assert procs.send(process.pid, signal.SIGTERM, process.start)
        assert unshare.wait(20) == 5
    family.nobody()


def test_a_signal_from_inside(family: Family) -> None:
    """As of `docker exec ... kill 1`."""
    with first(*FOREGROUND, SHELL, "-c", CATCHES) as (unshare, process):
        assert said(unshare) == b"up\n"
        inside = ["nsenter", f"--target={process.pid}", "--pid", "--mount", "kill", "-TERM", "1"]
        subprocess.run(inside, check=True, timeout=20)
        assert unshare.wait(20) == 5
    family.nobody()


@pytest.mark.parametrize("status", [0, 7])
def test_its_status_is_the_servers(status: int, family: Family) -> None:
    """Of one that ends by itself."""
    with first(*FOREGROUND, *program("dies_silently", status)) as (unshare, _):
        assert unshare.wait(20) == status
    family.nobody()


@pytest.mark.parametrize("name", ["TERM", "HUP", "KILL", "ABRT", "USR1"])
def test_its_status_tells_the_signal(name: str, family: Family) -> None:
    """No signal of its own ends a first process: it exits with 128 and the number, whoever has sent it to the server."""
    number = signal.Signals[f"SIG{name}"]
    with first(*FOREGROUND, *STAYS) as (unshare, process):
        assert said(unshare) == b"up\n"
        server = server_of(process)
        assert procs.send(server.pid, number, server.start)
        assert unshare.wait(20) == 128 + number
    family.nobody()


def test_a_server_without_a_handler_is_stopped_from_outside(family: Family) -> None:
    """What the first process would ignore ends the server, which is not one: no need to wait for SIGKILL."""
    with first(*FOREGROUND, *STAYS) as (unshare, process):
        assert said(unshare) == b"up\n"
        assert procs.send(process.pid, signal.SIGTERM, process.start)
        assert unshare.wait(20) == 128 + signal.SIGTERM
    family.nobody()


def test_control_a_first_process_without_a_handler(family: Family) -> None:
    """Negative control: as the first process the same server cannot be stopped."""
    with first(*STAYS) as (unshare, process):
        assert said(unshare) == b"up\n"
        assert procs.send(process.pid, signal.SIGTERM, process.start)
        assert not procs.wait_ended(process.pid, 0.2)
    family.end()
