"""Units of Type=notify whose ExecStart= is `daemonize -f`: systemd knows of any server what it knows of one that takes part.

    systemd ── daemonize -f (MainPID) ── server

Nearly all of it for the system manager and for a user manager.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import click_server, ports, procs
from tests.support.click_server import Greeting
from tests.support.namespaces import COMMAND, PLACE
from tests.support.programs import SHELL, Trigger
from tests.support.servers import need, prepare_haproxy, prepare_nginx
from tests.support.systemd import PYTHON, inner_pid, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.procs import Process
    from tests.support.systemd import Manager, Systemd, Unit

pytestmark = pytest.mark.systemd

EXAMPLE = f"{PLACE}/venv/bin/python {PLACE}/{os.path.basename(click_server.PATH)}"
RELOAD = "ExecReload=/bin/kill -HUP $MAINPID"
ENDED = "ExecStopPost=/bin/echo ended: $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS"
#: Who ended how, in ExecMainCode (waitid(2)).
EXITED, KILLED = "1", "2"
#: Seconds in which systemd wants to hear of a server.
WATCHDOG = 1.5


class Served(NamedTuple):
    """A server, what daemonize is to wait for, what the unit's status says then, and how it ends on SIGTERM."""

    options: str
    command: str
    ready: str
    stopped: str


def http(port: int) -> Served:
    """One that knows of no manager, has no handler for SIGTERM, and keeps its streams."""
    return Served(
        f"-r port:{port}",
        f"{PYTHON} -u -m http.server {port} --bind {ports.HOST} --directory {PLACE}/programs",
        rf"ready after \d+\.\d{{3}} s: port:{port}\b.*",
        "success killed TERM",
    )


def redis(port: int) -> Served:
    """One that would notify if it were told to, and is not."""
    command = f'{need("redis-server")} --bind {ports.HOST} --port {port} --save "" --dir /tmp'
    return http(port)._replace(command=command, stopped="success exited 0")


def supervised(port: int) -> Served:
    """The same, which is told to; it has words of its own."""
    return redis(port)._replace(
        options="", command=f"{redis(port).command} --supervised systemd", ready="Ready to accept connections"
    )


SERVERS = [
    http,
    pytest.param(redis, marks=pytest.mark.servers),
    pytest.param(supervised, marks=pytest.mark.servers),
]


@pytest.fixture
def port() -> int:
    """Where the server is going to listen."""
    return ports.free_port()


@pytest.fixture(params=SERVERS, ids=lambda make: make.__name__)
def served(request: pytest.FixtureRequest, port: int) -> Served:
    """Each of the three."""
    made: Served = request.param(port)
    return made


@pytest.fixture
def held(manager: Manager) -> Iterator[Trigger]:
    """A trigger that what runs in a unit can wait for: at HELD."""
    with Trigger(manager.inside.directory) as trigger:
        yield trigger


HELD = f"{PLACE}/trigger"


def after_trigger(command: str) -> str:
    """A command line that waits at HELD before it becomes that command."""
    return f"""{SHELL} -c 'head -c1 {HELD} >/dev/null; exec "$$0" "$$@"' {command}"""


def add(manager: Manager, command: str, *lines: str, options: str = "") -> Unit:
    """A unit that runs `daemonize -f OPTIONS COMMAND`; `lines` go to [Service]."""
    unit = manager.add("\n".join(["Type=notify", f"ExecStart={COMMAND} -f {options} {command}", *lines]))
    assert unit.show("Type", "NotifyAccess") == ["notify", "main"]
    return unit


def serving(unit: Unit) -> Process:
    """The server of an active unit, a child of the main process, which is the wrapper; there is nobody else.

    But for those that ask for the watchdog: forks of the wrapper, which come and go.
    """
    main = unit.main()
    assert main, (unit.show("ActiveState", "MainPID"), unit.journal())
    assert unit.show("ActiveState", "SubState") == ["active", "running"]
    wrapper = procs.command_line(main.pid)
    assert COMMAND in wrapper
    assert main.ppid == unit.manager.pid
    # A fork that is on its way out has no command line any more.
    lines = {p: procs.command_line(p.pid) for p in unit.processes() if p.pid != main.pid}
    (server,) = [p for p, line in lines.items() if line != wrapper and not line.startswith(("[", "(gone)"))]
    assert server.ppid == main.pid
    assert unit.complaints() == []
    return server


