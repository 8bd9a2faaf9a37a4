"""A program with `--daemonize` under kills at random moments, and its deaths: never a wrong status, never anybody left."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import apps, procs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("burners")]

#: Repetitions of each race (DAEMONIZE_TESTS_RACES), and the longest it runs before something happens, in seconds.
RACES = int(os.environ.get("DAEMONIZE_TESTS_RACES", "200"))
LONGEST = 0.4

COMMAND = """
@click.command()
@daemonize_option(timeout=20)
@click.argument('end')
def main(end):
    if end == 'ready':
        serve()
    if end == 'closes':
        os.close(1)
        os.close(2)
        os._exit(3)
    sys.exit(3)
main()
"""


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("end", ["exit", "closes"])
def test_deaths(end: str, way: str, tmp_path: Path, family: Family) -> None:
    """Not one death is taken for readiness."""
    argv = apps.write(tmp_path, apps.WAYS[way] + COMMAND)
    statuses = [apps.run(argv, "--daemonize", end).status for _ in range(RACES)]

    assert statuses == [3] * RACES
    family.nobody()


def let_go(family: Family) -> bool:
    """Nobody is left, or only a server that was ready: the wrapper was killed after it had let go."""
    left = family.living()
    return all(p.ppid == 1 and not procs.descriptors(p.pid).get(1, "").startswith("pipe") for p in left)


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("who", ["wrapper", "parent", "server"])
def test_kills(who: str, number: signal.Signals, way: str, tmp_path: Path, family: Family) -> None:
    """Whoever gets a signal, whenever: a status that says so, or that of an undisturbed launch; nobody half-started."""
    argv = apps.write(tmp_path, apps.WAYS[way] + COMMAND)
    # 1: click's own answer to SIGINT, where the program or the server is still click's; 125: the parent was killed.
    expected = {0, 1, 125, 128 + number, -number}
    for seed in range(RACES):
        chance = random.Random(seed)
        with apps.popen(argv, "--daemonize", "ready") as process:
            procs.wait_ended(process.pid, chance.uniform(0, LONGEST))
            victims = [process.pid] if who == "wrapper" else [p.pid for p in procs.children(process.pid)]
            if who == "server":
                victims = [child.pid for pid in victims for child in procs.children(pid)]
            for victim in victims:
                procs.send(victim, number)
            _, err = process.communicate(timeout=30)
        assert process.returncode in expected, (seed, err)
        assert b"internal error" not in err

        def check(seed: int = seed) -> None:
            assert let_go(family), f"{seed}: {[procs.command_line(p.pid) for p in family.living()]}"

        procs.eventually(check, 15)
        family.end()
