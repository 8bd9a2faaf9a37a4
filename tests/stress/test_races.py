"""Something is killed or interrupted at a random moment, again and again: a documented status, and no process left."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, procs
from tests.support.programs import SHELL, program

if TYPE_CHECKING:
    import subprocess

    from tests.support.family import Family

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("burners")]

#: Repetitions of each race (DAEMONIZE_TESTS_RACES), and the longest it runs before something happens, in seconds.
RACES = int(os.environ.get("DAEMONIZE_TESTS_RACES", "200"))
LONGEST = 0.15
KILLED = 128 + signal.SIGKILL

SERVERS = {
    "never ready": [SHELL, "-c", "while :; do sleep 100; done"],
    "ready": program("repoints"),
    "fails": [SHELL, "-c", "exit 3"],
    "daemonizes itself": program("self_daemonizes", "last"),
    "in children": [SHELL, "-c", "sleep 100 & sleep 100 & wait"],
}
#: What becomes of each if nobody interferes.
UNDISTURBED = {"never ready": 124, "ready": 0, "fails": 3, "daemonizes itself": 0, "in children": 124}


def race(server: str, seed: int) -> tuple[subprocess.Popen[bytes], random.Random]:
    """A launch that has run for a random time."""
    chance = random.Random(seed)
    process = cli.popen("-t", "2s", "--stop-timeout", "5s", *SERVERS[server])
    procs.wait_ended(process.pid, chance.uniform(0, LONGEST))
    return process, chance


def end(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Status and stderr. Both streams come to their end: nobody holds them."""
    out, err = process.communicate(timeout=20)
    # A Ctrl-C while the interpreter itself starts is shown by the interpreter; nothing of ours has run by then.
    assert b"Traceback" not in err or b"KeyboardInterrupt" in err, err
    assert b"internal error" not in err
    assert not out or out.startswith(b"daemon ")
    return process.returncode, err


def settle(status: int, family: Family, *, ready: int = 0) -> None:
    """Nobody is left, but a server that is ready: that one is ended here."""
    if status == ready:
        family.end()
    else:
        family.nobody()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
@pytest.mark.parametrize("server", SERVERS)
def test_wrapper_interrupted(server: str, number: signal.Signals, family: Family) -> None:
    """128 + N if it came in time (-N before there was anything to stop), else as if undisturbed."""
    for seed in range(RACES):
        process, _ = race(server, seed)
        process.send_signal(number)
        status, err = end(process)
        assert status in {128 + number, -number, UNDISTURBED[server]} or b"Fatal Python error" in err, seed
        settle(status, family)


def let_go(server: str, family: Family) -> bool:
    """Nobody is left, or only a server that is ready and init's: the wrapper was killed after it had let go."""
    left = family.living()
    return not left or (
        UNDISTURBED[server] == 0
        and all(
            process.ppid == 1 and procs.descriptors(process.pid).get(1) == "/dev/null" for process in left
        )
    )


@pytest.mark.parametrize("server", SERVERS)
def test_wrapper_killed(server: str, family: Family) -> None:
    """Nothing is left but a server that is ready and was let go (not yet let go: tests/cli/test_kill_matrix.py)."""
    for seed in range(RACES):
        process, _ = race(server, seed)
        process.kill()
        status, _ = end(process)
        assert status in {-signal.SIGKILL, UNDISTURBED[server]}

        def gone(seed: int = seed) -> None:
            assert let_go(server, family), f"{seed}: {[procs.command_line(p.pid) for p in family.living()]}"

        procs.eventually(gone, 10)
        family.end()


def kill_all(victims: list[procs.Process], process: subprocess.Popen[bytes], family: Family) -> bool:
    """Kill them; where there is none (yet, or any more), give this launch up."""
    for victim in victims:
        procs.send(victim.pid, signal.SIGKILL, victim.start)
    if not victims:
        process.terminate()
        end(process)
        family.end()
    return bool(victims)


@pytest.mark.parametrize("server", SERVERS)
def test_intermediate_parent_killed(server: str, family: Family) -> None:
    """125 if it came in time, else as if undisturbed; nothing is left but a server that is ready."""
    for seed in range(RACES):
        process, _ = race(server, seed)
        if kill_all(procs.children(process.pid), process, family):
            status, _ = end(process)
            assert status in {125, UNDISTURBED[server]}, seed
            settle(status, family)


@pytest.mark.parametrize("server", SERVERS)
def test_server_killed(server: str, family: Family) -> None:
    """137 if it came in time, else as if undisturbed; nothing is left but a server that is ready."""
    for seed in range(RACES):
        process, _ = race(server, seed)
        victims = [child for parent in procs.children(process.pid) for child in procs.children(parent.pid)]
        if kill_all(victims, process, family):
            status, _ = end(process)
            assert status in {KILLED, UNDISTURBED[server]}, seed
            settle(status, family)
