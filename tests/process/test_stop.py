"""Stop plans: everything that belongs to a server ends, nobody else is touched, survivors are named."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from daemonize.posix import identity, stop, tree
from daemonize.posix.identity import Stat, read_stat
from daemonize.posix.loop import Loop
from daemonize.posix.stop import default_plan
from daemonize.posix.tree import Tree
from tests.support import procs
from tests.support.programs import PYTHON, SHELL, program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FAST = default_plan(5.0)


@pytest.fixture(params=["pidfd", "no-pidfd"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With pidfds, and by pid and start time."""
    if request.param == "no-pidfd":
        monkeypatch.setattr(identity, "pidfd_open", lambda _pid: None)
    return str(request.param)


class Server:
    """A process that says a line when it has everything ready, and the token it and its children carry."""

    def __init__(self, stack: contextlib.ExitStack, *command: str, **options: Any) -> None:
        self.token = f"DAEMONIZE_TEST_TOKEN={os.urandom(8).hex()}"
        name, _, value = self.token.partition("=")
        self.process = stack.enter_context(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, name: value},
                **options,
            )
        )
        stack.callback(self._reap)
        assert self.process.stdout
        self.line = self.process.stdout.readline()
        assert self.line, "it did not come up"

    def _reap(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def pid(self) -> int:
        """Of the server itself."""
        return self.process.pid

    @property
    def main(self) -> tuple[int, int]:
        """Pid and start time."""
        found = read_stat(self.pid)
        assert found
        return found.pid, found.start

    def tree(self, **changes: Any) -> Tree:
        """All three sources, unless changed."""
        sources: dict[str, Any] = {
            "roots": {self.pid},
            "session": self.pid,
            "tokens": [self.token.encode()],
            **changes,
        }
        return Tree(**sources)

    def stop(self, plan: Sequence[tuple[int, float]] = FAST, **changes: Any) -> list[tuple[int, str]]:
        """Carry a plan out; the survivors."""
        return stop.run(Loop(), self.tree(**changes), self.main, plan)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Closed after the test."""
    with contextlib.ExitStack() as stack:
        yield stack


def python(script: str) -> tuple[str, ...]:
    """A server made of a few lines."""
    prelude = "import os, signal, sys, time\nsignal.alarm(100)\n"
    return (*PYTHON, "-c", prelude + script)


def test_sigterm_is_enough(way: str, stack: contextlib.ExitStack) -> None:
    """A server that listens ends by SIGTERM, at once, long before the grace is over."""
    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    began = time.monotonic()

    assert server.stop(default_plan(60.0)) == []
    assert time.monotonic() - began < 30
    assert server.process.wait() == -signal.SIGTERM


def test_who_does_not_listen_is_killed(way: str, stack: contextlib.ExitStack) -> None:
    """SIGKILL when the grace is over, and not before."""
    server = Server(stack, *program("ignores_term", "never"))
    began = time.monotonic()

    assert server.stop(default_plan(0.2)) == []
    assert time.monotonic() - began >= 0.2
    assert server.process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("grace", [1e9, math.inf])
def test_a_patient_plan(way: str, stack: contextlib.ExitStack, grace: float) -> None:
    """No grace is too long for the system call behind it."""
    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))

    assert server.stop(default_plan(grace)) == []


def test_nothing_to_stop(way: str) -> None:
    """A plan for nobody is done at once."""
    assert stop.run(Loop(), Tree(set()), None, default_plan(60.0)) == []


TWO_HUNDRED = """
def grow(depth):
    for _ in range(5 if depth < 2 else 7):
        if not os.fork():
            signal.alarm(100)
            if depth < 2:
                grow(depth + 1)
            os.write(1, b'.')
            signal.pause()
            os._exit(0)
grow(0)
os.write(1, b'.')
signal.pause()
"""


def test_two_hundred_descendants(way: str, stack: contextlib.ExitStack) -> None:
    """All of a tree is ended, not only the top, and not one after the other."""
    count = 1 + 5 + 25 + 175
    read, write = os.pipe()
    with subprocess.Popen(python(TWO_HUNDRED), stdout=write, start_new_session=True) as server:
        os.close(write)
        up = 0
        while up < count:
            up += len(os.read(read, 4096))
        main = read_stat(server.pid)
        assert main
        members = Tree({server.pid}, server.pid).living()
        assert len(members) == count
        survivors = stop.run(
            Loop(), Tree({server.pid}, server.pid), (main.pid, main.start), default_plan(20.0)
        )

        assert survivors == []
        # End of file: not one of them is left.
        assert procs.readable(read, 5)
        assert os.read(read, 1) == b""
        os.close(read)


ESCAPEE = """
if not os.fork():
    {way}
    if not os.fork():
        signal.alarm(100)
        os.write(1, b'%d\\n' % os.getpid())
        signal.pause()
    os._exit(0)
os.wait()
signal.pause()
"""
WAYS_OUT = {
    "double-fork": "pass",
    "session": "os.setsid()",
    "group": "os.setpgid(0, 0)",
    "directory": "os.chdir('/'); os.setsid()",
}


@pytest.mark.parametrize("out", WAYS_OUT)
def test_escapees_are_found(way: str, stack: contextlib.ExitStack, out: str) -> None:
    """Who leaves the group, the session or the family is still known by one of the other two marks."""
    server = Server(stack, *python(ESCAPEE.format(way=WAYS_OUT[out])))
    escapee = int(server.line)
    assert procs.alive(escapee)

    assert server.stop() == []
    assert not procs.alive(escapee)


@pytest.mark.parametrize("source", ["session", "token"])
def test_each_source_finds_by_itself(stack: contextlib.ExitStack, source: str) -> None:
    """The session alone, and the token alone; the negative control of the test above: neither, and it is missed."""
    server = Server(stack, *python(ESCAPEE.format(way="pass" if source == "session" else "os.setsid()")))
    escapee = int(server.line)
    changes: dict[str, Any] = {"session": None, "tokens": ()}
    missed = server.tree(**changes).living()
    given = {"session": server.pid} if source == "session" else {"tokens": [server.token.encode()]}
    found = server.tree(**{**changes, **given}).living()
    server.stop()

    assert escapee not in {member.pid for member in missed}
    assert escapee in {member.pid for member in found}


def test_the_main_process_may_end_its_workers_itself(way: str, stack: contextlib.ExitStack) -> None:
    """The first SIGTERM goes to the main process alone; its worker gets one only after it has ended."""
    script = """
out = os.dup(1)
def end(*_):
    # The worker has not been told: it is still there, and there is no word of its.
    os.write(out, b'main %d\\n' % (os.waitpid(-1, os.WNOHANG)[0] == 0))
    os._exit(0)
signal.signal(signal.SIGTERM, end)
if not os.fork():
    signal.alarm(100)
    signal.signal(signal.SIGTERM, lambda *_: (os.write(out, b'worker\\n'), os._exit(0)))
    os.write(out, b'up\\n')
    while True: signal.pause()
while True: signal.pause()
"""
    server = Server(stack, *python(script))
    assert server.stop() == []
    assert server.process.stdout

    assert server.process.stdout.read() == b"main 1\nworker\n"


def test_a_stopped_process(way: str, stack: contextlib.ExitStack) -> None:
    """One that is held by SIGSTOP is let go to see its SIGTERM."""
    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    os.kill(server.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)

    assert server.stop(default_plan(60.0)) == []
    assert server.process.wait() == -signal.SIGTERM


# -- who comes and goes meanwhile -------------------------------------------------------------------------------------


def test_who_has_ended_in_the_meantime(way: str, stack: contextlib.ExitStack) -> None:
    """A process that is gone when its signal is due is simply gone."""
    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    main = server.main
    server.process.kill()
    server.process.wait()

    assert stop.run(Loop(), server.tree(), main, default_plan(60.0)) == []


class Looks(Tree):
    """A tree whose looks are told by the test."""

    def __init__(self, *looks: list[Stat]) -> None:
        super().__init__(set())
        self.looks = list(looks)

    def living(self) -> list[Stat]:
        """The next look; after the last, only who is really there."""
        return self.looks.pop(0) if self.looks else []


def other_start(pid: int) -> Stat:
    """What a look saw before the pid was given to somebody else."""
    seen = read_stat(pid)
    assert seen
    seen.start -= 1
    return seen


@pytest.mark.parametrize("where", ["tree", "main"])
def test_a_pid_that_was_given_away_between_look_and_signal(
    way: str, stack: contextlib.ExitStack, where: str
) -> None:
    """The one that was seen has ended and a bystander has its pid: the bystander is not touched."""
    bystander = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    seen = other_start(bystander.pid)
    looks = Looks([seen]) if where == "tree" else Looks()
    main = (seen.pid, seen.start) if where == "main" else None

    assert stop.run(Loop(), looks, main, default_plan(0.1)) == []
    assert bystander.process.poll() is None


def test_who_was_born_between_look_and_signal(way: str, stack: contextlib.ExitStack) -> None:
    """A parent that was seen and is gone may have had a child meanwhile: another look is taken before all is called over."""
    child = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    gone = subprocess.Popen(["true"])
    seen = read_stat(gone.pid)
    gone.wait()
    living = read_stat(child.pid)
    assert seen
    assert living

    assert stop.run(Loop(), Looks([seen], [living]), None, default_plan(5.0)) == []
    assert procs.wait_ended(child.pid, 5)


class Endless(Tree):
    """A tree in which every look finds somebody who was not there before."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__(set())
        self.stack, self.born = stack, 0

    def living(self) -> list[Stat]:
        """One more; at most 5000, so that the test ends."""
        if self.born == 5000:
            return []
        self.born += 1
        process = self.stack.enter_context(subprocess.Popen([*python("signal.pause()")]))
        self.stack.callback(process.kill)
        seen = read_stat(process.pid)
        assert seen
        return [seen]


def test_a_look_that_always_finds_somebody_cannot_put_off_the_end(stack: contextlib.ExitStack) -> None:
    """Deadlines hold whatever is born meanwhile: SIGKILL comes in time, and so does the list of the survivors."""
    endless = Endless(stack)
    stop.run(Loop(), endless, None, ((signal.SIGTERM, 0.1), (signal.SIGKILL, 0.1)))

    assert endless.born < 5000


RESPAWNER = """
if {worker} and os.fork():
    signal.pause()
signal.alarm(100)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.write(1, b'up\\n')
end = time.monotonic() + 20
while time.monotonic() < end:
    if not os.fork():
        signal.alarm(20)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pause()
        os._exit(0)
    time.sleep(0.0005)
"""


@pytest.mark.parametrize("worker", [False, True])
def test_who_is_always_having_children(way: str, stack: contextlib.ExitStack, worker: bool) -> None:
    """A server that starts a new worker for every one that is ended cannot put off the next step of the plan."""
    server = Server(stack, *python(RESPAWNER.format(worker=worker)))
    began = time.monotonic()

    assert server.stop(default_plan(0.5)) == []
    assert time.monotonic() - began < 10
    assert server.tree().living() == []


BOMB = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.write(1, b'up\\n')
end, births = time.monotonic() + 10, 0
while time.monotonic() < end and births < 4:
    births += 1
    if not os.fork():
        signal.alarm(20)
        births = 2 if births < 3 else 4
    time.sleep(0.002)
signal.pause()
"""


def test_a_small_fork_bomb(way: str, stack: contextlib.ExitStack) -> None:
    """Children that have children while they are being killed are all caught."""
    server = Server(stack, *python(BOMB))

    assert server.stop(default_plan(0.05)) == []
    assert server.tree().living() == []


# -- survivors --------------------------------------------------------------------------------------------------------


def test_survivors_are_named(way: str, stack: contextlib.ExitStack) -> None:
    """What is still there at the end of the plan is told by pid and name, and let be."""
    server = Server(stack, *program("ignores_term", "never"))

    survivors = server.stop([(signal.SIGTERM, 0.1)])

    assert survivors == [(server.pid, procs.stat(server.pid).name)]  # type: ignore[union-attr]
    assert server.process.poll() is None


def test_who_may_not_be_signalled_survives(
    way: str, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's process cannot be ended: it is named, and nothing is raised."""

    def refuse(_self: object, _number: int) -> bool:
        raise PermissionError

    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    monkeypatch.setattr(identity.Process, "send", refuse)
    survivors = server.stop([(signal.SIGTERM, 0.1)])

    assert [pid for pid, _ in survivors] == [server.pid]


def test_hurry(way: str, stack: contextlib.ExitStack) -> None:
    """A second Ctrl-C means now: SIGKILL, whatever is left of the grace."""
    server = Server(stack, *program("ignores_term", "never"))
    loop = Loop()
    plan = stop.Stop(loop, server.tree(), server.main, default_plan(60.0))
    plan.begin()
    assert not plan.done
    plan.hurry()
    while not plan.done:
        loop.run_once(plan.timeout)
        plan.advance()

    assert plan.survivors == []
    assert server.process.wait() == -signal.SIGKILL


def test_nothing_is_left_open(way: str, stack: contextlib.ExitStack) -> None:
    """A plan that is given up in the middle gives every descriptor back, and watches nobody."""
    server = Server(stack, *program("ignores_term", "never"))
    loop, before = Loop(), procs.descriptors(os.getpid()).keys()
    plan = stop.Stop(loop, server.tree(), server.main, default_plan(60.0))
    plan.begin()
    plan.close()

    assert procs.descriptors(os.getpid()).keys() == before
    assert loop._callbacks == {}
    assert plan.done


# -- the tree ---------------------------------------------------------------------------------------------------------


def test_who_is_excluded_is_not_a_member(stack: contextlib.ExitStack) -> None:
    """An excluded root is no member, its descendants are; we ourselves never are."""
    server = Server(stack, SHELL, "-c", "sleep 100 & echo $!; wait")
    child = int(server.line)
    members = [member.pid for member in Tree({server.pid}, exclude={server.pid}).living()]
    ours = {member.pid for member in Tree({os.getpid()}).living()}
    server.stop()

    assert members == [child]
    assert os.getpid() not in ours
    assert {server.pid, child} <= ours


def test_zombies_are_no_members(stack: contextlib.ExitStack) -> None:
    """Who has ended and only waits to be reaped has nothing left to stop."""
    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    token = server.tree()
    os.kill(server.pid, signal.SIGKILL)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)

    assert token.living() == []


