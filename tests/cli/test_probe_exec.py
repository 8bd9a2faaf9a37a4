"""`--ready exec:COMMAND`: how the command is run, what it leaves, and what becomes of one that is under way."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from daemonize import TimedOut, UsageError
from daemonize.launcher import api
from daemonize.readiness import checker, command, parse
from tests.support import callers, cli, procs
from tests.support.programs import SHELL, program
from tests.support.progress import assert_not_yet, await_line
from tests.support.users import NOBODY

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

SERVER = program("meets_spec", "started")


@contextlib.contextmanager
def launch(*options: cli.Word, server: list[str] = SERVER) -> Iterator[subprocess.Popen[bytes]]:
    """A launch that waits, until the end of the block."""
    with cli.popen(*options, "--", *server) as wrapper:
        try:
            yield wrapper
        finally:
            wrapper.kill()


def fifo(path: Path) -> str:
    """A FIFO that a check writes to when it has come so far."""
    os.mkfifo(path)
    return os.fspath(path)


def heard(path: str) -> str:
    """What has been written to a FIFO, when the writer has closed it."""
    with open(path) as file:
        return file.read().strip()


def checker_of(wrapper: int) -> procs.Process:
    """The process that repeats the check: it leads a session, as the intermediate parent does that came before it."""
    *_, found = [process for process in procs.children(wrapper) if process.sid == process.pid]
    return found


def test_is_repeated_until_it_exits_0(tmp_path: Path, servers: Family) -> None:
    """Not once more, one at a time; and -v says why it does not hold whenever that changes, in its own last words."""
    count = tmp_path / "count"
    check = (
        f"echo run >>{count}; echo noise; set -- $(wc -l {count}); echo run $1 >&2; echo; exit $((3 - $1))"
    )
    done = cli.run("-v", "-r", f"exec:{check}", "--", *SERVER)

    assert done.status == 0
    assert [line.rpartition(b": not yet: ")[2] for line in done.err.splitlines() if b"not yet" in line] == [
        b"exit status 2: run 1",
        b"exit status 1: run 2",
    ]
    assert count.read_text() == "run\n" * 3
    assert b"noise" not in done.out
    assert servers.only()


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        ("echo 'psql: could not connect'; exit 1", "exit status 1: psql: could not connect"),
        ("exit 255", "exit status 255"),
        ("kill -9 $$", "killed by SIGKILL"),
        ("nonexistent-command 2>/dev/null", "exit status 127"),
        ("printf '\\033[2J'; exit 1", "exit status 1: \\x1b[2J"),
        ("printf 'caf\\351'; exit 1", "exit status 1: caf\N{REPLACEMENT CHARACTER}"),
        ("yes | head -c 300000; echo last; exit 1", "exit status 1: last"),
        ("head -c 5000 /dev/zero | tr '\\0' x; exit 1", "exit status 1: " + "x" * 485),
    ],
)
def test_why_it_does_not_hold(check: str, problem: str, family: Family) -> None:
    """Its status and its last line, cut and cleaned."""
    assert_not_yet(problem + "\n", "-r", f"exec:{check}", "--", *SERVER)
    family.nobody()


def test_is_run_by_the_caller(tmp_path: Path, servers: Family) -> None:
    """As the caller, in his directory and environment, whoever and wherever the server is; in a session of its own."""
    if os.geteuid():
        pytest.skip("needs root")
    facts = tmp_path / "facts"
    check = f'echo $(id -u) "$PWD" "$VARIABLE" $MAINPID "$(cat)" $(ps -o sid= -p $$) >{facts}'
    done = cli.run(
        "-u", NOBODY.name, "-c", "/", "-E", "VARIABLE=server", "-r", f"exec:{check}", "--", "sleep", "60",
        cwd=tmp_path, env={"VARIABLE": "caller", "MAINPID": "1"}, input=b"words of the caller's",
    )  # fmt: skip

    assert (done.status, done.err) == (0, b"")
    server = servers.only()
    *words, session = facts.read_text().split()
    assert words == ["0", os.fspath(tmp_path), "caller", str(server.pid)]
    assert int(session) not in (server.sid, os.getsid(0))


def test_has_nothing_but_its_streams(tmp_path: Path, servers: Family) -> None:
    """No descriptor of ours, no blocked or ignored signal, whatever the wrapper has."""
    facts = tmp_path / "facts"
    check = f"ls /proc/self/fd >{facts}; cat /proc/self/status >>{facts}"
    assert cli.run("-r", f"exec:{check}", "--", *SERVER).status == 0

    text = facts.read_bytes()
    assert text.split()[:4] == [b"0", b"1", b"2", b"3"]  # 3: the directory that ls lists
    assert text.split()[4] == b"Name:"
    assert procs.dispositions(text) == procs.CLEAN
    assert servers.only()


def written(path: Path) -> None:
    """There is something in the file."""
    assert path.read_text().endswith("\n")


def test_the_pid_is_of_the_daemon_left_behind(tmp_path: Path, trigger: Trigger, servers: Family) -> None:
    """MAINPID is the main process as it is now."""
    pids = tmp_path / "pids"
    check = f"echo $MAINPID >>{pids}; test $(sort -u {pids} | wc -l) = 2"
    server = [SHELL, "-c", f"head -c 1 <{trigger.path} >/dev/null; sleep 60 & exit 0"]
    with launch("-r", f"exec:{check}", server=server) as wrapper:
        procs.eventually(lambda: written(pids))
        first = pids.read_text().split()[0]
        trigger.release()
        assert wrapper.wait(20) == 0

    last = pids.read_text().split()[-1]
    assert first != last == str(servers.only().pid)


#: What a check may start: a child, one that has left its process group, one that nobody is the parent of any more.
OFFSPRING = "sleep 99 & setsid sleep 99 & (setsid sh -c 'sleep 99 & sleep 99' &)"


def test_what_a_check_leaves_is_ended(servers: Family) -> None:
    """A check is over when its command is; nothing of it stays, and it does not hold the launch up."""
    done = cli.run("-r", f"exec:{OFFSPRING}", "--", *SERVER)

    assert done.status == 0
    assert servers.only()


@pytest.mark.parametrize("options", [(), ("-f",)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_check_under_way_ends_with_the_launch(
    number: int, options: tuple[str, ...], tmp_path: Path, family: Family
) -> None:
    """However that ends: the check and all that it has started are gone; a signal of the terminal's is not for it."""
    reached = fifo(tmp_path / "reached")
    check = f"exec:trap 'echo >{tmp_path}/int' INT; {OFFSPRING}; echo >{reached}; sleep 99"
    # Not a server in Python: one that is still starting exits with status 1 on SIGINT, now and then.
    with launch(*options, "-r", check, server=["sleep", "98"]) as wrapper:
        heard(reached)
        assert len(family.living({wrapper.pid})) > 5
        wrapper.send_signal(number)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == (-number if options or number == signal.SIGKILL else 128 + number)
    procs.eventually(family.nobody)
    assert not os.path.exists(tmp_path / "int")


