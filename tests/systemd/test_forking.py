"""`Type=forking` units whose ExecStart= is `daemonize`: what systemd promises about them comes true.

All of it for the system manager and for a user manager; with PIDFile=, and where systemd has to guess the main process.
"""

from __future__ import annotations

import os
import shlex
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import ports, procs
from tests.support.namespaces import COMMAND, PLACE
from tests.support.programs import SHELL, Trigger
from tests.support.servers import prepare_nginx
from tests.support.systemd import PID_FILE, PYTHON, UID, USER, inner_pid, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.procs import Process
    from tests.support.systemd import Manager, Unit

pytestmark = pytest.mark.systemd

FORKING = "Type=forking"
NEVER_READY = f"{PYTHON} -c 'import time; time.sleep(100)'"


def forking(manager: Manager, command: str, *lines: str, options: str = "", pid_file: bool = False) -> Unit:
    """A unit that starts a server with `daemonize OPTIONS COMMAND`; `lines` go to [Service]."""
    if pid_file:
        options += f" --pid-file {PID_FILE}"
        lines = (*lines, f"PIDFile={PID_FILE}")
    return manager.add("\n".join([FORKING, f"ExecStart={COMMAND} {options} {command}", *lines]))


def serving(unit: Unit, name: str) -> Process:
    """The main process of an active unit: tests/programs/NAME, the manager's own child, and alone."""
    main = unit.main()
    assert main, (unit.show("ActiveState", "MainPID"), unit.journal())
    assert unit.show("ActiveState", "SubState") == ["active", "running"]
    assert f"{PLACE}/programs/{name}.py" in procs.command_line(main.pid)
    assert COMMAND not in procs.command_line(main.pid)
    assert main.ppid == unit.manager.pid
    assert unit.processes() == [main]
    assert unit.complaints() == []
    return main


@pytest.fixture(params=[False, True], ids=["guess", "pidfile"])
def pid_file(request: pytest.FixtureRequest) -> bool:
    """Without PIDFile=, and with it."""
    return bool(request.param)


@pytest.fixture
def held(manager: Manager) -> Iterator[Trigger]:
    """A trigger that programs in units can wait for: `until=` and HELD."""
    with Trigger(manager.inside.directory) as trigger:
        yield trigger


HELD = f"{PLACE}/trigger"


# --- a server that is ready ------------------------------------------------------------------------------------------


def test_the_main_process_is_the_server(manager: Manager, pid_file: bool) -> None:
    """After `start` it is the server, a child of the manager, the only process of the unit; nothing is complained of."""
    unit = forking(manager, program("repoints", "listening", "now"), pid_file=pid_file)
    unit.start()

    main = serving(unit, "repoints")
    assert "listening now" in unit.journal()
    if pid_file:
        with open(unit.pid_file) as file:
            assert file.read() == f"{inner_pid(main.pid)}\n"


def test_stop_ends_it(manager: Manager, pid_file: bool) -> None:
    """After `stop` the server is gone, the unit is inactive with success, and there is no pid file."""
    unit = forking(manager, program("repoints"), pid_file=pid_file)
    unit.start()
    main = serving(unit, "repoints")
    assert unit.ctl("stop") == 0

    assert procs.stat(main.pid) != main
    assert unit.show("ActiveState", "Result", "MainPID") == ["inactive", "success", "0"]
    assert not os.path.exists(unit.pid_file)
    assert unit.complaints() == []


def test_restart_starts_another(manager: Manager, pid_file: bool) -> None:
    """After `restart` another process serves, and the first is gone."""
    unit = forking(manager, program("repoints"), pid_file=pid_file)
    unit.start()
    first = serving(unit, "repoints")
    assert unit.ctl("restart") == 0

    second = serving(unit, "repoints")
    assert second != first
    assert procs.stat(first.pid) != first


def test_reload_reaches_it(manager: Manager, pid_file: bool) -> None:
    """ExecReload=kill -HUP $MAINPID signals the server, which goes on."""
    server = os.path.join(manager.inside.directory, "reloads.sh")
    with open(server, "w") as file:
        file.write(
            f"trap 'echo reloaded >{HELD}' HUP\nexec >/dev/null 2>&1\nwhile :; do sleep 100 & wait; done\n"
        )
    with Trigger(manager.inside.directory) as told:
        os.chmod(told.path, 0o666)
        reload = f"ExecReload={SHELL} -c 'kill -HUP $MAINPID'"
        unit = forking(manager, f"{SHELL} {PLACE}/reloads.sh", reload, pid_file=pid_file)
        unit.start()
        before = unit.main()
        with open(told.path) as fifo:
            assert unit.ctl("reload") == 0
            assert fifo.readline() == "reloaded\n"

        assert before
        assert unit.main() == before
        assert unit.show("ActiveState") == ["active"]


