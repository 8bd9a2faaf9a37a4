"""`daemonctl stop`: all that belongs to a daemon is gone when it returns, nobody else is touched, survivors are named."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, control, procs, users
from tests.support.listening import server
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family

UP = ("-r", "log:up")
#: Says on a fifo, a line for each, which signals it gets, and lives on.
NOTES = """
notes = os.open(sys.argv[1], os.O_WRONLY)
def note(number, _frame):
    os.write(notes, b"%d %d\\n" % (os.getpid(), number))
def heed(*numbers):
    for number in numbers:
        signal.signal(number, note)
"""


class Notes:
    """The fifo for NOTES. A reader that waits in vain fails after ten seconds."""

    def __init__(self, directory: Path) -> None:
        self.path = os.fspath(directory / "notes")
        os.mkfifo(self.path)
        # For both directions: then neither this open nor the servers' blocks, and there is no end of file.
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self._text = b""

    def lines(self, count: int) -> list[tuple[int, int]]:
        """The next notes: (pid, signal)."""
        while self._text.count(b"\n") < count:
            assert procs.readable(self._fd), f"not {count} lines: {self._text!r}"
            self._text += os.read(self._fd, 4096)
        *first, self._text = self._text.split(b"\n", count)
        return [(int(pid), int(number)) for pid, number in map(bytes.split, first)]

    @property
    def silent(self) -> bool:
        """Nothing has been noted since."""
        return not self._text and not procs.readable(self._fd, 0)

    def close(self) -> None:
        """No more of it."""
        os.close(self._fd)


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    """What servers note."""
    with contextlib.closing(Notes(tmp_path)) as kept:
        yield kept


def noting(notes: Notes, *code: str) -> list[str]:
    """A server with NOTES."""
    return [*server(NOTES, *code), notes.path]


def stop_by_force(*names: str) -> None:
    """End what a test leaves running on purpose."""
    assert control.run("stop", "--timeout", "0s", *names).status == 0


# -- one daemon ----------------------------------------------------------------------------------------------------------


def test_a_well_behaved_server(family: Family) -> None:
    """It is gone when stop returns, which says nothing and has nothing to say; the record has that it was on purpose."""
    pid = control.started("web", *program("repoints"))
    assert control.record("web")["stopped"] is None
    assert procs.alive(pid)

    result = control.run("stop", "web")

    family.nobody()
    assert result[:3] == (0, b"", b"")
    assert control.record("web")["stopped"] >= control.record("web")["began"]


def test_what_is_stopped_is_stopped_again(family: Family) -> None:
    """To stop what is stopped, or has ended by itself, succeeds."""
    pid = control.started("web", *program("repoints"))
    assert control.run("stop", "web", "web").status == 0
    assert control.run("stop", "web").status == 0

    pid = control.started("web", *program("repoints"))
    procs.stop(pid)
    assert control.run("stop", "web")[:3] == (0, b"", b"")


def test_who_stops_another_than_the_one_that_runs_is_told(family: Family) -> None:
    """A name that was given is kept, so that the next launch of the command has a number."""
    control.started("sleep", "-r", "started", "sleep", "1000")
    assert control.run("stop", "sleep")[:3] == (0, b"", b"")
    second = cli.run("--json", "-r", "started", "sleep", "1000").json
    assert second["name"] == "sleep-2"

    told = control.run("stop", "sleep")
    assert told[:3] == (0, b"", b"daemonctl: sleep did not run; sleep-2 does: daemonctl stop sleep-2\n")
    assert procs.alive(second["pid"])
    assert control.run("stop", "sleep", "sleep-2")[:3] == (0, b"", b"")
    assert control.run("stop", "sleep")[:3] == (0, b"", b"")


def test_a_server_that_ignores_sigterm_is_killed_when_its_time_is_over(family: Family) -> None:
    """--timeout is the time until SIGKILL, which comes neither earlier nor never."""
    control.started("web", *program("ignores_term"))

    result = control.run("stop", "--timeout", "500ms", "web")

    family.nobody()
    assert result[:3] == (0, b"", b"")
    assert result.seconds >= 0.5


def test_the_time_is_what_it_was_started_with(family: Family) -> None:
    """Without --timeout: that of --stop-timeout; the default would be ten seconds."""
    control.started("web", "--stop-timeout", "300ms", *program("ignores_term"))

    result = control.run("stop", "web")

    family.nobody()
    assert result.status == 0
    assert 0.3 <= result.seconds < 10


@pytest.mark.parametrize(("word", "number"), [("HUP", 1), ("SIGUSR1", 10), ("sigint", 2), ("12", 12)])
def test_the_first_signal(notes: Notes, family: Family, word: str, number: int) -> None:
    """--signal, by name with or without SIG or by number, is what the server is told by; by default SIGTERM."""
    code = "heed(1, 2, 10, 12, 15)"
    pid = control.started("web", *UP, *noting(notes, code, "say('up')"))

    assert control.run("stop", "--signal", word, "--timeout", "100ms", "web").status == 0
    assert notes.lines(1) == [(pid, number)]
    assert notes.silent
    family.nobody()

    pid = control.started("web", *UP, *noting(notes, code, "say('up')"))
    assert control.run("stop", "--timeout", "100ms", "web").status == 0
    assert notes.lines(1) == [(pid, signal.SIGTERM)]


def test_a_suspended_server_ends(family: Family) -> None:
    """It would never see the signal: SIGCONT comes with it, long before the time is over."""
    pid = control.started("web", *program("repoints"))
    os.kill(pid, signal.SIGSTOP)

    assert control.run("stop", "--timeout", "60s", "web").status == 0
    family.nobody()


def test_its_pid_file_goes(tmp_path: Path, family: Family) -> None:
    """The pid file is removed, also of one that has died; one that names somebody else by now stays."""
    path = tmp_path / "web.pid"
    for end in (False, True):
        pid = control.started("web", "-p", path, *program("repoints"))
        assert path.read_text() == f"{pid}\n"
        if end:
            procs.stop(pid)
        assert control.run("stop", "web").status == 0
        assert not path.exists()

    control.started("web", "-p", path, *program("repoints"))
    path.write_text("1\n")
    assert control.run("stop", "web").status == 0
    assert path.read_text() == "1\n"


def test_its_lock_file_is_emptied(tmp_path: Path, family: Family) -> None:
    """Where pid file and lock file are one it stays, as another launch may have it open, and names nobody."""
    path = tmp_path / "web.lock"
    control.started("web", "-p", path, "-l", path, *program("repoints"))

    assert control.run("stop", "web").status == 0
    assert path.read_bytes() == b""


LAST_WORDS = """
def end(*_):
    for number in range(2000):
        say("last words", number)
    os._exit(0)
