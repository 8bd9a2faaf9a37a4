"""Without pidfd, splice, inotify, a subreaper or /proc (macOS, the BSDs) everything still works, slower.

Each fast path is switched off at its seam in daemonize.posix, before the fork, so that every process of the launch is
without it; `bare` is without all of them at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import Exited, Lost, TimedOut
from daemonize.launcher import api
from daemonize.posix import fds, follow, identity, prctl, streams
from tests.support import callers, ports, procs
from tests.support.programs import PYTHON, SHELL, Trigger, program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemonize.launcher.daemon import Daemon

    Launch = Callable[..., Daemon]


class Without:
    """The os module for one of ours, in a system where /proc (and /dev/fd) is empty."""

    def __init__(self) -> None:
        self.path = self
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        if name in {"open", "listdir", "lstat", "readlink", "exists", "scandir", "stat"}:
            return lambda path, *rest, **named: self._call(name, path, *rest, **named)
        return getattr(os, name) if hasattr(os, name) else getattr(os.path, name)

    def _call(self, name: str, path: Any, *rest: Any, **named: Any) -> Any:
        if str(path).startswith(("/proc", "b'/proc", "/dev/fd")):
            self.asked += 1
            if name == "exists":
                return False
            raise FileNotFoundError(errno.ENOENT, "no /proc", path)
        return getattr(os.path if name == "exists" else os, name)(path, *rest, **named)


def no_pidfd(patch: pytest.MonkeyPatch) -> None:
    """No pidfd_open(2)."""
    patch.setattr(identity, "pidfd_open", lambda _pid: None)


def no_splice(patch: pytest.MonkeyPatch) -> None:
    """No splice(2)."""
    patch.setattr(streams, "_splice", None)


def no_inotify(patch: pytest.MonkeyPatch) -> None:
    """No inotify(7)."""
    patch.setattr(follow, "inotify", lambda _path, _mask: None)


def no_subreaper(patch: pytest.MonkeyPatch) -> None:
    """No prctl(2)."""
    patch.setattr(prctl, "_prctl", lambda _option, _value: False)


def no_proc(patch: pytest.MonkeyPatch) -> None:
    """No /proc."""
    without = Without()
    patch.setattr(identity, "_proc_of", (0, False))  # what it found out about /proc is asked anew
    for module in (identity, streams, fds):
        patch.setattr(module, "os", without)
    watch = prctl.inotify
    patch.setattr(
        follow, "inotify", lambda path, mask: None if path.startswith(b"/proc") else watch(path, mask)
    )


def bare(patch: pytest.MonkeyPatch) -> None:
    """None of them: what macOS has."""
    for switch_off in (no_pidfd, no_splice, no_inotify, no_subreaper, no_proc):
        switch_off(patch)


def everything(_patch: pytest.MonkeyPatch) -> None:
    """All fast paths: the control."""


SWITCHES = [everything, no_pidfd, no_splice, no_inotify, no_subreaper, no_proc, bare]
BLIND = {"no_proc", "bare"}


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Closed after the test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=SWITCHES, ids=lambda switch: switch.__name__)
def system(request: pytest.FixtureRequest, stack: contextlib.ExitStack) -> str:
    """A system that lacks something, for this process and its children, until the test is over."""
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(api, "_needs_keeper", lambda: False)
    request.param(patch)
    return str(request.param.__name__)


@pytest.fixture
def launch(system: str) -> Iterator[Launch]:
    """daemonize.launch, silent unless told otherwise; what it started is stopped afterwards, by the same means."""
    with contextlib.ExitStack() as stopping:

        def launched(*command: str, **options: Any) -> Daemon:
            daemon = api.launch(command, **{"relay_stdout": None, "relay_stderr": None, **options})
            stopping.callback(daemon.stop, 5.0)
            return daemon

        yield launched


def test_it_points_its_streams_elsewhere(launch: Launch, system: str) -> None:
    """Ready, with the right pid; without /proc after a moment of watching."""
    read, write = os.pipe()
    try:
        daemon = launch(*program("repoints", "hello"), relay_stdout=write)
        assert os.read(read, 100) == b"hello\n"
    finally:
        os.close(read)
        os.close(write)

    assert "repoints" in procs.command_line(daemon.pid or 0)
    assert daemon.is_running


def test_it_closes_its_streams(launch: Launch) -> None:
    """Ready."""
    assert launch(*program("closes_streams")).is_running


@pytest.mark.parametrize("milliseconds", [0, 5])
def test_it_closes_its_streams_and_dies(launch: Launch, milliseconds: int) -> None:
    """Not ready: its own status."""
    with pytest.raises(Exited) as caught:
        launch(*program("closes_then_dies", milliseconds, 7))

    assert caught.value.exit_status == 7


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (program("dies_silently", 3), 3),
        (program("crashes_early", 254, "boom"), 254),
        (program("dies_by_signal", 9), 137),
        (program("dies_by_signal", 15), 143),
        (program("threads_die", 5, "closes"), 5),
        (["false"], 1),
        (["ls", "/no/such/file"], 2),
        (["true"], 0),
    ],
    ids=str,
)
def test_it_dies(launch: Launch, command: list[str], status: int) -> None:
    """Its own status, never ready."""
    for _ in range(5):
        with pytest.raises(Exited) as caught:
            launch(*command)

        assert caught.value.exit_status == status


def test_its_words_arrive(launch: Launch, tmp_path: Path) -> None:
    """Every byte, though splice may be missing."""
    sys.path.insert(0, os.path.dirname(program("writes_much")[-1]))
    try:
        from writes_much import content  # type: ignore[import-not-found,unused-ignore]
    finally:
        del sys.path[0]
        sys.modules.pop("_common", None)
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        launch(*program("writes_much", 1_000_000), relay_stdout=out, relay_stderr=err)

    assert (tmp_path / "out").read_bytes() == b"".join(content(1, 1_000_000))
    assert (tmp_path / "err").read_bytes() == b"".join(content(2, 1_000_000))


@pytest.mark.parametrize("how", [[], ["last"], ["holds"], ["last", "holds"]], ids=str)
def test_it_daemonizes_itself(launch: Launch, system: str, how: list[str]) -> None:
    """Followed to its daemon, who it is as far as /proc tells.

    Without a subreaper it is known only by the pipes it still holds: one that holds none is not seen.
    """
    read, write = os.pipe()
    try:
        try:
            daemon = launch(*program("self_daemonizes", *how), relay_stdout=write)
            seen, pid = True, daemon.pid
        except Exited as error:
            seen, pid = error.exit_status != 0, None
        # Its words come through the relay, or if it was too late for that through the drain.
        left = procs.eventually(lambda: int(said(read).split()[1]))
        alive = procs.alive(left)
        procs.stop(left)
    finally:
        os.close(read)
        os.close(write)

    assert alive
    lonely = system in {"bare", "no_subreaper"}
    assert seen or (lonely and "holds" not in how)
    assert pid == (None if system in BLIND or lonely else left)


def said(read: int) -> bytes:
    """What a daemon said, to the caller or to its log."""
    if procs.readable(read, 0):
        return os.read(read, 100)
    with open(
        os.path.join(os.environ["DAEMONIZE_STATE_DIR"], f"{os.path.basename(sys.executable)}.out"), "rb"
    ) as log:
        words = log.read()
    assert words.endswith(b"\n")
    return words


def test_it_leaves_a_failing_daemon(launch: Launch, system: str) -> None:
    """A daemon that does not come up is no readiness: its parent says so with its status."""
    with pytest.raises(Exited) as caught:
        launch(*program("self_daemonizes", "last", "fails=6"))

    assert caught.value.exit_status == 6


def test_it_is_not_ready_in_time(launch: Launch) -> None:
    """Stopped, its worker too where it can be known; the time is kept."""
    began = time.monotonic()
    with pytest.raises(TimedOut) as caught:
        launch("sleep", "100", timeout=0.2)

    assert procs.wait_ended(caught.value.pid or 0, 0)
    assert time.monotonic() - began < 3


def test_it_ignores_sigterm(launch: Launch) -> None:
    """SIGKILL after the stop timeout."""
    with pytest.raises(TimedOut) as caught:
        launch(*program("ignores_term", "never"), timeout=0.3, stop_timeout=0.2)

    assert procs.wait_ended(caught.value.pid or 0, 0)


def test_stop_and_wait(launch: Launch, tmp_path: Path) -> None:
    """A daemon can be waited for and stopped."""
    with Trigger(tmp_path) as trigger:
        daemon = launch(SHELL, "-c", f"exec >/dev/null 2>&1; read x <{trigger.path}")
        assert not daemon.wait(0)
        assert not daemon.wait(0.02)
        trigger.close()
        assert daemon.wait(5)
    assert not daemon.is_running

    daemon = launch(*program("ignores_term"))
    daemon.stop(0.1)
    assert not daemon.is_running


@pytest.mark.parametrize("ready", ["started", "alive:100ms"])
def test_files_are_followed(launch: Launch, tmp_path: Path, ready: str) -> None:
    """What is said until ready is relayed, by inotify or by looking."""
    with open(tmp_path / "relayed", "wb") as relayed:
        script = "echo one; echo two; exec sleep 100"
        launch(SHELL, "-c", script, stdout=tmp_path / "out", ready=ready, relay_stdout=relayed)

    if ready != "started":
        assert (tmp_path / "relayed").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_it_listens(launch: Launch, host: str) -> None:
    """At whatever address: where nobody can say who belongs to the server, too."""
    port = ports.free_port()
    family = int(socket.AF_INET6 if ":" in host else socket.AF_INET)
    code = f"import signal, socket; s = socket.socket({family}); s.bind(({host!r}, {port})); s.listen(); signal.pause()"
    assert launch(*PYTHON, "-c", code, ready=f"port:{port}", timeout=20).is_running


def test_the_parent_is_killed(launch: Launch, system: str) -> None:
    """SIGKILL to the intermediate parent is reported, never hung on, and the server is stopped."""
    script = "import os, signal; signal.alarm(60); os.kill(os.getppid(), 9); signal.pause()"
    with pytest.raises(Lost) as caught:
        launch(*PYTHON, "-c", script)

    assert procs.wait_ended(caught.value.pid or 0, 0)


def test_no_descriptor_is_left_to_the_server(launch: Launch, system: str) -> None:
    """Without a list of descriptors every possible one is closed."""
    high = os.dup2(0, 700, inheritable=True)
    try:
        daemon = launch(*program("repoints"))
        found = procs.descriptors(daemon.pid or 0)
    finally:
        os.close(high)

    assert not {fd for fd in found if fd > 2} - {3}  # the /dev/null that the program opened


# -- callers that are killed or interrupted, as processes of their own -------------------------------------------------

SWITCH_OFF = """
from tests.process import test_fallbacks
import pytest
getattr(test_fallbacks, {name!r})(pytest.MonkeyPatch())
"""
NEVER_READY = "import os, signal; signal.alarm(60); os.write(1, b'%d\\n' % os.getpid()); signal.pause()"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def caller(
    stack: contextlib.ExitStack, switch: Any, code: str, *command: str, **options: Any
) -> subprocess.Popen[bytes]:
    """A caller on a system that lacks something."""
    code = f"import sys; sys.path.insert(0, {ROOT!r})\n" + SWITCH_OFF.format(name=switch.__name__) + code
    return stack.enter_context(callers.popen(code, *command, way="direct", **options))


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.__name__)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_caller_that_goes_takes_its_server_along(
    stack: contextlib.ExitStack, switch: Any, number: signal.Signals
) -> None:
    """Killed or interrupted: the server ends, and soon; the grace is not waited out for one that listens."""
    process = caller(stack, switch, "launch(command, relay_stderr=None)", *PYTHON, "-c", NEVER_READY)
    assert process.stdout
    server = int(process.stdout.readline())
    began = time.monotonic()
    process.send_signal(number)

    assert procs.wait_ended(server)
    process.communicate(timeout=20)
    assert time.monotonic() - began < 5


GROUP_IS_SAFE = """
told = []
signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
try:
    launch(command, relay_stderr=None, ready="file:/no/such", timeout=0.5)