def test_start_returns_when_it_is_ready(manager: Manager, held: Trigger, pid_file: bool) -> None:
    """While the server runs but is not ready, `start` waits and the unit is activating; not a moment is guessed."""
    unit = forking(manager, program("repoints", f"until={HELD}"), pid_file=pid_file)
    with unit.popen("start") as start:

        def running() -> Process:
            found = [p for p in unit.processes() if _waits_at_trigger(p.pid)]
            assert found
            return found[0]

        server = procs.eventually(running)
        state, status = unit.show("ActiveState"), start.poll()
        held.release()
        _, said = start.communicate(timeout=30)

    assert (state, status) == (["activating"], None)
    assert (start.returncode, said) == (0, "")
    assert serving(unit, "repoints").pid == server.pid


def _waits_at_trigger(pid: int) -> bool:
    """The program has executed, and it is in open(2) or read(2) of its trigger, or about to be."""
    return procs.command_line(pid).endswith(f"until={HELD}") and COMMAND not in procs.command_line(pid)


def test_its_words_are_in_the_journal_line_by_line(manager: Manager) -> None:
    """What the server says on either stream until it is ready becomes entries of the unit, one for each line."""
    script = f"{manager.inside.directory}/speaks.sh"
    with open(script, "w") as file:
        file.write(
            "echo one\necho two >&2\nprintf 'th'\nprintf 'ree\\n'\necho four >&2\nexec >/dev/null 2>&1 sleep 100\n"
        )
    unit = forking(manager, f"{SHELL} {PLACE}/speaks.sh")
    unit.start()

    said = [line for line in unit.journal() if line in {"one", "two", "three", "four", "th", "ree"}]
    assert sorted(said) == ["four", "one", "three", "two"]
    assert said.index("one") < said.index("three")
    assert said.index("two") < said.index("four")


def test_one_that_never_lets_go_of_its_streams(manager: Manager, pid_file: bool) -> None:
    """With `-r alive:200ms` it is started all the same, and what it has said by then is in the journal."""
    unit = forking(manager, program("tcp_echo", "holds"), options="-r alive:200ms", pid_file=pid_file)
    unit.start()

    serving(unit, "tcp_echo")
    assert any(line.startswith("listening on port ") for line in unit.journal())


# --- servers that daemonize themselves --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("last",)], ids=["first", "last"])
def test_one_that_daemonizes_itself(manager: Manager, words: tuple[str, ...], pid_file: bool) -> None:
    """The main process is the daemon, whether its first parent leaves at once or when the daemon is ready."""
    unit = forking(manager, program("self_daemonizes", *words), pid_file=pid_file)
    unit.start()

    main = serving(unit, "self_daemonizes")
    assert f"daemon {inner_pid(main.pid)}" in unit.journal()


def test_one_that_daemonizes_itself_and_keeps_its_streams(manager: Manager) -> None:
    """A drain is in the unit then, a second child of the manager; PIDFile= says which is the main process.

    (Without PIDFile= systemd guesses none. See systemd.service(5), GuessMainPID=.)
    """
    unit = forking(manager, program("self_daemonizes", "holds"), pid_file=True)
    unit.start()
    main = unit.main()
    assert main
    name, processes = procs.command_line(main.pid), unit.processes()
    assert unit.ctl("stop") == 0

    assert name.endswith("self_daemonizes.py holds")
    assert COMMAND not in name
    assert len(processes) == 2
    assert {process.ppid for process in processes} == {manager.pid}
    assert unit.show("ActiveState", "Result") == ["inactive", "success"]
    assert unit.complaints() == []


@pytest.mark.servers
def test_nginx(system_manager: Manager) -> None:
    """The main process is the master, by nginx's own pid file; a request is answered as soon as `start` has returned."""
    place = os.path.join(system_manager.inside.directory, "nginx")
    os.mkdir(place)
    port = ports.free_port()
    command = shlex.join(prepare_nginx(place, "", port)).replace(place, f"{PLACE}/nginx")
    with open(f"{place}/nginx.conf", "r+") as file:
        text = file.read().replace(place, f"{PLACE}/nginx")
        file.seek(0)
        file.truncate()
        file.write(text)
    unit = forking(system_manager, command)
    unit.start()
    answer = ports.get(port)
    main = unit.main()
    with open(f"{place}/nginx.pid") as file:
        master = int(file.read())

    assert answer.endswith(b"nginx is here")
    assert main
    assert inner_pid(main.pid) == master
    assert main.ppid == system_manager.pid
    assert unit.complaints() == []


def test_one_that_daemonize_gives_another_user(system_manager: Manager, pid_file: bool) -> None:
    """`daemonize --user` in a unit of root's: the main process is right, and runs as that user."""
    unit = forking(system_manager, program("repoints"), options=f"--user {USER}", pid_file=pid_file)
    unit.start()

    assert procs.status(serving(unit, "repoints").pid)["Uid"].split()[0] == str(UID)


# --- a server that fails -----------------------------------------------------------------------------------------------