LEADER_LEAVES = """
import _thread, ctypes
def serve():
    while not open(f'/proc/self/task/{os.getpid()}/stat').read().rpartition(') ')[2].startswith('Z'):
        time.sleep(0.001)
    os.write(1, b'up\\n')
    time.sleep(100)
_thread.start_new_thread(serve, ())
libc = ctypes.CDLL(None)
libc.syscall({'x86_64': 60}.get(os.uname().machine, 93), 0)
"""


def test_a_leader_that_left_its_threads_is_a_member(way: str, stack: contextlib.ExitStack) -> None:
    """It looks like a zombie and serves on; it is stopped like any other."""
    server = Server(stack, *python(LEADER_LEAVES))
    process = procs.stat(server.pid)
    assert process
    assert process.state == "Z"

    assert [member.pid for member in server.tree().living()] == [server.pid]
    assert server.stop() == []
    assert server.process.wait() == -signal.SIGTERM


def test_a_name_like_the_token_is_not_the_token(stack: contextlib.ExitStack) -> None:
    """The token is a whole entry of the environment, not a part of one."""
    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    for other in (server.token[:-1], server.token[1:], server.token + "0"):
        assert Tree(set(), tokens=[other.encode()]).living() == []
    assert [member.pid for member in Tree(set(), tokens=[server.token.encode()]).living()] == [server.pid]
    server.stop()


