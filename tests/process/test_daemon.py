"""Daemons by name from Python: `Daemon.find`, `daemons()`, a method for each verb of daemonctl, and typed errors."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

import daemonize
from daemonize import Daemon, Exited, TimedOut
from daemonize.daemon_errors import BadRecord, NoSuchDaemon, NotPossible, NotReloaded
from daemonize.errors import AlreadyRunning, DaemonizeError, SetupError, StillRunning
from daemonize.outcomes import NotExecuted
from daemonize.posix import identity
from daemonize.posix.identity import Identity, current_boot_id
from tests.support import callers, cli, click_server, control, ports, procs
from tests.support.listening import server
from tests.support.programs import SHELL, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger


def launched(name: str, *command: str) -> Daemon:
    """One that is ready at once."""
    return daemonize.launch(
        command or program("repoints"), name=name, relay_stdout=None, relay_stderr=None, stop_timeout=5.0
    )


# -- find ----------------------------------------------------------------------------------------------------------------


def test_find(servers: Family) -> None:
    """What another process has launched is the same daemon here, with all its facts."""
    pid = control.started("web", *program("repoints"))

    web = Daemon.find("web")

    assert (web.name, web.pid, web.state, web.is_running) == ("web", pid, "running", True)
    process = procs.stat(pid)
    assert process
    assert web.identity == Identity(pid, process.start, current_boot_id())
    assert (web.stdout, web.stderr) == (control.record("web")["stdout"], control.record("web")["stderr"])
    assert web.record.command == program("repoints")
    assert repr(web) == f"<Daemon web pid={pid}>"


def test_find_what_is_not_there(servers: Family) -> None:
    """NoSuchDaemon has what may have been meant."""
    with pytest.raises(NoSuchDaemon, match=r'no daemon named "web"$') as nothing:
        Daemon.find("web")
    assert nothing.value.similar is None
    launched("web")
    with pytest.raises(NoSuchDaemon, match='did you mean "web"') as typo:
        Daemon.find("wbe")
    assert (typo.value.name, typo.value.similar, typo.value.exit_status) == ("wbe", "web", 4)


def test_what_cannot_be_used(servers: Family) -> None:
    """BadRecord for one; daemons() leaves it out, and has the others in alphabetical order; SetupError without a place."""
    launched("web")
    launched("app")
    with open(control.record_path("bad"), "w") as file:
        file.write("{}")

    with pytest.raises(BadRecord, match="others may use it") as bad:
        Daemon.find("bad")
    assert bad.value.path == control.record_path("bad")
    assert [daemon.name for daemon in daemonize.daemons()] == ["app", "web"]
    os.chmod(os.environ["DAEMONIZE_RUNTIME_DIR"], 0o777)
    with pytest.raises(SetupError, match="nobody else can write to"):
        daemonize.daemons()
    os.chmod(os.environ["DAEMONIZE_RUNTIME_DIR"], 0o700)


def test_daemons_of_nobody(family: Family) -> None:
    """Before the first there are none."""
    assert daemonize.daemons() == []


# -- states, wait, stop ---------------------------------------------------------------------------------------------------


def test_states(trigger: Trigger, servers: Family) -> None:
    """`running`, `stopped`, `dead`, `starting`: each of them is seen by who found the daemon before, too, and after."""
    web = launched("web")
    assert (web.state, Daemon.find("web").state) == ("running", "running")
    procs.stop(web.pid or 0)
    assert (web.state, Daemon.find("web").state) == ("dead", "dead")
    web.stop()
    assert Daemon.find("web").state == "dead"  # nobody has ended it
    web.start().stop()
    assert Daemon.find("web").state == "stopped"
    with cli.popen("--name", "web", *program("repoints", "hello", trigger.arg)) as launch:
        procs.eventually(lambda: _is(Daemon.find("web").state, "starting"))
        trigger.release()
        launch.communicate(timeout=20)
    assert Daemon.find("web").state == "running"
    assert not web.is_running  # that one has ended


def _is(found: object, wanted: object) -> None:
    assert found == wanted


def test_wait_and_stop(servers: Family) -> None:
    """Wait tells whether it has ended; stop ends what another process has launched, twice if need be; `with` stops."""
    control.started("web", *program("repoints"))
    web = Daemon.find("web")
    assert web.wait(0.05) is False
    web.stop()
    servers.nobody()
    assert web.wait() is True
    web.stop(timeout=0)
    with launched("app") as app:
        assert app.is_running
    servers.nobody()


def test_wait_in_another_thread(servers: Family) -> None:
    """It returns when the daemon ends, whoever ends it."""
    web, ended = launched("web"), []
    waiter = threading.Thread(target=lambda: ended.append(web.wait()))
    waiter.start()
    procs.stop(web.pid or 0)
    waiter.join(20)
    assert ended == [True]


def test_stop_with_another_signal(tmp_path: Path, servers: Family) -> None:
    """`signal` is what it is told by, `timeout` the time until SIGKILL."""
    told = os.fspath(tmp_path / "told")
    note = f"signal.signal(12, lambda *_: os.close(os.open({told!r}, os.O_CREAT)))"
    words = server("signal.signal(15, signal.SIG_IGN)", note, "say('up')")
    web = daemonize.launch(words, name="web", ready=["log:up"], relay_stdout=None)

    web.stop(0.2, signal.SIGUSR2)

    assert os.path.exists(told)
    servers.nobody()


def test_survivors(servers: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """StillRunning has them by pid and name; a daemon of which something is left is not put down as stopped."""
    web = launched("web")
    process = procs.stat(web.pid or 0)
    with monkeypatch.context() as nobody_may:

        def refuse(_self: object, _number: int) -> bool:
            raise PermissionError

        nobody_may.setattr(identity.Process, "send", refuse)
        with pytest.raises(StillRunning) as left:
            web.stop()
        with pytest.raises(NotPossible, match="may not be signalled by this user"):
            web.signal(signal.SIGHUP)
    assert process
    assert left.value.survivors == [(process.pid, process.name)]
    assert Daemon.find("web").state == "running"


# -- signal, reload, forget -----------------------------------------------------------------------------------------------


def test_signal_reload_forget(servers: Family) -> None:
    """Of one that does not run NotPossible says what to do; forget refuses one that runs, and leaves no record."""
    web = launched(
        "web",
        SHELL,
        "-c",
        "trap 'exit 7' USR1; trap : HUP; exec >&- 2>&-; while :; do sleep 60 & wait $!; done",
    )
    assert web.reload() is False  # nobody knows
    with pytest.raises(NotPossible, match="to stop it first"):
        web.forget()
    web.signal(signal.SIGUSR1)
    assert web.wait(20)
    for act in (web.reload, lambda: web.signal(1)):
        with pytest.raises(NotPossible, match="web is not running; to start it: daemonctl start web"):
            act()
    web.stop()
    web.forget()
    with pytest.raises(NoSuchDaemon):
        Daemon.find("web")
    with pytest.raises(NoSuchDaemon):
        web.forget()


RELOADS = """
def tell(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
        manager.send(text)
answers = [lambda: tell(b"RELOADING=1\\nREADY=1"), lambda: tell(b"RELOADING=1"), lambda: os._exit(1)]
signal.signal(1, lambda *_: answers.pop(0)())
tell(b"READY=1")
"""


def test_reload(servers: Family) -> None:
    """True: it has said so. NotReloaded: it did not come to the end of it, or died."""
    web = daemonize.launch(server(RELOADS), name="web", ready=["notify"], relay_stdout=None)

    assert web.reload() is True
    with pytest.raises(NotReloaded, match=r"has not reloaded within 0.2 s"):
        web.reload(0.2)
    with pytest.raises(NotReloaded, match="ended while it reloaded"):
        web.reload()


# -- start and restart ----------------------------------------------------------------------------------------------------


def test_start_and_restart(tmp_path: Path, servers: Family) -> None:
    """A new Daemon each time, with the settings of before; what runs is not started a second time."""
    first = daemonize.launch(
        program("repoints"), name="web", env={"A": "b"}, limits={"nofile": (64, None)}, nice=2, timeout=20.0,
        cwd=tmp_path, relay_stdout=None,
    )  # fmt: skip
    with pytest.raises(AlreadyRunning) as running:
        first.start()
    assert running.value.pid == first.pid
    second = Daemon.find("web").restart()
    assert not first.is_running
    assert servers.only().pid == second.pid == Daemon.find("web").pid != first.pid
    second.stop()
    third = second.start()
    assert third.state == "running"
    assert third.record.settings == first.record.settings
    assert procs.environment(third.pid or 0)["A"] == "b"
    assert os.readlink(f"/proc/{third.pid}/cwd") == os.fspath(tmp_path)


def test_relative_specs(tmp_path: Path, servers: Family) -> None:
    """Their paths are from where it was launched; this process stays where it is (the guards look)."""
    words = server("open('made', 'w').close()")
    control.started("web", "-c", ".", "-r", "file:made", *words, cwd=tmp_path)
    web = Daemon.find("web")
    web.stop()
    (tmp_path / "made").unlink()

    assert web.start().state == "running"
    assert (tmp_path / "made").exists()


def test_a_directory_that_has_gone(tmp_path: Path, servers: Family) -> None:
    """The error names it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    control.started("web", *program("repoints"), cwd=gone)
    gone.rmdir()
    web = Daemon.find("web")

    with pytest.raises(NotPossible, match="gone, as it was: No such file or directory"):
        web.restart()
    assert web.state == "running"
    servers.end()
    with pytest.raises(NotPossible, match="gone, as it was: No such file or directory"):
        web.start()


def test_a_start_that_fails(tmp_path: Path, servers: Family) -> None:
    """The errors of launch(), and the record of before stays."""
    script = tmp_path / "server"

    def does(code: str) -> None:
        script.unlink(missing_ok=True)
        script.write_text(f"#!{SHELL}\n{code}\n")
        script.chmod(0o755)

    does("exec sleep 60 >&- 2>&-")
    web = daemonize.launch([script], name="web", relay_stdout=None, relay_stderr=None, timeout=0.5)
    web.stop()
    does("exit 3")
    with pytest.raises(Exited) as exited:
        web.start()
    assert (exited.value.status, exited.value.name) == (3, "web")
    does("exec sleep 60")
    with pytest.raises(TimedOut):
        web.start()
    script.unlink()
    with pytest.raises(NotExecuted):
        web.start()
    servers.nobody()
    assert Daemon.find("web").state == "stopped"
    does("exec sleep 60 >&- 2>&-")
    assert web.start().state == "running"


def test_what_only_its_starter_can_start(servers: Family) -> None:
    """NotPossible, before it is stopped."""
    with open("/dev/null", "rb") as given:
        web = daemonize.launch(program("repoints"), name="web", keep_fds=[given.fileno()], relay_stdout=None)
        for act in (web.restart, web.start):
            with pytest.raises(NotPossible, match="that only its starter has"):
                act()
    assert web.is_running


def test_a_program_with_the_option(servers: Family) -> None:
    """Its own command line starts it; what that says is relayed, and its status is an Exited."""
    port = ports.free_port()
    command = click_server.command(port, "--daemonize")
    assert cli.run_command([*command]).status == 0
    web = Daemon.find("click_server.py")
    with pytest.raises(AlreadyRunning):
        web.start()
    first = click_server.ask(port).pid

    again = web.restart()

    assert click_server.ask(port).pid == again.pid == servers.only().pid != first
    again.stop()
    with ports.taken() as other:
        web.record.settings["command"][web.record.command.index(str(port))] = str(other)
        with pytest.raises(Exited) as failed:
            web.start()
    assert failed.value.status == 1


CALLER = """
import json
from daemonize import Daemon
def state():
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return [os.getcwd(), str(signal.getsignal(signal.SIGTERM)), str(mask), len(os.listdir("/proc/self/fd"))]
before = state()
child = os.spawnv(os.P_NOWAIT, "/bin/sh", ["sh", "-c", "exit 5"])
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
busy = True
def work():
    while busy:
        sum(range(1000))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
web = Daemon.find("web")
web = web.restart()
web.stop()
web = web.start()
busy = False
for thread in threads: thread.join()
from daemonize.launcher import owner
owner.dismiss()  # the keeper of a program with threads stays, and is one descriptor
after = state()
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps({"before": before, "after": after, "status": status, "pid": web.pid}), file=sys.stderr)
"""


def test_a_program_with_threads(tmp_path: Path, servers: Family) -> None:
    """Its directory, signals, descriptors and children stay as they are; the start-up output comes on its streams."""
    control.started("web", *program("repoints", "hello"), cwd=tmp_path)

    status, out, err = callers.run(CALLER)

    assert (status, out) == (0, b"hello\nhello\n"), err
    told = json.loads(err)
    assert told["before"] == told["after"]
    assert told["status"] == 5
    assert servers.only().pid == told["pid"] == Daemon.find("web").pid


def test_errors_are_of_one_family() -> None:
    """Whoever catches DaemonizeError has them all, with the exit status that daemonctl would have."""
    statuses = {
        NoSuchDaemon: 4,
        BadRecord: 4,
        NotPossible: 1,
        NotReloaded: 1,
        StillRunning: 1,
        AlreadyRunning: 75,
    }
    for error, status in statuses.items():
        assert issubclass(error, DaemonizeError)
        assert error.exit_status == status
        assert getattr(daemonize, error.__name__) is error
