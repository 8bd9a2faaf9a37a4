"""What a caller has of a server is the same under `daemonize -f` as of the server run bare, side by side.

What is said in daemonize(1) to be different stands here as a difference, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import termios
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

from tests.support import cli, facts, procs
from tests.support.programs import PYTHON, SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.family import Family

#: Ways to be in the foreground: as it is meant, ready at once, never ready, and with a file. FILE: a new one.
WAYS = {
    "-f": ("-f",),
    "started": ("-f", "-r", "started"),
    "alive": ("-f", "-r", "alive:1h"),
    "file": ("-f", "-o", "FILE"),
}
#: In these a server that ends had been ready, if it took longer than to find that out: then there is nothing to say.
READY = ("started", "file")
#: The line of ours where a server failed, and said nothing itself.
OURS = re.compile(
    rb"daemonize: .* (exited (0|with status \d+)|was killed by \S+( \d+)?) after [\d.]+ s, [^\n]*\n\Z"
)

every_way = pytest.mark.parametrize("way", WAYS)


class End(NamedTuple):
    """What a caller has, as subprocess tells it (-N for signal N)."""

    status: int
    out: bytes
    err: bytes


def end_of(argv: Sequence[cli.Word], **options: Any) -> End:
    """Of a program that is run to its end."""
    given: dict[str, Any] = {} if "input" in options else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(argv, check=False, capture_output=True, timeout=30, **{**given, **options})
    return End(done.returncode, done.stdout, done.stderr)


def under(way: str, argv: Sequence[str], directory: Path) -> list[cli.Word]:
    """The command that runs it so."""
    file = str(directory / f"out-{len(os.listdir(directory))}")
    return cli.command(*[word.replace("FILE", file) for word in WAYS[way]], *argv)


def assert_same(way: str, bare: End, end: End) -> None:
    """Status and streams, but for a line of ours where there is no other word of a failure."""
    unmet = way == "alive" and bare.status == 0  # it was to stay, by its readiness spec
    assert (end.status, end.out) == (1 if unmet else bare.status, bare.out)
    assert end.err.startswith(bare.err)
    added = end.err.removeprefix(bare.err)
    spoken = bool(OURS.fullmatch(added))
    assert spoken or not added, added
    if way in READY:
        assert bare.status or not spoken
    else:
        assert spoken == (unmet or bool(bare.status and not bare.err))


def compare(way: str, argv: Sequence[str], directory: Path, **options: Any) -> End:
    """Run it bare and so; what it was bare."""
    bare = end_of(argv, **options)
    assert_same(way, bare, end_of(under(way, argv, directory), **options))
    return bare


# --- the end -----------------------------------------------------------------------------------------------------------

#: Signals that do not end a process by default. SIGVTALRM does.
HARMLESS = {
    signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGURG,
    signal.SIGWINCH,
}  # fmt: skip
#: Real-time signals differ in their number alone: the first, the last and one between are taken for all.
MORE_OF_THE_SAME = {*range(signal.SIGRTMIN + 1, signal.SIGRTMAX)} - {signal.SIGRTMIN + 7}
#: With glibc's own two, which are signals to the kernel like others.
DEADLY = sorted(({*signal.valid_signals(), 32, 33}) - HARMLESS - MORE_OF_THE_SAME)
#: Not passed on: what nobody can catch, job control, and what the wrapper needs itself.
KEPT = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGCHLD,
    signal.SIGVTALRM,
}  # fmt: skip
PASSED_ON = sorted(signal.valid_signals() - KEPT)


@every_way
def test_statuses(way: str, tmp_path: Path, family: Family) -> None:
    """Every kind of status."""
    for status in (0, 1, 2, 63, 64, 75, *range(124, 130), 255):
        assert compare(way, [SHELL, "-c", f"exit {status}"], tmp_path).status == status
    family.nobody()


@pytest.mark.parametrize(
    ("way", "numbers"), [("-f", DEADLY), ("started", DEADLY[::4]), ("file", DEADLY[::4])]
)
def test_deaths(way: str, numbers: list[int], tmp_path: Path, family: Family) -> None:
    """Every signal that ends a process, by which it ends itself."""
    code = (
        "import _signal, os, sys; number = int(sys.argv[1])\n"
        "if number in _signal.valid_signals() - {9}: _signal.signal(number, _signal.SIG_DFL)\n"
        "os.kill(os.getpid(), number); os._exit(9)"
    )
    for number in numbers:
        bare = compare(way, ["prlimit", "--core=0:", *PYTHON, "-c", code, str(number)], tmp_path)
        # Nobody can change that the two are ignored, as they are in what posix_spawn(3) of some glibc has started.
        assert bare.status == -number or (number in (32, 33) and bare.status == 9)
    family.nobody()


@every_way
@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "RTMIN"])
def test_killed_from_outside(name: str, way: str, tmp_path: Path, family: Family) -> None:
    """The server, and not the wrapper, is sent a signal: its end is the wrapper's."""
    argv = [SHELL, "-c", "ulimit -c 0; echo word >&2; echo $$; exec sleep 100"]
    ends = []
    for command in (argv, under(way, argv, tmp_path)):
        with popen(command) as process:
            os.kill(int(line(process)), signal.Signals[f"SIG{name}"])
            ends.append(End(process.wait(10), b"", rest(process)))

    assert ends[0].status == -signal.Signals[f"SIG{name}"]
    assert_same(way, *ends)
    family.nobody()


