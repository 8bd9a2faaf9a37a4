"""`-f`: the wrapper stays the server's parent, relays to its end, forwards signals, and exits as it does."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, procs
from tests.support.programs import PYTHON, SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family

ENDINGS = [
    *(
        pytest.param(program("dies_silently", status), status, id=str(status))
        for status in (0, 1, 2, 64, 127, 254, 255)
    ),
    *(
        pytest.param(program("dies_by_signal", int(number)), 128 + number, id=number.name)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL, signal.SIGABRT)
    ),
]

#: Becomes ready, says so on a trigger, and ends with the status 40 + N where N is the last signal it got; lists them.
CATCHER = """
import os, signal, sys
got = []
for number in map(int, sys.argv[2:]):
    signal.signal(number, lambda number, _: got.append(number))
quiet = os.open("/dev/null", os.O_RDWR)
said = os.dup(1)
os.set_inheritable(said, False)
os.dup2(quiet, 1); os.dup2(quiet, 2)
end = os.open(sys.argv[1], os.O_RDWR)
os.write(os.open(sys.argv[1] + ".up", os.O_RDWR), b"up\\n")
while True:
    try:
        word = os.read(end, 1)
    except InterruptedError:
        continue
    if word == b"?":
        os.write(os.open(sys.argv[1] + ".up", os.O_RDWR), repr(got).encode())
    else:
        os._exit(40 + (got[-1] if got else 0))
"""


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """(master, slave) of a pty."""
    master, slave = pty.openpty()
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(("argv", "status"), ENDINGS)
def test_matrix(argv: list[str], status: int, family: Family) -> None:
    """The exit status is the server's own; of a signal that it died of, the wrapper dies as well."""
    bare = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    done = cli.run("-f", *argv)

    assert (done.status, done.out) == (bare.returncode, bare.stdout)
    assert done.err.count(b"\n") == (1 if status else 0)  # a command may simply come to its end
    family.nobody()


def test_litmus(family: Family) -> None:
    """7, "boom", nothing else."""
    done = cli.run("-f", *program("crashes_early", 7))

    assert (done.status, done.out, done.err) == (7, b"", b"boom\n")


@pytest.mark.parametrize(("command", "status"), [("no-such-command", 127), ("/", 126)])
def test_not_executed(command: str, status: int, family: Family) -> None:
    """What cannot be executed: as in the background."""
    done = cli.run("-f", command)

    assert done.status == status
    assert done.err.startswith(b"daemonize: cannot execute ")
    family.nobody()


@pytest.mark.parametrize("status", [0, 3])
def test_status_after_ready(status: int, trigger: Trigger, family: Family) -> None:
    """After ready, the server's end is no failed launch: its status, and not a word of ours."""
    script = f"echo up; exec >/dev/null 2>&1; read line <{trigger.path}; exit {status}"
    with cli.popen("-f", SHELL, "-c", script) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"up\n"
        server = procs.eventually(lambda: child_of(process.pid))
        procs.eventually(lambda: re_pointed(server.pid))
        assert not procs.wait_ended(process.pid, 0.2)
        os.write(trigger._fd, b"\n")
        assert process.wait(10) == status
        assert process.stderr.read() == b""
    family.nobody()


def child_of(pid: int) -> procs.Process:
    """The only child."""
    found = procs.children(pid)
    assert len(found) == 1
    return found[0]


def re_pointed(pid: int) -> None:
    """The server has become ready."""
    assert procs.descriptors(pid).get(1) == "/dev/null"


def test_relay_goes_on_after_ready(trigger: Trigger, family: Family) -> None:
    """Words after ready are relayed too, to the end; the timeout means only the start."""
    script = (
        "import os, sys; os.write(1, b'early\\n'); end = os.open(sys.argv[1], os.O_RDONLY);"
        "os.read(end, 1); os.write(1, b'late\\n'); os.write(2, b'too\\n'); os._exit(9)"
    )
    options = ("-f", "-r", "alive:100ms", "-r", "started", "-t", "500ms")
    with cli.popen(*options, *PYTHON, "-c", script, trigger.path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"early\n"
        assert not procs.wait_ended(process.pid, 0.8)
        trigger.release()
        assert process.stdout.read() == b"late\n"
        assert process.stderr.read() == b"too\n"
        assert process.wait(10) == 9


READY_SERVER = (
    "import os, sys, daemonize; print('early'); daemonize.ready(); print('late', flush=True);"
    "os.read(os.open(sys.argv[1], os.O_RDONLY), 1)"
)


def test_ready_keeps_the_output_with_its_reader(trigger: Trigger, family: Family) -> None:
    """In the foreground, a server that calls ready() is heard to its end: its streams are not moved to a log."""
    with cli.popen("-f", *PYTHON, "-c", READY_SERVER, trigger.path) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"early\n", b"late\n"]
        trigger.release()
        assert process.wait(10) == 0