@pytest.mark.parametrize("options", [(), ("-f",)])
def test_a_check_that_hangs(options: tuple[str, ...], family: Family) -> None:
    """The timeout of the launch ends it; that there was no answer is said."""
    done = cli.run(*options, "-t", "800ms", "-r", f"exec:{OFFSPRING}; sleep 99", "--", *SERVER)

    assert done.status == 124
    assert b"sleep 99: no answer yet)" in done.err
    family.nobody()


def test_a_check_that_hangs_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Family
) -> None:
    """After 10 s (here: less) it is killed, with what it has started, and another one may succeed."""
    monkeypatch.setattr(command, "_LIMIT", 0.1)
    once = f"test -e {tmp_path}/once && exit; touch {tmp_path}/once; {OFFSPRING}; echo words; yes"
    api.launch(SERVER, ready=f"exec:{once}", relay_stdout=None)
    assert servers.only()
    servers.end()

    never = "exec:echo words; sleep 99"
    with pytest.raises(TimedOut) as caught:
        api.launch(SERVER, ready=never, timeout=1, relay_stdout=None)
    assert caught.value.problems == {never: "no answer within 0.1 s: words"}
    assert "no answer within 0.1 s: words" in str(caught.value)


@pytest.mark.parametrize("options", [(), ("-f",)])
def test_a_checker_that_is_killed(options: tuple[str, ...], tmp_path: Path, servers: Family) -> None:
    """Another is started, and nothing is left of the check that was under way."""
    reached = fifo(tmp_path / "reached")
    check = f"exec:mkdir {tmp_path}/once || exit 0; sleep 99 & echo $$ >{reached}; sleep 99"
    with launch("-v", *options, "-r", check) as wrapper:
        running = int(heard(reached))
        found = checker_of(wrapper.pid)
        assert found.sid == os.getsid(running)
        procs.send(found.pid, signal.SIGKILL, found.start)
        await_line(wrapper, "not yet: the process that looks has ended; another is started")
        await_line(wrapper, "ready after")
        assert [process for process in servers.living() if process.sid == found.sid] == []
        if options:
            wrapper.send_signal(signal.SIGTERM)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == (-signal.SIGTERM if options else 0)