def test_core_files(tmp_path: Path, family: Family) -> None:
    """The difference: whoever is to dump a core, by its limit, does so once; the wrapper does not do it as well."""
    argv = [SHELL, "-c", "kill -ABRT $$"]
    flags = []
    for command in (argv, cli.command("-f", *argv)):
        pid = os.posix_spawn(command[0], command, os.environ)
        flags.append(os.waitpid(pid, 0)[1])

    assert [os.WTERMSIG(flag) for flag in flags] == [signal.SIGABRT] * 2
    assert not os.WCOREDUMP(flags[1])
    family.nobody()


@contextlib.contextmanager
def popen(argv: Sequence[cli.Word], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Both streams are pipes. It is killed at the end."""
    given: dict[str, Any] = {
        "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0, **options,
    }  # fmt: skip
    with subprocess.Popen(argv, **given) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[bytes]) -> bytes:
    """The next line on stdout."""
    assert process.stdout
    assert procs.readable(process.stdout.fileno()), "nothing was said"
    found: bytes = process.stdout.readline()
    return found


def rest(process: subprocess.Popen[bytes]) -> bytes:
    """What is left on stderr."""
    assert process.stderr
    found: bytes = process.stderr.read()
    return found


# --- streams -----------------------------------------------------------------------------------------------------------

BOTH = "import os, sys\ndef write(fd, data):\n    while data: data = data[os.write(fd, data):]\n"
STREAMS = {
    "nothing": "",
    "empty writes": "os.write(1, b''); os.write(2, b'')",
    "a line each": "write(1, b'out\\n'); write(2, b'err\\n')",
    "no newline": "write(1, b'out'); write(2, b'err')",
    "binary": "data = bytes(range(256)) * 4096\nfor fd in (1, 2): write(fd, data)",
    "long lines": "data = b'x' * 500_000 + b'\\n'\nfor fd in (1, 2): write(fd, data * 2)",
    "interleaved": "for n in range(2000): write(1, b'out %d\\n' % n); write(2, b'err %d\\n' % n)",
    "in a row": "for n in range(9): write(1, b'out %d\\n' % n)\nfor n in range(9): write(2, b'err %d\\n' % n)",
    "stdout closed": "write(1, b'out\\n'); os.close(1); write(2, b'err\\n')",
    "stderr closed": "write(2, b'err\\n'); os.close(2); write(1, b'out\\n')",
    "stderr into stdout": "os.dup2(1, 2); write(2, b'one\\n'); write(1, b'two\\n'); write(2, b'three')",
    "stdin closed": "os.close(0); write(1, b'out')",
    "not UTF-8": "write(1, b'\\xff\\xfe\\x00\\x80\\n'); write(2, b'\\xc3(\\x1b[2J\\r\\n')",
    "of a child": "os.fork() or (write(1, b'child\\n'), os._exit(0)); os.wait(); write(1, b'parent\\n')",
}


@every_way
@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str, way: str, tmp_path: Path, family: Family) -> None:
    """To the byte, whatever is written how; with a success and with a failure."""
    for status in (0, 3):
        code = f"{BOTH}{STREAMS[name]}\nos._exit({status})"
        assert compare(way, [*PYTHON, "-c", code], tmp_path).status == status
    family.nobody()


@every_way
@pytest.mark.parametrize(
    "data", [b"", b"no newline", bytes(range(256)) * 4096], ids=["empty", "line", "1 MB"]
)
def test_stdin(data: bytes, way: str, tmp_path: Path, family: Family) -> None:
    """What the caller has for it, the server reads, to the end of file."""
    bare = compare(way, [SHELL, "-c", "cat; echo over >&2; exit 3"], tmp_path, input=data)

    assert bare == (3, data, b"over\n")
    family.nobody()


@pytest.mark.parametrize("stream", [1, 2])
def test_closed_streams_of_the_caller(stream: int, tmp_path: Path, family: Family) -> None:
    """Who has closed a stream has the same of the other; the server's is open to nowhere, where bare it is closed."""
    code = f"try: os.write({stream}, b'x')\nexcept OSError: os._exit(4)\nos.write({3 - stream}, b'y'); os._exit(3)"
    argv = [*PYTHON, "-c", f"import os\n{code}"]
    closed = [SHELL, "-c", f'exec {stream}>&-; exec "$@"', SHELL]

    assert end_of([*closed, *argv]).status == 4
    end = end_of([*closed, *cli.command("-f", *argv)])
    assert (end.status, (end.out, end.err)[2 - stream][:1]) == (3, b"y")
    family.nobody()


@every_way
def test_closed_stdin_of_the_caller(way: str, tmp_path: Path, family: Family) -> None:
    """It is closed for the server, too."""
    argv = [SHELL, "-c", "readlink /proc/self/fd/0 || echo closed; cat; exit 3"]
    closed = [SHELL, "-c", 'exec <&-; exec "$@"', SHELL]
    bare = end_of([*closed, *argv])

    assert bare.out == b"closed\n"
    assert_same(way, bare, end_of([*closed, *under(way, argv, tmp_path)]))
    family.nobody()


@pytest.mark.parametrize("way", WAYS)
def test_slow_reader(way: str, tmp_path: Path, family: Family) -> None:
    """Who does not read one stream has the other, keeps the server waiting, and then has all of it."""
    argv = [SHELL, "-c", "head -c 3000000 /dev/zero & echo word >&2; wait; echo over; exit 3"]
    for command in (argv, under(way, argv, tmp_path)):
        with popen(command) as process:
            assert process.stderr
            assert process.stderr.readline() == b"word\n"
            assert not procs.wait_ended(process.pid, 0.2)
            assert process.stdout
            assert process.stdout.read() == b"\0" * 3_000_000 + b"over\n"
            assert process.wait(10) == 3
            said = rest(process)
            # A file keeps no server waiting: it may have ended before it was found ready (see READY).
            assert not said or (way in READY and OURS.fullmatch(said))
    family.nobody()


def test_reader_that_leaves(family: Family) -> None:
    """The difference: `| head -1` ends a server that is run bare at its next word. Here it goes on, to its own end."""
    argv = [SHELL, "-c", "head -c 3000000 /dev/zero && exit 6"]
    statuses = []
    for command in (argv, cli.command("-f", *argv)):
        read, write = os.pipe()
        with popen(command, stdout=write) as process:
            os.close(write)
            assert os.read(read, 1)
            os.close(read)
            statuses.append(process.wait(10))

    assert statuses == [128 + signal.SIGPIPE, 6]
    family.nobody()


# --- signals -----------------------------------------------------------------------------------------------------------

#: Blocks all signals, takes one after the other, and says which.
RECORDER = (
    "import os, signal\n"
    "every = signal.valid_signals()\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, every); signal.alarm(100)\n"
    "os.write(1, b'up %d\\n' % os.getpid())\n"
    "while (number := signal.sigwaitinfo(every).si_signo) != signal.SIGALRM or not os.path.exists('{end}'):\n"
    "    os.write(1, b'%d\\n' % number)\n"
    "os._exit(5)"
)


@pytest.mark.parametrize("way", ["-f", "started", "alive"])
def test_every_signal_arrives_once(way: str, tmp_path: Path, family: Family) -> None:
    """Each that is sent to the wrapper, the server gets, as it would bare, in the order of sending."""
    end = tmp_path / "end"
    argv = [*PYTHON, "-c", RECORDER.format(end=end)]
    for command in (argv, under(way, argv, tmp_path)):
        with popen(command) as process:
            assert line(process).startswith(b"up ")
            for number in PASSED_ON:
                process.send_signal(number)
                assert int(line(process)) == number
            for _ in range(5):  # these are queued, and never merged
                process.send_signal(signal.SIGRTMAX)
            assert [int(line(process)) for _ in range(5)] == [signal.SIGRTMAX] * 5
            end.touch()
            process.send_signal(signal.SIGALRM)
            assert (process.wait(10), process.stdout.read() if process.stdout else b"") == (5, b"")
        end.unlink()
    family.nobody()


def test_every_signal_at_its_default(tmp_path: Path, family: Family) -> None:
    """Sent to the wrapper, it ends both, or nobody; and what is not passed on ends the wrapper alone, or nobody."""
    argv = ["prlimit", "--core=0:", "sh", "-c", "echo up; exec sleep 100"]
    for number in sorted({*PASSED_ON} - MORE_OF_THE_SAME):
        for command in (argv, under("-f", argv, tmp_path)):
            with popen(command) as process:
                assert line(process) == b"up\n"
                process.send_signal(number)
                if number in HARMLESS:
                    process.terminate()
                assert process.wait(10) == -(signal.SIGTERM if number in HARMLESS else number)
                assert rest(process) == b""
    family.nobody()


def test_signals_in_a_storm(tmp_path: Path, family: Family) -> None:
    """Those that come all at once, while the wrapper is held, arrive all, each once."""
    end = tmp_path / "end"
    argv = [*PYTHON, "-c", RECORDER.format(end=end)]
    numbers = [number for number in PASSED_ON if number != signal.SIGALRM]
    for command in (argv, under("-f", argv, tmp_path)):
        with popen(command) as process:
            assert line(process).startswith(b"up ")
            process.send_signal(signal.SIGSTOP)
            for number in [*numbers, *numbers[-3:]]:
                process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            found = [int(line(process)) for _ in [*numbers, *numbers[-3:]]]
            if signal.SIGCONT in found:  # of the one that was stopped itself: bare
                found = [*found, int(line(process))]
                found.remove(signal.SIGCONT)
            assert sorted(found) == sorted([*numbers, *numbers[-3:]])
            end.touch()
            process.send_signal(signal.SIGALRM)
            assert process.wait(10) == 5
        end.unlink()
    family.nobody()


#: What a caller can have ignored, but for SIGPIPE, of which Python cannot tell, and SIGCHLD, which a server needs.
IGNORED = ("HUP", "INT", "QUIT", "TERM", "USR1", "TSTP", "TTIN", "TTOU")


@pytest.mark.parametrize("ignored", [(), ("HUP",), ("INT", "QUIT"), IGNORED], ids=" ".join)
def test_dispositions(ignored: tuple[str, ...], family: Family) -> None:
    """What the caller ignores is ignored, as under nohup(1) and in the background of a shell, and nothing else."""
    front = [SHELL, "-c", f"trap '' {' '.join(ignored)}\nexec \"$@\"" if ignored else 'exec "$@"', SHELL]
    argv = [SHELL, "-c", "cat /proc/self/status; exit 3"]
    bare, found = (
        procs.dispositions(end_of([*front, *words]).out) for words in (argv, cli.command("-f", *argv))
    )

    assert bare == found
    assert bool(found["SigIgn"]) == bool(ignored)
    family.nobody()


@pytest.mark.parametrize("front", [(), ("nohup",)], ids=["control", "nohup"])
def test_nohup(front: tuple[str, ...], family: Family) -> None:
    """A hang-up ends neither the server nor the wrapper, whichever gets it; without nohup(1) it ends both (control)."""
    argv = [SHELL, "-c", "echo $$; exec sleep 100"]
    for command in (argv, cli.command("-f", *argv)):
        for to_server in (False, True):
            with popen([*front, *command]) as process:
                server = int(line(process))
                os.kill(server if to_server else process.pid, signal.SIGHUP)
                if front:
                    process.terminate()
                assert process.wait(10) == -(signal.SIGTERM if front else signal.SIGHUP)
    family.nobody()


@pytest.mark.parametrize("way", ["-f", "started", "alive"])
def test_caller_that_ignores_sigchld(way: str, tmp_path: Path, family: Family) -> None:
    """The status is there, though the kernel forgets the children of who ignores SIGCHLD."""
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    argv = [SHELL, "-c", "exit 3"]

    assert end_of([*PYTHON, "-c", code, *argv]).status == 3
    assert end_of([*PYTHON, "-c", code, *under(way, argv, tmp_path)]).status == 3
    family.nobody()


def test_blocked_signals_of_the_caller(family: Family) -> None:
    """A difference: what the caller blocks is not blocked in the server; and the wrapper works all the same."""
    code = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals());"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    argv = [*PYTHON, "-c", code]
    told = "import os; os.write(1, open('/proc/self/status', 'rb').read()); os.kill(os.getpid(), 15); os._exit(3)"
    server = [*PYTHON, "-c", told]
    bare, end = (end_of([*argv, *words]) for words in (server, cli.command("-f", *server)))

    assert (bare.status, end.status) == (3, -signal.SIGTERM)
    assert procs.dispositions(bare.out)["SigBlk"]
    assert not procs.dispositions(end.out)["SigBlk"]
    family.nobody()


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_job_control_of_the_wrapper_alone(number: signal.Signals, family: Family) -> None:
    """It is for the process group: sent to the wrapper, it stops the wrapper, and the server goes on; then both do."""
    argv = cli.command("-f", SHELL, "-c", "echo $$; read word; echo $word; exit 3")
    with popen(["setsid", "-w", *argv], stdin=subprocess.PIPE) as process:
        server = int(line(process))
        wrapper = procs.stat(procs.stat(server).ppid)  # type: ignore[union-attr]
        assert wrapper
        # A group that nobody could continue is not stopped by the terminal's signal.
        os.kill(wrapper.pid, number if number == signal.SIGSTOP else signal.SIGSTOP)
        procs.eventually(lambda: is_in(wrapper.pid, "T"))
        procs.eventually(lambda: is_in(server, "S"))
        os.kill(wrapper.pid, signal.SIGCONT)
        assert process.stdin
        process.stdin.write(b"word\n")
        assert line(process) == b"word\n"
        assert process.wait(10) == 3
    family.nobody()


