"""`-p` and `-l` through the command and the API: whoever dies, and whenever, the files tell the truth."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

import daemonize
from tests.support import cli, procs
from tests.support.launches import held_at, launching
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

READY = program("repoints", "ready")
MANY = 30


def is_free(path: Path) -> bool:
    """Whether a launch could lock the file now."""
    return subprocess.run(["flock", "--nonblock", path, "true"], check=False).returncode == 0


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Options for a pid file and a lock file in a directory of their own."""
    (tmp_path / "run").mkdir()
    return ["-p", f"{tmp_path}/run/pid", "-l", f"{tmp_path}/run/lock"]


# --- launches that go well -------------------------------------------------------------------------------------------


def test_both_files_when_the_server_is_ready(files: list[str], tmp_path: Path, servers: Family) -> None:
    """The pid of the main process and a newline, readable by all whatever the umask; the server holds the lock."""
    done = cli.run("--json", *files, *READY, umask=0o077)

    pid_file = tmp_path / "run/pid"
    assert done.status == 0
    assert pid_file.read_bytes() == b"%d\n" % done.json["pid"]
    assert done.json["pid_file"] == str(pid_file)
    assert pid_file.stat().st_mode & 0o777 == 0o644
    assert os.stat(tmp_path / "run/lock").st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path / "run")) == ["lock", "pid"]
    assert f"{tmp_path}/run/lock" in procs.descriptors(done.json["pid"]).values()
    assert not is_free(tmp_path / "run/lock")


def test_the_pid_of_a_daemon_that_daemonizes_itself(
    files: list[str], tmp_path: Path, servers: Family
) -> None:
    """It is that of the daemon, not of the command that has exited."""
    done = cli.run("--json", *files, *program("self_daemonizes"))

    assert done.status == 0
    assert (tmp_path / "run/pid").read_bytes() == b"%d\n" % done.json["pid"]
    assert procs.alive(done.json["pid"])


@pytest.mark.parametrize("option", ["-p", "-l"])
def test_a_second_launch_is_refused_by_name(option: str, tmp_path: Path, servers: Family) -> None:
    """75, who runs, nothing touched: not the files of -o, not the pid file, and the first server goes on."""
    path, log = tmp_path / "file", tmp_path / "log"
    first = cli.run("--json", option, path, *READY).json["pid"]
    before = path.read_bytes()
    log.write_text("old")
    second = cli.run("--json", option, path, "-o", log, "-r", "streams", *READY)

    assert (second.status, second.json["outcome"], second.json["pid"]) == (75, "already-running", first)
    assert b"already running: python" in second.err
    assert os.fsencode(path) in second.err
    assert log.read_text() == "old"
    assert path.read_bytes() == before
    assert servers.only().pid == first


@pytest.mark.parametrize("option", ["-p", "-l"])
def test_after_the_end_of_the_server_it_can_be_started_again(
    option: str, tmp_path: Path, servers: Family
) -> None:
    """A stale pid file and a lock of the dead are in nobody's way."""
    path = tmp_path / "file"
    first = cli.run("--json", option, path, *READY).json["pid"]
    procs.stop(first, signal.SIGKILL)

    assert cli.run(option, path, *READY).status == 0


def test_one_path_for_both(tmp_path: Path, servers: Family) -> None:
    """The locked file holds the pid, in place: whoever has it open sees it, and the lock stays on it."""
    path = tmp_path / "both"
    path.write_text("4194303999\n")
    with open(path) as reader:
        done = cli.run("--json", "-p", path, "-l", path, *READY)
        assert reader.read() == f"{done.json['pid']}\n"
    again = cli.run("-p", path, "-l", path, *READY)

    assert (done.status, again.status) == (0, 75)
    assert not is_free(path)


def test_a_server_left_running_has_its_pid_file(files: list[str], tmp_path: Path, servers: Family) -> None:
    """--on-timeout=leave: the pid file is how one finds what was left."""
    done = cli.run("--json", *files, "-t", "300ms", "--on-timeout=leave", "sleep", "100")

    assert done.status == 124
    assert (tmp_path / "run/pid").read_bytes() == b"%d\n" % done.json["pid"]


