"""The child that becomes the server, as the kernel sees it: its report, its gate, its descriptors, its standing."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from daemonize.posix import child, fds, identity, signals
from daemonize.posix.child import Program, search
from daemonize.posix.fds import Descriptors
from daemonize.posix.identity import (
    ASLEEP,
    BUSY,
    EXITING,
    GONE,
    Identity,
    Process,
    holds_descriptors,
    standing,
)
from tests.support import procs
from tests.support.programs import PYTHON, SHELL, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Closed after the test."""
    with contextlib.ExitStack() as stack:
        yield stack


# -- the child --------------------------------------------------------------------------------------------------------


class Forked:
    """A child at its gate, or past it."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        *argv: bytes,
        environment: Any = None,
        kind: type[Program] = Program,
        **options: Any,
    ) -> None:
        self.owner = Descriptors()
        stack.callback(self.owner.close)
        self.report, report = self.owner.pipe()
        gate, self.gate = self.owner.pipe()
        self.output, output = self.owner.pipe()
        environment = dict(os.environb) if environment is None else environment
        null = self.owner.open("/dev/null", os.O_RDONLY)
        given = {"stdin": null, "stdout": output, "stderr": output, **options}
        mask = signals.block_all()
        try:
            self.pid = child.fork(
                kind(argv, search(argv[0], environment), environment, **given), report, gate
            )
        finally:
            signals.restore_mask(mask)
        self.owner.shut(report, gate, output)
        self.status: int | None = None
        stack.callback(self.reap)

    def line(self) -> bytes:
        """The next of its report."""
        return os.read(self.report, 4096)

    def let_go(self) -> None:
        """Through the gate."""
        os.write(self.gate, b"g")

    def reap(self) -> int:
        """Wait for its end; its status."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                self.owner.shut(self.gate)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


def test_the_report_of_a_good_start(stack: contextlib.ExitStack) -> None:
    """`gate PID`, nothing more while it waits there, end of file when exec has succeeded."""
    forked = Forked(stack, b"sh", b"-c", b"echo up; exit 7")
    assert forked.line() == b"gate %d\n" % forked.pid
    assert not procs.readable(forked.report, 0)
    assert not procs.readable(forked.output, 0)
    forked.let_go()

    assert forked.line() == b""
    assert os.read(forked.output, 100) == b"up\n"
    assert forked.reap() == 7


def test_a_shut_gate_ends_it(stack: contextlib.ExitStack) -> None:
    """End of file at the gate: nobody is left who could look after it, so nothing is executed."""
    forked = Forked(stack, b"sh", b"-c", b"echo up")
    assert forked.line().startswith(b"gate ")
    forked.owner.shut(forked.gate)

    assert forked.reap() != 0
    assert os.read(forked.output, 100) == b""


class Prepared(Program):
    """Says so when it is."""

    def prepare(self) -> None:
        """Of stdout, which it has by then."""
        os.write(1, b"prepared\n")


@pytest.mark.parametrize("let_go", [False, True])
def test_it_is_prepared_at_the_gate(stack: contextlib.ExitStack, let_go: bool) -> None:
    """After its report and before it is let go; it is executed only then (the control)."""
    forked = Forked(stack, b"sh", b"-c", b"echo up", kind=Prepared)
    assert forked.line() == b"gate %d\n" % forked.pid
    assert os.read(forked.output, 100) == b"prepared\n"
    assert not procs.readable(forked.report, 0)
    if let_go:
        forked.let_go()
    else:
        forked.owner.shut(forked.gate)

    assert (forked.reap() == 0) == let_go
    assert os.read(forked.output, 100) == (b"up\n" if let_go else b"")


