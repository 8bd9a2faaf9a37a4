"""What the server says while it starts reaches the caller: every byte, on its stream, whatever the caller's are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import termios
import threading
from typing import TYPE_CHECKING

import pytest

from tests.programs.writes_much import content
from tests.support import cli, procs
from tests.support.ports import HOST, wait_listening
from tests.support.programs import PYTHON, SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family

MUCH = 3_000_001  # megabytes, and no multiple of any buffer


def expected(fd: int, size: int) -> bytes:
    """What writes_much.py says on descriptor fd."""
    return b"".join(content(fd, size))


def shell(script: str, *args: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script in which `daemonize` is the installed command and "$@" are `args`."""
    path = f"{os.path.dirname(cli.COMMAND)}:{os.environ['PATH']}"
    return subprocess.run(
        [SHELL, "-c", script, SHELL, *args],
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def blocked_writing(pid: int) -> None:
    """The process waits in the middle of a write."""
    waits = procs.read(f"/proc/{pid}/wchan")
    assert waits in {b"pipe_write", b"anon_pipe_write"}, f"waits in {waits!r}"


def full(fd: int) -> None:
    """The pipe holds about all it can."""
    waiting = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")
    assert waiting > 60_000


def not_running(servers: Family, argv: list[str]) -> None:
    """Nobody runs that command any more."""
    running = False
    with contextlib.suppress(AssertionError):
        running = bool(servers.running(argv))
    assert not running


def re_pointed(pid: int) -> None:
    """The process has become ready."""
    assert procs.descriptors(pid).get(1) == "/dev/null"


# --- byte for byte, apart -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, 65536, MUCH])
def test_both_streams_byte_exact(size: int, servers: Family) -> None:
    """Everything a server says on either stream before it is ready arrives on that stream, binary and unchanged."""
    done = cli.run(*program("writes_much", size))

    assert done.status == 0
    assert done.out == expected(1, size)
    assert done.err == expected(2, size)


def test_both_streams_of_a_failure_byte_exact(family: Family) -> None:
    """So does everything a server says before it fails; nothing of ours is mixed in."""
    done = cli.run(*program("writes_much", MUCH, 9))

    assert done.status == 9
    assert done.out == expected(1, MUCH)
    assert done.err == expected(2, MUCH)
    family.nobody()


def test_unbuffered(trigger: Trigger, servers: Family) -> None:
    """A word is relayed when it is said, without its line's end, while the server goes on starting."""
    script = f"printf hel; read line <{trigger.path}; printf lo; exec sleep 100 >/dev/null 2>&1"
    with cli.popen(SHELL, "-c", script) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"hel"
        os.write(trigger._fd, b"\n")
        assert process.stdout.read() == b"lo"
        assert process.wait(10) == 0


def test_not_ready_while_one_stream_is_open(trigger: Trigger, servers: Family) -> None:
    """One closed stream is not readiness: both must be."""
    for close in (">/dev/null", "2>/dev/null"):
        script = f"echo open; exec {close}; read line <{trigger.path}; exec sleep 100 >/dev/null 2>&1"
        with cli.popen("-v", SHELL, "-c", script) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            assert not procs.wait_ended(process.pid, 0.15)
            os.write(trigger._fd, b"\n")
            assert process.wait(10) == 0


def test_nothing_after_ready(servers: Family, trigger: Trigger) -> None:
    """The wrapper holds no stream of the caller's afterwards: end of file comes with its end, and nothing follows."""
    done = cli.run(*program("repoints", "banner"))

    assert (done.status, done.out, done.err) == (0, b"banner\n", b"")
    held = procs.descriptors(servers.only().pid)
    assert {held[fd] for fd in (0, 1, 2)} == {"/dev/null"}


@pytest.mark.parametrize("how", ["repoints", "closes_streams"])
def test_both_ways_to_be_ready(how: str, servers: Family) -> None:
    """A server that re-points its streams is ready, and so is one that closes them as gpupgrade does."""
    done = cli.run(*program(how, "up"))

    assert (done.status, done.out, done.err) == (0, b"up\n", b"")
    assert procs.alive(servers.only().pid)


def test_leader_that_left_is_alive(servers: Family) -> None:
    """A server whose leader thread called pthread_exit shows Z in /proc, serves, and is ready."""
    for how in ((), ("closes",)):
        done = cli.run(*program("leader_exits", *how))
        assert (done.status, done.err) == (0, b"")
    found = [process for process in procs.processes() if process.state == "Z" and process.name == "python"]
    for process in found:  # a living Z: the fixture does not see it
        if not procs.exiting(process.pid):
            procs.send(process.pid, signal.SIGKILL, process.start)
            procs.wait_ended(process.pid, start=process.start)


# --- stderr, strict --------------------------------------------------------------------------------------------------


def test_a_warning_is_no_failure(servers: Family) -> None:
    """What gpupgrade takes for a failure: words on stderr from a server that becomes ready."""
    done = cli.run(*program("warns_then_ready"))

    assert (done.status, done.out) == (0, b"")
    assert done.err == b"warning: no configuration file, using defaults\n"


def test_strict_without_words_on_stderr(servers: Family) -> None:
    """--strict has nothing against words on stdout."""
    assert cli.run("--strict", *program("repoints", "hello")).status == 0


def test_strict_takes_a_warning_for_a_failure(family: Family) -> None:
    """--strict: a server that warned and goes on is stopped after 2 s; status 1, and a line that says why."""
    done = cli.run("--strict", *program("warns_then_ready", "careful"))

    words, ours = done.err.splitlines()
    assert (done.status, words) == (1, b"careful")
    assert b"--strict" in ours
    assert 1.9 < done.seconds < 8
    family.nobody()


def test_strict_waits_for_the_status(family: Family) -> None:
    """--strict: a server that complained, closed its streams and exits within 2 s gives its own status."""
    script = "echo careful >&2; exec >/dev/null 2>&1; sleep 0.3; exit 6"
    done = cli.run("--strict", SHELL, "-c", script)

    assert done.status == 6
    assert done.err.startswith(b"careful\n")
    assert done.seconds < 2
    family.nobody()


def test_strict_exit_0_after_a_warning(family: Family) -> None:
    """--strict: an exit with 0 within those 2 s is a failure all the same."""
    script = "echo careful >&2; exec >/dev/null 2>&1; sleep 0.3; exit 0"
    assert cli.run("--strict", SHELL, "-c", script).status == 1
    family.nobody()


# --- what the caller's streams can be ---------------------------------------------------------------------------------


def test_command_substitution(servers: Family) -> None:
    """out=$(daemonize ...) returns while the server runs, with what it said."""
    done = shell('out=$(daemonize "$@"); echo "$? $out"', *program("repoints", "hello"))

    assert (done.returncode, done.stdout, done.stderr) == (0, b"0 hello\n", b"")
    assert procs.alive(servers.only().pid)


def test_command_substitution_of_a_failure(family: Family) -> None:
    """The status of a failure comes through, and its words."""
    done = shell('out=$(daemonize "$@" 2>&1); echo "$? $out"', *program("crashes_early", 7))

    assert done.stdout == b"7 boom\n"
    family.nobody()


def test_pipe_to_cat(servers: Family) -> None:
    """`daemonize ... | cat` returns while the server runs."""
    done = shell('daemonize "$@" | cat', *program("writes_much", MUCH))

    assert done.stdout == expected(1, MUCH)


@pytest.mark.parametrize("status", [None, 3])
def test_reader_that_leaves(status: int | None, servers: Family) -> None:
    """`daemonize ... | head -1`: neither wrapper nor server dies of SIGPIPE, and the status is the right one."""
    words = [str(status)] if status else []
    done = shell(
        '{ daemonize "$@"; echo $? >&3; } 2>/dev/null 3>&2 | head -c 1 >/dev/null',
        *program("writes_much", MUCH, *words),
    )
    assert done.returncode == 0
    read, write = os.pipe()
    process = cli.popen(*program("writes_much", MUCH, *words), stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    with process:
        assert os.read(read, 1)
        os.close(read)
        assert process.wait(10) == (status or 0)
    assert len(servers.living()) == (0 if status else 2)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(("words", "status"), [((), 0), (("3",), 3)])
def test_full_device(stream: str, words: tuple[str, ...], status: int, servers: Family) -> None:
    """>/dev/full: the status is right, the server does not notice; only stderr, if it is not full, hears of it."""
    with open("/dev/full", "wb") as full:
        done = cli.run(*program("writes_much", 100_000, *words), **{stream: full})  # type: ignore[arg-type]

    assert done.status == status
    if stream == "stdout":
        assert done.err.startswith(expected(2, 100_000))
        ours = done.err[100_000:]
        assert b"could not be relayed" in ours
        assert b"No space left on device" in ours
    else:
        assert done.out == expected(1, 100_000)
    assert len(servers.living()) == (status == 0)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", "2>&1 >/dev/full"])
@pytest.mark.parametrize(
    ("argv", "status"), [(program("repoints", "hi"), 0), (program("crashes_early", 7), 7)]
)
def test_closed_streams(closed: str, argv: list[str], status: int, servers: Family) -> None:
    """Closed streams of the caller: the status is right, what is open gets its words, the server has all three."""
    done = shell(f'daemonize "$@" {closed}', *argv)

    assert done.returncode == status
    if ">&-" not in closed.split() and "full" not in closed:
        assert done.stdout == (b"" if status else b"hi\n")
    if closed in {">&-", "<&-"}:
        assert done.stderr == (b"boom\n" if status else b"")
    if not status:
        held = procs.descriptors(servers.only().pid)
        assert {fd: held.get(fd) for fd in (0, 1, 2)} == dict.fromkeys((0, 1, 2), "/dev/null")


def test_closed_streams_do_not_become_pipes(servers: Family, tmp_path: Path) -> None:
    """With all three closed, no word of the server is lost into a descriptor of ours: it says megabytes, and is ready."""
    done = shell('daemonize "$@" <&- >&- 2>&-', *program("writes_much", MUCH))

    assert done.returncode == 0
    assert procs.alive(servers.only().pid)


@pytest.mark.parametrize("append", [False, True])
def test_file(append: bool, tmp_path: Path, servers: Family) -> None:
    """>file and >>file: the bytes are in it, at the caller's position, and the position has moved on."""
    path = tmp_path / "out"
    path.write_bytes(b"before\n")
    flags = os.O_WRONLY | (os.O_APPEND if append else 0)
    fd = os.open(path, flags)
    try:
        os.lseek(fd, 0, os.SEEK_END)
        assert cli.run(*program("writes_much", MUCH), stdout=fd).status == 0
        os.write(fd, b"after\n")
    finally:
        os.close(fd)
    assert path.read_bytes() == b"before\n" + expected(1, MUCH) + b"after\n"


def test_both_streams_to_one_file(tmp_path: Path, family: Family) -> None:
    """>file 2>&1: nothing overwrites anything."""
    with open(tmp_path / "out", "wb") as file:
        assert cli.run(*program("writes_much", 200_000, 3), stdout=file, stderr=file).status == 3
    written = (tmp_path / "out").read_bytes()
    assert len(written) == 400_000
    assert sorted(written) == sorted(expected(1, 200_000) + expected(2, 200_000))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_socket(kind: socket.SocketKind, servers: Family) -> None:
    """A socket as stdout, as inetd and ssh without a terminal give it: byte-exact, and never made non-blocking."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with (
        ours,
        theirs,
        cli.popen(*program("writes_much", MUCH), stdout=theirs, stderr=subprocess.DEVNULL) as process,
    ):
        said = bytearray()
        while len(said) < MUCH:
            data = ours.recv(1 << 20)
            assert data
            said += data
        assert process.wait(10) == 0
        assert os.get_blocking(theirs.fileno())
    assert bytes(said) == expected(1, MUCH)


def test_socket_whose_reader_leaves(family: Family) -> None:
    """A closed socket is a reader that left: the server's status comes through."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.close()
        assert cli.run(*program("writes_much", MUCH, 3), stdout=theirs).status == 3
    family.nobody()


@contextlib.contextmanager
def terminal(*, raw: bool = True) -> Iterator[tuple[int, int]]:
    """(master, slave) of a pty that changes no byte."""
    master, slave = pty.openpty()
    try:
        if raw:
            attributes = termios.tcgetattr(slave)
            attributes[1] &= ~termios.OPOST
            attributes[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(slave, termios.TCSANOW, attributes)
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def take(fd: int, size: int, timeout: float = 20) -> bytes:
    """Exactly `size` bytes from a terminal, or what there is when none comes in time."""
    said = bytearray()
    while len(said) < size and procs.readable(fd, timeout):
        said += os.read(fd, min(65536, size - len(said)))
    return bytes(said)


def test_terminal(servers: Family) -> None:
    """A pty as stdout: byte-exact, and O_NONBLOCK does not show on the caller's descriptor, now or afterwards."""
    with terminal() as (master, slave):
        with cli.popen(*program("writes_much", 300_000), stdout=slave, stderr=subprocess.DEVNULL) as process:
            first = take(master, 1000)
            assert os.get_blocking(slave)
            assert first + take(master, 299_000) == expected(1, 300_000)
            assert process.wait(10) == 0
        assert os.get_blocking(slave)
        assert not procs.readable(master, 0)


@pytest.mark.parametrize(
    ("argv", "status"), [(program("repoints", "hello"), 0), (program("writes_much", 500, 3), 3)]
)
def test_stopped_terminal(argv: list[str], status: int, servers: Family) -> None:
    """Ctrl-S: the words wait, detection does not; after Ctrl-Q they are all there."""
    with terminal() as (master, slave):
        termios.tcflow(slave, termios.TCOOFF)
        with cli.popen(*argv, stdout=slave, stderr=subprocess.DEVNULL) as process:
            if status:
                procs.eventually(lambda: not_running(servers, argv))
            assert not procs.wait_ended(process.pid, 0.3)
            assert not procs.readable(master, 0)
            termios.tcflow(slave, termios.TCOON)
            size = 500 if status else 6
            assert take(master, size) == (expected(1, 500) if status else b"hello\n")
            assert process.wait(10) == status
            assert os.get_blocking(slave)


def test_timeout_of_a_stopped_terminal_is_not_the_servers_fault(servers: Family) -> None:
    """Ctrl-S for longer than the timeout: time in which the server is blocked by the caller's reader does not count."""
    with terminal() as (master, slave):
        termios.tcflow(slave, termios.TCOOFF)
        with cli.popen("-t", "1s", *program("writes_much", 200_000), stdout=slave) as process:
            assert process.stderr is not None
            drain = threading.Thread(target=process.stderr.read)
            drain.start()
            assert not procs.wait_ended(process.pid, 2.0)
            termios.tcflow(slave, termios.TCOON)
            assert take(master, 200_000) == expected(1, 200_000)
            assert process.wait(10) == 0
            drain.join()


def test_slow_reader(servers: Family) -> None:
    """A reader that takes a little at a time gets everything."""
    with cli.popen(*program("writes_much", 400_000), stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        said = b""
        while data := os.read(process.stdout.fileno(), 997):
            said += data
        assert process.wait(10) == 0
    assert said == expected(1, 400_000)


@pytest.mark.parametrize("status", [0, 3])
def test_reader_that_reads_late(status: int, servers: Family) -> None:
    """A reader that does not read blocks no detection: the server is seen to die, or to be ready; nothing is lost."""
    size = 100_000  # more than the reader's pipe holds, less than the reader's and the server's
    words = [str(status)] if status else []
    argv = program("writes_much", size, *words)
    with cli.popen(*argv, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        out = process.stdout.fileno()
        procs.eventually(lambda: full(out))
        if status:
            procs.eventually(lambda: not_running(servers, argv))
        else:
            server = procs.eventually(lambda: servers.running(argv))
            procs.eventually(lambda: re_pointed(server.pid))
        assert not procs.wait_ended(process.pid, 0.2)
        assert process.stdout.read() == expected(1, size)
        assert process.wait(10) == status


def test_death_while_the_reader_is_stuck(servers: Family) -> None:
    """A server that is ready but dies while its words wait for the reader was not ready after all: 137."""
    argv = program("writes_much", 100_000)
    with cli.popen(*argv, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        out = process.stdout.fileno()
        procs.eventually(lambda: full(out))
        server = procs.eventually(lambda: servers.running(argv))
        procs.eventually(lambda: re_pointed(server.pid))
        procs.send(server.pid, signal.SIGKILL, server.start)
        assert procs.wait_ended(server.pid, start=server.start)
        assert process.stdout.read() == expected(1, 100_000)
        assert process.wait(10) == 128 + signal.SIGKILL
    servers.nobody()


def test_back_pressure(servers: Family) -> None:
    """A reader that does not read holds the server back; no memory fills instead; the timeout does not run on."""
    argv = program("writes_much", 4_000_000)
    with cli.popen("-t", "1s", *argv, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        server = procs.eventually(lambda: servers.running(argv))
        procs.eventually(lambda: blocked_writing(server.pid))
        assert not procs.wait_ended(process.pid, 1.5)
        blocked_writing(server.pid)
        assert int(procs.status(process.pid)["VmRSS"].split()[0]) < 40_000
        assert process.stdout.read() == expected(1, 4_000_000)
        assert process.wait(10) == 0


def test_one_stuck_stream_does_not_hold_the_other(trigger: Trigger, servers: Family) -> None:
    """A reader that ignores stdout still hears stderr at once."""
    script = f"head -c 100000 /dev/zero; echo careful >&2; read line <{trigger.path}; exec sleep 100 >/dev/null 2>&1"
    with cli.popen(SHELL, "-c", script) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"careful\n"
        os.write(trigger._fd, b"\n")
        assert process.stdout.read() == bytes(100_000)
        assert process.wait(10) == 0


def test_gigabytes_in_constant_memory(servers: Family) -> None:
    """A flood of output costs no memory."""
    script = "head -c 500000000 /dev/zero; exec sleep 100 >/dev/null 2>&1"
    with cli.popen(SHELL, "-c", script, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        out, total, peak = process.stdout.fileno(), 0, 0
        while data := os.read(out, 1 << 20):
            total += len(data)
            peak = max(peak, int(procs.status(process.pid).get("VmHWM", "0").split()[0]))
        assert process.wait(10) == 0
    assert total == 500_000_000
    assert 0 < peak < 40_000


# --- who daemonizes itself, who holds a pipe ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("last",)])
def test_self_daemonizing(how: tuple[str, ...], servers: Family) -> None:
    """A server that forks itself into the background is followed to its daemon, which is the main process."""
    done = cli.run("--json", *program("self_daemonizes", *how))

    daemon = servers.only()
    assert (done.status, done.json["outcome"], done.json["pid"]) == (0, "ready", daemon.pid)
    assert done.err == f"daemon {daemon.pid}\n".encode()
    assert done.json["drain"] is None


@pytest.mark.parametrize("how", [("fails=5", "last"), ("fails=5",)])
def test_self_daemonizing_failure(how: tuple[str, ...], family: Family) -> None:
    """One whose daemon does not come up is a failure with the daemon's words, and its status where there is one."""
    done = cli.run(*program("self_daemonizes", *how))

    assert done.err.startswith(b"cannot start\n")
    assert done.status == 5
    family.nobody()


def test_self_daemonizing_that_holds_its_streams(servers: Family) -> None:
    """Ready when the command exits; from then on a drain, no parent of the server, copies to the log to the end."""
    done = cli.run("--json", *program("self_daemonizes", "last", "holds"))

    assert (done.status, done.json["outcome"]) == (0, "ready")
    daemon, drain = procs.stat(done.json["pid"]), procs.stat(done.json["drain"])
    assert daemon is not None
    assert drain is not None
    assert {p.pid for p in servers.living()} == {daemon.pid, drain.pid}
    assert daemon.ppid != drain.pid
    assert drain.sid not in {os.getsid(0), daemon.sid}
    procs.stop(daemon.pid)
    assert procs.wait_ended(drain.pid, start=drain.start)


WRITER = """
import os, sys, signal
if os.fork(): os._exit(0)
os.setsid()
os.write(1, b"up\\n")
while word := os.read(int(os.open(sys.argv[1], os.O_RDONLY)), 1):
    os.write(1, b"out " + word + b"\\n")
    os.write(2, b"err " + word + b"\\n")
    if word == b"x": os._exit(0)
    done = os.open(sys.argv[2], os.O_WRONLY); os.write(done, word); os.close(done)
"""


def test_drain(tmp_path: Path, servers: Family) -> None:
    """Words after the detach go to the log, streams apart; the server never gets SIGPIPE; the drain ends with it."""
    with Trigger(tmp_path, "in") as words, Trigger(tmp_path, "done") as answers:
        signal_default = f"import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n{WRITER}"
        done = cli.run("--json", *PYTHON, "-c", signal_default, words.path, answers.path)
        assert (done.status, done.err) == (0, b"up\n")
        server, drain = (procs.stat(done.json[key]) for key in ("pid", "drain"))
        assert server is not None
        assert drain is not None
        os.write(words._fd, b"a")
        assert os.read(answers._fd, 1) == b"a"
        assert procs.alive(server.pid)
        os.write(words._fd, b"x")
        # Its ends of the pipes are closed on its way out: the drain may be the first to be gone.
        assert procs.wait_ended(drain.pid, start=drain.start)
        assert procs.wait_ended(server.pid, start=server.start)
    out, err = done.json["files"]["stdout"], done.json["files"]["stderr"]
    with open(out, "rb") as file:
        assert file.read() == b"out a\nout x\n"
    with open(err, "rb") as file:
        assert file.read() == b"err a\nerr x\n"
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o600
    servers.nobody()


def test_drain_to_the_files_given(tmp_path: Path, servers: Family) -> None:
    """With -o and -e under the streams protocol, the drain goes on in those files."""
    with Trigger(tmp_path, "in") as words, Trigger(tmp_path, "done") as answers:
        out, err = tmp_path / "o", tmp_path / "e"
        options = ("--json", "-r", "streams", "-o", out, "-e", err)
        done = cli.run(*options, *PYTHON, "-c", WRITER, words.path, answers.path)
        drain = procs.stat(done.json["drain"])
        assert drain is not None
        os.write(words._fd, b"x")
        assert procs.wait_ended(drain.pid, start=drain.start)
    assert (out.read_bytes(), err.read_bytes()) == (b"out x\n", b"err x\n")


def test_descendant_that_holds_a_pipe_and_exit_0(servers: Family) -> None:
    """`sh -c 'server & exit 0'`: ready at once, with the descendant as main process and a drain; `-v` says so."""
    done = cli.run("-v", *program("leaves_grandchild", 0))

    assert done.status == 0
    assert done.seconds < 10
    assert b"drain (pid " in done.err
    assert len(servers.living()) == 2


@pytest.mark.parametrize("how", [(), ("session",)])
def test_descendant_that_holds_a_pipe_and_a_failure(how: tuple[str, ...], family: Family) -> None:
    """No hang: the status is 3, at once, and what was left behind is stopped, even in a session of its own."""
    done = cli.run(*program("leaves_grandchild", 3, *how))

    assert done.status == 3
    assert done.seconds < 8
    assert done.out.startswith(b"grandchild ")
    family.nobody()


def test_server_in_the_background_of_a_shell(servers: Family) -> None:
    """`sh -c 'server & exit 0'` keeps serving afterwards, and its words, said before or after, are not lost."""
    done = cli.run("--json", SHELL, "-c", " ".join(program("tcp_echo", "holds")) + " & exit 0")
    assert done.status == 0

    def port() -> int:
        with open(done.json["files"]["stdout"], "rb") as log:
            text = done.err + log.read()
        assert text.startswith(b"listening on port ")
        assert text.endswith(b"\n")
        return int(text.split()[-1])

    number = procs.eventually(port)
    wait_listening(number)
    with socket.create_connection((HOST, number), 10) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"hello"


# --- files -------------------------------------------------------------------------------------------------------------


def test_files_are_followed(tmp_path: Path, trigger: Trigger, servers: Family) -> None:
    """-o and -e: the words go to the files, and from there to the caller's streams, until ready."""
    out, err = tmp_path / "o", tmp_path / "e"
    out.write_text("old\n")
    script = "echo to out; echo to err >&2; sleep 100"
    with cli.popen("-o", out, "-e", err, "-r", "alive:500ms", SHELL, "-c", script) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"to out\n"
        assert process.stderr.readline() == b"to err\n"
        assert process.poll() is None
        assert process.wait(10) == 0
    assert (out.read_bytes(), err.read_bytes()) == (b"to out\n", b"to err\n")


def test_started_is_the_default_with_files(tmp_path: Path, servers: Family) -> None:
    """-o or -e alone mean `started`: back at once, though the server closes nothing."""
    done = cli.run("-o", tmp_path / "o", *program("ignores_term", "never"))

    assert done.status == 0
    server = procs.eventually(servers.only)
    held = procs.descriptors(server.pid)
    assert held[1] == str(tmp_path / "o")
    assert held[2].endswith(".err")
    assert all(int(_flags(server.pid, fd), 8) & os.O_APPEND for fd in (1, 2))


def _flags(pid: int, fd: int) -> str:
    lines = procs.read(f"/proc/{pid}/fdinfo/{fd}").decode().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("flags:"))


@pytest.mark.parametrize("append", [False, True])
def test_append(append: bool, tmp_path: Path, family: Family) -> None:
    """-a keeps what is in the files; without it they are truncated. Only what is new is relayed."""
    out = tmp_path / "o"
    out.write_text("old\n")
    options = ("-a",) if append else ()
    done = cli.run(*options, "-o", out, "-r", "exit", SHELL, "-c", "echo new; exit 3")

    assert (done.status, done.out) == (3, b"new\n")
    assert out.read_bytes() == (b"old\nnew\n" if append else b"new\n")
    family.nobody()


def test_equal_files(tmp_path: Path, family: Family) -> None:
    """-o equal to -e: one file, in order, relayed once, to stdout."""
    both = tmp_path / "log"
    done = cli.run(
        "-o", both, "-e", both, "-r", "alive:60s", SHELL, "-c", "echo 1; echo 2 >&2; echo 3; exit 4"
    )

    assert (done.status, done.out) == (4, b"1\n2\n3\n")
    assert both.read_bytes() == b"1\n2\n3\n"
    assert b"1\n" not in done.err


def test_megabytes_through_files(tmp_path: Path, family: Family) -> None:
    """Nothing is lost or repeated when files are followed, to the last byte before a death."""
    done = cli.run(
        "-o", tmp_path / "o", "-e", tmp_path / "e", "-r", "alive:60s", *program("writes_much", MUCH, 3)
    )

    assert done.status == 3
    assert done.out == expected(1, MUCH)
    assert done.err.startswith(expected(2, MUCH))
    assert (tmp_path / "o").read_bytes() == expected(1, MUCH)


def test_own_log(servers: Family) -> None:
    """Without -o and -e, a spec other than streams writes to the daemon's own log, 0600 in a 0700 directory."""
    done = cli.run("--json", "-r", "alive:200ms", SHELL, "-c", "echo hello; exec sleep 100")

    assert done.status == 0
    path = done.json["files"]["stdout"]
    assert path == f"{os.environ['DAEMONIZE_STATE_DIR']}/sh.out"
    assert done.err == b"hello\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    second = cli.run("--json", "-r", "alive:10ms", SHELL, "-c", "exec sleep 100")
    assert second.json["files"]["stdout"].endswith("/sh-2.out")


def test_log_of_a_failure_is_named(family: Family) -> None:
    """Where one has to look into a file, our line names it, even if the server spoke."""
    done = cli.run("-r", "alive:60s", *program("crashes_early", 7))

    assert done.status == 7
    assert done.err.startswith(b"boom\n")
    assert f"{os.environ['DAEMONIZE_STATE_DIR']}/python".encode() in done.err


def test_truncated_while_followed(tmp_path: Path, trigger: Trigger, servers: Family) -> None:
    """A server that truncates its log while it starts (a rotation) is followed from the beginning again."""
    out = tmp_path / "o"
    script = f"echo a long first line; read line <{trigger.path}; : >{out}; echo second; read line <{trigger.path}; exit 3"
    with cli.popen("-o", out, "-r", "alive:60s", SHELL, "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"a long first line\n"
        os.write(trigger._fd, b"\n")
        assert process.stdout.readline() == b"second\n"
        os.write(trigger._fd, b"\n")
        assert process.stdout.read() == b""
        assert process.wait(10) == 3


def test_what_cannot_be_read_back_is_not_followed(tmp_path: Path, family: Family) -> None:
    """A fifo and /dev/null get the server's words, and the caller does not."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        argv = program("crashes_early", 7, "to the fifo")
        done = cli.run("-e", fifo, "-o", "/dev/null", "-r", "alive:60s", *argv)
        assert done.status == 7
        assert os.read(reader, 100) == b"to the fifo\n"
        assert (done.out, done.err.count(b"\n")) == (b"", 1)
        assert done.err.startswith(b"daemonize: ")
    finally:
        os.close(reader)
    family.nobody()


@pytest.mark.parametrize("option", ["-o", "-e", "--stdin"])
def test_file_that_cannot_be_opened(option: str, tmp_path: Path, family: Family) -> None:
    """125, a line with path and reason, and nothing was started."""
    mark = tmp_path / "started"
    done = cli.run(option, tmp_path / "no" / "file", "touch", mark)

    assert (done.status, done.out) == (125, b"")
    assert f"{tmp_path}/no/file".encode() in done.err
    assert b"No such file or directory" in done.err
    assert done.err.count(b"\n") == 1
    assert not mark.exists()
    family.nobody()


@pytest.mark.parametrize("option", ["-o", "-e"])
def test_file_that_is_a_directory(option: str, tmp_path: Path, family: Family) -> None:
    """A directory is no file to write to: 125, and the reason."""
    done = cli.run(option, tmp_path, "true")

    assert done.status == 125
    assert f"{tmp_path}: Is a directory".encode() in done.err
    family.nobody()


def test_relative_files(tmp_path: Path, family: Family) -> None:
    """-o and --stdin are relative to the caller's directory, not to -c."""
    (tmp_path / "in").write_text("words\n")
    (tmp_path / "sub").mkdir()
    cli.run("-c", "sub", "-o", "o", "--stdin", "in", "-r", "exit", "cat", cwd=tmp_path)

    assert (tmp_path / "o").read_bytes() == b"words\n"


def test_no_state_directory(servers: Family, tmp_path: Path) -> None:
    """A state directory that cannot be made costs the log, not the launch."""
    blocker = tmp_path / "file"
    blocker.write_text("")
    env = {"DAEMONIZE_STATE_DIR": str(blocker / "state")}
    done = cli.run(*program("repoints"), env=env)
    assert (done.status, done.err) == (0, b"")
    done = cli.run("-r", "alive:10ms", *program("ignores_term", "never"), env=env)
    assert done.status == 0
    assert b"no log is kept" in done.err


NO_STATE = {"DAEMONIZE_STATE_DIR": "/dev/null/none"}


@pytest.mark.parametrize("spec", ["alive:5s", "exit"])
def test_words_arrive_where_no_log_can_be_kept(spec: str, family: Family) -> None:
    """A server that fails is heard, byte for byte, and has its own status, though there is no file to write to."""
    done = cli.run("-r", spec, SHELL, "-c", "echo out; echo boom >&2; exit 7", env=NO_STATE)

    said, ours = done.err.split(b"\n", 1)
    assert (done.status, done.out, said) == (7, b"out\n", b"boom")
    assert ours == b"daemonize: no log is kept: cannot use /dev/null/none: Not a directory\n"


def test_a_server_goes_on_where_no_log_can_be_kept(tmp_path: Path, servers: Family) -> None:
    """What it says before it is ready is relayed; what it says later is lost, and does not end it."""
    with Trigger(tmp_path) as trigger:
        script = f"echo early; dd bs=1 count=1 <{trigger.path} 2>/dev/null; echo late; echo late >&2; exec sleep 100"
        done = cli.run("--json", "-r", "alive:300ms", SHELL, "-c", script, env=NO_STATE)
        assert (done.status, done.json["files"]) == (0, {"stdout": "/dev/null", "stderr": "/dev/null"})
        assert b"early\n" in done.err
        trigger.release()
        procs.eventually(lambda: _is_called(done.json["pid"], "sleep"))


def _is_called(pid: int, name: str) -> None:
    process = procs.stat(pid)
    assert process
    assert process.name == name


def test_nothing_is_said_of_a_log_that_nobody_needs(tmp_path: Path, servers: Family) -> None:
    """Both files are given: that the daemon's own could not be made is of no interest."""
    done = cli.run(
        "-r", "alive:50ms", "-o", tmp_path / "o", "-e", tmp_path / "e", "sleep", "100", env=NO_STATE
    )

    assert (done.status, done.err) == (0, b"")


# --- the streams protocol --------------------------------------------------------------------------------------------------


def test_streams_variable(servers: Family) -> None:
    """DAEMONIZE_STREAMS holds device and inode of both pipes, as the server itself sees them."""
    told = 'echo "$DAEMONIZE_STREAMS $DAEMONIZE_STDOUT $DAEMONIZE_STDERR"'
    script = f"{told}; stat -L -c %d:%i /dev/fd/1 /dev/fd/2; exec sleep 100 >/dev/null 2>&1"
    done = cli.run(SHELL, "-c", script)

    streams, out, err = done.out.splitlines()[0].decode().split()
    assert streams.split(",") == done.out.decode().split()[3:]
    assert out.endswith("/sh.out")
    assert err.endswith("/sh.err")


def test_ready_is_seen_at_once(servers: Family) -> None:
    """Between the server's readiness and the wrapper's return lie milliseconds, not a polling interval."""
    best = min(cli.run(*program("repoints")).seconds for _ in range(5))
    assert best < 1


def test_ssh_like_caller(servers: Family) -> None:
    """A caller that waits for end of file on every inherited descriptor (sshd) is not held by server or drain."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        done = cli.run(*program("self_daemonizes", "last", "holds"), pass_fds=(write,))
    finally:
        os.close(write)
    assert done.status == 0
    with open(read, "rb") as file:
        assert select.select([file], [], [], 10)[0]
        assert file.read() == b""


def test_stray_print_after_closing_hits_nothing(servers: Family, tmp_path: Path) -> None:
    """The fault of gpupgrade: with 1 and 2 closed, the next descriptors become 1 and 2. Re-pointed ones cannot."""
    done = cli.run(*program("repoints"))
    assert done.status == 0
    assert procs.descriptors(servers.only().pid)[1] == "/dev/null"