def test_streams_are_moved_in_the_foreground_if_asked_for(trigger: Trigger, family: Family) -> None:
    """Control: `--ready streams` is waited for there, too, and then the rest is in the log."""
    with cli.popen("-f", "--json", "-r", "streams", *PYTHON, "-c", READY_SERVER, trigger.path) as process:
        assert process.stdout is not None
        assert b'"outcome": "ready"' in process.stdout.readline()
        trigger.release()
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b"early\n"


def test_json_reports_ready_when_it_is(trigger: Trigger, family: Family) -> None:
    """--json -f: the line comes at readiness, not at the end."""
    with cli.popen("-f", "--json", *program("repoints", trigger.arg)) as process:
        assert process.stdout is not None
        trigger.release()
        line = process.stdout.readline()
        assert b'"outcome": "ready"' in line
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
        assert process.stdout.read() == b""
    family.nobody()


def test_timeout(family: Family) -> None:
    """A server that is not ready in time is stopped in the foreground too: 124."""
    done = cli.run("-f", "-t", "200ms", "sleep", "100")

    assert done.status == 124
    assert b"--ready" in done.err
    family.nobody()


def test_stdin_is_kept(family: Family) -> None:
    """The server reads the caller's stdin."""
    done = cli.run("-f", SHELL, "-c", 'read line; echo "got $line"; exit 3', input=b"words\n")

    assert (done.status, done.out) == (3, b"got words\n")


def test_stdin_file(tmp_path: Path, family: Family) -> None:
    """Unless --stdin says otherwise."""
    (tmp_path / "in").write_text("file\n")
    done = cli.run("-f", "--stdin", tmp_path / "in", "cat", input=b"words\n")

    assert done.out == b"file\n"


def test_same_session(family: Family) -> None:
    """No intermediate parent and no new session: the server is the wrapper's child, in its group."""
    with cli.popen("-f", SHELL, "-c", "echo up; exec sleep 100", stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        server = child_of(process.pid)
        assert (server.sid, server.pgid) == (os.getsid(0), os.getpgid(process.pid))
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
    family.nobody()


# --- signals -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def catcher(
    tmp_path: Path, *numbers: int, front: tuple[str, ...] = (), **options: object
) -> Iterator[tuple[subprocess.Popen[bytes], Trigger, Trigger]]:
    """A ready server that catches signals: the wrapper, what it is asked with, and what it answers on."""
    with Trigger(tmp_path, "ask") as ask, Trigger(tmp_path, "ask.up") as answers:
        argv = [*front, *cli.command("-f", *PYTHON, "-c", CATCHER, ask.path, *map(str, numbers))]
        given: dict[str, object] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, **given) as process:  # type: ignore[call-overload]
            assert os.read(answers._fd, 100) == b"up\n"
            try:
                yield process, ask, answers
            finally:
                process.kill()


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "WINCH"])
def test_signals_are_forwarded(name: str, tmp_path: Path, family: Family) -> None:
    """A signal to the wrapper goes to the server, once, and the wrapper goes on until the server ends."""
    number = signal.Signals[f"SIG{name}"]
    with catcher(tmp_path, number) as (process, ask, answers):
        process.send_signal(number)

        assert caught(ask, answers, number) == [number]
        assert process.poll() is None
        os.write(ask._fd, b"x")
        assert process.wait(10) == 40 + number
    family.nobody()


def test_signal_during_the_start_is_forwarded(trigger: Trigger, family: Family) -> None:
    """A server that is interrupted before it is ready ends its own way, with its own status."""
    script = f"trap 'echo bye; exit 5' TERM; echo hello; while :; do read line <{trigger.path}; done"
    with cli.popen("-f", SHELL, "-c", script, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        process.terminate()
        assert process.stdout.read() == b"bye\n"
        assert process.wait(10) == 5
    family.nobody()


def caught(ask: Trigger, answers: Trigger, last: int) -> list[int]:
    """The signals the server has got, as soon as `last` is among them."""

    def check() -> list[int]:
        os.write(ask._fd, b"?")
        numbers: list[int] = json.loads(os.read(answers._fd, 1000))
        assert last in numbers
        return numbers

    return procs.eventually(check)


@contextlib.contextmanager
def on_a_terminal(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes], Trigger, Trigger]]:
    """A catcher of SIGINT whose controlling terminal's keyboard is the descriptor given here."""
    # setsid -c: a session of its own, with this terminal, in its foreground group.
    with (
        terminal() as (master, slave),
        catcher(tmp_path, signal.SIGINT, signal.SIGWINCH, front=("setsid", "-c"), stdin=slave) as (
            process,
            ask,
            answers,
        ),
    ):
        yield master, process, ask, answers