signal.signal(15, end)
say("up")
"""


def test_last_words_are_in_the_log(family: Family) -> None:
    """What a server writes on its end, through the drain, is in its log when stop returns; the drain is gone."""
    words = ("-t", "300ms", "--on-timeout", "leave", "-r", "streams")
    result = cli.run("--json", "--name", "web", *words, *server(LAST_WORDS))
    assert result.status == 124
    assert result.json["drain"]

    assert control.run("stop", "web").status == 0
    family.nobody()
    with open(control.record("web")["stdout"]) as log:
        assert log.read().endswith("last words 1999\n")


# -- several -------------------------------------------------------------------------------------------------------------


def test_several_are_stopped_at_the_same_time(notes: Notes, trigger: Trigger, family: Family) -> None:
    """Every one is told before the first has ended: here none ends before all have been told."""
    wait = f"signal.signal(15, lambda *_: (note(15, None), wait({trigger.path!r}), os._exit(0)))"
    names = [f"web{number}" for number in range(5)]
    pids = [control.started(name, *UP, *noting(notes, wait, "say('up')")) for name in names]

    with control.popen("stop", "--timeout", "60s", *names) as stopping:
        assert sorted(notes.lines(5)) == [(pid, signal.SIGTERM) for pid in sorted(pids)]
        assert all(map(procs.alive, pids))
        assert stopping.poll() is None
        for _ in pids:
            trigger.release()
        assert stopping.communicate(timeout=20) == (b"", b"")
    assert stopping.returncode == 0
    family.nobody()


def test_several_that_do_not_listen_are_killed_at_the_same_time(family: Family) -> None:
    """Five that ignore SIGTERM take as long as one, and not five times as long."""
    names = [f"web{number}" for number in range(5)]
    for name in names:
        control.started(name, *program("ignores_term"))

    result = control.run("stop", "--timeout", "1s", *names)

    family.nobody()
    assert result.status == 0
    assert 1.0 <= result.seconds < 5 * 1.0


@pytest.mark.parametrize("number", [11, 14])
def test_more_of_them_than_there_are_descriptors(number: int, family: Family) -> None:
    """Whom no pidfd is left for is waited for all the same, and nobody is taken for gone who could not be looked at."""
    names = [f"web{index}" for index in range(16)]
    for name in names:
        control.started(name, *UP, SHELL, "-c", "sleep 1000 & echo up; wait")

    few = [SHELL, "-c", f'ulimit -n {number}; exec "$@"', SHELL, control.COMMAND]
    result = cli.run_command([*few, "stop", "--timeout", "20s", *names], timeout=15)

    family.nobody()
    assert result[:3] == (0, b"", b"")
    assert all(control.record(name)["stopped"] for name in names)


def test_unknown_ones_do_not_keep_the_others_running(servers: Family) -> None:
    """Status 4 and a line for the one that is not there; the others are stopped all the same, and nobody else is."""
    control.started("web", *program("repoints"))
    control.started("other", *program("repoints"))

    result = control.run("stop", "wbe", "web", "nix")

    assert result.status == 4
    assert result.out == b""
    assert result.err.splitlines() == [
        b'daemonctl: no daemon named "wbe"; did you mean "web"?',
        b'daemonctl: no daemon named "nix"',
    ]
    assert servers.only().pid == control.record("other")["pid"]


# -- all that belongs to it ----------------------------------------------------------------------------------------------


FORKS_ON = """
def grow(*_):
    if os.fork():
        os._exit(0)
    signal.alarm(120)