def is_in(pid: int, state: str) -> None:
    """An AssertionError until the process is."""
    process = procs.stat(pid)
    assert process
    assert process.state == state


# --- what the server finds ---------------------------------------------------------------------------------------------

#: Variables of ours (daemonize(7)): not passed on, and given.
_REMOVED = {f"environ.DAEMONIZE_{name}_DIR": (facts.ANY, facts.ABSENT) for name in ("STATE", "RUNTIME")}
_GIVEN = ("DAEMONIZE_ID", "DAEMONIZE_STREAMS", "DAEMONIZE_STDOUT", "DAEMONIZE_STDERR")


def reported(argv: Sequence[cli.Word], **options: Any) -> facts.Facts:
    """What report_self.py sees, run so by a shell, which has a child then, and is the parent of both."""
    front = [
        "nice",
        "-n3",
        "prlimit",
        "--nofile=100:200",
        "--core=0:",
        SHELL,
        "-c",
        'umask 027; "$@"; exit $?',
        SHELL,
    ]
    with popen([*front, *argv], **options) as process:
        report = json.loads(line(process))
        os.kill(report["pid"], signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
    return facts.facts(report)


@every_way
@pytest.mark.parametrize("leader", [False, True])
def test_surroundings(leader: bool, way: str, tmp_path: Path, family: Family) -> None:
    """Directory, umask, nice, limits, environment, session, group, signals, streams: but for what daemonize(1) says."""
    extra, held = os.pipe()
    options: dict[str, Any] = {
        "cwd": tmp_path, "pass_fds": [extra], "env": cli.environ({"ODD": "\udcff"}), "start_new_session": leader,
    }  # fmt: skip
    server = program("report_self")
    try:
        bare, found = (reported(argv, **options) for argv in (server, under(way, server, tmp_path)))
    finally:
        os.close(extra)
        os.close(held)

    expected = {**_REMOVED, "descriptors": (["pipe"], []), "environ.DAEMONIZE_ID": (facts.ABSENT, facts.ANY)}
    if way == "file":
        expected |= {f"stdout.{name}": (facts.ANY, facts.ANY) for name in ("target", "flags")}
    changes = facts.changes(bare, found)
    given = {f"environ.{name}" for name in _GIVEN}
    assert facts.unexpected({k: v for k, v in changes.items() if k not in given}, {
        k: v for k, v in expected.items() if k not in given
    }) == {}  # fmt: skip
    assert changes["environ.DAEMONIZE_ID"][0] is facts.ABSENT
    family.nobody()


# --- on a terminal -----------------------------------------------------------------------------------------------------


def resize(terminal: int, lines: int) -> None:
    """Change the size of a terminal's window."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 80, 0, 0))


class Terminal:
    """A shell with job control whose terminal the test sits at. It is ended with the block."""

    def __init__(self, directory: Path) -> None:
        self._master, slave = pty.openpty()
        argv = ["setsid", "-c", "bash", "--norc", "--noprofile", "--noediting", "-i"]
        env = cli.environ({"PS1": "$ ", "HISTFILE": "/dev/null"})
        self._shell = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, cwd=directory, env=env)
        os.close(slave)
        self.pid = self._shell.pid
        self.seen, self._at = b"", 0

    def type(self, keys: bytes) -> None:
        """Press them."""
        os.write(self._master, keys)

    def resize(self, lines: int) -> None:
        """Change the size of the window."""
        resize(self._master, lines)

    def until(self, words: bytes) -> None:
        """Wait until they are seen, after those that were waited for before. An AssertionError after ten seconds."""
        while (found := self.seen.find(words, self._at)) < 0:
            assert procs.readable(self._master), f"not seen: {words!r} in {self.seen!r}"
            self.seen += os.read(self._master, 65536)
        self._at = found + len(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._master)


#: Says when it is continued, and when the window has another size.
AT_TERMINAL = (
    "import os, signal; signal.alarm(100); signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "heard = {signal.SIGCONT: b'again\\n', signal.SIGWINCH: b'size\\n'}\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, heard)\n"
    "os.write(1, b'up %d\\n' % (os.tcgetpgrp(0) == os.getpgrp() != os.getsid(0)))\n"
    "while True: os.write(1, heard[signal.sigwait(heard)])"
)
SEEN = re.compile(rb"(up \d|again|size|words|status=\d+)\r")


def install(argv: Sequence[cli.Word], path: Path) -> None:
    """As a program that can be typed by its name."""
    path.write_text(f"#!{SHELL}\nexec {shlex.join(map(str, argv))}\n")
    path.chmod(0o755)


def are_stopped(family: Family, shell: int, count: int) -> None:
    """An AssertionError until all of the job are."""
    states = [process.state for process in family.living({shell})]
    assert states == ["T"] * count


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_job_control(tmp_path: Path, family: Family) -> None:
    """Ctrl-Z, fg, bg, Ctrl-C, Ctrl-backslash, kill %1, reading in the background, another size: as of a bare server."""
    transcripts = []
    # Whole lines are waited for: with a key that sends a signal the terminal throws away what nobody has read yet.
    for count, front in ((1, []), (2, cli.command("-f"))):
        install([*front, *PYTHON, "-c", AT_TERMINAL], tmp_path / "serve")
        install([*front, "cat"], tmp_path / "reads")
        with Terminal(tmp_path) as terminal:
            terminal.type(b"ulimit -c 0; ./serve; echo sta''tus=$?\n")
            terminal.until(b"up 1\r\n")
            terminal.resize(33)
            terminal.until(b"size\r\n")
            terminal.type(b"\x1a")
            terminal.until(b"Stopped")
            procs.eventually(lambda count=count, pid=terminal.pid: are_stopped(family, pid, count))  # type: ignore[misc]
            terminal.type(b"fg; echo sta''tus=$?\n")
            terminal.until(b"again\r\n")
            terminal.type(b"\x03")
            terminal.until(b"^C")
            terminal.until(b"$ ")  # the rest of the line is not carried out any more
            terminal.type(b"echo sta''tus=$?\n")
            terminal.until(b"status=130")
            terminal.type(b"./serve; echo sta''tus=$?\n")
            terminal.until(b"up 1\r\n")
            terminal.type(b"\x1c")
            terminal.until(b"status=131")
            terminal.type(b"./serve\n")
            terminal.until(b"up 1\r\n")
            terminal.type(b"\x1a")
            terminal.until(b"Stopped")
            terminal.type(b"bg\n")
            terminal.until(b"again\r\n")
            terminal.type(b"kill %1; wait %1; echo sta''tus=$?\n")
            terminal.until(b"status=143")
            terminal.type(b"./reads &\n")
            procs.eventually(lambda count=count, pid=terminal.pid: are_stopped(family, pid, count))  # type: ignore[misc]
            terminal.type(b"fg; echo sta''tus=$?\n")
            terminal.until(b"tus=$?")
            terminal.until(b"./reads")
            terminal.type(b"nothing\x15words\n\x04")
            terminal.until(b"status=0")
            transcripts.append(SEEN.findall(terminal.seen))

    assert transcripts[0] == transcripts[1]
    assert transcripts[0].count(b"size") == 1
    assert transcripts[0][0] == b"up 1"
    family.nobody()


#: What a terminal tells its foreground group, and by what: a key, or (none) another size of its window.
KEYS = {signal.SIGINT: b"\x03", signal.SIGQUIT: b"\x1c", signal.SIGWINCH: b""}


def press(terminal: int, key: bytes) -> None:
    """See KEYS."""
    os.write(terminal, key) if key else resize(terminal, 33)


@pytest.mark.parametrize("way", ["-f", "started", "alive"])
def test_keys_arrive_once(way: str, tmp_path: Path, family: Family) -> None:
    """Ctrl-C, Ctrl-backslash and another size go to the whole group: the wrapper does not pass them on a second time."""
    end = tmp_path / "end"
    argv = [*PYTHON, "-c", RECORDER.format(end=end)]
    front = ["setsid", "-c", SHELL, "-c", 'trap : INT QUIT WINCH; echo $$; "$@"; exit $?', SHELL]
    for command in (argv, under(way, argv, tmp_path)):
        master, slave = pty.openpty()
        try:
            with popen([*front, *command], stdin=slave) as process:
                shell = int(line(process))
                server = int(line(process).split()[1])
                wrapper = procs.children(shell)[0].pid
                assert (wrapper == server) == (command is argv)
                for number, key in KEYS.items():
                    press(master, key)
                    assert int(line(process)) == number
                    # A barrier: what the wrapper is sent now it passes on after what it would have passed on before.
                    os.kill(wrapper, signal.SIGUSR1)
                    assert int(line(process)) == signal.SIGUSR1
                end.touch()
                os.kill(wrapper, signal.SIGALRM)
                assert process.wait(10) == 5
            end.unlink()
        finally:
            os.close(master)
            os.close(slave)
    family.nobody()


# --- what a server leaves behind ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["-f", "started"])
def test_orphan_that_fails(way: str, tmp_path: Path, trigger: Trigger, family: Family) -> None:
    """It says nothing of the server, which exits 0, or with a status of its own."""
    for status in (0, 3):
        # When it says its pid, the orphan has been forked.
        argv = [SHELL, "-c", f"( (exit 7) & ); echo $$; read word <{trigger.path}; exit {status}"]
        for command in (argv, under(way, argv, tmp_path)):
            with popen(command) as process:
                server = int(line(process))
                if command is not argv:
                    # The wrapper has adopted it, and reaped it.
                    procs.eventually(lambda pid=process.pid, server=server: has_only(pid, server))  # type: ignore[misc]
                os.write(trigger._fd, b"\n")
                assert process.wait(10) == status
    family.nobody()


def has_only(pid: int, child: int) -> None:
    """An AssertionError until there is no other child, dead or alive, and no other descendant."""
    assert [process.pid for process in procs.tree(pid)] == [child]


def test_orphans_are_reaped(tmp_path: Path, trigger: Trigger, family: Family) -> None:
    """A hundred come and go while the server runs: no zombie is left; of a server that does not wait, they are (control)."""
    code = (
        "import os, sys, time\n"
        "for _ in range(100):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        os.fork() and os._exit(0)\n"
        "        os._exit(1)\n"
        "    if sys.argv[2] == 'waits': os.waitpid(pid, 0)\n"
        "os.write(1, b'%d\\n' % os.getpid()); os.read(os.open(sys.argv[1], os.O_RDONLY), 1); os._exit(0)"
    )
    for how, left in (("waits", 0), ("leaves", 100)):
        with popen(cli.command("-f", *PYTHON, "-c", code, trigger.path, how)) as process:
            server = int(line(process))
            procs.eventually(lambda pid=process.pid, left=left: has_descendants(pid, left + 1))  # type: ignore[misc]
            assert [child.pid for child in procs.children(process.pid)] == [server]
            trigger.release()
            assert process.wait(10) == 0
    family.nobody()


def has_descendants(pid: int, count: int) -> None:
    """An AssertionError until there are so many, dead or alive."""
    assert len(procs.tree(pid)) == count


def test_daemon_that_is_left(tmp_path: Path, trigger: Trigger, family: Family) -> None:
    """The difference: who runs a server that puts itself in the background gets 0 at once; -f stays until that has ended."""
    script = f"(read word <{trigger.path}; echo over) >{tmp_path}/over & exit 0"
    argv = [SHELL, "-c", script]
    with popen(argv) as process:
        assert process.wait(10) == 0
        assert family.living()
        os.write(trigger._fd, b"\n")
        procs.eventually(family.nobody)
    with popen(cli.command("-f", *argv)) as process:
        assert not procs.wait_ended(process.pid, 0.3)
        os.write(trigger._fd, b"\n")
        assert (process.wait(10), rest(process)) == (0, b"")
    family.nobody()


def test_failure_that_leaves_a_process(tmp_path: Path, trigger: Trigger, family: Family) -> None:
    """The difference: nothing of a server that has failed goes on."""
    argv = [SHELL, "-c", f"read word <{trigger.path} >/dev/null & exit 3"]
    with popen(argv) as process:
        assert process.wait(10) == 3
        assert family.living()
        os.write(trigger._fd, b"\n")
        procs.eventually(family.nobody)
    with popen(cli.command("-f", *argv)) as process:
        assert process.wait(10) == 3
        family.nobody()


def test_end_of_file(trigger: Trigger, family: Family) -> None:
    """The difference: who reads a stream that the server closes has its end when the server ends, and not before."""
    argv = [SHELL, "-c", f"echo up; exec >&-; read word <{trigger.path}; exit 3"]
    with popen(argv) as process:
        assert process.stdout
        assert process.stdout.read() == b"up\n"
        assert process.poll() is None
        os.write(trigger._fd, b"\n")
        assert process.wait(10) == 3
    with popen(cli.command("-f", *argv)) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        assert not procs.readable(process.stdout.fileno(), 0.2)
        os.write(trigger._fd, b"\n")
        assert process.stdout.read() == b""
        assert process.wait(10) == 3
    family.nobody()