# --- a server that is ready ------------------------------------------------------------------------------------------


def test_start_returns_when_it_serves(manager: Manager, held: Trigger, served: Served, port: int) -> None:
    """While it loads, `start` waits, and the status says for what; when `start` returns, the first client is served."""
    unit = add(manager, after_trigger(served.command), options=served.options)
    with unit.popen("start") as start:
        waited_for = served.options.removeprefix("-r ") or "notify"
        unit.wait_for(StatusText=f"waiting for {waited_for}")
        state, status = unit.show("ActiveState"), start.poll()
        held.release()
        said = start.communicate(timeout=30)
    assert start.returncode == 0, unit.journal()
    ports.connected(port).close()
    serving(unit)

    assert (state, status) == (["activating"], None)
    assert (start.returncode, said) == (0, ("", ""))
    assert re.fullmatch(served.ready, unit.show("StatusText")[0])
    assert re.search(f'^ *Status: "{served.ready}"$', manager.ctl("status", unit.name).stdout, re.MULTILINE)


def test_control_one_that_does_not_listen(manager: Manager, port: int) -> None:
    """Negative control: to run is not enough; the time runs out, and nothing is left."""
    unit = add(manager, "sleep 100", "TimeoutStartSec=1", options=f"-r port:{port}")

    assert unit.ctl("start") == 1
    assert unit.show("ActiveState", "Result") == ["failed", "timeout"]
    assert unit.processes() == []


def test_what_it_says_itself_is_not_enough(manager: Manager, held: Trigger) -> None:
    """READY=1 of the server before it is ready by what --ready says: its words are shown, and `start` waits on."""
    steps = ("send=READY=1\\nSTATUS=early", f"waits={HELD}", "say=serving")
    unit = add(manager, program("notifies", *steps), options="-r log:serving")
    with unit.popen("start") as start:
        unit.wait_for(StatusText="early")
        state, status = unit.show("ActiveState"), start.poll()
        held.release()
        start.communicate(timeout=30)

    assert (state, status) == (["activating"], None)
    assert start.returncode == 0
    assert serving(unit)
    assert unit.show("StatusText") == ["early"]


def test_its_words_are_in_the_journal(manager: Manager, port: int) -> None:
    """Those before it is ready, and those after."""
    unit = add(manager, http(port).command, options=http(port).options)
    unit.start()
    ports.get(port, "/later")
    served = r"Serving HTTP on 127\.0\.0\.1 port \d+ .*"

    def said() -> None:
        lines = unit.journal()
        assert [line for line in lines if re.fullmatch(served, line)]
        assert [line for line in lines if '"GET /later HTTP/1.0" 404' in line]

    procs.eventually(said, 20)
    assert serving(unit)


def test_the_server_answers_to_us_alone(manager: Manager) -> None:
    """Its socket is none of systemd's, and whom it names as main process is not believed by systemd."""
    unit = add(manager, program("notifies", "fork", "main=READY=1\\nMAINPID=CHILD", "waits=/dev/null"))
    unit.start()
    main = unit.main()
    assert main, unit.journal()
    (server,) = procs.children(main.pid)

    assert COMMAND in procs.command_line(main.pid)
    assert procs.environment(server.pid)["NOTIFY_SOCKET"].startswith("@daemonize/")
    assert "/systemd/notify" in procs.environment(main.pid)["NOTIFY_SOCKET"]
    assert unit.complaints() == []


# --- stop, restart ---------------------------------------------------------------------------------------------------


STOPS = [
    (http, "control-group"),
    (http, "mixed"),
    pytest.param(redis, "mixed", marks=pytest.mark.servers),
    pytest.param(supervised, "control-group", marks=pytest.mark.servers),
]


@pytest.mark.parametrize(("make", "mode"), STOPS)
def test_stop(manager: Manager, make: Callable[[int], Served], port: int, mode: str) -> None:
    """After `stop` the unit is inactive, also of a server that SIGTERM kills: systemd knows that as a clean end."""
    served = make(port)
    unit = add(manager, served.command, ENDED, f"KillMode={mode}", options=served.options)
    unit.start()
    server = serving(unit)
    assert unit.ctl("stop") == 0

    assert not procs.alive(server.pid)
    assert unit.show("ActiveState", "Result", "MainPID") == ["inactive", "success", "0"]
    assert f"ended: {served.stopped}" in unit.journal()
    assert not ports.accepts(port)
    assert unit.complaints() == []


