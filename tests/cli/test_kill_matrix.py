"""Whoever is killed or interrupted, at whatever moment: a documented status, and no process left.

The moments are made long by tests/support/held.py (steps of the launch), by triggers (the server's start) and by readers
that do not read; every other order of events is forced by lines, pipes and pidfds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import cli, held, procs
from tests.support.launches import Launch
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.family import Family

CANCELLING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MUCH = 4_000_000


# --- the moments -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held_at(step: str, directory: Path, *options: str) -> Iterator[Launch]:
    """A step of the launch itself."""
    with Trigger(directory, "reached") as reached, Trigger(directory, "release") as release:
        argv = [
            sys.executable,
            "-P",
            held.__file__,
            step,
            os.fspath(directory),
            "-v",
            *options,
            *program("repoints"),
        ]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
            assert os.read(reached._fd, 100)
            yield Launch(process, release.release)


@contextlib.contextmanager
def starting(directory: Path) -> Iterator[Launch]:
    """The server runs and is not ready."""
    with Trigger(directory) as trigger:
        script = f"echo hello; read line <{trigger.path}; exec sleep 100 >/dev/null 2>&1"
        with cli.popen("-v", SHELL, "-c", script) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"hello\n"
            yield Launch(process)


@contextlib.contextmanager
def stopping(directory: Path) -> Iterator[Launch]:
    """The wrapper has been interrupted (SIGTERM) and stops a server that does not care."""
    with cli.popen("-v", "--stop-timeout", "1s", *program("ignores_term", "never")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ignoring SIGTERM\n"
        launch = Launch(process)
        process.send_signal(signal.SIGTERM)
        while process.stderr.readline() != b"daemonize: stopping the server\n":
            pass
        yield launch


@contextlib.contextmanager
def relaying(directory: Path) -> Iterator[Launch]:
    """The server waits for a reader of the caller's that does not read."""
    with cli.popen("-v", *program("writes_much", MUCH), stderr=subprocess.DEVNULL) as process:
        parent = procs.eventually(lambda: _only_child(process.pid))
        server = procs.eventually(lambda: _only_child(parent.pid))
        procs.eventually(lambda: _blocked(server.pid))
        yield Launch(process)


def _only_child(pid: int) -> procs.Process:
    found = procs.children(pid)
    assert len(found) == 1
    return found[0]


def _blocked(pid: int) -> None:
    assert procs.read(f"/proc/{pid}/wchan") in {b"pipe_write", b"anon_pipe_write"}


class Moment(NamedTuple):
    """A moment of a launch, and what becomes of it when a process is killed then."""

    reach: Callable[[Path], contextlib.AbstractContextManager[Launch]]
    parent_killed: int = 125
    server_killed: int = 128 + signal.SIGKILL


def at(step: str) -> Callable[[Path], contextlib.AbstractContextManager[Launch]]:
    """The moment of a step."""
    return lambda directory: held_at(step, directory)


