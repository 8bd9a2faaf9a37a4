"""What is left is looked for among our own children where nobody can get away from there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from daemonize.posix.tree import Offspring
from tests.support import procs

#: A process that adopts orphans, starts what its argument says, and stops all of it: what was found, and what is left then.
ADOPTS = """
import os, subprocess, sys
from daemonize.posix import prctl, stop
from daemonize.posix.loop import Loop
from daemonize.posix.tree import Offspring
assert prctl.become_subreaper()
def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError:
        pass
server = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
server.stdout.readline()
found = Offspring((), reap)
print(len(found.living()), found.torn, flush=True)
stop.run(Loop(), found, None, stop.default_plan(0.2), reap)
print(len(found.living()), found.torn)
server.returncode = 0
"""
#: Workers that leave their parent, their session and their group, and one that forks and exits every few milliseconds.
ESCAPES = """
import os, signal, time
for number in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.environ.clear()
        os.closerange(0, 3)
        while True:
            signal.pause()
    os.wait()
{more}
print("up", flush=True)
signal.pause()
"""
HOPS = """
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        time.sleep(0.003)
        if os.fork():
            os._exit(0)
    os._exit(0)
"""


def stopped(code: str) -> list[list[str]]:
    """What it says."""
    words = [sys.executable, "-c", ADOPTS, sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def test_who_escapes_is_still_below() -> None:
    """Another session, another group, no mark in the environment: all are found, and all end."""
    before, after = stopped(ESCAPES.format(more=""))

    assert before == ["4", "False"]
    assert after == ["0", "False"]  # not torn: the kernel says that there is nobody


@pytest.mark.parametrize("turn", range(5))
def test_who_is_never_long_the_same(turn: int) -> None:
    """A worker that forks and exits every few milliseconds is caught: also between two looks it is ours."""
    _, after = stopped(ESCAPES.format(more=HOPS))

    assert after == ["0", "False"]


def test_a_child_that_is_left_alone() -> None:
    """Negative control: one that does not belong to it is not found; and it is no proof then that there is nobody."""
    with subprocess.Popen(["sleep", "100"]) as bystander:
        found = Offspring({bystander.pid}, lambda: None)
        try:
            assert found.living() == []
            assert found.torn
            every = [stat.pid for stat in Offspring((), lambda: None).living()]
        finally:
            procs.stop(bystander.pid)

    assert bystander.pid in every
    assert os.getpid() not in every
