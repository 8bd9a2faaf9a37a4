"""The example server, unchanged, as a unit of a real systemd: Type=notify, and with --daemonize Type=forking.

All of it for the system manager and for a user manager; Type=forking with PIDFile=, and where systemd has to guess the
main process.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import click_server, ports, procs
from tests.support.click_server import Greeting
from tests.support.namespaces import PLACE
from tests.support.systemd import PID_FILE, inner_pid, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.procs import Process
    from tests.support.systemd import Manager, Systemd, Unit

pytestmark = pytest.mark.systemd

SERVER = f"{PLACE}/venv/bin/python {PLACE}/{os.path.basename(click_server.PATH)}"
RELOAD = "ExecReload=/bin/kill -HUP $MAINPID"
#: How the server is run: by the type of its unit, with and without PIDFile=.
NOTIFY, GUESS, PIDFILE = "notify", "forking", "forking with PIDFile="
#: Seconds in which systemd wants to hear of a server.
WATCHDOG = 1


@pytest.fixture(scope="module", autouse=True)
def _example(booted: Systemd) -> None:
    """The example is where units find it."""
    shutil.copy(click_server.PATH, booted.inside.directory)


@pytest.fixture(params=[NOTIFY, GUESS, PIDFILE])
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the three."""
    return str(request.param)


@pytest.fixture
def port() -> int:
    """Where the server is going to listen."""
    return ports.free_port()


@pytest.fixture
def greeting(manager: Manager) -> Iterator[Greeting]:
    """A greeting that the server waits for: its option is HELD."""
    held = Greeting(manager.inside.directory)
    yield held
    os.unlink(held.path)


HELD = f"--greeting {PLACE}/greeting"


def add(manager: Manager, kind: str, port: int, *lines: str, options: str = "") -> Unit:
    """A unit of the server, of one of the three kinds; `lines` go to [Service]."""
    command = f"ExecStart={SERVER} --port {port} {options}"
    how = {
        NOTIFY: ["Type=notify", command],
        GUESS: ["Type=forking", f"{command} --daemonize --pid-file {PID_FILE}"],
        PIDFILE: ["Type=forking", f"{command} --daemonize --pid-file {PID_FILE}", f"PIDFile={PID_FILE}"],
    }[kind]
    unit = manager.add("\n".join([*how, *lines]))
    assert unit.show("Type") == [
        kind.split(maxsplit=1)[0]
    ]  # of a type that it does not know, systemd makes a simple one
    return unit


def serving(unit: Unit, port: int) -> Process:
    """The main process of an active unit: it answers at the first attempt; it is the manager's own child, and alone."""
    answered = click_server.ask(port)
    main = unit.main()
    assert main, (unit.show("ActiveState", "MainPID"), unit.journal())
    assert unit.show("ActiveState", "SubState") == ["active", "running"]
    assert answered.pid == inner_pid(main.pid)
    assert main.ppid == unit.manager.pid
    assert unit.processes() == [main]
    assert unit.complaints() == []
    return main


# --- a server that is ready ------------------------------------------------------------------------------------------


def test_start_returns_when_it_serves(manager: Manager, kind: str, port: int, greeting: Greeting) -> None:
    """While it loads, `start` waits and the unit is activating; when `start` returns, the port answers."""
    unit = add(manager, kind, port, options=HELD)
    with unit.popen("start") as start:
        with greeting.asked() as answer:
            state, status = unit.show("ActiveState"), start.poll()
            answer("good day")
        said = start.communicate(timeout=30)
    serving(unit, port)

    assert (state, status) == (["activating"], None)
    assert (start.returncode, said) == (0, ("", ""))
    assert click_server.ask(port).greeting == "good day"
    assert f"listening on 127.0.0.1:{port}" in unit.journal()


def test_systemctl_shows_its_status(manager: Manager, port: int, greeting: Greeting) -> None:
    """`systemctl status` has what it is doing, while it starts and while it serves."""
    unit = add(manager, NOTIFY, port, options=HELD)
    with unit.popen("start") as start:
        with greeting.asked() as answer:
            loading = procs.eventually(lambda: shown_status(unit))
            answer("good day")
        start.communicate(timeout=30)

    assert loading == f'Status: "reading {PLACE}/greeting"'
    assert shown_status(unit) == 'Status: "serving"'


