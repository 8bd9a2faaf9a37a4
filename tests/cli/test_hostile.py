"""Surroundings and servers that mean no good, or know no better: fifos, lost directories, tracers, stopped parents."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import daemonize
from tests.support import cli, procs
from tests.support.programs import PYTHON, SHELL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

#: Ready by its streams, and then there for as long as the test wants.
SERVER = [SHELL, "-c", "exec >/dev/null 2>&1; exec sleep 60"]


def shell(script: str, *words: cli.Word, timeout: float = 20.0) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script with the words as its "$@"; both its streams are read to their end."""
    return subprocess.run(
        [SHELL, "-c", script, SHELL, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def unshare_or_skip(*options: str, script: str = "") -> None:
    """Skip the test where `unshare OPTIONS` is not to be had, or what it has to do there (`script`) fails."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare(1)")
    if subprocess.run(
        ["unshare", *options, SHELL, "-c", f": && {script or ':'}"],
        capture_output=True,
        timeout=20,
        check=False,
    ).returncode:
        pytest.skip("no such namespace here")


def driver(patch: str, *args: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in an interpreter that has executed `patch` first."""
    code = f"import os, signal, sys\n{patch}\nfrom daemonize.cli.main import main\nmain()\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["-o", "-e"])
def test_a_fifo_that_nobody_reads(option: str, tmp_path: Path, family: Family) -> None:
    """Output into a fifo without a reader is refused at once, in one line that says why; nothing is started."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    done = cli.run("-t", "10s", option, fifo, "true")

    assert (done.status, done.out) == (125, b"")
    assert done.seconds < 5
    assert b"nobody reads this fifo" in done.err
    assert os.fsencode(fifo) in done.err
    assert done.err.count(b"\n") == 1
    family.nobody()


def test_a_fifo_for_stdin_waits_for_its_writer(tmp_path: Path, servers: Family) -> None:
    """A server whose stdin is a fifo reads what a later writer writes, not an early end of file."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server = [SHELL, "-c", 'read x; echo "got [$x]"; exec >/dev/null 2>&1; exec sleep 60']
    with cli.popen("-t", "20s", "--stdin", fifo, *server) as process:
        assert not procs.wait_ended(process.pid, 0.2)
        with open(fifo, "wb") as writer:  # returns when the server has opened it
            writer.write(b"hello\n")
        assert process.stdout is not None
        assert process.stdout.read() == b"got [hello]\n"
        assert process.wait(10) == 0
    assert len(servers.living()) == 1


def test_a_fifo_for_stdin_keeps_the_timeout(tmp_path: Path, family: Family) -> None:
    """A fifo for stdin that nobody ever writes to is waited for until the timeout, no longer; nothing is left."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    done = cli.run("-t", "300ms", "--stdin", fifo, *SERVER)

    assert (done.status, done.out) == (124, b"")
    assert 0.3 <= done.seconds < 5
    family.nobody()


def test_output_into_the_file_that_is_stdout(tmp_path: Path, servers: Family) -> None:
    """A FILE of -o that is also the caller's stdout gets every byte once: what is there is not relayed there."""
    log = tmp_path / "log"
    with log.open("ab") as out:
        server = [SHELL, "-c", "echo hi; exec sleep 60"]
        done = cli.run("-t", "10s", "-o", log, "-r", "alive:200ms", *server, stdout=out)

    assert (done.status, done.err) == (0, b"")
    assert log.read_bytes() == b"hi\n"
    assert len(servers.living()) == 1


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_by_two_names(link: object, tmp_path: Path, servers: Family) -> None:
    """-o and -e that name one file differently are one file: every byte is in it once and is relayed once."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.touch()
    assert callable(link)
    link(first, second)
    server = [SHELL, "-c", "echo OUT; echo ERR >&2; exec sleep 60"]
    done = cli.run("-o", first, "-e", second, "-r", "alive:200ms", *server)

    assert done.status == 0
    assert sorted((done.out + done.err).splitlines()) == [b"ERR", b"OUT"]
    assert first.read_bytes() == b"OUT\nERR\n"
    assert len(servers.living()) == 1


# --- directories ---------------------------------------------------------------------------------------------------

LOST = 'mkdir lost && cd lost && rmdir ../lost && exec "$@"'


def lost(directory: Path, *words: cli.Word) -> subprocess.CompletedProcess[bytes]:
    """Run `daemonize` in a current directory that has been deleted."""
    return shell('cd "$1" && shift && ' + LOST, directory, *words)


@pytest.mark.parametrize("option", ["-o", "-e", "-c", "--stdin"])
def test_a_relative_name_in_a_deleted_directory(option: str, tmp_path: Path, family: Family) -> None:
    """A relative name cannot mean anything in a deleted directory: 125 and one line, no internal error."""
    done = lost(tmp_path, *cli.command(option, "x", "true"))

    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"daemonize: ")
    assert done.stderr.count(b"\n") == 1
    assert b"internal error" not in done.stderr
    assert b"No such file or directory" in done.stderr
    family.nobody()


def test_an_empty_path_entry_in_a_deleted_directory(tmp_path: Path, servers: Family) -> None:
    """An empty entry of PATH is the current directory; that it is deleted does not hide the other entries."""
    done = lost(
        tmp_path, "env", f"PATH=:{os.environ['PATH']}", *cli.command("-r", "alive:50ms", "sleep", "60")
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert procs.eventually(lambda: servers.running(["sleep", "60"]))


def test_a_relative_state_directory_in_a_deleted_directory(tmp_path: Path, servers: Family) -> None:
    """Where the state directory cannot be found no log is kept, and the launch goes on."""
    done = lost(tmp_path, "env", "DAEMONIZE_STATE_DIR=state", *cli.command("-v", *SERVER))

    assert (done.returncode, done.stdout) == (0, b"")
    assert b"no log is kept" in done.stderr
    assert len(servers.living()) == 1


def test_a_read_only_state_directory(tmp_path: Path, servers: Family) -> None:
    """Where no log can be written, the launch goes on and says that no log is kept, and why."""
    mount = f"mount -t tmpfs -o ro,mode=700 tmpfs '{tmp_path}'"
    unshare_or_skip("-m", script=mount)
    words = cli.command("-r", "alive:50ms", "sleep", "60")
    done = shell(f"""exec unshare -m "$0" -c "{mount} && exec "'"$@"' "$0" "$@" """, "env",
                 f"DAEMONIZE_STATE_DIR={tmp_path}", *words)  # fmt: skip

    assert (done.returncode, done.stdout) == (0, b"")
    assert b"no log is kept" in done.stderr
    assert b"Read-only file system" in done.stderr
    assert procs.eventually(lambda: servers.running(["sleep", "60"]))


# --- /proc ---------------------------------------------------------------------------------------------------------


def test_the_proc_of_another_pid_namespace(family: Family) -> None:
    """Where /proc speaks of other processes than ours, it is not believed: the server becomes ready all the same."""
    unshare_or_skip("--pid", "--fork")
    inner = '"$@"; echo status $?'
    done = subprocess.run(
        ["unshare", "--pid", "--fork", SHELL, "-c", inner, SHELL, *cli.command("-t", "10s", *SERVER)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )

    assert (done.stdout, done.stderr) == (b"status 0\n", b"")
    family.end()  # they end with their namespace, but need not have ended yet


UNDUMPABLE = """
import ctypes, os, time
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
quiet = os.open("/dev/null", os.O_RDWR)
os.dup2(quiet, 1), os.dup2(quiet, 2)
time.sleep(60)
"""


@pytest.mark.parametrize("ready", ["streams", "alive:200ms"])
def test_a_server_that_hidepid_hides(ready: str, servers: Family) -> None:
    """With hidepid=2 an ordinary user cannot see an undumpable server of his own: ready, and it lives."""
    python = shutil.which("python3", path=os.defpath)  # ours may lie where an ordinary user cannot go
    user = "setpriv --reuid=65534 --regid=65534 --clear-groups env DAEMONIZE_STATE_DIR=/dev/null/none "
    user += f"PYTHONDONTWRITEBYTECODE=1 'PYTHONPATH={os.path.dirname(os.path.dirname(daemonize.__file__))}' {python}"
    # In a /proc of its own: the option belongs to the file system, which others see too.
    hide = "mount -t proc proc /proc && mount -o remount,hidepid=2 /proc"
    unshare = ["-m", "--pid", "--fork"]
    unshare_or_skip(*unshare, script=f"{hide} && {user} -c 'import daemonize.cli.main'")
    script = f'{hide} && {user} -m daemonize "$@"; echo status $?; pgrep -U 65534 >/dev/null && echo lives'
    words = ["-t", "10s", "-r", ready, str(python), "-S", "-E", "-c", UNDUMPABLE]
    done = subprocess.run(
        ["unshare", *unshare, SHELL, "-c", script, SHELL, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )

    assert done.stdout == b"status 0\nlives\n"
    servers.end()


# --- time ----------------------------------------------------------------------------------------------------------


def test_nothing_is_said_to_be_left_that_was_never_started(servers: Family) -> None:
    """A timeout before the server could run, with --on-timeout leave: only what runs is said to have been left."""
    done = cli.run("-t", "0.001", "--on-timeout", "leave", "sleep", "60")

    assert (done.status, done.out) == (124, b"")
    assert (b"left running" in done.err) == bool(servers.living())
    assert b"pid None" not in done.err


STARTS = 'echo up; read x <"$1"; exec >/dev/null 2>&1; exec sleep 60'


def stop_parent(pid: int) -> None:
    """Stop the intermediate parent of the launch whose wrapper is `pid`."""
    (parent,) = procs.children(pid)
    assert procs.send(parent.pid, signal.SIGSTOP, parent.start)

    def stopped() -> None:
        now = procs.stat(parent.pid)
        assert now is not None
        assert now.state == "T"

    procs.eventually(stopped)


def test_a_stopped_parent_does_not_hold_ready_up(trigger: Trigger, servers: Family) -> None:
    """A server that becomes ready while the intermediate parent is stopped is ready, within the timeout."""
    with cli.popen("-t", "10s", SHELL, "-c", STARTS, SHELL, trigger.path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        stop_parent(process.pid)
        trigger.release()
        trigger.release()
        trigger.close()
        assert process.wait(8) == 0
    assert procs.eventually(lambda: servers.running(["sleep", "60"]))
    assert len(servers.living()) == 1


def test_a_stopped_parent_does_not_hold_the_timeout_up(trigger: Trigger, family: Family) -> None:
    """A server that does not become ready while the intermediate parent is stopped: 124, and nothing is left."""
    with cli.popen("-t", "600ms", SHELL, "-c", STARTS, SHELL, trigger.path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        stop_parent(process.pid)
        assert process.wait(8) == 124
    family.nobody()


#: The intermediate parent stops as soon as it has said that there is a server, which is let go on by that.
STOPS_ITSELF = """
from daemonize.launcher import intermediate
tell = intermediate._tell
def tell_and_stop(events, lines):
    tell(events, lines)
    if lines[0].startswith(b"forked"):
        os.kill(os.getpid(), signal.SIGSTOP)
intermediate._tell = tell_and_stop
"""


def test_a_parent_that_stops_at_once_does_not_hold_ready_up(servers: Family) -> None:
    """Stopped before it has closed what it inherited, it keeps nobody from seeing that the server is ready."""
    done = driver(STOPS_ITSELF, "-t", "10s", *SERVER)

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(servers.living()) == 1


def test_a_parent_that_stops_at_once_does_not_hold_the_timeout_up(family: Family) -> None:
    """Nor that the server has been stopped, because it was not ready in time."""
    done = driver(STOPS_ITSELF, "-t", "600ms", "sleep", "60")

    assert done.returncode == 124
    family.nobody()


# --- signals and tracers -------------------------------------------------------------------------------------------

TRACED = """
import ctypes, os, signal
ctypes.CDLL(None).ptrace(0, 0, 0, 0)
os.system("true")
quiet = os.open("/dev/null", os.O_RDWR)
os.dup2(quiet, 1), os.dup2(quiet, 2)
signal.pause()
"""


def test_a_server_that_wants_to_be_traced(servers: Family) -> None:
    """A server that makes its parent its tracer (against debuggers) is let go of, becomes ready and runs."""
    argv = [*PYTHON, "-c", TRACED]
    done = cli.run("-t", "10s", *argv)

    assert (done.status, done.out, done.err) == (0, b"", b"")
    server = servers.running(argv)
    assert procs.status(server.pid)["TracerPid"] == "0"
    assert server.state == "S"


def test_a_signal_to_the_parent_has_no_echo(family: Family) -> None:
    """With -f, a server that tells its parent something by SIGUSR1 does not get it back and die of it."""
    script = "kill -USR1 $PPID; exec >/dev/null 2>&1; sleep 0.3; exit 9"
    done = cli.run("-f", SHELL, "-c", script)

    assert done.status == 9
    family.nobody()


def test_a_signal_before_the_fork_is_passed_on(family: Family) -> None:
    """With -f, a SIGTERM that comes before there is a server reaches the server once there is one."""
    patch = (
        "from daemonize.launcher.foreground import Foreground\n"
        "fork = Foreground._fork\n"
        "def early(self, *args):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    fork(self, *args)\n"
        "Foreground._fork = early\n"
    )
    done = driver(patch, "-f", *SERVER)

    assert done.returncode == -signal.SIGTERM
    family.nobody()


def test_a_signal_after_the_end_of_the_launch(servers: Family) -> None:
    """A SIGTERM too late to stop the server does not look as if it had stopped it: 0, and the server lives."""
    patch = (
        "from daemonize.launcher import words\n"
        "problems = words.problems\n"
        "def late(*args, **options):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return problems(*args, **options)\n"
        "words.problems = late\n"
    )
    done = driver(patch, *SERVER)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert procs.eventually(lambda: servers.running(["sleep", "60"]))


# --- output after ready --------------------------------------------------------------------------------------------


def test_a_drain_that_may_not_write_any_more(tmp_path: Path, trigger: Trigger, servers: Family) -> None:
    """A log that may not grow (ulimit -f) ends the log, not the server that writes to it."""
    said = tmp_path / "said"
    os.mkfifo(said)
    script = '(read x <"$1"; yes | head -c 300000 && echo done >"$2"; exec sleep 60) & exit 0'
    words = cli.command(SHELL, "-c", script, SHELL, trigger.path, said)
    answer = os.open(said, os.O_RDWR)
    try:
        # Python may leave a truncated .pyc behind where files may not grow, and fail on it for ever after.
        done = shell('ulimit -f 1; export PYTHONDONTWRITEBYTECODE=1; exec "$@"', *words)
        assert (done.returncode, done.stdout) == (0, b"")
        trigger.close()
        assert procs.readable(answer, 10)
        assert os.read(answer, 10) == b"done\n"
    finally:
        os.close(answer)
    assert servers.living()


LAST_WORDS = """
import os, select, signal, sys
quiet = os.open("/dev/null", os.O_RDWR)
read, write = os.pipe()
first = os.pidfd_open(os.getpid())
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        alive = os.open(sys.argv[1], os.O_WRONLY)
        os.write(1, b"x" * 65536)
        os.write(1, b"y" * 8192)
        os.write(write, b".")
        select.select([first], [], [])
        os.write(1, b"LAST WORDS\\n")
        os._exit(0)
    os.dup2(quiet, 1), os.dup2(quiet, 2)
    signal.pause()
os.read(read, 1)
"""


def test_last_words_are_relayed(tmp_path: Path, servers: Family) -> None:
    """What is written after ready, by a process that then closes the pipe, is relayed: no drain would have it."""
    ends = tmp_path / "ends"
    os.mkfifo(ends)
    ended = os.open(ends, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with cli.popen("-t", "20s", *PYTHON, "-c", LAST_WORDS, ends) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert procs.readable(
                process.stdout.fileno()
            )  # from here on, the last writer has opened the fifo
            assert procs.readable(ended)  # hung up: it has ended
            words = process.stdout.read()
            assert process.stderr.read() == b""
            assert process.wait(10) == 0
    finally:
        os.close(ended)
    assert words == b"x" * 65536 + b"y" * 8192 + b"LAST WORDS\n"
    assert len(servers.living()) == 1
