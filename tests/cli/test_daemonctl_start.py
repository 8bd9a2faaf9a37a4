"""`daemonctl` start, restart, reload, signal and wait: the launch of before, with the outcomes that `daemonize` has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, click_server, control, ports, procs, users
from tests.support.facts import ANY, Reports, changes, facts, unexpected
from tests.support.listening import server
from tests.support.programs import SHELL, program
from tests.support.progress import await_line, line_with

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

UP = ("-r", "log:up")
READY = "echo hello; echo there >&2; exec >/dev/null 2>&1; exec sleep 60"


class Script:
    """A server whose program can be another one the next time."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "server"
        self.does(READY)

    def does(self, code: str, mode: int = 0o755) -> None:
        """Write it anew: text that is being executed cannot be changed."""
        self.path.unlink(missing_ok=True)
        self.path.write_text(f"#!{SHELL}\n{code}\n")
        self.path.chmod(mode)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """One that is ready at once, and says so."""
    return Script(tmp_path)


# -- start: outcomes -----------------------------------------------------------------------------------------------------


def test_start(script: Script, servers: Family) -> None:
    """It is launched again, under its name; its start-up output is relayed, and nothing else is said."""
    first = control.started("web", script.path)
    assert control.run("stop", "web").status == 0
    servers.nobody()

    result = control.run("start", "web")

    assert result[:3] == (0, b"hello\n", b"there\n")
    again = control.record("web")
    assert servers.only().pid == again["pid"] != first
    assert again["stopped"] is None
    assert again["settings"]["command"] == [os.fspath(script.path)]


def test_start_of_what_runs(script: Script, servers: Family) -> None:
    """Status 75, by whom the name is taken, and nothing is changed."""
    pid = control.started("web", script.path)

    result = control.run("start", "web")

    assert (result.status, result.out) == (75, b"")
    assert (
        result.err == b"daemonctl: web is already running: sleep (pid %d); see 'daemonctl status web'\n" % pid
    )
    assert servers.only().pid == pid


FAILURES: dict[str, tuple[str, int, int, bytes, bytes]] = {
    "its own status": (
        "echo half; echo no configuration >&2; exit 3",
        0o755,
        3,
        b"half\n",
        b"no configuration\n",
    ),
    "silent death": ("exit 7", 0o755, 7, b"", b"exited with status 7 after"),
    "signal": ("kill -KILL $$", 0o755, 128 + 9, b"", b"was killed by SIGKILL after"),
    "not in time": ("exec sleep 60", 0o755, 124, b"", b"was not ready within 0.5 s"),
    "not executable": (READY, 0o644, 126, b"", b"Permission denied"),
}