# --- launches that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((SHELL, "-c", "exit 7"), 7),
        (("-r", "exit", "true"), 1),
        (("-t", "200ms", "sleep", "100"), 124),
        (("-c", "/no/such/directory", "true"), 125),
        (("--umask", "0", "-c", "/no/such/directory", "true"), 125),
        (("/etc/passwd",), 126),
        (("/no/such/program",), 127),
        (("-o", "/no/such/directory/log", "true"), 125),
    ],
    ids=str,
)
def test_a_failed_launch_takes_its_pid_file_away(
    words: tuple[str, ...], status: int, files: list[str], tmp_path: Path
) -> None:
    """Only the lock file, which is never removed, is left, and it is free."""
    assert cli.run(*files, *words).status == status

    assert os.listdir(tmp_path / "run") == ["lock"]
    assert is_free(tmp_path / "run/lock")


@pytest.mark.parametrize("options", [("-p", "pid"), ("-p", "pid", "-l", "pid")], ids=["alone", "locked"])
def test_a_stale_pid_is_gone_while_the_server_starts(options: tuple[str, ...], tmp_path: Path) -> None:
    """Who stops the daemon by its pid file meanwhile must not hit whoever has that pid by then."""
    (tmp_path / "pid").write_text("4194303999\n")
    done = cli.run(*options, SHELL, "-c", "cat pid; exit 7", cwd=tmp_path)

    assert (done.status, done.out.strip()) == (7, b"")
    assert os.listdir(tmp_path) == (["pid"] if "-l" in options else [])


def test_files_that_cannot_grow(tmp_path: Path, family: Family) -> None:
    """A full disk is heard of before anything is started: 125, one line, no pid file, no server."""
    script = f'touch {tmp_path}/lock; ulimit -f 0; exec "$@"'
    words = cli.command("-p", f"{tmp_path}/pid", "-l", f"{tmp_path}/lock", *READY)
    env = cli.environ({"PYTHONDONTWRITEBYTECODE": "1"})
    done = subprocess.run([SHELL, "-c", script, SHELL, *words], check=False, capture_output=True, env=env)

    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr == b"daemonize: cannot use %s/pid: File too large\n" % os.fsencode(tmp_path)
    assert os.listdir(tmp_path) == ["lock"]
    family.nobody()


@pytest.mark.parametrize(
    ("content", "option"), [("hello\n", "-p"), ("127.0.0.1 localhost\n", "-p"), ("12 13\n", "-p")], ids=str
)
def test_a_file_that_is_no_pid_file_is_not_overwritten(content: str, option: str, tmp_path: Path) -> None:
    """`-p /etc/hosts` is a slip of the hand, and nothing more."""
    path = tmp_path / "file"
    path.write_text(content)
    done = cli.run(option, path, *READY)

    assert done.status == 125
    assert b"does not look like a pid file" in done.err
    assert path.read_text() == content


# --- whoever is killed -----------------------------------------------------------------------------------------------


STEPS = ("intermediate", "streams", "gate", "exec")


@pytest.mark.parametrize(
    ("who", "step"),
    [*(("wrapper", step) for step in (*STEPS, "detach")), *(("parent", step) for step in STEPS)],
)
def test_a_kill_takes_the_pid_file_away(
    who: str, step: str, files: list[str], tmp_path: Path, family: Family
) -> None:
    """SIGKILL to the wrapper or the intermediate parent at every step before the end: no server, no pid file, no lock."""
    with held_at(step, tmp_path, [*files, *READY]) as (wrapper, release):
        (parent,) = procs.children(wrapper.pid)
        victim = wrapper.pid if who == "wrapper" else parent.pid
        procs.send(victim, signal.SIGKILL)
        release.release()
        wrapper.wait(20)
        assert procs.wait_ended(parent.pid, start=parent.start)

    family.nobody()
    assert os.listdir(tmp_path / "run") == ["lock"]
    assert is_free(tmp_path / "run/lock")


def test_the_pid_file_is_there_before_anybody_is_told(
    files: list[str], tmp_path: Path, servers: Family
) -> None:
    """At the step at which the intermediate parent is let go, the pid file is complete (systemd reads it then)."""
    with held_at("detach", tmp_path, [*files, *READY]) as (wrapper, release):
        (parent,) = procs.children(wrapper.pid)
        (server,) = procs.children(parent.pid)
        assert (tmp_path / "run/pid").read_bytes() == b"%d\n" % server.pid
        release.release()
        assert wrapper.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_an_interrupt_takes_the_pid_file_away(
    number: signal.Signals, files: list[str], tmp_path: Path, family: Family
) -> None:
    """128+N, no server, no pid file."""
    with launching(*files, SHELL, "-c", "echo started; exec sleep 100") as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == b"started\n"
        wrapper.send_signal(number)
        assert wrapper.wait(20) == 128 + number

    family.nobody()
    assert os.listdir(tmp_path / "run") == ["lock"]