for _ in range(200):
    if not os.fork():
        signal.alarm(120)
        signal.signal(15, grow)
        os.write(1, b".\\n")
        while True:
            select.select([], [], [])
"""


def test_two_hundred_descendants_that_fork_on(family: Family) -> None:
    """Each answers SIGTERM with a child, and is gone: there are always 200, and never the same. None is left."""
    count = "log:^up$"
    control.started("web", "-r", count, *server(FORKS_ON, 'say("up")'))
    assert len(family.living()) == 201

    result = control.run("stop", "--timeout", "1s", "web")

    family.nobody()
    assert result[:3] == (0, b"", b"")


ESCAPEE = """
if parent():
    os.wait()
else:
    {way}
    if os.fork():
        os._exit(0)
    signal.alarm(120)
    say(os.getpid())
    signal.signal(15, signal.SIG_IGN)
    say("up")
    stay()
"""
WAYS_OUT = {
    "double-fork": "pass",
    "session": "os.setsid()",
    "group": "os.setpgid(0, 0)",
    "session and environment": "os.setsid(); os.chdir('/')",
}


@pytest.mark.parametrize("out", WAYS_OUT)
@pytest.mark.parametrize("dead", [False, True], ids=["main lives", "main killed"])
def test_escapees_are_found(family: Family, out: str, dead: bool) -> None:
    """Who left the family, the group or the session ends too, and so do the workers of a main process that was killed."""
    pid = control.started("web", *UP, *server(ESCAPEE.format(way=WAYS_OUT[out])))
    assert len(family.living(besides={pid})) == 1
    if dead:
        procs.stop(pid, signal.SIGKILL)
        assert family.living()

    assert control.run("stop", "--timeout", "100ms", "web")[:3] == (0, b"", b"")
    family.nobody()


def test_what_an_earlier_daemon_has_left(family: Family) -> None:
    """Workers of a main process that was killed are named, and end with the next daemon of that name, or a later one."""
    lines = [*UP, *server(ESCAPEE.format(way="os.setsid()"))]
    left = set()
    for _ in range(2):
        pid = control.started("web", *lines)
        (worker,) = family.living(besides={pid, *left})
        left.add(worker.pid)
        procs.stop(pid, signal.SIGKILL)
        told = control.run("status", "web")
        assert told.status == 1
        assert all(b"(pid %d)" % each in told.out for each in left)
        assert b"daemonctl stop web" in told.out
    assert control.run("start", "web").status == 0

    assert control.run("stop", "--timeout", "100ms", "web")[:3] == (0, b"", b"")
    family.nobody()
    assert control.run("start", "web").status == 0
    assert control.record("web")["former"] == []  # nothing was left of what was stopped
    stop_by_force("web")


def test_where_there_is_no_proc(servers: Family) -> None:
    """A daemon of which nobody can say any more who it is still has its name, and is not said to have been stopped."""
    if os.geteuid():
        pytest.skip("needs root")
    pid = control.started("web", *program("repoints"))
    script = f"""
        mount -t tmpfs none /proc || exit 99
        {control.COMMAND} status web >/dev/null; echo $?
        {cli.COMMAND} --name web sleep 1 2>/dev/null; echo $?
        {control.COMMAND} stop web 2>/dev/null; echo $?
        {control.COMMAND} forget web 2>/dev/null; echo $?
    """
    done = cli.run_command(["unshare", "-m", SHELL, "-c", script])

    assert done.out.split() == [b"0", b"75", b"1", b"1"], done
    assert procs.alive(pid)
    assert control.run("stop", "web").status == 0


def test_a_session_that_began_out_of_sight(servers: Family) -> None:
    """In a container everybody may be of session 0, so a server in the foreground shares that with all of them."""
    if os.geteuid():
        pytest.skip("needs root")
    script = f"""
        sleep 100 & bystander=$!
        {cli.COMMAND} -f --name web sleep 100 & launch=$!
        until {control.COMMAND} wait --ready web 2>/dev/null; do :; done
        {control.COMMAND} stop web; echo $?
        wait $launch; kill -9 $bystander; wait $bystander; echo $?
    """
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
    done = cli.run_command([*namespace, SHELL, "-c", script])

    assert done.out.split() == [b"0", b"137"], done  # not 143: nobody had told it to end


def test_workers_that_die_between_look_and_signal(family: Family) -> None:
    """A worker that forks and exits every few milliseconds is never the one that was seen; it is caught all the same."""
    hopping = f"os.spawnv(os.P_NOWAIT, {program('hops')[0]!r}, {[*program('hops', 3)]!r})"
    control.started("web", "-r", "log:hopping", *server(hopping, "signal.signal(17, signal.SIG_IGN)"))

    assert control.run("stop", "--timeout", "200ms", "web")[:3] == (0, b"", b"")
    family.nobody()


def test_who_has_its_pid_by_now_is_not_touched(servers: Family) -> None:
    """A record whose pid is another process's by now, or of another boot: stop succeeds, and touches nobody."""
    bystander = control.started("other", *program("repoints"))
    for changes in ({"start": 1}, {"boot_id": "another"}):
        control.started("web", *program("repoints"))
        assert control.run("stop", "web").status == 0
        stranger = control.record("other")
        told = {name: stranger[name] for name in ("pid", "start", "boot_id", "session", "token")}
        token = stranger["token"] if "boot_id" in changes else f"DAEMONIZE_ID={0:016x}"
        control.change_record("web", **{**told, "token": token, "stopped": None, **changes})

        assert control.run("stop", "web")[:3] == (0, b"", b"")
        assert procs.alive(bystander)

    # The control: with the right words it would have been.
    control.change_record("web", **{**told, "stopped": None})
    assert control.run("stop", "web").status == 0
    assert not procs.alive(bystander)


