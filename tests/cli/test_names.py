"""Names at launch: one daemon of each at a time, whoever is killed, and a record of it before the caller goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import daemonize
from daemonize.launcher.daemon import DEAD, RUNNING, STARTING, STOPPED
from daemonize.registry.record import Registry
from tests.support import cli, click_server, ports, procs, registered
from tests.support.forked import together
from tests.support.launches import Launch, held_at, launching
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

READY = program("repoints", "ready")
QUICK = ["-r", "started", "sleep", "100"]
MANY = 50
ROUNDS = [1, pytest.param(20, marks=pytest.mark.stress)]
#: What those say that come too late: by name and pid, who runs or who starts it.
TOO_LATE = re.compile(
    rb"daemonize: (web is already running: \S+ \(pid \d+\); see 'daemonctl status web'"
    rb"|another launch of web is under way: \S+ \(pid \d+\))\n"
)


def named(*words: cli.Word, name: str = "web") -> list[cli.Word]:
    """The words of a launch with a name."""
    return ["--name", name, *words]


def files() -> list[str]:
    """All that is in the directory of records."""
    return sorted(os.listdir(registered.directory()))


# --- many at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("held", [False, True], ids=["at once", "when all have come"])
def test_many_starts_of_one_name(rounds: int, held: bool, tmp_path: Path, servers: Family) -> None:
    """One runs; 49 times 75, in one line, with the pid of the daemon or of the launch that is under way."""
    for _ in range(rounds):
        _many_starts(tmp_path, servers, held=held)
        servers.end()


def _many_starts(directory: Path, servers: Family, *, held: bool) -> None:
    with Trigger(directory) as trigger, contextlib.ExitStack() as stack:
        server = program("repoints", *([trigger.arg] if held else []))
        launches = [stack.enter_context(launching(*named(*server))) for _ in range(MANY)]
        if held:
            assert len([launch for launch in launches if _gives_up(launch, launches)]) == MANY - 1
            trigger.release()
        statuses = sorted(launch.wait(60) for launch in launches)
        said = [launch.stderr.read() for launch in launches if launch.stderr]

    assert statuses == [0] + [75] * (MANY - 1)
    assert sorted(filter(None, said)) == sorted(line for line in said if TOO_LATE.fullmatch(line))
    assert len(list(filter(None, said))) == MANY - 1
    assert servers.only().pid == registered.read("web")["pid"]
    assert files() == [".web.lock", "web.json"]


def _gives_up(launch: subprocess.Popen[bytes], launches: list[subprocess.Popen[bytes]]) -> bool:
    """Whether it ends while another is still there."""
    while launch.poll() is None:
        if all(other.poll() is not None for other in launches if other is not launch):
            return False
        os.sched_yield()
    return True


@pytest.mark.parametrize("rounds", ROUNDS)
def test_many_starts_without_a_name(rounds: int, servers: Family) -> None:
    """Fifty daemons of one command have fifty names, and none is lost: each is found by its name."""
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            launches = [stack.enter_context(launching("--json", *QUICK)) for _ in range(MANY)]
            said = [launch.communicate(timeout=60) for launch in launches]
        started = {json.loads(out)["name"]: json.loads(out)["pid"] for out, _ in said}

        assert started.keys() == {"sleep", *(f"sleep-{number}" for number in range(2, MANY + 1))}
        assert {daemon.name: daemon.pid for daemon in daemonize.daemons() if daemon.is_running} == started
        assert {process.pid for process in servers.living()} == {*started.values()}
        assert files() == sorted(name for one in started for name in (f".{one}.lock", f"{one}.json"))
        servers.end()


def test_many_launches_from_python(servers: Family) -> None:
    """The same through `launch(name=)`, and without a name: AlreadyRunning with the facts; nobody's name is lost."""

    def launch(name: str | None) -> str | int:
        try:
            return daemonize.launch(["sleep", "100"], ready="started", relay_stdout=None, name=name).name
        except daemonize.AlreadyRunning as error:
            return error.exit_status if error.pid else str(error)

    found = together(MANY, lambda: launch("web"))
    assert sorted(map(str, found)) == ["75"] * (MANY - 1) + ["web"]
    assert len({*together(MANY, lambda: launch(None))}) == MANY
    assert len([daemon for daemon in daemonize.daemons() if daemon.is_running]) == MANY + 1