except daemonize.LaunchError as error:
    print(type(error).__name__, error.survivors, told)
"""


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.__name__)
@pytest.mark.parametrize(
    ("end", "outcome"),
    [("exit 6", "Exited"), ("exit 0", "TimedOut"), ("exec sleep 1000", "TimedOut")],
    ids=["fails", "leaves", "not ready"],
)
def test_nobody_else_is_told_to_end(
    stack: contextlib.ExitStack, switch: Any, tmp_path: Path, end: str, outcome: str
) -> None:
    """A worker that is left behind, and that nobody can name: what was told to end in its place was the caller's group."""
    with Trigger(tmp_path) as trigger:
        code = GROUP_IS_SAFE
        script = f"exec 3>&1; (read x <{trigger.path}) >&3 & {end}"
        process = caller(stack, switch, code, SHELL, "-c", script, start_new_session=True)
        out, err = process.communicate(timeout=20)
        trigger.close()

    assert (process.returncode, err) == (0, b"")
    if switch in {no_subreaper, bare} and end.startswith("exit"):  # there nobody adopts it
        outcome = "Exited"
    left = ((None, "?"),) if switch is no_proc else ()
    assert out.decode() == f"{outcome} {left} []\n"


def test_the_switches_switch_off(stack: contextlib.ExitStack) -> None:
    """The negative control: each seam is one that the code goes through."""
    with pytest.MonkeyPatch.context() as patch:
        bare(patch)
        assert identity.Process(os.getpid()).fd is None
        assert not identity.has_proc()
        assert identity.read_stat(os.getpid()) is None
        assert identity.standing(os.getpid()) == identity.UNKNOWN
        assert not prctl.become_subreaper()
        with open("/dev/null", "wb") as null, contextlib.closing(streams.Sink(null.fileno())) as sink:
            assert not sink.splices
    assert identity.has_proc()