MOMENTS = {
    "between the forks": Moment(at("intermediate")),
    "before the streams": Moment(at("streams")),
    "at the gate": Moment(at("gate")),
    "before exec": Moment(at("exec")),
    "starting": Moment(starting),
    "stopping": Moment(stopping, parent_killed=143, server_killed=143),
    "relaying": Moment(relaying),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_control(moment: str, tmp_path: Path, servers: Family) -> None:
    """The negative control: where nobody is killed, each moment passes and the launch ends as it should."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        assert launch.parent.sid == launch.parent.pid or moment == "between the forks"
        if moment in {"starting", "at the gate"}:
            launch.wrapper.terminate()
        launch.proceed()
        status, _, _ = launch.finish()
    assert status == (143 if moment in {"starting", "stopping", "at the gate"} else 0)


@pytest.mark.parametrize("moment", MOMENTS)
def test_wrapper_killed(moment: str, tmp_path: Path, family: Family) -> None:
    """SIGKILL to the wrapper leaves nothing: a server that nobody waits for is not left half-started."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        launch.kill("wrapper")
        launch.proceed()
        status, _, _ = launch.finish()
    assert status == -signal.SIGKILL
    assert launch.server is None or procs.wait_ended(launch.server.pid, 0, launch.server.start)
    family.nobody()


@pytest.mark.parametrize("moment", MOMENTS)
def test_intermediate_parent_killed(moment: str, tmp_path: Path, family: Family) -> None:
    """SIGKILL to the intermediate parent is reported, never hung on: 125, a line that says it, nothing left."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        launch.kill("parent")
        launch.proceed()
        status, _, err = launch.finish()
    assert status == MOMENTS[moment].parent_killed
    assert status != 125 or moment == "relaying" or b"the intermediate parent was killed" in err
    family.nobody()


@pytest.mark.parametrize("moment", [name for name in MOMENTS if name != "between the forks"])
def test_server_killed(moment: str, tmp_path: Path, family: Family) -> None:
    """SIGKILL to the server is its own status, 137, before exec as well as after; nothing left."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        launch.kill("server")
        launch.proceed()
        status, _, err = launch.finish()
    assert status == MOMENTS[moment].server_killed
    assert status != 137 or moment == "relaying" or b"was killed by SIGKILL" in err
    family.nobody()


@pytest.mark.parametrize("number", CANCELLING, ids=lambda number: number.name)
@pytest.mark.parametrize("moment", [name for name in MOMENTS if name != "stopping"])
def test_wrapper_interrupted(moment: str, number: signal.Signals, tmp_path: Path, family: Family) -> None:
    """SIGINT, SIGTERM, SIGHUP to the wrapper, between the forks too: 128 + N, and the server has been stopped."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        launch.wrapper.send_signal(number)
        launch.proceed()
        status, _, err = launch.finish()
    assert status == 128 + number
    assert moment == "relaying" or f"interrupted by {number.name}".encode() in err
    family.nobody()


@pytest.mark.parametrize("who", ["wrapper", "parent"])
def test_killed_while_detaching(who: str, tmp_path: Path, servers: Family) -> None:
    """Ready, and the caller does not know it yet: a killed wrapper takes the server along; the parent leaves anyway."""
    with held_at("detach", tmp_path) as launch:
        server = launch.victim("server")
        launch.kill(who)
        launch.proceed()
        status, _, _ = launch.finish()
    assert status == (0 if who == "parent" else -signal.SIGKILL)
    assert procs.alive(server.pid) == (who == "parent")


@pytest.mark.parametrize("mode", [("-t", "infinity"), ("-f",)], ids=["background", "foreground"])
def test_server_killed_before_the_last_look(mode: tuple[str, ...], tmp_path: Path, family: Family) -> None:
    """The last look at a ready server brings its end and its status at once: there is no event left to wait for."""
    with held_at("last-look", tmp_path, *mode) as launch:
        launch.kill("server" if launch.server else "parent")
        launch.proceed()
        status, _, err = launch.finish()
    assert status == (-signal.SIGKILL if "-f" in mode else 128 + signal.SIGKILL)
    assert b"was killed by SIGKILL" in err
    family.nobody()


def test_interrupted_while_detaching(tmp_path: Path, servers: Family) -> None:
    """A signal that comes after the decision changes nothing of it: 0, and the server runs."""
    with held_at("detach", tmp_path) as launch:
        server = launch.victim("server")
        launch.wrapper.send_signal(signal.SIGTERM)
        launch.proceed()
        assert launch.finish()[0] == 0
    assert procs.alive(server.pid)


def test_everybody_killed(tmp_path: Path, family: Family) -> None:
    """SIGKILL to wrapper and intermediate parent at once: a server at the gate does not run."""
    with held_at("gate", tmp_path) as launch:
        server = launch.victim("server")
        procs.send(launch.parent.pid, signal.SIGSTOP)
        launch.kill("wrapper")
        launch.kill("parent")
        launch.finish()
        assert procs.wait_ended(server.pid, start=server.start)
    family.nobody()


# --- interrupted -------------------------------------------------------------------------------------------------------


def test_nohup_is_respected(tmp_path: Path, servers: Family) -> None:
    """A SIGHUP that the caller ignores does not cancel; a SIGTERM still does (the control)."""
    for number, status in ((signal.SIGHUP, 0), (signal.SIGTERM, 143)):
        with Trigger(tmp_path) as trigger:
            script = f"echo hello; read line <{trigger.path}; exec sleep 100 >/dev/null 2>&1"
            argv = [SHELL, "-c", 'trap "" HUP; exec "$@"', SHELL, *cli.command(SHELL, "-c", script)]
            with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"hello\n"
                process.send_signal(number)
                os.write(trigger._fd, b"\n")
                assert process.wait(10) == status


def test_second_interrupt_hurries(family: Family) -> None:
    """A second Ctrl-C does not wait for the stop timeout: SIGKILL now; the status is that of the first signal."""
    with cli.popen("-v", "--stop-timeout", "1h", *program("ignores_term", "never")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ignoring SIGTERM\n"
        process.send_signal(signal.SIGINT)
        while process.stderr.readline() != b"daemonize: stopping the server\n":
            pass
        assert not procs.wait_ended(process.pid, 0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    family.nobody()


def test_stop_timeout(family: Family) -> None:
    """A server that ignores SIGTERM gets SIGKILL after --stop-timeout, not sooner."""
    with cli.popen("--stop-timeout", "500ms", *program("ignores_term", "never")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ignoring SIGTERM\n"
        process.terminate()
        assert not procs.wait_ended(process.pid, 0.4)
        assert process.wait(10) == 143
    family.nobody()


def test_server_may_end_its_own_way(tmp_path: Path, family: Family) -> None:
    """A server that cleans up on SIGTERM has the time to do it, and its words are still relayed."""
    script = (
        'trap "echo cleaning up; sleep 0.3; echo done; exit 0" TERM; echo hello; while :; do read line; done'
    )
    with cli.popen(SHELL, "-c", script, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        process.terminate()
        assert process.stdout.read() == b"cleaning up\ndone\n"
        assert process.wait(10) == 143
    family.nobody()


def test_whole_tree_is_stopped(family: Family) -> None:
    """What the server started is stopped with it: children, orphans, and those in sessions of their own."""
    script = "sleep 111 & (sleep 112 & ) ; setsid sleep 113 & setsid -f sleep 114; echo hello; sleep 115"
    with cli.popen(SHELL, "-c", script, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        process.terminate()
        assert process.wait(10) == 143
    family.nobody()


def test_stopped_server_is_stopped(family: Family) -> None:
    """A server that is suspended (SIGSTOP) can be stopped all the same, within the grace."""
    with cli.popen(SHELL, "-c", "echo hello; kill -STOP $$; sleep 100", stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hello\n"
        process.terminate()
        assert process.wait(5) == 143
    family.nobody()


# --- timeouts ----------------------------------------------------------------------------------------------------------


def test_timeout(family: Family) -> None:
    """A server that is not ready in time: 124, it has been stopped, the line says what was waited for and --ready."""
    done = cli.run("--stop-timeout=100ms", "-t", "300ms", SHELL, "-c", "echo hello; sleep 100")
    assert (done.status, done.out) == (124, b"hello\n")
    assert done.err.count(b"\n") == 1
    for word in (b"not ready within 0.3 s", b"streams", b"stopped", b"--ready"):
        assert word in done.err
    assert 0.3 <= done.seconds < 5
    family.nobody()


def test_timeout_of_the_environment(family: Family) -> None:
    """DAEMONIZE_TIMEOUT is the default of --timeout, which overrides it."""
    argv = (SHELL, "-c", "sleep 0.4; exec sleep 100 >/dev/null 2>&1")
    assert cli.run(*argv, env={"DAEMONIZE_TIMEOUT": "100ms"}).status == 124
    assert cli.run("-t", "20s", *argv, env={"DAEMONIZE_TIMEOUT": "100ms"}).status == 0
    assert cli.run("-t", "100ms", *argv, env={"DAEMONIZE_TIMEOUT": "20s"}).status == 124
    family.end()


@pytest.mark.parametrize("spec", ["exit"])
def test_timeout_names_the_spec(spec: str, family: Family) -> None:
    """Another spec than streams is named as it was written, with the log."""
    done = cli.run("-t", "100ms", "-r", spec, "sleep", "100")

    assert done.status == 124
    assert f"waited for: {spec}".encode() in done.err
    assert os.environ["DAEMONIZE_STATE_DIR"].encode() in done.err
    family.nobody()


def test_timeout_names_only_what_did_not_hold(family: Family) -> None:
    """Of several specs, those that held are not named."""
    done = cli.run("-t", "300ms", "-r", "started", "-r", "streams", "sleep", "100")

    assert b"waited for: streams)" in done.err
    family.nobody()


def test_infinity(family: Family, trigger: Trigger) -> None:
    """`infinity` does not end."""
    with cli.popen("-t", "infinity", *program("repoints", trigger.arg)) as process:
        assert not procs.wait_ended(process.pid, 0.3)
        trigger.release()
        assert process.wait(10) == 0
    family.end()


def test_on_timeout_leave(servers: Family) -> None:
    """--on-timeout=leave: 124, but the server goes on, its words are drained to the log, and the line says its pid."""
    script = "echo before; while read line; do echo $line; done <$0; exit 0"
    fifo = f"{os.environ['HOME']}/fifo"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    try:
        done = cli.run("-t", "300ms", "--on-timeout=leave", SHELL, "-c", script, fifo)
        assert (done.status, done.out) == (124, b"before\n")
        server = next(p for p in servers.living() if p.name == "sh")
        assert f"left running (pid {server.pid})".encode() in done.err
        os.write(end, b"after\n")
    finally:
        os.close(end)
    drain = next((p for p in servers.living() if p.pid != server.pid), None)
    assert procs.wait_ended(server.pid, start=server.start)
    if drain:
        assert procs.wait_ended(drain.pid, start=drain.start)
    with open(f"{os.environ['DAEMONIZE_STATE_DIR']}/sh.out", "rb") as log:
        assert log.read() == b"after\n"


def test_no_time_counts_while_the_wrapper_is_stopped(trigger: Trigger, servers: Family) -> None:
    """A wrapper that is suspended for longer than the timeout (Ctrl-Z, a frozen laptop) does not time out."""
    with cli.popen("-t", "1s", *program("repoints", trigger.arg)) as process:
        procs.eventually(lambda: _only_child(_only_child(process.pid).pid))
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert not procs.wait_ended(process.pid, 1.3)
        process.send_signal(signal.SIGCONT)
        trigger.release()
        assert process.wait(10) == 0


def test_time_counts_while_the_wrapper_runs(trigger: Trigger, family: Family) -> None:
    """The negative control of the above."""
    with cli.popen("-t", "1s", *program("repoints", trigger.arg), stderr=subprocess.DEVNULL) as process:
        assert procs.wait_ended(process.pid, 5)
        assert process.wait(10) == 124
    family.nobody()


def test_time_counts_while_the_reader_is_not_at_fault(family: Family) -> None:
    """A reader that does not read, while the server has room to write, excuses nothing."""
    with cli.popen("-t", "300ms", SHELL, "-c", "head -c 70000 /dev/zero; sleep 100") as process:
        assert process.stdout is not None
        server = procs.eventually(lambda: _only_child(_only_child(process.pid).pid))
        assert procs.wait_ended(server.pid, 10)
        assert process.stdout.read() == bytes(70000)
        assert process.wait(10) == 124
    family.nobody()