@pytest.mark.parametrize("threads", [False, True], ids=["direct", "keeper"])
def test_a_second_launch_from_python(threads: bool, servers: Family) -> None:
    """AlreadyRunning with the pid; after a stop the name can be had again."""
    release = threading.Event()
    other = threading.Thread(target=release.wait)
    if threads:
        other.start()
    try:
        first = daemonize.launch(READY, name="web", relay_stdout=None)
        with pytest.raises(daemonize.AlreadyRunning, match=rf"\(pid {first.pid}\)"):
            daemonize.launch(READY, name="web", relay_stdout=None)
        assert daemonize.Daemon.find("web").pid == first.pid
        first.stop()
        assert daemonize.Daemon.find("web").state == STOPPED
        daemonize.launch(READY, name="web", relay_stdout=None)
    finally:
        release.set()
        if threads:
            other.join()


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".web", "-web", "we b", "a\nb", "x" * 101, "\udcff"], ids=ascii
)
def test_a_name_that_cannot_be(name: str, family: Family) -> None:
    """2, one line, nothing is started."""
    done = cli.run(f"--name={name}", *READY)

    assert (done.status, done.out) == (2, b"")
    assert b"cannot be the name of a daemon" in done.err
    assert done.err.count(b"\n") == 1
    family.nobody()


# --- the record ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o022, 0o777], ids=oct)
@pytest.mark.parametrize("words", [named(*READY), READY], ids=["given", "made"])
def test_a_record_is_there_before_anybody_is_told(
    words: list[str], umask: int, tmp_path: Path, servers: Family
) -> None:
    """When the wrapper is about to go it is complete, for a given name sooner; 0600 in 0700, whatever the umask."""
    name, step = ("web", "detach") if "--name" in words else (os.path.basename(sys.executable), "leave")
    before = os.umask(umask)
    try:
        context = held_at(step, tmp_path, words)
        wrapper, release = context.__enter__()
    finally:
        os.umask(before)
    with contextlib.ExitStack() as stack:
        stack.push(context)
        daemon = daemonize.Daemon.find(name)
        server = procs.stat(daemon.pid or 0)
        assert server
        assert server.name == daemon.record.process
        assert (daemon.is_running, daemon.record.ready) == (True, True)
        modes = [
            stat.S_IMODE(os.stat(path).st_mode) for path in (registered.path(name), registered.directory())
        ]
        assert modes == [0o600, 0o700]
        release.release()
        assert wrapper.wait(20) == 0


def test_what_a_record_says(tmp_path: Path, servers: Family) -> None:
    """The facts of a launch, as the documentation lists them."""
    done = cli.run("--json", *named("-p", tmp_path / "pid", "-r", "log:^ready", *READY), cwd=tmp_path)
    assert done.status == 0, done
    record, main = registered.read("web"), servers.only()

    assert (record["pid"], record["start"], record["process"]) == (main.pid, main.start, main.name)
    assert (record["session"], record["since"]) == (main.sid, main.start)
    assert record["token"] == f"DAEMONIZE_ID={procs.environment(main.pid)['DAEMONIZE_ID']}"
    assert (record["explicit"], record["ready"], record["foreground"], record["stopped"]) == (
        True,
        True,
        False,
        None,
    )
    assert (record["pid_file"], record["pid_file_is_locked"]) == (f"{tmp_path}/pid", False)
    state = os.environ["DAEMONIZE_STATE_DIR"]
    assert [record["stdout"], record["stderr"]] == [f"{state}/web.out", f"{state}/web.err"]
    assert record["found"] == done.json["found"]
    assert (record["directory"], record["program"]) == (str(tmp_path), sys.executable)
    assert record["settings"]["command"] == READY


def test_a_server_left_running(servers: Family) -> None:
    """--on-timeout=leave: it has a record, which says that it was not ready."""
    assert cli.run(*named("-t", "1s", "--on-timeout=leave", "sleep", "100")).status == 124
    record = registered.read("web")

    assert (record["pid"], record["ready"]) == (servers.running(["sleep", "100"]).pid, False)
    assert registered.control("stop", "web").status == 0
    servers.nobody()