def shown_status(unit: Unit) -> str:
    """The line with the server's own words in `systemctl status`; an AssertionError if there is none."""
    lines = [line.strip() for line in unit.manager.ctl("status", unit.name).stdout.splitlines()]
    found = [line for line in lines if line.startswith("Status: ")]
    assert found, lines
    return found[0]


def test_the_pid_file(manager: Manager, port: int) -> None:
    """It holds the pid of the main process; after `stop` it is gone."""
    unit = add(manager, PIDFILE, port)
    unit.start()
    with open(unit.pid_file) as file:
        written = file.read()
    serving(unit, port)
    server = click_server.ask(port)
    assert unit.ctl("stop") == 0

    assert written == f"{server.pid}\n"
    assert not os.path.exists(unit.pid_file)


def test_stop(manager: Manager, kind: str, port: int) -> None:
    """After `stop` the server is gone, by its own exit with 0; nobody listens any more."""
    unit = add(manager, kind, port, "ExecStopPost=/bin/echo $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS")
    unit.start()
    main = serving(unit, port)
    assert unit.ctl("stop") == 0

    assert procs.stat(main.pid) != main
    assert unit.show("ActiveState", "Result", "MainPID") == ["inactive", "success", "0"]
    assert "success exited 0" in unit.journal()
    assert not ports.accepts(port)
    assert unit.complaints() == []


def test_restart(manager: Manager, kind: str, port: int) -> None:
    """After `restart` another process serves on the same port, and the first is gone."""
    unit = add(manager, kind, port)
    unit.start()
    first = serving(unit, port)
    assert unit.ctl("restart") == 0

    assert serving(unit, port) != first
    assert procs.stat(first.pid) != first


def test_reload(manager: Manager, kind: str, port: int, greeting: Greeting) -> None:
    """ExecReload= makes it read its greeting again; the process is the same."""
    unit = add(manager, kind, port, RELOAD, options=HELD)
    with unit.popen("start") as start, greeting.asked() as answer:
        answer("good day")
    first = serving(unit, port)
    with unit.popen("reload") as reload, greeting.asked() as answer:
        answer("good night")
    unit.wait_for(SubState="running")

    assert (start.returncode, reload.returncode) == (0, 0)
    assert serving(unit, port) == first
    assert click_server.ask(port).greeting == "good night"


def test_systemd_knows_that_it_reloads(manager: Manager, port: int, greeting: Greeting) -> None:
    """From reloading() to the next ready() the unit is reloading, and `systemctl status` says what it does."""
    unit = add(manager, NOTIFY, port, RELOAD, options=HELD)
    with unit.popen("start") as start, greeting.asked() as answer:
        answer("good day")
    assert start.returncode == 0
    with unit.popen("reload"), greeting.asked() as answer:
        unit.wait_for(ActiveState="reloading", StatusText=f"reading {PLACE}/greeting")
        answer("good night")
    unit.wait_for(ActiveState="active", SubState="running", StatusText="serving")


def test_its_later_words_are_in_the_journal(manager: Manager, port: int) -> None:
    """Type=notify: nothing is re-pointed, so what it says once it is ready is in the journal as well."""
    file = f"{manager.inside.directory}/later"
    with open(file, "w") as text:
        text.write("good day\n")
    unit = add(manager, NOTIFY, port, RELOAD, options=f"--greeting {PLACE}/later")
    unit.start()
    os.unlink(file)
    assert unit.ctl("reload") == 0

    def complained() -> None:
        assert f"Error: {PLACE}/later: No such file or directory" in unit.journal()

    procs.eventually(complained)
    assert click_server.ask(port).greeting == "good day"


# --- a server that fails ---------------------------------------------------------------------------------------------