def failed(unit: Unit, result: str, status: int) -> list[str]:
    """The journal of a unit, once `start` is proved to have failed with this result and the control process' status."""
    assert unit.ctl("start") == 1
    state = unit.show("ActiveState", "Result", "ExecMainStatus", "ExecStart", "MainPID")
    # Its control process is `daemonize`: the server never became the main process of the unit, so that has no status.
    assert state[:3] == ["failed", result, "0"]
    assert state[3].endswith(f"code=exited ; status={status} }}")
    assert state[4] == "0"
    assert unit.processes() == []
    assert unit.complaints() == []
    assert not os.path.exists(unit.pid_file)
    return unit.journal()


def test_one_that_fails(manager: Manager, pid_file: bool) -> None:
    """Its own words are in the journal, its own status is that of the control process, and nothing is left."""
    unit = forking(manager, program("crashes_early", 7, "no", "database"), pid_file=pid_file)
    journal = failed(unit, "exit-code", 7)

    assert "no database" in journal
    assert not any("daemonize: " in line for line in journal)


def test_one_that_is_not_ready_in_our_time(manager: Manager, pid_file: bool) -> None:
    """`daemonize -t` ends it, with status 124 and a line in the journal that says what to do."""
    unit = forking(manager, NEVER_READY, options="-t 300ms", pid_file=pid_file)
    journal = failed(unit, "exit-code", 124)

    assert any("was not ready within 0.3 s" in line for line in journal)


def test_one_that_is_not_ready_in_systemds_time(manager: Manager, pid_file: bool) -> None:
    """TimeoutStartSec= ends `daemonize`, and that ends the server."""
    unit = forking(manager, NEVER_READY, "TimeoutStartSec=500ms", options="-t infinity", pid_file=pid_file)
    journal = failed(unit, "timeout", 128 + signal.SIGTERM)

    # systemd signals both: whether we were interrupted, or our server was killed, is a matter of who came first.
    assert any(line.startswith("daemonize: ") and "SIGTERM" in line for line in journal), journal


def test_a_command_that_is_not_there(manager: Manager, pid_file: bool) -> None:
    """127 and our own line, as in a shell."""
    unit = forking(manager, "/nonexistent/server", pid_file=pid_file)
    journal = failed(unit, "exit-code", 127)

    assert any("/nonexistent/server" in line and line.startswith("daemonize: ") for line in journal)


def test_one_that_dies_later_is_restarted(manager: Manager, pid_file: bool) -> None:
    """Systemd notices at once that the server has died (it is its own child), and Restart=on-failure starts another."""
    unit = forking(manager, program("repoints"), "Restart=on-failure", "RestartSec=0", pid_file=pid_file)
    unit.start()
    first = serving(unit, "repoints")
    assert procs.send(first.pid, signal.SIGKILL, first.start)
    unit.wait_for(NRestarts="1", SubState="running")

    assert serving(unit, "repoints") != first


def test_the_status_of_one_that_dies_later(manager: Manager, pid_file: bool) -> None:
    """Once it has been started, the server's end is that of the main process: the signal is on record."""
    unit = forking(manager, program("repoints"), pid_file=pid_file)
    unit.start()
    main = serving(unit, "repoints")
    assert procs.send(main.pid, signal.SIGSEGV, main.start)
    unit.wait_for(ActiveState="failed")

    assert unit.show("Result", "ExecMainStatus")[1] == str(int(signal.SIGSEGV))
    assert not os.path.exists(unit.pid_file)


# --- negative controls: launchers that break the protocol ---------------------------------------------------------------


def launcher(manager: Manager, script: str) -> Unit:
    """A unit with a shell script as its launcher. It finds the path of the pid file in $1, and that of a trigger in $2."""
    with open(f"{manager.inside.directory}/launcher.sh", "w") as file:
        file.write(script)
    start = f"ExecStart={SHELL} {PLACE}/launcher.sh {PID_FILE} {HELD}"
    return manager.add("\n".join([FORKING, start, f"PIDFile={PID_FILE}"]))


def test_control_a_launcher_that_is_faster_than_the_pid_file(manager: Manager, held: Trigger) -> None:
    """Negative control: if it returns before the pid file is there, the journal says so."""
    unit = launcher(
        manager, """sh -c 'head -c 1 <"$1"; echo $$ >"$0"; exec sleep 100' "$1" "$2" >/dev/null 2>&1 &\n"""
    )
    with unit.popen("start") as start:

        def complained() -> None:
            assert any("Can't open PID file" in line for line in unit.complaints())

        procs.eventually(complained)
        status = start.poll()
        held.release()
        start.wait(30)

    assert status is None
    assert unit.ctl("is-active") == 0


def test_control_a_launcher_that_leaves_an_intermediate_parent(manager: Manager) -> None:
    """Negative control: if the main process is another's child, the journal says so."""
    script = """
        mkfifo "$1.fifo"
        sh -c 'sleep 100 & echo $! >"$0"; echo >"$0.fifo"; wait' "$1" >/dev/null 2>&1 &
        read x <"$1.fifo"
        rm "$1.fifo"
    """
    unit = launcher(manager, script)
    unit.start()

    assert any("not our child" in line for line in unit.complaints())
    main = unit.main()
    assert main
    assert main.ppid != manager.pid