# -- what cannot be done -------------------------------------------------------------------------------------------------


def test_survivors_are_named(servers: Family) -> None:
    """A main process that has become root's is not an ordinary user's to end: it is named at once, status 1."""
    with users.open_directory() as directory:
        own = os.path.join(directory, "becomes-root")
        person = control.Person(users.NOBODY, directory)
        shutil.copy(shutil.which("setpriv") or pytest.skip("needs setpriv(1)"), own)
        os.chmod(own, 0o4755)
        sleeper = [own, "--reuid=0", "--clear-groups", "sleep", "60"]
        result = person.daemonize("--json", "--name", "web", "-r", "alive:100ms", *sleeper)
        assert result.status == 0, result
        assert person.daemonize("--name", "own", *users.program("repoints")).status == 0
        pid = result.json["pid"]

        stopped = person.daemonctl("stop", "--timeout", "60s", "web", "own")

        assert stopped.status == 1
        assert stopped.err == (
            b"daemonctl: web: still running, although everything was done that this user may do: sleep (pid %d)\n"
            % pid
        )
        assert servers.only().pid == pid
        assert stopped.seconds < 30


def test_one_that_is_being_started(trigger: Trigger, servers: Family) -> None:
    """Nobody knows yet what there is to be stopped: status 1, and a line that says what to do."""
    with cli.popen("--name", "web", *program("repoints", "hello", trigger.arg)) as launch:
        result = procs.eventually(_refused)
        assert b"web is being started by pid %d; to interrupt that" % launch.pid in result.err
        trigger.release()
        assert launch.communicate(timeout=20) == (b"hello\n", b"")
    assert control.run("stop", "web").status == 0


def _refused() -> cli.Result:
    """It is unknown until the launch has its name."""
    result = control.run("stop", "web")
    assert result.status == 1, result
    return result


def test_ctrl_c(notes: Notes, servers: Family) -> None:
    """Stop ends by it, as every shell expects, without a traceback; the server has been told, and not been killed."""
    pid = control.started("web", *UP, *noting(notes, "heed(15)", "say('up')"))
    with control.popen("stop", "--timeout", "60s", "web") as stopping:
        notes.lines(1)
        stopping.send_signal(signal.SIGINT)
        _, err = stopping.communicate(timeout=20)

    assert stopping.returncode == -signal.SIGINT
    assert err.strip() == b""
    assert procs.alive(pid)
    assert control.record("web")["stopped"] is None
    stop_by_force("web")