@pytest.mark.parametrize(
    ("argv", "number"),
    [
        ([b"/no/such/file"], errno.ENOENT),
        ([b"no-such-command"], errno.ENOENT),
        ([b"/etc"], errno.EACCES),
        ([b"/etc/passwd"], errno.EACCES),
        ([b"/etc/passwd/x"], errno.ENOTDIR),
        ([b""], errno.ENOENT),
        ([b"/bin/true", b"x" * 200_000], errno.E2BIG),
    ],
)
def test_the_report_of_a_failed_exec(stack: contextlib.ExitStack, argv: list[bytes], number: int) -> None:
    """`failed exec ERRNO`, after the gate."""
    forked = Forked(stack, *argv)
    assert forked.line().startswith(b"gate ")
    forked.let_go()

    assert forked.line() == b"failed exec %d\n" % number
    assert forked.line() == b""


@pytest.mark.parametrize(
    ("options", "stage", "number"),
    [
        ({"context": child.Directory(b"/no/such/directory")}, b"directory", errno.ENOENT),
        ({"context": child.Directory(b"/etc/passwd")}, b"directory", errno.ENOTDIR),
        ({"stdout": 987}, b"descriptors", errno.EBADF),
        ({"keep": [987]}, b"descriptors", errno.EBADF),
    ],
)
def test_the_report_of_a_failed_step(
    stack: contextlib.ExitStack, options: Any, stage: bytes, number: int
) -> None:
    """`failed STAGE ERRNO`, and no gate."""
    forked = Forked(stack, b"true", **options)

    assert forked.line() == b"failed %s %d\n" % (stage, number)
    assert forked.line() == b""