@pytest.mark.parametrize("verb", ["start", "restart"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_launch_that_fails(script: Script, servers: Family, verb: str, failure: str) -> None:
    """Output, words and status are those that daemonize has; the record of before stays, so that it can be tried again."""
    control.started("web", "-t", "500ms", script.path)
    if verb == "start":
        assert control.run("stop", "web").status == 0
    code, mode, status, out, err = FAILURES[failure]
    before = control.record("web")
    script.does(code, mode)

    result = control.run(verb, "web")

    servers.nobody()
    assert (result.status, result.out) == (status, out)
    assert err in result.err
    nothing_runs = b"daemonctl: web has been stopped, and is not running now\n"
    assert result.err.endswith(nothing_runs) == (verb == "restart")
    assert result.err.removesuffix(nothing_runs).count(b"\n") == 1
    assert cli.run("-t", "500ms", script.path).status == status
    assert {**control.record("web"), "stopped": None} == {**before, "stopped": None}
    script.does(READY)
    assert control.run("start", "web")[:3] == (0, b"hello\n", b"there\n")


def test_a_program_that_has_gone(script: Script, servers: Family) -> None:
    """Status 127, as of a command that is not found; what runs is not stopped, for it could not be started again."""
    pid = control.started("web", script.path)
    script.path.unlink()

    for runs in (True, False):
        result = control.run("restart" if runs else "start", "web")

        assert result.status == 127
        assert os.fsencode(script.path) in result.err
        assert result.err.startswith(b"daemonctl: ")
        assert procs.alive(pid) == runs
        assert control.run("stop", "web").status == 0


def test_a_directory_that_has_gone(tmp_path: Path, servers: Family) -> None:
    """The one it was started in, from which its specs have their paths, and the one it runs in: a line that names it."""
    for option, status in ((), 1), (("-c", tmp_path / "gone"), 125):
        gone = tmp_path / "gone"
        gone.mkdir()
        control.started("web", *option, *program("repoints"), cwd=None if option else gone)
        gone.rmdir()
        assert control.run("stop", "web").status == 0

        result = control.run("start", "web")

        assert result.status == status, result
        assert os.fsencode(gone) in result.err
        assert b"No such file or directory" in result.err
        servers.nobody()


def test_a_launch_that_is_interrupted(script: Script, trigger: Trigger, servers: Family) -> None:
    """Ctrl-C ends the server too: status 130, and the record of before stays."""
    control.started("web", script.path)
    assert control.run("stop", "web").status == 0
    script.does(f"echo started; head -c 1 {trigger.path} > /dev/null; {READY}")
    with control.popen("start", "web") as starting:
        assert line_with(starting.stdout, b"started")
        starting.send_signal(signal.SIGINT)
        _, err = starting.communicate(timeout=20)
    assert starting.returncode == 130
    assert b"daemonctl: interrupted by SIGINT" in err
    servers.nobody()
    assert control.record("web")["stopped"]


def test_quiet_and_verbose(script: Script, servers: Family) -> None:
    """As of daemonize: -q says nothing of its own, -v what happens."""
    control.started("web", script.path)
    result = control.run("restart", "-v", "web")
    assert b"daemonctl: ready after " in result.err
    script.does("exit 7")
    assert control.run("restart", "-q", "web")[:3] == (7, b"", b"")


def test_closed_streams_of_the_caller(script: Script, servers: Family) -> None:
    """With closed stdin, stdout and stderr it is started all the same, and none of them becomes a file of ours."""
    control.started("web", script.path)
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", control.COMMAND, "restart", "web"],
        check=False,
        timeout=20,
    )
    assert done.returncode == 0
    assert servers.only().pid == control.record("web")["pid"]


# -- start: what it is given ---------------------------------------------------------------------------------------------


def test_everything_is_as_it_was(tmp_path: Path, servers: Family) -> None:
    """Directory, variables, files, limits, niceness, umask, stdin: the server sees what it saw the first time.

    It is started from another directory, with another umask.
    """
    reports, here, run_in = Reports(os.fspath(tmp_path)), tmp_path / "here", tmp_path / "run"
    here.mkdir()
    run_in.mkdir()
    (run_in / "given").write_text("given")
    options = [
        *(
            "-c",
            "../run",
            "-E",
            "COLOUR=blue",
            "-E",
            "ODD=a\tb\udcff",
            "--limit",
            "nofile=64:65",
            "--nice",
            "3",
        ),
        *("--umask", "027", "-o", "../run/out", "-e", "../run/err", "--stdin", "../run/given", "--no-core"),
        *("-p", "../run/pid", "-l", "../run/lock", "--stop-timeout", "7s", "-t", "20s"),
    ]
    command = [sys.executable, *program("report_self", reports.arg, "argu\udcff ment")[1:]]
    reports.open()
    control.started("web", *options, *command, cwd=here)
    before = facts(reports.read())
    first = control.record("web")

    reports.open()
    result = control.run("restart", "web", cwd="/", umask=0o002)
    after = facts(reports.read())

    assert result.status == 0, result
    # What was no option comes from whoever launches: PWD is such a variable.
    differ = {"environ.DAEMONIZE_ID": (ANY, ANY)}
    found = {
        key: pair
        for key, pair in changes(before, after).items()
        if key not in ("environ.PWD", "environ.OLDPWD")
    }
    assert unexpected(found, differ) == {}
    assert before["environ.COLOUR"] == "blue"  # the control: these were looked at
    assert before["limits.Max open files"] == ["64", "65"]
    assert before["umask"] == 0o027
    second = control.record("web")
    assert second["settings"] == first["settings"]
    assert (second["directory"], second["pid_file"]) == (os.fspath(here), f"{here}/../run/pid")
    assert (run_in / "pid").read_text() == f"{second['pid']}\n"
    reports.close()


@pytest.mark.parametrize(("append", "text"), [(False, "again\n"), (True, "first\nagain\n")])
def test_files_are_truncated_or_not(tmp_path: Path, servers: Family, append: bool, text: str) -> None:
    """As it was asked for: with -a what the first one said stays."""
    script = Script(tmp_path)
    script.does("echo first; exec sleep 60")
    log = tmp_path / "log"
    control.started("web", "-o", log, *(["-a"] if append else []), *UP[:1], "log:first", script.path)
    script.does("echo first >/dev/null; echo again; echo first >&2; exec sleep 60")

    assert control.run("restart", "web").status == 0
    assert log.read_text() == text


def test_another_user(servers: Family) -> None:
    """-u: root's daemonctl starts it as that user again."""
    if os.geteuid():
        pytest.skip("needs root")
    control.started("web", "-u", "nobody", *users.program("repoints"))

    assert control.run("restart", "web").status == 0
    assert procs.status(servers.only().pid)["Uid"].split() == [str(users.NOBODY.uid)] * 4


def test_sockets(servers: Family) -> None:
    """--listen: the address is taken again at once, and the server finds the socket open."""
    port = ports.free_port()
    answer = "while True:\n    c = listener.accept()[0]; c.send(b'hi'); c.close()"
    code = f"listener = socket.socket(fileno=3); say('up')\n{answer}"
    control.started("web", "--listen", f"127.0.0.1:{port}", *UP, *server(code))
    assert ports.ask(port, b"") == b"hi"

    assert control.run("restart", "web").status == 0
    assert ports.ask(port, b"") == b"hi"
    assert control.record("web")["listen"] == [f"127.0.0.1:{port}"]


def test_relative_specs(tmp_path: Path, servers: Family) -> None:
    """A path in a spec is meant from where the daemon was started, wherever daemonctl is called."""
    specs = ("-r", "file:made", "-r", "unix:socket", "-r", "exec:test -e made")
    code = (
        "os.path.exists('socket') and os.unlink('socket'); bind('socket').listen(); open('made', 'w').close()"
    )
    control.started("web", "-c", ".", *specs, *server(code), cwd=tmp_path)
    assert control.run("stop", "web").status == 0
    (tmp_path / "made").unlink()

    assert control.run("start", "-v", "web", cwd="/").status == 0
    assert (tmp_path / "made").exists()
    assert control.record("web")["directory"] == os.fspath(tmp_path)


@pytest.mark.parametrize("by", ["daemonctl", "Python"])
def test_a_relative_registry(tmp_path: Path, servers: Family, by: str) -> None:
    """Where it is kept is meant from where daemonctl is called, and not from where the daemon was started."""
    (tmp_path / "below").mkdir()
    here = {"DAEMONIZE_RUNTIME_DIR": "run", "DAEMONIZE_STATE_DIR": "state"}
    there = {name: f"below/{place}" for name, place in here.items()}
    control.started("web", *program("repoints"), cwd=tmp_path / "below", env=here)
    assert control.run("stop", "web", cwd=tmp_path, env=there).status == 0

    if by == "daemonctl":
        started = control.run("start", "web", cwd=tmp_path, env=there)
    else:
        code = "import daemonize; daemonize.Daemon.find('web').start()"
        started = cli.run_command([sys.executable, "-c", code], cwd=tmp_path, env=there)

    assert started.status == 0, started
    assert control.run("status", "web", cwd=tmp_path, env=there).status == 0
    assert not (tmp_path / "below" / "below").exists()


def test_a_poorer_path(tmp_path: Path, servers: Family) -> None:
    """A program that was found in a virtual environment is found again by who has none in his PATH; so is a relative one."""
    places = tmp_path / "venv" / "bin"
    places.mkdir(parents=True)
    script = Script(places)
    for words, how in (
        (["server"], {"env": {"PATH": f"{places}:{os.environ['PATH']}"}}),
        (["./venv/bin/server"], {"cwd": tmp_path}),
    ):
        control.started("web", *words, **how)
        poor = {"env": {"PATH": "/usr/bin:/bin"}, "cwd": "/"}
        assert cli.run(*words, **poor).status == 127  # the control

        assert control.run("restart", "web", **poor)[:3] == (0, b"hello\n", b"there\n")
        assert control.run("restart", "web", **poor).status == 0  # from what that one has recorded
        assert control.run("stop", "web").status == 0
    assert script.path.exists()


def test_an_automatic_name(script: Script, servers: Family) -> None:
    """One that was given no name is started again under the one it has, also the second of two."""
    for _ in range(2):
        assert cli.run(script.path).status == 0
    first, second = (control.record(name)["pid"] for name in ("server", "server-2"))

    assert control.run("restart", "server-2").status == 0

    assert control.record("server")["pid"] == first
    assert procs.alive(first)
    assert not procs.alive(second)
    assert {process.pid for process in servers.living()} == {first, control.record("server-2")["pid"]}


# -- what cannot be started again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_in_the_foreground(script: Script, servers: Family, verb: str) -> None:
    """Whoever started it is its parent, and nobody else can be: a line that says so, and it runs on."""
    with cli.popen("-f", "-v", "--name", "web", script.path) as parent:
        await_line(parent, ": ready after")
        pid = control.record("web")["pid"]

        result = control.run(verb, "web")

        assert (result.status, result.out) == (1, b"")
        assert result.err == (
            b"daemonctl: web ran in the foreground (-f): whoever started it is to start it again\n"
        )
        assert procs.alive(pid)
        assert control.run("wait", "--ready", "--timeout", "10s", "web")[:3] == (0, b"", b"")
        assert control.run("stop", "web").status == 0
        parent.communicate(timeout=20)


def test_with_descriptors(script: Script, servers: Family) -> None:
    """What was given descriptors of its starter's cannot have them again: refused before it is stopped."""
    with open("/dev/null", "rb") as given:
        fd = given.fileno()
        pid = control.started("web", "--keep-fd", str(fd), script.path, pass_fds=[fd])

    result = control.run("restart", "web")

    assert (result.status, result.out) == (1, b"")
    assert result.err == (
        b"daemonctl: web was given descriptors (--keep-fd %d) that only its starter has: start it anew\n" % fd
    )
    assert procs.alive(pid)


def test_restart_of_one_that_is_being_started(script: Script, trigger: Trigger, servers: Family) -> None:
    """It is left to who is starting it."""
    script.does(f"echo started; head -c 1 {trigger.path} > /dev/null; {READY}")
    with cli.popen("--name", "web", script.path) as launch:
        assert line_with(launch.stdout, b"started")
        result = control.run("restart", "web")
        assert (result.status, result.out) == (1, b"")
        assert b"web is being started by pid %d; " % launch.pid in result.err
        again = control.run("start", "web")
        assert again.status in (1, 75)  # there is no record of it yet
        trigger.release()
        launch.communicate(timeout=20)
    assert control.run("start", "web").status == 75


# -- a program with the option -------------------------------------------------------------------------------------------


def test_a_program_with_the_option(servers: Family, tmp_path: Path) -> None:
    """--daemonize of a click command: the same command line, in the same directory, makes it run again."""
    port = ports.free_port()
    (tmp_path / "greeting").write_text("good morning\n")
    command = click_server.command(port, "--greeting", "greeting", "--daemonize")
    first = cli.run_command([*command], cwd=tmp_path)
    assert first.status == 0, first
    pid = click_server.ask(port).pid

    for verb in ("start", "restart", "stop", "start"):
        result = control.run(verb, "click_server.py", cwd="/")
        if verb == "start" and pid:
            assert result.status == 75
            assert b"click_server.py is already running" in result.err
            assert servers.only().pid == pid
        elif verb == "stop":
            assert result[:3] == (0, b"", b"")
            servers.nobody()
            pid = 0
        else:
            assert result[:3] == (0, first.out, b"")
            answer = click_server.ask(port)
            assert answer.greeting == "good morning"
            assert answer.pid == control.record("click_server.py")["pid"] == servers.only().pid != pid
            pid = answer.pid


def test_a_program_with_the_option_that_fails(servers: Family, tmp_path: Path) -> None:
    """Its own status and words; the record of before stays."""
    (tmp_path / "greeting").write_text("hello\n")
    command = click_server.command(ports.free_port(), "--greeting", "greeting", "--daemonize")
    assert cli.run_command([*command], cwd=tmp_path).status == 0
    before = control.record("click_server.py")
    (tmp_path / "greeting").unlink()

    result = control.run("restart", "click_server.py")

    assert (result.status, result.out) == (1, b"")
    assert b"greeting: No such file or directory" in result.err
    servers.nobody()
    assert {**control.record("click_server.py"), "stopped": None} == before


# -- signal and reload ---------------------------------------------------------------------------------------------------


#: Answers SIGHUP as it is told by its first argument; says the number of each signal on a fifo.
RELOADS = """
import time
def tell(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        try:
            manager.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
            manager.send(text.encode())
        except OSError:
            return False
    return True
def reload(*_):
    {how}
signal.signal(1, reload)
tell("READY=1")
"""


def reloading(how: str) -> list[str]:
    """A server that does this when it is told to read its configuration again."""
    return server(RELOADS.format(how=how.replace("\n", "\n    ")))


def test_reload_waits_until_it_is_ready(trigger: Trigger, servers: Family, tmp_path: Path) -> None:
    """RELOADING=1, then READY=1: in between reload waits, then it returns; a READY=1 that comes first is none of it."""
    steps = [
        "tell('READY=1')",
        "tell('RELOADING=1')",
        f"open({os.fspath(tmp_path / 'begun')!r}, 'w').close()",
    ]
    code = "; ".join([*steps, f"wait({trigger.path!r})", "tell('READY=1')"])
    control.started("web", "-r", "notify", *reloading(code))
    for _ in range(2):
        with control.popen("reload", "web") as reload:
            procs.eventually((tmp_path / "begun").stat)
            assert not procs.wait_ended(reload.pid, 0.2)
            trigger.release()
            assert reload.communicate(timeout=20) == (b"", b"")
        assert reload.returncode == 0
        (tmp_path / "begun").unlink()


def test_reload_of_one_that_never_says_so(servers: Family) -> None:
    """It has begun, and does not come to an end: status 1 after --timeout, and it is let be."""
    pid = control.started("web", "-r", "notify", *reloading("tell('RELOADING=1')"))

    result = control.run("reload", "--timeout", "300ms", "web")

    assert (result.status, result.out) == (1, b"")
    assert result.err == b"daemonctl: web has not reloaded within 0.3 s\n"
    assert procs.alive(pid)


def test_reload_of_one_that_dies_of_it(servers: Family) -> None:
    """That is told at once, long before the time is over."""
    control.started("web", "-r", "notify", *reloading("tell('RELOADING=1'); os._exit(1)"))

    result = control.run("reload", "--timeout", "60s", "web")

    assert result[:3] == (1, b"", b"daemonctl: web ended while it reloaded\n")
    assert result.seconds < 30
    servers.nobody()


@pytest.mark.parametrize("notifies", [False, True])
def test_reload_of_one_that_says_nothing(tmp_path: Path, servers: Family, notifies: bool) -> None:
    """SIGHUP and no more: of a server without notify at once, of one with it when it has had the time to begin."""
    heard = tmp_path / "heard"
    code = f"os.close(os.open({os.fspath(heard)!r}, os.O_CREAT))"
    silent = server(f"signal.signal(1, lambda *_: {code})", "say('up')")
    control.started("web", *(["-r", "notify", *reloading(code)] if notifies else [*UP, *silent]))

    assert control.run("reload", "web")[:3] == (0, b"", b"")
    procs.eventually(heard.stat)
    assert servers.only()


STRANGER = """
address = sys.argv[1].replace("@", "\\0", 1)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.connect(address)
    manager.send(b"RELOADING=1")
    manager.send(b"READY=1")
"""


def test_strangers_are_not_believed(trigger: Trigger, servers: Family, tmp_path: Path) -> None:
    """RELOADING=1 and READY=1 of a living process that does not belong to the daemon count for nothing."""
    begun = tmp_path / "begun"
    code = f"tell('RELOADING=1'); open({os.fspath(begun)!r}, 'w').close(); wait({trigger.path!r}); tell('READY=1')"
    control.started("web", "-r", "notify", *reloading(code))
    address = control.record("web")["notify_socket"]
    with control.popen("reload", "web") as reload:
        procs.eventually(begun.stat)
        stranger = [*server(STRANGER, "say('sent')"), address]
        with subprocess.Popen(stranger, stdout=subprocess.PIPE) as living:
            assert line_with(living.stdout, b"sent")
            assert not procs.wait_ended(reload.pid, 0.2)
            living.kill()
        assert reload.poll() is None
        trigger.release()
        assert reload.wait(20) == 0


def test_two_reloads_at_once(trigger: Trigger, servers: Family, tmp_path: Path) -> None:
    """Only one can listen; the other tells the server and says nothing wrong. Neither hangs."""
    begun = tmp_path / "begun"
    code = f"tell('RELOADING=1'); open({os.fspath(begun)!r}, 'w').close(); wait({trigger.path!r}); tell('READY=1')"
    control.started("web", "-r", "notify", *reloading(code))
    with control.popen("reload", "web") as one:
        procs.eventually(begun.stat)
        assert control.run("reload", "web")[0] == 0
        assert one.poll() is None
        for _ in range(2):
            trigger.release()
        assert one.wait(20) == 0


@pytest.mark.parametrize("verb", [["reload"], ["signal", "HUP"]])
def test_who_does_not_run_cannot_be_told(servers: Family, verb: list[str]) -> None:
    """Status 1 and what to do, 4 for one that is unknown."""
    control.started("web", *program("repoints"))
    assert control.run("stop", "web").status == 0
    word, *rest = verb

    result = control.run(word, "web", *rest)
    assert result[:3] == (1, b"", b"daemonctl: web is not running; to start it: daemonctl start web\n")
    assert control.run(word, "wbe", *rest)[:3] == (
        4,
        b"",
        b'daemonctl: no daemon named "wbe"; did you mean "web"?\n',
    )


@pytest.mark.parametrize(("word", "number"), [("USR1", 10), ("sigusr2", 12), ("1", 1), ("SIGHUP", 1)])
def test_signal(tmp_path: Path, servers: Family, word: str, number: int) -> None:
    """The main process gets just that signal, and it runs on."""
    heard = tmp_path / "heard"
    note = f"lambda n, _: os.close(os.open({os.fspath(heard)!r} + str(n), os.O_CREAT))"
    pid = control.started("web", *UP, *server(f"for n in (1, 10, 12): signal.signal(n, {note})", "say('up')"))

    assert control.run("signal", "web", word)[:3] == (0, b"", b"")
    procs.eventually((tmp_path / f"heard{number}").stat)
    assert [path.name for path in tmp_path.glob("heard*")] == [f"heard{number}"]
    assert procs.alive(pid)


def test_a_signal_that_there_is_none_of(servers: Family) -> None:
    """A usage error, which shows how it is written."""
    result = control.run("signal", "web", "USR9")

    assert (result.status, result.out) == (2, b"")
    assert result.err == (
        b"daemonctl: Invalid value for 'SIGNAL': 'USR9' is not a signal; write HUP, SIGUSR1, 15, ... "
        b"(try 'daemonctl signal --help')\n"
    )


# -- wait ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [[], ["--exit"]])
def test_wait_for_its_end(servers: Family, how: list[str]) -> None:
    """0 when it has ended, at once or later; 124 when it has not in time."""
    pid = control.started("web", *program("repoints"))
    result = control.run("wait", *how, "--timeout", "100ms", "web")
    assert result[:3] == (124, b"", b"daemonctl: web still runs after 0.1 s (pid %d)\n" % pid)

    with control.popen("wait", *how, "web") as waiting:
        assert not procs.wait_ended(waiting.pid, 0.3)
        procs.stop(pid)
        assert waiting.wait(20) == 0
    assert control.run("wait", *how, "web")[:3] == (0, b"", b"")


def test_wait_until_it_is_ready(script: Script, trigger: Trigger, servers: Family) -> None:
    """While a launch is under way it waits for that; of one that is ready it returns at once."""
    script.does(f"echo started; head -c 1 {trigger.path} > /dev/null; {READY}")
    with cli.popen("--name", "web", script.path) as launch:
        assert line_with(launch.stdout, b"started")
        late = control.run("wait", "--ready", "--timeout", "100ms", "web")
        assert late[:3] == (124, b"", b"daemonctl: web is not ready after 0.1 s\n")
        with control.popen("wait", "--ready", "web") as waiting:
            assert not procs.wait_ended(waiting.pid, 0.3)
            trigger.release()
            assert waiting.communicate(timeout=20) == (b"", b"")
            assert waiting.returncode == 0
        launch.communicate(timeout=20)
    assert control.run("wait", "--ready", "web")[:3] == (0, b"", b"")


def test_wait_for_a_launch_that_fails(script: Script, trigger: Trigger, servers: Family) -> None:
    """Of the first there is no record then: status 4; of a later one status 1."""
    for status, words in (
        (4, b'no daemon named "web"'),
        (1, b"web is not running; to start it: daemonctl start web"),
    ):
        script.does(f"echo started; head -c 1 {trigger.path} > /dev/null; exit 3")
        with cli.popen("--name", "web", script.path) as launch:
            assert line_with(launch.stdout, b"started")
            with control.popen("wait", "--ready", "web") as waiting:
                assert not procs.wait_ended(waiting.pid, 0.3)
                trigger.release()
                assert waiting.communicate(timeout=20) == (b"", b"daemonctl: " + words + b"\n")
                assert waiting.returncode == status
            launch.communicate(timeout=20)
        script.does(READY)
        assert cli.run("--name", "web", script.path).status == 0
        assert control.run("stop", "web").status == 0


def test_wait_when_nobody_starts_it(servers: Family) -> None:
    """Not for ever: 1 for one that is stopped, 4 for one that is unknown."""
    control.started("web", *program("repoints"))
    assert control.run("stop", "web").status == 0

    assert control.run("wait", "--ready", "web").status == 1
    for how in ("--ready", "--exit"):
        result = control.run("wait", how, "wbe")
        assert result[:3] == (4, b"", b'daemonctl: no daemon named "wbe"; did you mean "web"?\n')


def test_wait_for_one_that_was_not_ready_in_time(servers: Family) -> None:
    """It was left running: a line that says so, and status 1."""
    words = ("-t", "200ms", "--on-timeout", "leave", "-r", "log:never")
    assert cli.run("--name", "web", *words, *program("repoints")).status == 124

    result = control.run("wait", "--ready", "web")

    assert (result.status, result.out) == (1, b"")
    assert b"web runs, but was not ready in time" in result.err
