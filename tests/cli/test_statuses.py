"""The exit status is the server's own; what it said is all there is to read; what it did not say is said in one line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import daemonize
from daemonize.launcher import owner
from tests.support import cli, held, procs
from tests.support.programs import PYTHON, SHELL, program
from tests.support.threads import another_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

EXITS = (1, 2, 64, 127, 254, 255)
SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL, signal.SIGABRT)
ENDINGS = [
    *(pytest.param(program("dies_silently", status), status, id=str(status)) for status in (0, *EXITS)),
    *(pytest.param(program("dies_by_signal", int(n)), 128 + n, id=n.name) for n in SIGNALS),
]


@contextlib.contextmanager
def beside_a_thread() -> Iterator[None]:
    """While the block runs, `launch` must not fork this process. The keeper would stay."""
    with another_thread():
        try:
            yield
        finally:
            owner.dismiss()


def launch(argv: list[str], **options: object) -> tuple[object, bytes, bytes]:
    """`daemonize.launch` with its outcome, or the error it raised, and what it relayed of both streams."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        outcome = daemonize.launch(argv, relay_stdout=out_write, relay_stderr=err_write, **options)  # type: ignore[arg-type]
    except daemonize.LaunchError as error:
        outcome = error  # type: ignore[assignment]
    finally:
        os.close(out_write)
        os.close(err_write)
    with open(out_read, "rb") as out, open(err_read, "rb") as err:
        return outcome, out.read(), err.read()


# --- the litmus test -----------------------------------------------------------------------------------------------


def test_litmus(family: Family) -> None:
    """A child that prints "boom" and exits 7 before it is ready: 7, at once, "boom" byte for byte, and nothing else."""
    done = cli.run(SHELL, "-c", "echo boom >&2; exit 7")

    assert (done.status, done.out, done.err) == (7, b"", b"boom\n")
    assert done.seconds < 2
    family.nobody()


def test_litmus_from_python(family: Family) -> None:
    """The same from Python: `Exited` with status 7, the child's words relayed and in the error, nothing printed."""
    error, out, err = launch([SHELL, "-c", "echo boom >&2; exit 7"])

    assert isinstance(error, daemonize.Exited)
    assert (error.status, error.exit_status, error.signal) == (7, 7, None)
    assert (out, err, error.output) == (b"", b"boom\n", b"boom\n")
    assert error.command == [SHELL, "-c", "echo boom >&2; exit 7"]
    assert 0 < error.seconds < 2
    family.nobody()


def test_ready_is_0_and_silent(servers: Family) -> None:
    """A server that is ready gives status 0, and not one byte that it did not write itself."""
    done = cli.run(*program("repoints"))

    assert (done.status, done.out, done.err) == (0, b"", b"")
    assert "repoints.py" in procs.command_line(servers.only().pid)


# --- the matrix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "status"), ENDINGS)
def test_matrix_command(argv: list[str], status: int, family: Family) -> None:
    """The command exits with the server's own status, or 128 + the signal, and leaves nothing behind."""
    done = cli.run(*argv)

    assert (done.status, done.out) == (status, b"")
    family.nobody()


@pytest.mark.parametrize(("argv", "status"), ENDINGS)
@pytest.mark.parametrize(
    "surroundings", [contextlib.nullcontext, beside_a_thread], ids=["alone", "with threads"]
)
def test_matrix_launch(
    surroundings: Callable[[], contextlib.AbstractContextManager[None]],
    argv: list[str],
    status: int,
    family: Family,
) -> None:
    """`launch` raises `Exited` with the same facts, whether it forks the caller or goes through the keeper."""
    with surroundings():
        error, out, err = launch(argv)

    assert isinstance(error, daemonize.Exited)
    assert (error.status, error.exit_status) == (status, status)
    assert error.signal == (status - 128 if argv[-2].endswith("dies_by_signal.py") else None)
    assert (out, err) == (b"", b"")
    assert error.pid
    family.nobody()


@pytest.mark.parametrize(
    "surroundings", [contextlib.nullcontext, beside_a_thread], ids=["alone", "with threads"]
)
def test_launch_ready(
    surroundings: Callable[[], contextlib.AbstractContextManager[None]], servers: Family
) -> None:
    """The negative control of the matrix: a server that is ready raises nothing, runs, and can be stopped."""
    with surroundings():
        daemon, out, err = launch(program("repoints", "hello"))

    assert isinstance(daemon, daemonize.Daemon)
    assert (out, err) == (b"hello\n", b"")
    assert daemon.is_running
    assert daemon.pid == servers.only().pid
    assert not daemon.wait(0)
    daemon.stop()
    assert not daemon.is_running
    assert daemon.wait(0)
    servers.nobody()