def test_no_checker_can_be_forked(monkeypatch: pytest.MonkeyPatch, servers: Family) -> None:
    """It is tried again."""
    fork = checker.Checked._fork
    failures = [OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))]

    def sometimes(self: checker.Checked) -> None:
        if failures:
            raise failures.pop()
        fork(self)

    monkeypatch.setattr(checker.Checked, "_fork", sometimes)
    api.launch(SERVER, ready="exec:true", relay_stdout=None)

    assert not failures
    assert servers.only()


def alone(wrapper: int) -> None:
    """The server is its only child."""
    assert len(procs.children(wrapper)) == 1


def test_in_the_foreground_nothing_of_it_stays(family: Family) -> None:
    """What a check leaves is not taken for the server's; the status is the server's, and nobody waits beside it."""
    with launch("-f", "-v", "-r", f"exec:{OFFSPRING}") as wrapper:
        await_line(wrapper, "ready after")
        procs.eventually(lambda: alone(wrapper.pid))
        assert [process.ppid for process in family.living({wrapper.pid})] == [wrapper.pid]
        wrapper.send_signal(signal.SIGTERM)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == -signal.SIGTERM
    family.nobody()


THREAD = "threading.Thread(target=signal.pause, daemon=True).start()"
IGNORES = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
HANDLES = "signal.signal(signal.SIGCHLD, lambda *_: print('a child of ours'))"


@pytest.mark.parametrize(
    ("before", "way"),
    [
        (before, way)
        for before in (THREAD, IGNORES, HANDLES)
        for way in callers.WAYS
        if (before, way) != (THREAD, "direct")
    ],
)
def test_callers_of_every_kind(before: str, way: str, tmp_path: Path, servers: Family) -> None:
    """With threads, or with plans of their own for their children: the check runs, and ends."""
    check = f"exec:mkdir {tmp_path}/once || exit 0; sleep 99 & exit 1"
    code = f"{before}\ndaemon = launch(command, ready={check!r}, relay_stdout=None)\nprint(daemon.pid)"
    status, out, err = callers.run(code, *SERVER, way=way)

    assert (status, err) == (0, b"")
    assert int(out.split()[-1]) == servers.only().pid


@pytest.mark.parametrize("argument", ["", " ", "\n", "true\0", "\ud800"])
def test_what_is_no_command(argument: str) -> None:
    """A usage error, whatever it is."""
    with pytest.raises(UsageError, match="of the form exec:COMMAND: it"):
        parse(f"exec:{argument}")


def test_a_command_that_is_too_long(family: Family) -> None:
    """The kernel refuses it; that is said."""
    with pytest.raises(TimedOut) as caught:
        api.launch(SERVER, ready="exec:" + "x" * 200_000, timeout=1, relay_stdout=None)

    assert list(caught.value.problems.values()) == ["exit status 127: /bin/sh: Argument list too long"]
    family.nobody()
