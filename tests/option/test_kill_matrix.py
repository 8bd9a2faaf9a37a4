"""Whoever is killed or interrupted while a program goes on as its own server: the right status, and no process left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import apps, held, procs
from tests.support.launches import Launch
from tests.support.programs import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.family import Family

CANCELLING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SERVER = """
@click.group()
def main():
    pass
@main.command()
@daemonize_option(stop_timeout=STOP_TIMEOUT)
def run():
    BODY
    serve()
main()
"""


def server(directory: Path, way: str, body: str = "pass", stop_timeout: str = "9") -> list[str]:
    """A program whose command does something before it is ready."""
    return apps.write(
        directory, apps.WAYS[way] + SERVER.replace("BODY", body).replace("STOP_TIMEOUT", stop_timeout)
    )


@contextlib.contextmanager
def held_at(step: str, directory: Path) -> Iterator[Launch]:
    """A step of the launch itself, of a program that is forked."""
    with Trigger(directory, "reached") as reached, Trigger(directory, "release") as release:
        program = server(directory, "fork")[1]
        argv = [sys.executable, "-P", held.__file__, step, os.fspath(directory), "--app", program]
        with apps.popen([*argv, "run"], "--daemonize") as process:
            assert os.read(reached._fd, 100)
            yield Launch(process, release.release)


@contextlib.contextmanager
def starting(directory: Path, way: str) -> Iterator[Launch]:
    """The command runs, and is not ready."""
    with Trigger(directory) as trigger:
        body = f"print('hello', flush=True); open({trigger.path!r}).read(1)"
        with apps.popen(server(directory, way, body), "run", "--daemonize") as process:
            assert process.stdout
            assert process.stdout.readline() == b"hello\n"
            yield Launch(process, trigger.release)


@contextlib.contextmanager
def stopping(directory: Path, way: str) -> Iterator[Launch]:
    """The launch has been interrupted, and the command does not care: it says that it has heard."""
    body = (
        "signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'heard\\n')); print('hello', flush=True)\n"
        "    signal.alarm(120)\n    while True: select.select([], [], [], 0.1)"
    )
    with apps.popen(server(directory, way, body, "1.5"), "run", "--daemonize") as process:
        assert process.stdout
        assert process.stdout.readline() == b"hello\n"
        launch = Launch(process)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"heard\n"
        yield launch


class Moment(NamedTuple):
    """A moment of a launch, and what becomes of it where nobody is killed, and where a process is."""

    reach: Callable[[Path], contextlib.AbstractContextManager[Launch]]
    passes: int = 0
    parent_killed: int = 125
    server_killed: int = 128 + signal.SIGKILL


MOMENTS = {
    "between the forks": Moment(lambda directory: held_at("intermediate", directory)),
    "before the streams": Moment(lambda directory: held_at("streams", directory)),
    "at the gate": Moment(lambda directory: held_at("gate", directory), 143),
    "before it goes on": Moment(lambda directory: held_at("exec", directory)),
    **{f"starting-{way}": Moment(lambda directory, way=way: starting(directory, way)) for way in apps.WAYS},  # type: ignore[misc]
    **{
        f"stopping-{way}": Moment(lambda directory, way=way: stopping(directory, way), 143, 143, 143)  # type: ignore[misc]
        for way in apps.WAYS
    },
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_control(moment: str, tmp_path: Path, servers: Family) -> None:
    """The negative control: where nobody is killed, each moment passes and the launch ends as it should."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        if moment == "at the gate":
            launch.wrapper.terminate()
        launch.proceed()
        status, _, _ = launch.finish()

    assert status == MOMENTS[moment].passes
    assert len(servers.living()) == (status == 0)


@pytest.mark.parametrize("moment", MOMENTS)
def test_wrapper_killed(moment: str, tmp_path: Path, family: Family) -> None:
    """SIGKILL to the process that was called leaves nothing."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        launch.kill("wrapper")
        launch.proceed()
        status, _, _ = launch.finish()

    assert status == -signal.SIGKILL
    assert launch.server is None or procs.wait_ended(launch.server.pid, start=launch.server.start)
    family.nobody()


@pytest.mark.parametrize("moment", MOMENTS)
def test_intermediate_parent_killed(moment: str, tmp_path: Path, family: Family) -> None:
    """SIGKILL to the intermediate parent is reported, never hung on: 125, a line that says it, nothing left."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        launch.kill("parent")
        launch.proceed()
        status, _, err = launch.finish()

    assert status == MOMENTS[moment].parent_killed
    assert status != 125 or b"the intermediate parent was killed" in err
    family.nobody()


@pytest.mark.parametrize("moment", [name for name in MOMENTS if name != "between the forks"])
def test_server_killed(moment: str, tmp_path: Path, family: Family) -> None:
    """SIGKILL to the server is its own status, 137, before the program goes on as well as after; nothing left."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        launch.kill("server")
        launch.proceed()
        status, _, err = launch.finish()

    assert status == MOMENTS[moment].server_killed
    assert status != 137 or b"was killed by SIGKILL" in err
    family.nobody()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("way", apps.WAYS)
def test_server_interrupted(number: signal.Signals, way: str, tmp_path: Path, family: Family) -> None:
    """A signal to the server has the effect it has in the foreground: click's own for SIGINT, or its end."""
    with starting(tmp_path, way) as launch:
        server = launch.victim("server")
        procs.send(server.pid, number, server.start)
        status, _, err = launch.finish()

    assert status == (1 if number == signal.SIGINT else 143)
    assert (b"Aborted!" in err) == (number == signal.SIGINT)
    family.nobody()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["before the streams", "before it goes on"])