@pytest.mark.parametrize("status", EXITS)
def test_what_it_said_stands_alone(status: int) -> None:
    """A server that explained itself on stderr is not explained again, whatever its status."""
    done = cli.run(*program("crashes_early", status, "no", "such", "configuration"))

    assert (done.status, done.out, done.err) == (status, b"", b"no such configuration\n")


# --- silent deaths -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (program("dies_silently", 3), "exited with status 3"),
        (program("dies_silently", 0), "exited 0"),
        (program("dies_by_signal", int(signal.SIGKILL)), "was killed by SIGKILL"),
        (program("dies_by_signal", int(signal.SIGRTMIN) + 3), "was killed by signal 37"),
        (program("threads_die", 4), "exited with status 4"),
        (program("threads_die", 4, "closes"), "exited with status 4"),
        (program("closes_then_dies", 20, 5), "exited with status 5"),
        (program("closes_then_dies", 0, 5), "exited with status 5"),
        (program("leader_exits", "dies=6"), "exited with status 6"),
    ],
)
def test_silent_death_is_told_in_one_line(argv: list[str], says: str, family: Family) -> None:
    """Who dies without a word on stderr gets exactly one line of ours: who, how, and after how long."""
    done = cli.run(*argv)

    text = done.err.decode()
    assert text.startswith("daemonize: ")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert argv[0] in text
    assert says in text
    assert re.search(r"after \d+\.\d+ s", text)
    assert done.status != 0 or "nothing is running" in text
    family.nobody()


def test_words_on_stdout_do_not_explain_a_death() -> None:
    """What was said on stdout is relayed there; stderr still gets our line."""
    done = cli.run(SHELL, "-c", "echo starting; exit 3")

    assert (done.status, done.out) == (3, b"starting\n")
    assert done.err.count(b"\n") == 1
    assert b"exited with status 3" in done.err


def test_exit_0_leaving_nothing(family: Family) -> None:
    """Exit 0 that leaves nothing behind is 0, and a line says that nothing is running."""
    done = cli.run("true")

    assert (done.status, done.out) == (0, b"")
    assert re.fullmatch(rb"daemonize: true exited 0 after [\d.]+ s, nothing is running\n", done.err)
    family.nobody()


def test_exit_0_after_words_on_stderr(family: Family) -> None:
    """Even a server that spoke on stderr is followed by that line when it exits 0: nobody would expect it."""
    done = cli.run(SHELL, "-c", "echo all is well >&2")

    words, ours = done.err.splitlines()
    assert done.status == 0
    assert words == b"all is well"
    assert b"nothing is running" in ours
    family.nobody()


@pytest.mark.parametrize("spec", ["alive:60s", "exit"])
def test_exit_0_before_a_spec_holds(spec: str, family: Family) -> None:
    """Exit 0 that leaves nothing, while a spec other than streams waits: 1, and the line names the spec."""
    done = cli.run("--ready", spec, "true")

    assert (done.status, done.out) == (1, b"")
    assert done.err.count(b"\n") == 1
    assert f"'{spec}'".encode() in done.err
    family.nobody()


@pytest.mark.parametrize("spec", ["alive:60s", "exit"])
def test_death_before_a_spec_holds(spec: str, family: Family) -> None:
    """A server that dies with a status ends every probe at once, with that status."""
    done = cli.run("--ready", spec, *program("dies_silently", 9))

    assert done.status == 9
    assert done.seconds < 10
    family.nobody()


def test_specs_that_hold(servers: Family) -> None:
    """`started` holds at exec, `alive:` after its time, `exit` when the command leaves a daemon behind."""
    assert cli.run("--ready", "started", *program("ignores_term", "never")).status == 0
    alive = cli.run("--ready", "alive:50ms", *program("ignores_term", "never"))
    assert (alive.status, alive.seconds >= 0.05) == (0, True)
    assert cli.run("--ready", "exit", *program("self_daemonizes")).status == 0
    assert len(servers.living()) == 3