def test_ctrl_c_arrives_once(tmp_path: Path, family: Family) -> None:
    """Ctrl-C on a real controlling terminal reaches the whole group; the wrapper does not send it a second time."""
    with on_a_terminal(tmp_path) as (keyboard, process, ask, answers):
        os.write(keyboard, b"\x03")
        assert caught(ask, answers, signal.SIGINT) == [signal.SIGINT]
        # A barrier: what the wrapper is sent now it forwards after what it would have forwarded before.
        process.send_signal(signal.SIGWINCH)
        assert caught(ask, answers, signal.SIGWINCH) == [signal.SIGINT, signal.SIGWINCH]
        os.write(ask._fd, b"x")
        assert process.wait(10) == 40 + signal.SIGWINCH
    family.nobody()


def test_interrupt_of_the_wrapper_alone_arrives(tmp_path: Path, family: Family) -> None:
    """The negative control: kill -INT to the wrapper alone, on the same terminal, is forwarded."""
    with on_a_terminal(tmp_path) as (_, process, ask, answers):
        process.send_signal(signal.SIGINT)
        assert caught(ask, answers, signal.SIGINT) == [signal.SIGINT]
        os.write(ask._fd, b"x")
        assert process.wait(10) == 40 + signal.SIGINT
    family.nobody()


def test_ctrl_c_ends_an_ordinary_server(family: Family) -> None:
    """Ctrl-C on a terminal ends both, as a shell expects of whoever was interrupted (130 in its `$?`)."""
    with terminal() as (master, slave):
        argv = ["setsid", "-c", *cli.command("-f", SHELL, "-c", "echo up; exec sleep 100")]
        with subprocess.Popen(
            argv, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            os.write(master, b"\x03")
            assert process.wait(10) == -signal.SIGINT
    family.nobody()


def test_hang_up(family: Family) -> None:
    """A terminal that goes away ends the server, though the kernel tells the session's leader alone, the wrapper."""
    master, slave = pty.openpty()
    argv = ["setsid", "-c", *cli.command("-f", SHELL, "-c", "echo up; exec sleep 100")]
    with subprocess.Popen(argv, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        os.close(slave)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.close(master)
        ended = procs.wait_ended(process.pid, 5)
        family.end({process.pid})
        assert ended
        assert process.wait(10) == -signal.SIGHUP


def test_server_reads_from_the_terminal(family: Family) -> None:
    """The server is in the terminal's foreground group: it may read from it, and is not stopped for it."""
    with terminal() as (master, slave):
        argv = [
            "setsid",
            "-c",
            *cli.command("-f", SHELL, "-c", 'echo up; read line; echo "got $line"; exit 3'),
        ]
        with subprocess.Popen(
            argv, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            os.write(master, b"words\n")
            assert process.stdout.read() == b"got words\n"
            assert process.wait(10) == 3
    family.nobody()


@pytest.mark.parametrize("ready", [False, True])
def test_wrapper_killed(ready: bool, family: Family) -> None:
    """SIGKILL to the wrapper takes the server along, before and after it is ready."""
    quiet = "exec >/dev/null 2>&1; " if ready else ""
    script = f"echo up; {quiet}exec sleep 100"
    with cli.popen("-f", SHELL, "-c", script, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        server = child_of(process.pid)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        assert procs.wait_ended(server.pid, start=server.start)
    family.nobody()


def test_self_daemonizing_server_stays_in_the_foreground(family: Family) -> None:
    """A server that forks itself into the background is adopted: the wrapper stays until its daemon ends."""
    with cli.popen("-f", "--json", *program("self_daemonizes", "last"), stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert b'"outcome": "ready"' in process.stdout.readline()
        daemon = child_of(process.pid)
        assert not procs.wait_ended(process.pid, 0.2)
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
        assert procs.wait_ended(daemon.pid, 0, daemon.start)
    family.nobody()


def test_silence_after_a_self_daemonizing_server(family: Family) -> None:
    """Its words after ready are relayed as well: `holds` keeps the pipes."""
    with cli.popen("-f", *program("self_daemonizes", "holds"), stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"daemon ")
        daemon = procs.eventually(lambda: child_of(process.pid))
        procs.stop(daemon.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    family.nobody()


def test_what_the_server_leaves_behind_is_not_waited_for(family: Family) -> None:
    """A server that ends with a failure and leaves a descendant: its status, and nothing is left."""
    done = cli.run("-f", *program("leaves_grandchild", 3))

    assert done.status == 3
    family.nobody()


def test_reader_that_leaves(family: Family) -> None:
    """A closed reader does not end a server in the foreground."""
    read, write = os.pipe()
    process = cli.popen("-f", *program("writes_much", 3_000_000, 6), stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    with process:
        assert os.read(read, 1)
        os.close(read)
        assert process.wait(10) == 6
    family.nobody()


def test_signals_of_the_server_are_default(servers: Family) -> None:
    """What the wrapper blocks to read its signals is not blocked in the server."""
    done = cli.run("-f", SHELL, "-c", "cat /proc/self/status; exit 3")
    fields = dict(line.split(":\t", 1) for line in done.out.decode().splitlines() if ":\t" in line)

    assert [int(fields[name], 16) & ~procs.GLIBC_SIGNALS for name in ("SigBlk", "SigIgn")] == [0, 0]