#: Says how many SIGTERMs have come, when none has for a while after the first.
COUNTS = """
import os, select, signal
got, told = os.pipe()
os.set_blocking(told, False)
signal.set_wakeup_fd(told)
signal.signal(signal.SIGTERM, lambda *_: None)
os.write(1, b"counting\\n")
count = len(os.read(got, 100))
while select.select([got], [], [], 0.2)[0]:
    count += len(os.read(got, 100))
os.write(1, b"SIGTERM: %d\\n" % count)
"""


def test_stop_signals_it_once(system_manager: Manager) -> None:
    """With KillMode=mixed. By default systemd tells all processes: the server, and the wrapper that passes it on."""
    with open(f"{system_manager.inside.directory}/counts.py", "w") as file:
        file.write(COUNTS)
    unit = add(system_manager, f"{PYTHON} {PLACE}/counts.py", "KillMode=mixed", options="-r log:counting")
    for _ in range(2):
        unit.start()
        assert unit.ctl("stop") == 0

    assert [line for line in unit.journal() if line.startswith("SIGTERM")] == ["SIGTERM: 1"] * 2


def test_restart(manager: Manager, port: int) -> None:
    """After `restart` another process serves on the same port, and the first is gone."""
    unit = add(manager, http(port).command, options=http(port).options)
    unit.start()
    first = serving(unit)
    assert unit.ctl("restart") == 0

    assert serving(unit).pid != first.pid
    assert not procs.alive(first.pid)


def test_one_that_says_that_it_stops(manager: Manager, held: Trigger) -> None:
    """STOPPING=1 is passed on: the unit is deactivating before anybody has stopped it."""
    waits = f"waits={HELD}"
    unit = add(
        manager, program("notifies", "send=READY=1", waits, "send=STOPPING=1\\nSTATUS=bye", waits, "exit=0")
    )
    unit.start()
    serving(unit)
    held.release()
    unit.wait_for(ActiveState="deactivating", StatusText="bye")
    held.release()
    unit.wait_for(ActiveState="inactive", Result="success")


# --- a server that fails ---------------------------------------------------------------------------------------------

ENDINGS = {
    "exits": (program("crashes_early", 7), "exit-code", EXITED, "7"),
    "dies": (
        program("dies_by_signal", int(signal.SIGSEGV), "boom"),
        "signal",
        KILLED,
        str(int(signal.SIGSEGV)),
    ),
    "is killed": (program("dies_by_signal", int(signal.SIGKILL), "boom"), "signal", KILLED, "9"),
}


@pytest.mark.parametrize(("ending", "options"), [*zip(ENDINGS, ["", "-r port", ""], strict=True)])
def test_one_that_fails(manager: Manager, ending: str, options: str) -> None:
    """`start` fails; the words and the end of the server are on record as if systemd had started it, and nothing is left."""
    command, result, code, status = ENDINGS[ending]
    unit = add(manager, command, options=options)

    assert unit.ctl("start") == 1
    assert unit.show("ActiveState", "Result", "ExecMainCode", "ExecMainStatus") == [
        "failed", result, code, status
    ]  # fmt: skip
    assert "boom" in unit.journal()
    assert unit.processes() == []
    assert unit.complaints() == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_that_fails_later(manager: Manager, held: Trigger, ending: str) -> None:
    """The same of a server that has been ready."""
    command, result, code, status = ENDINGS[ending]
    unit = add(manager, f"{command} until={HELD}", options="-r alive:50ms")
    unit.start()
    serving(unit)
    held.release()
    unit.wait_for(ActiveState="failed", Result=result, ExecMainCode=code, ExecMainStatus=status)

    assert "boom" in unit.journal()
    assert unit.processes() == []


def test_one_that_dies_later_is_restarted(manager: Manager, port: int) -> None:
    """Restart=on-failure: another is active when it serves."""
    unit = add(manager, http(port).command, "Restart=on-failure", "RestartSec=0", options=http(port).options)
    unit.start()
    first = serving(unit)
    assert procs.send(first.pid, signal.SIGKILL, first.start)
    unit.wait_for(NRestarts="1", SubState="running")

    assert serving(unit).pid != first.pid


