"""Not one death taken for readiness, and not one readiness for a death, in ten thousand launches on a loaded machine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import cli, repeat
from tests.support.programs import PYTHON, SHELL, program

if TYPE_CHECKING:
    from tests.support.family import Family

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("burners")]

#: Launches in all (DAEMONIZE_TESTS_LAUNCHES); so many at a time.
LAUNCHES = int(os.environ.get("DAEMONIZE_TESTS_LAUNCHES", "10000"))
AT_A_TIME = 4


class Case(NamedTuple):
    """A command, what becomes of it, and its share of the launches."""

    argv: list[str]
    expected: str
    share: float = 1.0


CASES = {
    "sh": Case([SHELL, "-c", "exit 3"], "3"),
    "sh that spoke": Case([SHELL, "-c", "echo boom >&2; exit 3"], "3"),
    "false": Case(["/bin/false"], "1"),
    "ls": Case(["ls", "/nonexistent"], "2"),
    "grep": Case(["grep", "x", "/nonexistent"], "2"),
    "cp": Case(["cp", "/nonexistent", "/tmp/x"], "1"),
    "cat": Case(["cat", "/nonexistent"], "1"),
    "sh that closes": Case([SHELL, "-c", "exec >&- 2>&-; exit 4"], "4"),
    "abort": Case([SHELL, "-c", "ulimit -c 0; kill -ABRT $$"], "134"),
    "python": Case([*PYTHON, "-c", "raise SystemExit(5)"], "5", 0.3),
    "python with threads": Case(program("threads_die", 4), "4", 0.3),
    "python with threads that closes": Case(program("threads_die", 4, "closes"), "4", 0.3),
    "leader exits, another dies": Case(program("leader_exits", "dies=6"), "6", 0.2),
    "closes, and dies 20 ms later": Case(program("closes_then_dies", 20, 5), "5", 0.2),
    # The controls: none of these is dead.
    "re-points": Case(program("repoints"), "ready", 0.2),
    "closes": Case(program("closes_streams"), "ready", 0.1),
    "leader exits, another serves": Case(program("leader_exits"), "ready", 0.1),
    "leader exits, another closes": Case(program("leader_exits", "closes"), "ready", 0.1),
    "daemonizes itself": Case(program("self_daemonizes", "last"), "ready", 0.1),
}
WHOLE = sum(case.share for case in CASES.values())


@pytest.mark.parametrize("name", CASES)
def test_outcome_of_each(name: str, family: Family) -> None:
    """Every single launch ends with the outcome that is true."""
    case = CASES[name]
    each = max(1, round(LAUNCHES * case.share / WHOLE / AT_A_TIME))
    argv = [sys.executable, "-P", repeat.__file__, str(each), case.expected, *case.argv]
    workers = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(AT_A_TIME)]
    said = [worker.communicate()[0].decode().split("\n") for worker in workers]

    wrong = [line for lines in said for line in lines if line and not line.startswith("=")]
    assert not wrong, (
        f"{len(wrong)} of {each * AT_A_TIME} launches: {sorted(set(wrong))} and not {case.expected}"
    )
    assert [lines[-2:] for lines in said] == [[f"= {each}", ""]] * AT_A_TIME
    family.nobody()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.expected != "ready"])
def test_outcome_of_the_command(name: str, family: Family) -> None:
    """The same of the installed command, for a hundredth of the launches."""
    case = CASES[name]
    for _ in range(max(1, LAUNCHES // 100 // len(CASES))):
        assert cli.run(*case.argv).status == int(case.expected)
    family.nobody()
