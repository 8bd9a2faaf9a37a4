"""A launch with a lock and a pid file is killed at a random moment, again and again: the next one is never held up."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, procs
from tests.support.programs import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("burners")]

RACES = int(os.environ.get("DAEMONIZE_TESTS_RACES", "200"))
LONGEST = 0.15
READY = program("repoints")


@pytest.mark.parametrize("who", ["wrapper", "parent", "server"])
@pytest.mark.parametrize("same", [False, True], ids=["two files", "one file"])
def test_killed(who: str, same: bool, tmp_path: Path, family: Family) -> None:
    """Whoever is killed: a server that lives is named by the pid file; otherwise the next launch begins at once."""
    pid_file = tmp_path / "pid"
    words = ["-p", pid_file, "-l", tmp_path / ("pid" if same else "lock")]
    for seed in range(RACES):
        chance = random.Random(seed)
        with cli.popen(*words, *READY) as wrapper:
            procs.wait_ended(wrapper.pid, chance.uniform(0, LONGEST))
            victim = _victim(who, wrapper.pid)
            if victim:
                procs.send(victim.pid, signal.SIGKILL, victim.start)
            wrapper.communicate(timeout=20)
        procs.eventually(lambda: _is_settled(family, pid_file))
        assert family.living() or wrapper.returncode != 0 or who == "server", f"seed {seed}"
        family.end()
        done = cli.run("--json", *words, *READY)
        assert done.status == 0, f"seed {seed}: {done}"
        assert pid_file.read_bytes() == b"%d\n" % done.json["pid"], f"seed {seed}"
        family.end()


def _is_settled(family: Family, pid_file: Path) -> None:
    """Nobody is left; or a server that was let go of, also by a wrapper that was killed after that, and its pid file."""
    living = family.living()
    if living:
        assert len(living) == 1
        assert living[0].ppid == 1
        assert pid_file.read_bytes() == b"%d\n" % living[0].pid


def _victim(who: str, wrapper: int) -> procs.Process | None:
    """One of the three, if it is there."""
    family = [procs.stat(wrapper), *procs.tree(wrapper)]
    index = ("wrapper", "parent", "server").index(who)
    return family[index] if index < len(family) else None