def test_one_that_has_put_itself_in_the_background(manager: Manager) -> None:
    """The wrapper has adopted it: its end is seen as any other's."""
    unit = add(manager, program("self_daemonizes"), options="-r exit -r streams")
    unit.start()
    daemon = serving(unit)
    assert procs.send(daemon.pid, signal.SIGKILL, daemon.start)
    unit.wait_for(ActiveState="failed", Result="signal", ExecMainCode=KILLED, ExecMainStatus="9")


def test_the_wrapper_is_killed(manager: Manager, port: int) -> None:
    """It takes the server along, so that another can have its port."""
    unit = add(manager, http(port).command, "Restart=on-failure", "RestartSec=0", options=http(port).options)
    unit.start()
    first, main = serving(unit), unit.main()
    assert main
    assert procs.send(main.pid, signal.SIGKILL, main.start)
    unit.wait_for(NRestarts="1", SubState="running")

    assert serving(unit).pid != first.pid
    assert not procs.alive(first.pid)


def test_one_that_asks_for_more_time(manager: Manager, held: Trigger) -> None:
    """EXTEND_TIMEOUT_USEC is passed on (the control is `test_control_one_that_does_not_listen`)."""
    steps = ("send=EXTEND_TIMEOUT_USEC=20000000", f"waits={HELD}", "send=READY=1")
    unit = add(manager, program("notifies", *steps), "TimeoutStartSec=1")
    with unit.popen("start") as start:

        def overdue() -> None:
            (began,) = map(int, unit.show("InactiveExitTimestampMonotonic"))
            assert began
            assert time.monotonic() - began / 1e6 > 1.5

        procs.eventually(overdue)
        state = unit.show("ActiveState")
        held.release()
        start.communicate(timeout=30)

    assert state == ["activating"]
    assert start.returncode == 0
    assert serving(unit)


# --- a server that reads its configuration again ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def _example(booted: Systemd) -> None:
    """The example is where units find it."""
    shutil.copy(click_server.PATH, booted.inside.directory)


@pytest.fixture
def greeting(manager: Manager) -> Iterator[Greeting]:
    """A greeting that the example waits for."""
    made = Greeting(manager.inside.directory)
    yield made
    os.unlink(made.path)


@pytest.mark.usefixtures("_example")
@pytest.mark.parametrize("ready", ["", "-r port:{port}"], ids=["notify", "port"])
def test_reload(manager: Manager, port: int, greeting: Greeting, ready: str) -> None:
    """The signal reaches it; from RELOADING=1 to READY=1 the unit is reloading, and says what it does."""
    command = f"{EXAMPLE} --port {port} --greeting {PLACE}/greeting"
    unit = add(manager, command, RELOAD, options=ready.format(port=port))
    with unit.popen("start") as start:
        with greeting.asked() as answer:
            unit.wait_for(ActiveState="activating", StatusText=f"reading {PLACE}/greeting")
            answer("good day")
        start.communicate(timeout=30)
    first = serving(unit)
    with unit.popen("reload"), greeting.asked() as answer:
        unit.wait_for(ActiveState="reloading", StatusText=f"reading {PLACE}/greeting")
        answer("good night")
    unit.wait_for(ActiveState="active", SubState="running", StatusText="serving")

    assert start.returncode == 0
    assert click_server.ask(port) == ("good night", inner_pid(first.pid))
    assert serving(unit).pid == first.pid


@pytest.fixture
def place(manager: Manager) -> Iterator[str]:
    """A directory that everybody may write to; in there it is OWN."""
    path = f"{manager.inside.directory}/own"
    os.mkdir(path)
    os.chmod(path, 0o777)
    yield path
    manager.clear()
    shutil.rmtree(path)


OWN = f"{PLACE}/own"


def haproxy(directory: str, port: int) -> tuple[str, str, bytes]:
    """It executes itself again, and names itself as the main process: that stays the wrapper."""
    return f"{inside(prepare_haproxy(directory, '', port), directory)} -Ws", "USR2", b"haproxy is here"


def nginx(directory: str, port: int) -> tuple[str, str, bytes]:
    """It puts itself in the background, which the wrapper is for systemd no more than the foreground."""
    command = inside(prepare_nginx(directory, "", port), directory)
    return command, "HUP", b"nginx is here"