def test_all_specs_must_hold(trigger: Trigger, servers: Family) -> None:
    """`--ready` may be repeated: the later of the two decides."""
    with cli.popen("-r", "streams", "-r", "alive:1ms", *program("repoints", trigger.arg)) as process:
        assert not procs.wait_ended(process.pid, 0.2)
        trigger.release()
        assert process.wait(10) == 0
    assert cli.run("-r", "streams", "-r", "alive:300ms", *program("repoints")).seconds >= 0.3


# --- what cannot be executed ---------------------------------------------------------------------------------------


def file(path: Path, text: str, mode: int) -> Path:
    """A file with that text and mode."""
    path.write_text(text)
    path.chmod(mode)
    return path


def unexecutable(path: Path) -> dict[str, tuple[str, int, str]]:
    """Command, status, reason: each way a command cannot be executed."""
    return {
        "missing": ("no-such-command", 127, "command not found"),
        "missing path": (f"{path}/missing", 127, "No such file or directory"),
        "below a file": (f"{file(path / 'plain', '', 0o644)}/server", 127, "Not a directory"),
        "directory": (str(path), 126, "Is a directory"),
        "not executable": (str(file(path / "text", "words\n", 0o644)), 126, "Permission denied"),
        "no interpreter": (str(file(path / "lost", "#!/no/such/interpreter\n", 0o755)), 126, "interpreter"),
        "no #! line": (str(file(path / "bare", "echo hello\n", 0o755)), 126, "Exec format error"),
        "empty": (str(file(path / "empty", "", 0o755)), 126, "Exec format error"),
        "empty word": ("", 127, "the name of the command is empty"),
        "loop": (str(symlink_loop(path / "loop")), 126, "symbolic links"),
        "long name": ("/" + "x" * 300, 127, "File name too long"),
        "broken link": (str(broken_link(path / "broken")), 127, "No such file or directory"),
    }


def symlink_loop(path: Path) -> Path:
    """A symbolic link to itself."""
    path.symlink_to(path)
    return path


def broken_link(path: Path) -> Path:
    """A symbolic link to nothing."""
    path.symlink_to("nothing")
    return path


UNEXECUTABLE = (
    "missing",
    "missing path",
    "below a file",
    "directory",
    "not executable",
    "no interpreter",
    "no #! line",
    "empty",
    "empty word",
    "loop",
    "long name",
    "broken link",
)


@pytest.mark.parametrize("kind", UNEXECUTABLE)
def test_not_executed(kind: str, tmp_path: Path, family: Family) -> None:
    """126 (it is there) or 127 (it is not), and one line that names the file and the reason."""
    command, status, reason = unexecutable(tmp_path)[kind]
    done = cli.run(command)

    assert (done.status, done.out) == (status, b"")
    assert done.err.startswith(b"daemonize: ")
    assert done.err.count(b"\n") == 1
    assert command.encode() in done.err
    assert reason.encode() in done.err
    family.nobody()


@pytest.mark.parametrize("kind", UNEXECUTABLE)
def test_not_executed_from_python(kind: str, tmp_path: Path, family: Family) -> None:
    """`launch` raises `NotExecuted` with the same status and reason."""
    command, status, reason = unexecutable(tmp_path)[kind]
    error, out, err = launch([command])

    assert isinstance(error, daemonize.NotExecuted)
    assert (error.exit_status, error.stage) == (status, "exec")
    assert reason in str(error)
    assert (out, err) == (b"", b"")
    family.nobody()


def test_not_executed_is_not_the_server_speaking(tmp_path: Path) -> None:
    """A server of status 126 or 127 is no exec failure: the JSON outcome tells them apart."""
    own = cli.run("--json", *program("dies_silently", 127))
    ours = cli.run("--json", "no-such-command")

    assert (own.status, own.json["outcome"]) == (127, "exited")
    assert (ours.status, ours.json["outcome"]) == (127, "not-executed")


def test_chdir_failure(tmp_path: Path, family: Family) -> None:
    """A directory that is not there is no failure of the command: 125, and the line names the directory."""
    done = cli.run("-c", tmp_path / "missing", "true")

    assert (done.status, done.out) == (125, b"")
    assert f"{tmp_path}/missing".encode() in done.err
    assert b"No such file or directory" in done.err
    assert done.err.count(b"\n") == 1
    family.nobody()


