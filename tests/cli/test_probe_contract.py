"""What every readiness spec keeps, whatever it waits for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from daemonize import Exited, TimedOut, readiness
from daemonize.launcher import api
from tests.support import cli, ports, procs
from tests.support.programs import Trigger, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.family import Family

#: A spec for each form, made for a directory of the test's.
SPECS: dict[str, Callable[[Path], str]] = {
    "streams": lambda _: "streams",
    "started": lambda _: "started",
    "exit": lambda _: "exit",
    "alive:DURATION": lambda _: "alive:1s",
    "notify": lambda _: "notify",
    "fd:N": lambda _: "fd:3",
    "fdvar:NAME": lambda _: "fdvar:READY_FD",
    "port": lambda _: "port",
    "port:[HOST:]PORT": lambda _: f"port:127.0.0.1:{ports.free_port()}",
    "unix:PATH": lambda path: f"unix:{path}/socket",
    "http://HOST[:PORT][/PATH]": lambda _: f"http://127.0.0.1:{ports.free_port()}/",
    "https://HOST[:PORT][/PATH]": lambda _: f"https://127.0.0.1:{ports.free_port()}/",
    "log:REGEX": lambda _: "log:up and running",
    "file:PATH": lambda path: f"file:{path}/file",
    "exec:COMMAND": lambda path: f"exec:test -e {path}/executed",
}
FORMS = [form for form, _, _ in readiness.FORMS]
#: Those that hold by themselves, if only the server stays; the others wait for something that it does.
BY_ITSELF = ("started", "alive:DURATION")
BY_SERVER = [form for form in FORMS if form not in (*BY_ITSELF, "exit")]


class Case(NamedTuple):
    """A spec, and how to run a server that meets it."""

    spec: str
    directory: Path

    def server(self, *words: str) -> list[str]:
        """The server."""
        return program("meets_spec", self.spec, *words)

    def command(self, *words: str, options: tuple[str, ...] = ()) -> list[str | bytes | os.PathLike[str]]:
        """What runs it under the command."""
        return ["-r", self.spec, *options, *self.server(*words)]


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the command trusts, for servers on loopback."""
    path = os.fspath(tmp_path / "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path + ".key", "-out", path],
        check=True, capture_output=True,
    )  # fmt: skip
    with open(path + ".key") as key, open(path, "a") as both:
        both.write(key.read())
    monkeypatch.setenv("SSL_CERT_FILE", path)
    monkeypatch.setenv("CERTIFICATE", path)


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    """The spec of a form."""
    if request.param.startswith("https"):
        request.getfixturevalue("certificate")
    return Case(SPECS[request.param](tmp_path), tmp_path)


every = pytest.mark.parametrize("case", FORMS, indirect=True)
by_server = pytest.mark.parametrize("case", BY_SERVER, indirect=True)
#: `started` has held before anything can happen.
but_started = pytest.mark.parametrize("case", [form for form in FORMS if form != "started"], indirect=True)