def test_without_proc_the_main_process_is_stopped_all_the_same(
    way: str, stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say who belongs to it, but it itself is known."""
    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    monkeypatch.setattr(identity, "read_file", lambda _path: None)
    monkeypatch.setattr(identity, "has_proc", lambda: False)
    monkeypatch.setattr(tree, "all_pids", list)
    loop = Loop()
    plan = stop.Stop(loop, server.tree(), (server.pid, 0), default_plan(5.0))
    plan.begin()
    while not plan.done:
        loop.run_once(plan.timeout)
        server.process.poll()  # its parent reaps it
        plan.advance()

    assert plan.survivors == []
    assert server.process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("awaited", [True, False], ids=["awaited", "not awaited"])
def test_one_listing_is_enough_where_nobody_can_have_been_missed(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, awaited: bool
) -> None:
    """Not in the first look, not when the kernel has begun to count anew, and not when a member ended nobody knows when."""
    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    members, shown, newest = server.tree(), [os.getppid(), os.getpid(), server.pid], server.pid
    listings: list[int] = []
    monkeypatch.setattr(tree, "all_pids", lambda: listings.append(1) or shown)
    monkeypatch.setattr(tree, "_newest_pid", lambda: newest)

    def look() -> int:
        listings.clear()
        members.living()
        return len(listings)

    assert look() == 2
    assert look() == 1
    newest -= 1
    assert look() == 2
    assert look() == 1
    server.process.kill()
    server.process.wait()
    shown.remove(server.pid)
    members.ended |= {server.pid} if awaited else set()
    assert look() == (1 if awaited else 2)
    assert look() == 1


def test_who_has_the_pid_of_one_whose_end_was_awaited(stack: contextlib.ExitStack) -> None:
    """It is looked at like any other, once the kernel may have counted around."""
    server = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()"))
    members = server.tree()
    assert [member.pid for member in members.living()] == [server.pid]
    members.ended.add(server.pid)
    members._last_look = (0.0, 1)

    assert [member.pid for member in members.living()] == [server.pid]
    server.stop()


def test_a_stranger_is_read_once(stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next look reads members and who is new only; and a later process that has a stranger's pid."""
    server, read = Server(stack, *python("os.write(1, b'up\\n'); signal.pause()")), list[int]()
    members = server.tree()
    monkeypatch.setattr(tree, "read_stat", lambda pid: read.append(pid) or read_stat(pid))

    def look() -> set[int]:
        read.clear()
        assert [member.pid for member in members.living()] == [server.pid]
        return set(read)

    stranger = os.getppid()
    assert {stranger, server.pid} <= look()
    second = look()
    assert server.pid in second
    assert stranger not in second
    members._strangers[stranger] += 1  # as of another process
    members._last_look = (0.0, 1)  # long ago: all pids may have been used up since
    assert stranger in look()
    assert stranger not in look()
    members._strangers[stranger] += 1
    members._last_look = (time.monotonic(), 1 << 31)  # the kernel has begun to count anew
    assert stranger in look()