# --- what we do not get ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(5, 24))
def test_too_few_descriptors(number: int, servers: Family) -> None:
    """Where a pipe cannot be made, nothing is started: 125 and one line, or all goes well; never anything between."""
    done = subprocess.run(
        [SHELL, "-c", f'ulimit -n {number}; exec "$@"', SHELL, *cli.command(*program("repoints", "hello"))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )

    if done.returncode:
        assert done.returncode == 125
        assert done.stdout == b""
        assert done.stderr.startswith(b"daemonize: ")
        assert b"Too many open files" in done.stderr
        assert done.stderr.count(b"\n") == 1
        servers.nobody()
    else:
        assert (done.stdout, done.stderr) == (b"hello\n", b"")
        assert procs.alive(servers.only().pid)


@pytest.mark.parametrize("number", [1, 2])
def test_too_many_processes(number: int, family: Family) -> None:
    """Where the intermediate parent (1) or the server (2) cannot be forked: 125, one line, nothing left."""
    argv = [sys.executable, "-P", held.__file__, f"no-fork-{number}", "-", *program("repoints")]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)

    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.startswith(b"daemonize: cannot start ")
    assert b"Resource temporarily unavailable" in done.stderr
    assert done.stderr.count(b"\n") == 1
    family.nobody()


# --- the caller of launch() ----------------------------------------------------------------------------------------

CALLER = """
import atexit, sys
import daemonize
atexit.register(lambda: print("at exit"))
print("before", end=" ")
sys.stdout.write("buffered ")
try:
    daemon = daemonize.launch(sys.argv[1:], timeout=30)
except daemonize.LaunchError as error:
    print("status", error.exit_status)
else:
    print("ready", daemon.is_running)
    daemon.stop()
"""


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (program("dies_silently", 3), b"status 3"),
        (program("repoints"), b"ready True"),
        (["no-such-command"], b"status 127"),
    ],
)
def test_launch_leaves_the_caller_alone(argv: list[str], says: bytes, family: Family) -> None:
    """Never sys.exit; the caller's buffered output and exit handlers appear once, and only in the caller."""
    done = subprocess.run([sys.executable, "-c", CALLER, *argv], capture_output=True, timeout=30, check=False)

    assert done.stdout == b"before buffered " + says + b"\nat exit\n"
    assert (done.returncode, done.stderr) == (0, b"")
    family.nobody()


def test_launch_stops_the_server_on_an_exception(family: Family) -> None:
    """A Ctrl-C in a program that calls `launch` raises KeyboardInterrupt there; the server is stopped before."""
    caller = "import sys, daemonize\ndaemonize.launch(sys.argv[1:])\n"
    argv = program("ignores_term", "never")
    whole = [sys.executable, "-c", caller, *argv]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ignoring SIGTERM\n"
        server = family.running(argv)
        process.send_signal(signal.SIGINT)
        procs.send(server.pid, signal.SIGKILL, server.start)  # it ignores the SIGTERM it gets
        assert b"KeyboardInterrupt" in process.stderr.read()
        assert process.wait(10) == -signal.SIGINT
    family.nobody()


def test_json_of_python_and_command_agree() -> None:
    """The line of `--json` and the error of `launch` tell the same facts."""
    argv = [*PYTHON, "-c", "import os; os._exit(5)"]
    line = cli.run("--json", *argv).json
    error, _, _ = launch(argv)

    assert isinstance(error, daemonize.Exited)
    assert (line["outcome"], line["status"]) == (error.outcome, error.exit_status)
    assert line["command"] == argv == error.command
    assert json.dumps(line)


# --- between silence and death --------------------------------------------------------------------------------------

SLOW_DEATH = """
import os, time
os.close(1), os.close(2)
end = time.monotonic() + {busy}
while time.monotonic() < end: pass
time.sleep({sleep})
os._exit(5)
"""


@pytest.mark.parametrize(("busy", "sleep"), [(0, 0.03), (0.045, 0.02), (0.02, 0.04), (0.06, 0.03)])
def test_a_slow_death_is_a_death(busy: float, sleep: float, family: Family) -> None:
    """A server that closes its streams, works, sleeps and dies within the time that it is watched was never ready."""
    done = cli.run(*PYTHON, "-c", SLOW_DEATH.format(busy=busy, sleep=sleep))

    assert done.status == 5
    family.nobody()