@pytest.mark.parametrize("words", [["last"], [], ["holds"]], ids=str)
@pytest.mark.parametrize("foreground", [False, True])
def test_a_server_that_leaves_a_daemon_behind(words: list[str], foreground: bool, servers: Family) -> None:
    """The record names the daemon, not the command that has gone."""
    if foreground and "holds" in words:
        pytest.skip("it is never ready by its streams")
    ready = ["-r", "exit"] if "holds" in words else []
    server = program("self_daemonizes", *words)
    with launching("-v", *(["-f"] if foreground else []), *named(*ready, *server)) as process:
        assert process.stderr is not None
        assert any(b"ready after" in line for line in iter(process.stderr.readline, b""))
        if not foreground:
            assert process.wait(20) == 0
        main = registered.read("web")["pid"]
        daemon = next(one for one in servers.living() if one.pid == main)
        assert daemon.ppid == (process.pid if foreground else 1)
        assert cli.run(*named("true")).status == 75
        assert registered.control("stop", "web").status == 0
        process.communicate(timeout=20)
    servers.nobody()


def test_in_the_foreground(family: Family) -> None:
    """-f writes a record, too; when the server runs it is being started no more: it can be stopped, and waited for."""
    with launching("-v", "-f", *named(*READY)) as process:
        assert process.stderr is not None
        assert any(b"ready after" in line for line in iter(process.stderr.readline, b""))
        record = registered.read("web")
        assert (record["foreground"], record["ready"]) == (True, True)
        assert Registry().launcher("web") is None
        assert cli.run(*named(*READY)).status == 75
        assert registered.control("wait", "--ready", "web", "-t", "5s").status == 0
        assert registered.control("stop", "web").status == 0
        assert process.wait(20) == -signal.SIGTERM
    family.nobody()
    assert daemonize.Daemon.find("web").state == STOPPED
    assert files() == [".web.lock", "web.json"]


# --- from the record back to the launch --------------------------------------------------------------------------------


#: What is the same of a server that was started again.
SAME = (
    "argv",
    "cwd",
    "root",
    "umask",
    "nice",
    "limits",
    "gid",
    "groups",
    "uid",
    "stdin",
    "signals",
)


def said_by(launch: list[cli.Word], path: Path, **how: Any) -> dict[str, Any]:
    """What report_self.py says of itself, into a fifo."""
    os.mkfifo(path)
    with subprocess.Popen(launch, stdin=subprocess.DEVNULL, **how) as process:
        try:
            report: dict[str, Any] = json.loads(path.read_bytes())
            assert process.wait(20) == 0
        finally:
            process.kill()
    path.unlink()
    return report


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-E", "ODD=\udcff\n\x1b=1", "-E", "EMPTY=", "-E", "MORE=a b"],
        ["--clear-env", "-E", "ONLY=this"],
        ["-c", "in\udcff here", "-o", "out \udcff", "-e", "err", "-a"],
        ["-o", "out", "-r", "started", "-t", "infinity", "--stop-timeout", "0"],
        ["--umask", "027", "--nice", "3", "--limit", "nofile=100:200", "--no-core"],
        ["--stdin", "input", "-p", "pid", "-l", "lock"],
        ["--listen", "127.0.0.1:0", "-r", "alive:10ms"],
    ],
    ids=str,
)
def test_it_is_started_as_it_was(options: list[str], tmp_path: Path, servers: Family) -> None:
    """Arguments, environment of -E, directory, files, limits: the same, from another directory, byte for byte."""
    for name in ("in\udcff here", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "input").write_text("x")
    report = tmp_path / "report"
    server = program(
        "report_self", f"into={report}", "odd \udcff", "", "a'b\"c\\", "new\nline", "--name", "x"
    )
    first = said_by(cli.command(*named(*options, *server)), report, cwd=tmp_path)
    once = registered.read("web")
    assert registered.control("stop", "web").status == 0
    second = said_by([registered.CONTROL, "start", "web"], report, cwd=tmp_path / "elsewhere")
    twice = registered.read("web")

    assert {name: second[name] for name in SAME} == {name: first[name] for name in SAME}
    numbered = [re.sub(r"\[\d+\]", "", json.dumps(one["descriptors"])) for one in (first, second)]
    assert numbered[0] == numbered[1]
    given = [word.partition("=")[0] for word in options if "=" in word and word[0].isupper()]
    environments = [one["environ"] for one in (first, second)]
    assert {*given} <= environments[0].keys()
    assert len({json.dumps({name: one[name] for name in given}) for one in environments}) == 1
    assert "--clear-env" not in options or environments[0].keys() == environments[1].keys()
    assert twice["settings"] == once["settings"]
    assert [twice[name] for name in ("directory", "program")] == [
        once[name] for name in ("directory", "program")
    ]