def inside(command: list[str], directory: str) -> str:
    """A command line with a configuration below `directory`, as a unit has it."""
    path = command[-1]
    with open(path) as file:
        text = file.read().replace(directory, OWN)
    with open(path, "w") as file:
        file.write(text)
    return " ".join(command).replace(directory, OWN)


@pytest.mark.servers
@pytest.mark.parametrize("make", [haproxy, nginx])
def test_a_reload_that_changes_workers(
    manager: Manager, place: str, port: int, make: Callable[[str, int], tuple[str, str, bytes]]
) -> None:
    """Another worker serves; the main process is the wrapper all the time."""
    command, number, answer = make(place, port)
    unit = add(manager, command, f"ExecReload=/bin/kill -{number} $MAINPID", options=f"-r port:{port}")
    unit.start()
    main = unit.main()
    assert main
    (master,) = procs.children(main.pid)
    (first,) = procs.children(master.pid)
    assert unit.ctl("reload") == 0

    def reloaded() -> None:
        workers = [process.pid for process in procs.children(master.pid)]
        assert len(workers) == 1
        assert workers != [first.pid]
        assert unit.show("ActiveState", "SubState") == ["active", "running"]

    procs.eventually(reloaded, 20)
    after = unit.main()
    assert after
    assert after.pid == main.pid
    assert answer in ports.get(port)
    assert unit.complaints() == []


# --- signs of life ---------------------------------------------------------------------------------------------------


def watched(manager: Manager, command: str, *lines: str, options: str = "") -> Unit:
    """A unit of a server that is killed if nobody hears of it, and started again."""
    lines = (f"WatchdogSec={WATCHDOG}", "Restart=on-watchdog", "RestartSec=0", *lines)
    return add(manager, command, *lines, options=options)


def asked(port: int) -> str:
    """Options by which daemonize asks an HTTP server whether it lives."""
    return f"-r port:{port} --watchdog http://{ports.HOST}:{port}/"


def outlives(unit: Unit) -> None:
    """Wait until it has been heard of when without that it would have been killed."""

    def heard_of_later() -> None:
        heard, active = map(int, unit.show("WatchdogTimestampMonotonic", "ActiveEnterTimestampMonotonic"))
        assert heard - active > 1.2 * WATCHDOG * 1e6

    procs.eventually(heard_of_later, 20)


def killed(unit: Unit) -> None:
    """Wait until it has been killed for its silence, and serves again."""
    unit.wait_for(NRestarts="1", SubState="running")
    assert [line for line in unit.journal() if "Watchdog timeout" in line]


def test_a_server_that_answers(manager: Manager, port: int) -> None:
    """It is left alone; the same one, stopped, is killed, and another serves."""
    unit = watched(manager, http(port).command, options=asked(port))
    unit.start()
    server = serving(unit)
    outlives(unit)
    assert serving(unit).pid == server.pid
    assert unit.show("NRestarts") == ["0"]

    assert procs.send(server.pid, signal.SIGSTOP, server.start)
    killed(unit)
    assert serving(unit).pid != server.pid
    assert not procs.alive(server.pid)


def test_a_server_that_hangs(system_manager: Manager, port: int) -> None:
    """It listens, and accepts, and does not answer any more; it dies of SIGABRT, and the journal says why."""
    command = program("answers", port, "statuses=200,hang")
    unit = watched(system_manager, command, ENDED, options=asked(port))
    unit.start()
    server = serving(unit)
    killed(unit)

    assert serving(unit).pid != server.pid
    assert "ended: watchdog killed ABRT" in unit.journal()


@pytest.mark.usefixtures("_example")
def test_a_server_that_feeds_itself(user_manager: Manager, port: int) -> None:
    """Its signs of life are passed on; the same one, stopped, gives none."""
    unit = watched(user_manager, f"{EXAMPLE} --port {port}")
    unit.start()
    server = serving(unit)
    outlives(unit)
    assert serving(unit).pid == server.pid

    assert procs.send(server.pid, signal.SIGSTOP, server.start)
    killed(unit)
    assert serving(unit).pid != server.pid


def test_control_a_server_that_nobody_feeds_for(system_manager: Manager, port: int) -> None:
    """Negative control: an answer alone is no sign of life if nobody asks."""
    unit = watched(system_manager, http(port).command, options=http(port).options)
    unit.start()
    server = serving(unit)
    killed(unit)

    assert serving(unit).pid != server.pid