def test_server_interrupted_before_it_goes_on(
    number: signal.Signals, status: int, moment: str, tmp_path: Path, family: Family
) -> None:
    """A signal that comes before has its effect where the program goes on, and not in the middle of the launch."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        server = launch.victim("server")
        procs.send(server.pid, number, server.start)
        launch.proceed()
        found, _, err = launch.finish()

    assert found == status
    assert (b"Aborted!" in err) == (number == signal.SIGINT)
    assert b"Traceback" not in err
    family.nobody()


@pytest.mark.parametrize("number", [*CANCELLING, signal.SIGUSR1])
@pytest.mark.parametrize("way", apps.WAYS)
def test_intermediate_parent_interrupted(
    number: signal.Signals, way: str, tmp_path: Path, servers: Family
) -> None:
    """Only SIGKILL ends it: what else is sent to it changes nothing, whatever the program does with such a signal."""
    with starting(tmp_path, way) as launch:
        procs.send(launch.parent.pid, number, launch.parent.start)
        launch.proceed()
        status, _, err = launch.finish()

    assert (status, err) == (0, b"")
    assert servers.only().ppid == 1


@pytest.mark.parametrize("number", CANCELLING, ids=lambda number: number.name)
@pytest.mark.parametrize("moment", [name for name in MOMENTS if not name.startswith("stopping")])
def test_wrapper_interrupted(moment: str, number: signal.Signals, tmp_path: Path, family: Family) -> None:
    """SIGINT, SIGTERM, SIGHUP to the process that was called, between the forks too: 128 + N, the server is stopped."""
    with MOMENTS[moment].reach(tmp_path) as launch:
        launch.wrapper.send_signal(number)
        if not moment.startswith("starting"):
            launch.proceed()
        status, _, err = launch.finish()

    assert status == 128 + number
    assert f"interrupted by {number.name}".encode() in err
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_second_interrupt_hurries(way: str, tmp_path: Path, family: Family) -> None:
    """It does not wait for a server that does not care: SIGKILL now; the status is that of the first signal."""
    with stopping(tmp_path, way) as launch:
        launch.wrapper.send_signal(signal.SIGINT)
        status, _, _ = launch.finish()

    assert status == 143
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


@pytest.mark.parametrize("number", [*CANCELLING, signal.SIGUSR1])
def test_interrupted_while_detaching(number: signal.Signals, tmp_path: Path, servers: Family) -> None:
    """A signal that comes after the decision changes nothing: 0, and the server runs. SIGUSR1, the control, ends both."""
    with held_at("detach", tmp_path) as launch:
        server = launch.victim("server")
        launch.wrapper.send_signal(number)
        launch.proceed()
        status, _, _ = launch.finish()

    assert status == (-number if number == signal.SIGUSR1 else 0)
    assert procs.alive(server.pid) == (status == 0)


def test_server_killed_before_the_last_look(tmp_path: Path, family: Family) -> None:
    """The last look at a ready server brings its end and its status."""
    with held_at("last-look", tmp_path) as launch:
        launch.kill("server")
        launch.proceed()
        status, _, err = launch.finish()

    assert status == 137
    assert b"was killed by SIGKILL" in err
    family.nobody()


def test_everybody_killed(tmp_path: Path, family: Family) -> None:
    """SIGKILL to wrapper and intermediate parent at once: a server at the gate does not go on."""
    with held_at("gate", tmp_path) as launch:
        server = launch.victim("server")
        procs.send(launch.parent.pid, signal.SIGSTOP)
        launch.kill("wrapper")
        launch.kill("parent")
        launch.finish()
        assert procs.wait_ended(server.pid, start=server.start)

    family.nobody()


@pytest.mark.parametrize("number", CANCELLING)
def test_interrupted_when_all_is_over(number: signal.Signals, tmp_path: Path, family: Family) -> None:
    """A signal while the process that was called has only its last word to say: the status is the server's all the same."""
    code = (
        "from daemonize.launcher import words\ncomplain = words.complain\n"
        f"words.complain = lambda *a: (signal.raise_signal({number}), complain(*a))\n"
    )
    argv = apps.write(tmp_path, code + SERVER.replace("BODY", "os._exit(3)").replace("STOP_TIMEOUT", "9"))
    done = apps.run(argv, "run", "--daemonize")

    assert (done.status, done.out) == (3, b"")
    assert done.err.startswith(b"app.py: the server exited with status 3")
    assert done.err.count(b"\n") == 1
    family.nobody()


@pytest.mark.parametrize("number", [1, 2])
def test_no_fork(number: int, tmp_path: Path, family: Family) -> None:
    """Where there can be no more processes: one line, 125, and the program ends as it should where it was called."""
    program = server(tmp_path, "fork")[1]
    argv = [sys.executable, "-P", held.__file__, f"no-fork-{number}", os.fspath(tmp_path), "--app", program]
    done = apps.run(argv, "run", "--daemonize")

    assert (done.status, done.out) == (125, b"")
    assert b"Resource temporarily unavailable" in done.err
    assert done.err.count(b"\n") == 1
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
def test_nohup(way: str, tmp_path: Path, servers: Family) -> None:
    """A SIGHUP that the caller ignores does not interrupt; in the server it is at its default again."""
    with Trigger(tmp_path) as trigger:
        body = f"print('hello', flush=True); open({trigger.path!r}).read(1)"
        argv = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *server(tmp_path, way, body)]
        with apps.popen(argv, "run", "--daemonize", stderr=subprocess.DEVNULL) as process:
            assert process.stdout
            assert process.stdout.readline() == b"hello\n"
            process.send_signal(signal.SIGHUP)
            trigger.release()
            assert process.wait(20) == 0
    assert not procs.dispositions(procs.read(f"/proc/{servers.only().pid}/status"))["SigIgn"] & 1