def test_one_that_fails(manager: Manager, kind: str) -> None:
    """`start` fails; its own words are in the journal, its own status is on record, and nothing is left."""
    with ports.taken() as port:
        unit = add(manager, kind, port)
        status = unit.ctl("start")
    state = unit.show("ActiveState", "Result", "MainPID", "ExecStart")

    assert status == 1
    assert state[:3] == ["failed", "exit-code", "0"]
    assert state[3].endswith("code=exited ; status=1 }")
    assert [line for line in unit.journal() if "rror" in line] == [
        f"Error: port {port}: Address already in use"
    ]
    assert unit.processes() == []
    assert unit.complaints() == []
    assert not os.path.exists(unit.pid_file)


def test_one_that_is_not_ready_in_time(manager: Manager, kind: str, port: int, greeting: Greeting) -> None:
    """Nobody answers it: TimeoutStartSec= ends it while it loads, and nothing is left."""
    unit = add(manager, kind, port, "TimeoutStartSec=1", options=HELD)

    assert unit.ctl("start") == 1
    assert unit.show("ActiveState", "Result") == ["failed", "timeout"]
    assert unit.processes() == []


def test_one_that_dies_later_is_restarted(manager: Manager, kind: str, port: int) -> None:
    """Systemd notices at once, for it is its own child; another is active again when it serves."""
    unit = add(manager, kind, port, "Restart=on-failure", "RestartSec=0")
    unit.start()
    first = serving(unit, port)
    assert procs.send(first.pid, signal.SIGKILL, first.start)
    unit.wait_for(NRestarts="1", SubState="running")

    assert serving(unit, port) != first


# --- signs of life ---------------------------------------------------------------------------------------------------


def watched(manager: Manager, port: int) -> Unit:
    """A unit of the server that is killed if nobody hears of it; started."""
    unit = add(manager, NOTIFY, port, f"WatchdogSec={WATCHDOG}", "WatchdogSignal=SIGKILL")
    unit.start()
    return unit


def test_it_gives_signs_of_life(manager: Manager, port: int) -> None:
    """With WatchdogSec= it outlives that time, because it is heard of again and again."""
    unit = watched(manager, port)
    main = serving(unit, port)

    def heard_of_later() -> None:
        heard, active = map(int, unit.show("WatchdogTimestampMonotonic", "ActiveEnterTimestampMonotonic"))
        assert heard - active > 1.5 * WATCHDOG * 1e6

    procs.eventually(heard_of_later, 20)
    assert serving(unit, port) == main


def test_control_one_that_hangs(manager: Manager, port: int) -> None:
    """Negative control: the same server, stopped, gives none, and that is its end."""
    unit = watched(manager, port)
    main = serving(unit, port)
    assert procs.send(main.pid, signal.SIGSTOP, main.start)
    unit.wait_for(ActiveState="failed")

    assert unit.show("Result") == ["watchdog"]
    assert procs.stat(main.pid) != main


# --- negative controls -----------------------------------------------------------------------------------------------


def test_control_one_that_never_notifies(manager: Manager, port: int) -> None:
    """Negative control: to listen is not enough for Type=notify; the time runs out."""
    unit = manager.add(
        f"Type=notify\nTimeoutStartSec=3\nExecStart={program('tcp_echo', port, 'holds')}",
    )
    with unit.popen("start") as start:
        ports.wait_listening(port)
        state, status = unit.show("ActiveState"), start.poll()
        start.communicate(timeout=30)

    assert (state, status) == (["activating"], None)
    assert start.returncode == 1
    assert unit.show("Result") == ["timeout"]


def test_control_without_the_option(manager: Manager, port: int) -> None:
    """Negative control: for Type=forking the same server without --daemonize never starts."""
    unit = manager.add(f"Type=forking\nTimeoutStartSec=3\nExecStart={SERVER} --port {port}")
    with unit.popen("start") as start:
        ports.wait_listening(port)
        state = unit.show("ActiveState")
        start.communicate(timeout=30)

    assert state == ["activating"]
    assert start.returncode == 1
    assert unit.show("Result") == ["timeout"]


def test_control_both_at_once(manager: Manager, port: int) -> None:
    """Negative control: for Type=notify the same server with --daemonize has left when it is ready: nobody told systemd."""
    unit = manager.add(f"Type=notify\nExecStart={SERVER} --port {port} --daemonize")

    assert unit.ctl("start") == 1
    assert unit.show("Result") == ["protocol"]
    assert unit.processes() == []