def test_the_first_that_can_be_executed_is(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """execvp(3): a directory and a file without permission on the PATH are passed by."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "cmd").mkdir()
    (tmp_path / "b" / "cmd").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "c" / "cmd").write_text("#!/bin/sh\nexit 42\n")
    os.chmod(tmp_path / "c" / "cmd", 0o755)
    path = ":".join(str(tmp_path / name) for name in ("no", "a", "b", "c"))
    forked = Forked(stack, b"cmd", environment={b"PATH": path.encode()})
    forked.line()
    forked.let_go()
    assert forked.line() == b""
    assert forked.reap() == 42

    forked = Forked(stack, b"cmd", environment={b"PATH": path[: path.rindex(":")].encode()})
    forked.line()
    forked.let_go()
    assert forked.line() == b"failed exec %d\n" % errno.EACCES


@pytest.mark.parametrize(
    ("command", "environment", "paths"),
    [
        (b"/bin/x", {}, [b"/bin/x"]),
        (b"./x", {}, [b"HERE/./x"]),
        (b"sub/x", {b"PATH": b"/bin"}, [b"HERE/sub/x"]),
        (b"x", {b"PATH": b"/a:/b"}, [b"/a/x", b"/b/x"]),
        (b"x", {b"PATH": b"/a::rel"}, [b"/a/x", b"HERE/x", b"HERE/rel/x"]),
        (b"x", {}, [b"/bin/x", b"/usr/bin/x"]),
        (b"", {b"PATH": b"/a"}, []),
    ],
)
def test_where_a_command_is_looked_for(
    command: bytes, environment: dict[bytes, bytes], paths: list[bytes]
) -> None:
    """As execvp(3) does, and absolute, because the directory is going to change."""
    assert search(command, environment) == [path.replace(b"HERE", os.getcwdb()) for path in paths]


def test_signals_start_as_usual(stack: contextlib.ExitStack) -> None:
    """Whatever the caller ignores, catches or blocks: the program finds defaults and an empty mask."""
    before = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGUSR1)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        forked = Forked(stack, b"cat", b"/proc/self/status")
        forked.line()
        forked.let_go()
        words = dict(line.split(":\t") for line in os.read(forked.output, 4096).decode().splitlines())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        for number, handler in before.items():
            signal.signal(number, handler)

    ours = (1 << 31) - 1  # glibc's own two (32, 33) cannot be set by anybody
    assert [int(words[key], 16) & ours for key in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]


def test_only_what_is_kept_is_inherited(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """Inheritable descriptors of the caller's do not leak; those that are kept arrive."""
    leaking = os.dup2(0, 100, inheritable=True)
    kept = os.open(tmp_path, os.O_RDONLY)
    stack.callback(os.close, leaking)
    stack.callback(os.close, kept)
    forked = Forked(stack, b"ls", b"/proc/self/fd", keep=[kept])
    forked.line()
    forked.let_go()
    found = {int(name) for name in os.read(forked.output, 4096).split()}

    assert kept in found
    assert leaking not in found
    assert len(found) == 5  # 0, 1, 2, kept, and the listing's own


# -- descriptors ------------------------------------------------------------------------------------------------------


def test_descriptors_have_one_owner() -> None:
    """What is left is closed, what was shut is not closed again, though its number may be somebody else's by then."""
    owner = Descriptors()
    read, write = owner.pipe()
    null = owner.open("/dev/null", os.O_RDONLY)
    assert not any(os.get_inheritable(fd) for fd in (read, write, null))
    owner.shut(read)
    again = os.dup2(null, read)
    owner.shut(read)
    owner.close()
    os.fstat(again)
    os.close(again)

    for fd in (write, null):
        with pytest.raises(OSError):
            os.fstat(fd)


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_the_standard_descriptors_are_occupied(closed: tuple[int, ...]) -> None:
    """Closed ones become /dev/null, open ones stay, and afterwards all is as before."""
    code = f"""
import os
from daemonize.posix.fds import Descriptors, occupy_standard
out = os.dup2(1, 50)
for fd in {closed}: os.close(fd)
before = set(os.listdir("/proc/self/fd"))
owner = Descriptors()
occupy_standard(owner)
null = [fd for fd in (0, 1, 2) if os.path.samefile(f"/proc/self/fd/{{fd}}", "/dev/null")]
pipe = os.pipe()
os.close(pipe[0]); os.close(pipe[1])
owner.close()
os.write(out, repr((null, min(pipe) > 2, set(os.listdir("/proc/self/fd")) == before)).encode())
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        capture_output=True,
        check=True,
    )

    assert done.stdout.decode() == repr((list(closed), True, True))


@pytest.mark.parametrize("lists", [fds._LISTS, ("/no/such/list",)])
def test_a_sweep_leaves_only_what_is_kept(monkeypatch: pytest.MonkeyPatch, lists: tuple[str, ...]) -> None:
    """With a list of the descriptors and without one."""
    monkeypatch.setattr(fds, "_LISTS", lists)
    read, write = os.pipe()
    high = os.dup2(0, 700)
    pid = os.fork()
    if pid == 0:
        try:
            fds.sweep({write})
            os.write(write, b" ".join(os.fsencode(name) for name in os.listdir("/proc/self/fd")))
        finally:
            os._exit(0)
    os.close(write)
    os.close(high)
    left = {int(name) for name in os.read(read, 4096).split()}
    os.close(read)
    os.waitpid(pid, 0)

    assert left - {min(left - {0, 1, 2, write}, default=-1)} == {0, 1, 2, write}


# -- standing ---------------------------------------------------------------------------------------------------------


def started(stack: contextlib.ExitStack, script: str) -> subprocess.Popen[bytes]:
    """A process that has said a line."""
    process = stack.enter_context(
        subprocess.Popen(
            [*PYTHON, "-c", "import os, signal, sys, time\nsignal.alarm(60)\n" + script],
            stdout=subprocess.PIPE,
        )
    )
    stack.callback(process.kill)
    assert process.stdout
    assert process.stdout.readline() == b"up\n"
    return process


def reached(pid: int, expected: str) -> None:
    """Wait until it stands so."""

    def check() -> None:
        assert standing(pid) == expected

    procs.eventually(check)


def test_how_a_process_stands(stack: contextlib.ExitStack) -> None:
    """Asleep, busy, stopped, a zombie, gone."""
    asleep = started(stack, "os.write(1, b'up\\n'); signal.pause()")
    busy = started(stack, "os.write(1, b'up\\n')\nwhile True: pass")
    reached(asleep.pid, ASLEEP)
    reached(busy.pid, BUSY)
    busy.send_signal(signal.SIGSTOP)
    reached(busy.pid, ASLEEP)
    asleep.kill()
    os.waitid(os.P_PID, asleep.pid, os.WEXITED | os.WNOWAIT)
    zombie = standing(asleep.pid)
    held = Process(asleep.pid)
    ended = held.ended
    held.close()
    asleep.wait()

    assert zombie == EXITING
    assert ended
    assert standing(asleep.pid) == GONE


def test_one_busy_thread_makes_a_busy_process(stack: contextlib.ExitStack) -> None:
    """All threads count."""
    script = "import _thread\ndef spin():\n  while True: pass\n_thread.start_new_thread(spin, ())\n"
    script += "os.write(1, b'up\\n'); signal.pause()"
    reached(started(stack, script).pid, BUSY)


def test_a_leader_that_left_is_not_the_process(stack: contextlib.ExitStack) -> None:
    """Its state is Z, and yet the process lives: it stands as its other threads do, and runs on."""
    command = program("leader_exits")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        stack.callback(process.kill)
        assert process.stdout
        assert process.stdout.read() == b""  # re-pointed, by the other thread, after the leader has left
        stat = procs.stat(process.pid)
        assert stat
        assert stat.state == "Z"
        reached(process.pid, ASLEEP)
        held = Process(process.pid)
        ended, identity_alive = held.ended, Identity.of(held.pid, held.start).alive
        open_streams = holds_descriptors(process.pid, 1, 2)
        held.close()
        process.kill()

    assert not ended
    assert identity_alive
    assert open_streams


def test_a_dying_process_is_exiting_before_its_pipes_close(stack: contextlib.ExitStack) -> None:
    """At end of file the kernel has said so already: never asleep or busy, in 200 deaths."""
    seen = set()
    for _ in range(200):
        with subprocess.Popen([SHELL, "-c", "exit 1"], stdout=subprocess.PIPE) as process:
            assert process.stdout
            os.read(process.stdout.fileno(), 1)
            seen.add(standing(process.pid))
            process.wait()

    assert seen <= {EXITING, GONE}
    assert seen


def test_who_has_which_descriptors(stack: contextlib.ExitStack) -> None:
    """Open, closed, dead."""
    process = started(stack, "os.write(1, b'up\\n'); os.close(2); signal.pause()")
    reached(process.pid, ASLEEP)

    assert holds_descriptors(process.pid, 1)
    assert not holds_descriptors(process.pid, 1, 2)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not holds_descriptors(process.pid, 1)


@pytest.mark.parametrize("pidfd", [True, False])
def test_a_hold_on_a_process(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch, pidfd: bool
) -> None:
    """Signals reach it while it lives, and nobody after it has ended; nobody at all is a ProcessLookupError."""
    if not pidfd:
        monkeypatch.setattr(identity, "pidfd_open", lambda _pid: None)
    process = started(stack, "os.write(1, b'up\\n'); signal.pause()")
    held = Process(process.pid)
    assert held.send(0)
    assert held.send(signal.SIGTERM)
    process.wait()

    assert held.ended
    assert not held.send(signal.SIGTERM)
    held.close()
    held.close()
    with pytest.raises(ProcessLookupError):
        Process(process.pid)


def test_a_hold_is_not_passed_on(stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a pidfd: somebody else with the same pid and another start time is not signalled."""
    monkeypatch.setattr(identity, "pidfd_open", lambda _pid: None)
    process = started(stack, "os.write(1, b'up\\n'); signal.pause()")
    held = Process(process.pid)
    held.start -= 1
    assert held.ended
    assert not held.send(signal.SIGTERM)
    assert process.poll() is None
    held.close()