# --- many at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["-p", "-l"])
@pytest.mark.parametrize("ready", ["at once", "when all have come"])
def test_many_launches_have_one_winner(option: str, ready: str, tmp_path: Path, servers: Family) -> None:
    """30 at the same time: one server, 29 times 75 in clear words, nothing overwritten, no file left over."""
    path = tmp_path / "run" / "file"
    path.parent.mkdir()
    with Trigger(tmp_path) as trigger, contextlib.ExitStack() as stack:
        held_back = [] if ready == "at once" else [trigger.arg]
        words = [option, path, *program("repoints", *held_back, "ready")]
        launches = [stack.enter_context(launching(*words)) for _ in range(MANY)]
        if held_back:
            losers = [launch for launch in launches if not _wins(launch, launches)]
            assert len(losers) == MANY - 1
            trigger.release()
        statuses = sorted(launch.wait(30) for launch in launches)
        said = [launch.stderr.read() for launch in launches if launch.stderr]

    pid = servers.only().pid
    assert statuses == [0] + [75] * (MANY - 1)
    assert os.listdir(path.parent) == ["file"]
    assert path.read_bytes() == (b"%d\n" % pid if option == "-p" else b"")
    assert sum(b"already running" in line or b"another launch" in line for line in said) == MANY - 1
    assert all(line.count(b"\n") == 1 for line in said if line)


def _wins(launch: subprocess.Popen[bytes], launches: list[subprocess.Popen[bytes]]) -> bool:
    """Whether it is the one that goes on waiting when all others have ended."""
    others = [other for other in launches if other is not launch]
    while launch.poll() is None:
        if all(other.poll() is not None for other in others):
            return True
        os.sched_yield()
    return False


# --- the foreground, the API -----------------------------------------------------------------------------------------


def test_in_the_foreground_the_pid_file_lasts_as_long_as_the_server(
    files: list[str], tmp_path: Path, family: Family
) -> None:
    """There is somebody to take it away when the server ends, by whatever."""
    with launching("-v", "-f", *files, SHELL, "-c", "exec >/dev/null 2>&1; exec sleep 100") as wrapper:
        assert wrapper.stderr is not None
        assert any(b"ready after" in line for line in iter(wrapper.stderr.readline, b""))
        (server,) = procs.children(wrapper.pid)
        assert (tmp_path / "run/pid").read_bytes() == b"%d\n" % server.pid
        procs.send(server.pid, signal.SIGKILL, server.start)
        assert wrapper.wait(20) == -signal.SIGKILL

    assert os.listdir(tmp_path / "run") == ["lock"]


@pytest.mark.parametrize("threads", [False, True], ids=["direct", "keeper"])
@pytest.mark.parametrize("same", [False, True], ids=["two files", "one file"])
def test_the_api(threads: bool, same: bool, tmp_path: Path) -> None:
    """launch() takes both, raises AlreadyRunning with the facts, and stop() takes the pid file away."""
    pid_file, lock_file = tmp_path / "pid", tmp_path / ("pid" if same else "lock")
    release = threading.Event()
    other = threading.Thread(target=release.wait)
    if threads:
        other.start()
    try:
        daemon = daemonize.launch(READY, pid_file=pid_file, lock_file=lock_file, relay_stdout=None)
        assert pid_file.read_text() == f"{daemon.pid}\n"
        assert daemon.pid_file == str(pid_file)
        with pytest.raises(daemonize.AlreadyRunning) as caught:
            daemonize.launch(READY, pid_file=tmp_path / "other", lock_file=lock_file, relay_stdout=None)
        daemon.stop()
    finally:
        release.set()
        if threads:
            other.join()

    assert (caught.value.exit_status, caught.value.pid, caught.value.what) == (75, daemon.pid, "lock file")
    assert caught.value.path == str(lock_file)
    assert not (tmp_path / "other").exists()
    assert pid_file.exists() == same
    assert is_free(lock_file)