@contextlib.contextmanager
def waiting(
    case: Case, trigger: Trigger, *words: str, options: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A launch whose server has come so far that only the trigger keeps it from meeting its spec."""
    command = case.command(f"waits={trigger.path}", *words, options=options)
    with cli.popen(*command) as wrapper:
        try:
            assert wrapper.stdout
            assert wrapper.stdout.readline() == b"waiting\n"
            yield wrapper
        finally:
            wrapper.kill()


def test_every_form_is_here() -> None:
    """A probe without this contract is no probe."""
    assert SPECS.keys() == set(FORMS)


@by_server
def test_ready(case: Case, trigger: Trigger, servers: Family) -> None:
    """Not before the server has done it; then at once, with status 0, and the server lives."""
    with waiting(case, trigger) as wrapper:
        assert wrapper.poll() is None
        trigger.release()
        out, err = wrapper.communicate(timeout=20)

    assert (wrapper.returncode, err) == (0, b"")
    assert out in (b"", b"up and running\n")
    assert servers.only()


@pytest.mark.parametrize("case", [*BY_SERVER, "exit"], indirect=True)
def test_never_ready(case: Case, trigger: Trigger, family: Family) -> None:
    """After the timeout the server is stopped; status 124, and one line that says what was waited for."""
    command = case.command(f"waits={trigger.path}", options=("-t", "300ms"))
    done = cli.run(*command)

    assert done.status == 124
    assert done.out == b"waiting\n"
    assert done.err.startswith(b"daemonize: ")
    assert done.err.count(b"\n") == 1
    assert f"waited for: {case.spec}".encode() in done.err
    family.nobody()


@but_started
@pytest.mark.parametrize("status", [1, 7, 255])
def test_dies_before(status: int, case: Case, family: Family) -> None:
    """The server's own words, and its own status."""
    done = cli.run(*case.command("says=boom", f"dies={status}"))

    assert (done.status, done.out) == (status, b"waiting\n")
    assert done.err.startswith(b"boom\n")
    family.nobody()


@by_server
def test_is_killed_before(case: Case, trigger: Trigger, family: Family) -> None:
    """128+N, at once."""
    with waiting(case, trigger) as wrapper:
        server = child_of_intermediate(wrapper.pid)
        procs.send(server.pid, signal.SIGKILL, server.start)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 128 + signal.SIGKILL
    family.nobody()


@but_started
def test_exits_0_and_leaves_nothing(case: Case, family: Family) -> None:
    """1, and a line that names the spec; `streams` has the 0 of the server itself."""
    done = cli.run(*case.command("dies=0"))

    assert done.status == (0 if case.spec == "streams" else 1)
    assert b"nothing is running" in done.err
    family.nobody()


@pytest.mark.parametrize("case", [form for form in BY_SERVER if form != "streams"], indirect=True)
def test_a_daemon_that_was_left_behind(case: Case, trigger: Trigger, servers: Family) -> None:
    """A server that daemonizes itself is waited for, and is the main process."""
    pid_file = os.fspath(case.directory / "pid")
    with waiting(case, trigger, "daemonizes", options=("-p", pid_file)) as wrapper:
        assert wrapper.stdout
        assert wrapper.stdout.readline() == b"daemonized\n"
        daemon = procs.eventually(lambda: child_of_intermediate(wrapper.pid)).pid
        assert wrapper.poll() is None
        trigger.release()
        _, err = wrapper.communicate(timeout=20)

    assert (wrapper.returncode, err) == (0, b"")
    with open(pid_file) as file:
        assert int(file.read()) == daemon == servers.only().pid


def child_of_intermediate(wrapper: int) -> procs.Process:
    """The server; or the daemon that it has left behind, when the server has gone."""
    # Whoever repeats a check leads a session as well, and came later.
    parent, *_ = [process for process in procs.children(wrapper) if process.sid == process.pid]
    left = [process for process in procs.children(parent.pid) if not process.ended]
    assert [procs.children(process.pid) for process in left] == [[]], "the server has not gone yet"
    return left[0]


@by_server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cancelled(number: int, case: Case, trigger: Trigger, family: Family) -> None:
    """An interrupted launch leaves nothing."""
    with waiting(case, trigger) as wrapper:
        wrapper.send_signal(number)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 128 + number
    family.nobody()


@by_server
def test_the_wrapper_is_killed(case: Case, trigger: Trigger, family: Family) -> None:
    """A server that nobody waits for is stopped, and whoever helped to wait has gone as well."""
    with waiting(case, trigger) as wrapper:
        wrapper.kill()
        wrapper.communicate(timeout=20)

    procs.eventually(family.nobody)


@by_server
def test_in_the_foreground(case: Case, trigger: Trigger, family: Family) -> None:
    """The report comes when it is ready, the server goes on, and its end is the wrapper's."""
    with waiting(case, trigger, options=("-f", "-v")) as wrapper:
        trigger.release()
        assert wrapper.stderr
        assert any(b"ready after" in line for line in wrapper.stderr)
        wrapper.send_signal(signal.SIGTERM)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == -signal.SIGTERM
    family.nobody()


@every
def test_through_the_library(case: Case, servers: Family) -> None:
    """`launch()` in this very process: the same, and no descriptor, process or handler is left of it (the guards)."""
    launch: Callable[..., object] = api.launch
    words = ["daemonizes"] if case.spec == "exit" else []
    launch(case.server(*words), ready=case.spec, relay_stdout=None)

    assert servers.only()


@but_started
def test_failures_through_the_library(case: Case, trigger: Trigger, family: Family) -> None:
    """As errors, with the facts."""
    with pytest.raises(Exited) as exited:
        api.launch(case.server("dies=7"), ready=case.spec, relay_stdout=None)
    assert exited.value.exit_status == 7
    if not case.spec.startswith("alive"):
        with pytest.raises(TimedOut) as timed_out:
            api.launch(case.server(f"waits={trigger.path}"), ready=case.spec, timeout=0.2, relay_stdout=None)
        assert timed_out.value.waiting_for == [case.spec]

    family.nobody()


@by_server
def test_together_with_another(case: Case, trigger: Trigger, servers: Family) -> None:
    """All must hold: it alone is not enough, and another alone is not."""
    late = os.fspath(case.directory / "late")
    command = ["-r", f"file:{late}", *case.command(f"waits={trigger.path}")]
    trigger.release()
    with cli.popen(*command) as wrapper:
        assert wrapper.stdout
        assert wrapper.stdout.readline() == b"waiting\n"
        assert not procs.wait_ended(wrapper.pid, 0.2)
        with open(late, "w"):
            pass
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert servers.only()