# --- whose lock ------------------------------------------------------------------------------------------------------


def holders(*names: str) -> list[int]:
    """Who has a file of the registry open."""
    places = {f"{registered.directory()}/{name}" for name in names}
    return sorted(pid for pid in procs.pids() if places & {*procs.descriptors(pid).values()})


@pytest.mark.parametrize("words", [named(*READY), READY], ids=["given", "made"])
@pytest.mark.parametrize("drain", [False, True], ids=["alone", "with a drain"])
def test_nobody_keeps_the_lock(words: list[str], drain: bool, servers: Family) -> None:
    """Neither the server nor its drain has a file of the registry open; nothing but record and lock is left there."""
    name = "web" if "--name" in words else os.path.basename(sys.executable)
    if drain:
        words = [*words[: -len(READY)], "-t", "1s", "--on-timeout=leave", SHELL, "-c", "exec sleep 100"]
        name = "web" if "--name" in words else os.path.basename(SHELL)
    assert cli.run(*words).status == (124 if drain else 0)
    assert (registered.read(name)["drain"] is not None) == drain
    assert files() == [f".{name}.lock", f"{name}.json"]
    assert holders(*files()) == []
    assert Registry().launcher(name) is None


def test_while_it_is_started_the_launch_has_the_lock(tmp_path: Path, servers: Family) -> None:
    """The control: wrapper and intermediate parent, not the server; it is `starting` for whoever asks."""
    registered.forge("web")
    with (
        Trigger(tmp_path) as trigger,
        launching(*named(SHELL, "-c", f"echo up; read x <{trigger.path}")) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        launch = Launch(process)
        assert holders(".web.lock") == sorted([launch.wrapper.pid, launch.parent.pid])
        assert daemonize.Daemon.find("web").state == STARTING
        launcher = Registry().launcher("web")
        assert launcher is not None
        assert launcher[0] == process.pid
        trigger.close()
        process.wait(20)
    assert daemonize.Daemon.find("web").state == DEAD


def test_a_program_that_daemonizes_itself_with_us(servers: Family) -> None:
    """The program goes on as the server: without the lock of its name, and with a record."""
    done = subprocess.run(
        [*click_server.command(0), "--daemonize"],
        capture_output=True,
        check=False,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done
    (record,) = [file for file in files() if file.endswith(".json")]
    daemon = daemonize.Daemon.find(record.removesuffix(".json"))
    assert (daemon.state, daemon.pid, daemon.record.by_option) == (RUNNING, servers.only().pid, True)
    assert holders(*files()) == []


# --- whoever is killed -----------------------------------------------------------------------------------------------


STEPS = ("intermediate", "streams", "gate", "exec")


@pytest.fixture
def old() -> bytes:
    """The record of the last daemon of the name."""
    with open(registered.forge("web"), "rb") as file:
        return file.read()


def still(old: bytes) -> None:
    """An AssertionError unless the old record is there, byte for byte, and the name can be had."""
    with open(registered.path("web"), "rb") as file:
        assert file.read() == old
    assert Registry().launcher("web") is None
    done = cli.run(*named(*QUICK))
    assert done.status == 0, done
    assert files() == [".web.lock", "web.json"]


@pytest.mark.parametrize(
    ("who", "step"),
    [
        *(("wrapper", step) for step in STEPS),
        *(("parent", step) for step in STEPS),
        *(("both", step) for step in STEPS[:3]),
    ],
)
def test_a_kill_leaves_the_name_free_and_the_record_as_it_was(
    who: str, step: str, old: bytes, tmp_path: Path, servers: Family
) -> None:
    """SIGKILL at every step: until nothing is left the name is taken, then it is free; the record is the old one."""
    with held_at(step, tmp_path, named(*READY)) as (wrapper, release):
        launch = Launch(wrapper)
        meanwhile = cli.run(*named(*READY))
        assert (meanwhile.status, TOO_LATE.fullmatch(meanwhile.err) is not None) == (75, True), meanwhile
        # Else the intermediate parent has stopped the server before a second start could come in between.
        procs.send(launch.parent.pid, signal.SIGSTOP, launch.parent.start)
        if who in ("wrapper", "both"):
            launch.kill("wrapper")
            meanwhile = cli.run(*named(*READY))
            assert (meanwhile.status, b"under way" in meanwhile.err) == (75, True), meanwhile
        if who in ("parent", "both"):
            launch.kill("parent")
        procs.send(launch.parent.pid, signal.SIGCONT, launch.parent.start)
        release.release()
        wrapper.wait(20)
        assert procs.wait_ended(launch.parent.pid, start=launch.parent.start)
        if launch.server:
            assert procs.wait_ended(launch.server.pid, start=launch.server.start)
    servers.nobody()
    still(old)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
@pytest.mark.parametrize("step", STEPS)
def test_an_interrupt_leaves_the_name_free_and_the_record_as_it_was(
    step: str, number: signal.Signals, old: bytes, tmp_path: Path, servers: Family
) -> None:
    """128+N, and as if nothing had been started."""
    with held_at(step, tmp_path, named(*READY)) as (wrapper, release):
        wrapper.send_signal(number)
        release.release()
        assert wrapper.wait(20) == 128 + number
    servers.nobody()
    assert files() == [".web.lock", "web.json"]
    still(old)


@pytest.mark.parametrize("who", ["wrapper", "parent"])
def test_a_kill_when_the_record_is_written(who: str, old: bytes, tmp_path: Path, servers: Family) -> None:
    """The new record is there. A killed wrapper takes the server along, and it says so; a killed parent changes nothing."""
    with held_at("detach", tmp_path, named(*READY)) as (wrapper, release):
        launch = Launch(wrapper)
        launch.kill(who)
        release.release()
        wrapper.wait(20)
        assert procs.wait_ended(launch.parent.pid, start=launch.parent.start)
    daemon = daemonize.Daemon.find("web")
    assert daemon.state == (DEAD if who == "wrapper" else RUNNING)
    assert cli.run(*named(*READY)).status == (0 if who == "wrapper" else 75)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((SHELL, "-c", "exit 3"), 3),
        (("-r", "exit", "true"), 1),
        (("-t", "200ms", "sleep", "100"), 124),
        (("-c", "/no/such/directory", "true"), 125),
        (("-o", "/no/such/directory/log", "true"), 125),
        (("/etc/passwd",), 126),
        (("/no/such/program",), 127),
        (("--strict", SHELL, "-c", "echo no >&2; exec >/dev/null 2>&1; exec sleep 100"), 1),
    ],
    ids=str,
)
def test_a_failed_launch_leaves_the_old_record(
    words: tuple[str, ...], status: int, old: bytes, servers: Family
) -> None:
    """Whatever the failure; and nothing of its own."""
    assert cli.run(*named(*words)).status == status
    assert files() == [".web.lock", "web.json"]
    servers.nobody()
    still(old)


@pytest.mark.parametrize("status", [0, 3])
def test_a_failed_launch_without_a_name(status: int, servers: Family) -> None:
    """The record of the last one of that command is there again, the very file; a launch that goes well writes it anew."""
    path = registered.forge("sh", explicit=False)
    with open(path, "rb") as file:
        before = file.read(), os.stat(path).st_ino
    script = f"exit {status}" if status else "exec >/dev/null 2>&1; exec sleep 100"
    assert cli.run("sh", "-c", script).status == status

    with open(path, "rb") as file:
        assert ((file.read(), os.stat(path).st_ino) == before) == bool(status)
    assert files() == [".sh.lock", "sh.json"]


def test_ports_are_free_again(servers: Family) -> None:
    """A second start is refused before anything is touched: not the port of --listen, not the files of -o."""
    log = os.path.join(os.environ["HOME"], "log")
    assert cli.run(*named("-o", log, *QUICK)).status == 0
    with open(log, "a") as file:
        file.write("old")
    port = ports.free_port()
    done = cli.run(*named("-o", log, "--listen", f"127.0.0.1:{port}", *QUICK))

    assert done.status == 75
    assert os.path.getsize(log) == 3
