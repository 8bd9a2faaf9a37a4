"""Exported units: `systemd-analyze verify` accepts them, and under a real systemd they start what was started, as it was."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from daemonize.launcher.export import systemd_unit
from daemonize.logs.stamps import parse
from tests.support import ports, procs
from tests.support.namespaces import COMMAND, PLACE
from tests.support.records import Record
from tests.support.systemd import USER, Manager, Unit, inner_pid

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.systemd

PYTHON = f"{PLACE}/venv/bin/python"
REPORT = f"{PLACE}/programs/report_self.py"
#: Words that mean something to a shell, to systemd, or to whoever reads a unit file.
ODD = [
    "", " ", "a b", "$HOME", "${HOME}", "$$", "%n", "%%", ";", "\\", '"', "'", "a\nb", "\t", "é", "\x1b[m", "#", "-", "--",
    r"a\x41", "*", "~", "\u202e", "'a b'", "{fd}", "|", "&&", "@x", "=", "\x7f", "\u00a0", "\\\n", "end\\", "日本",
]  # fmt: skip
#: Each option that a launch may have had.
OPTIONS: list[dict[str, Any]] = [
    {},
    *({"ready": [spec]} for spec in (
        "streams", "started", "notify", "fd:3", "fdvar:X", "port", "port:127.0.0.1:80", "unix:/run/x", "http://127.0.0.1/",
        "log:^a b$", "file:/tmp/x", "exec:test -e '$HOME' && :", "alive:2s", "exit",
    )),
    *({"timeout": value, "stop_timeout": value} for value in (0.5, 300, "infinity")),
    {"on_timeout": "leave"}, {"strict": True}, {"safe": True}, {"directory": "/tmp/a b %n"}, {"umask": 0o27},
    {"environment": {"A": "b c", "D": "%n $x \"'\\\n\té", "a.b": "c"}}, {"clear_environment": True},
    {"stdout": "/tmp/a b %n"}, {"stderr": "/tmp/e", "append": True}, {"stdout": "/dev/null", "stderr": "/dev/null"},
    {"stdin": "/etc/passwd"}, {"keep_fds": [5]}, {"listen": ["x=127.0.0.1:0", "unix:/run/x"]}, {"user": "daemon"},
    {"user": "daemon:mail"}, {"user": 65534}, {"chroot": "/"}, {"nice": -9}, {"nice": 5}, {"core": True}, {"core": False},
    {"limits": {name: [5, 6] for name in (
        "as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "rss", "stack", "msgqueue", "nice", "rtprio",
        "sigpending", "rttime", "ofile",
    )}},
    {"limits": {"nofile": 100, "as": -1, "cpu": [-1, -1]}}, {"pid_file": "/run/x.pid"}, {"lock_file": "/run/x.lock"},
    {"log_rotate": [1, 2], "timestamps": True}, {"watchdog": "http://127.0.0.1/"}, {"invented": {"a": "b"}},
]  # fmt: skip


def record(command: list[str], directory: str = PLACE, **settings: Any) -> Record:
    """Of a daemon that was started so."""
    return Record(program=command[0], directory=directory, settings={"command": command, **settings})


def export(manager: Manager, record: Record) -> Unit:
    """The unit, for this manager."""
    unit = manager.install(systemd_unit(record, COMMAND, system=not manager.user))
    manager.ctl("daemon-reload", check=True)
    return unit


@pytest.fixture
def reported(system_manager: Manager) -> Iterator[str]:
    """Where report_self.py puts its report, as it sees it; everybody may write there."""
    directory = f"{system_manager.inside.directory}/reports"
    os.mkdir(directory)
    os.chmod(directory, 0o1777)
    yield f"{PLACE}/reports/report"
    system_manager.clear()
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")
    os.rmdir(directory)


def report(manager: Manager, path: str) -> dict[str, Any]:
    """The report, once it is complete."""

    def read() -> dict[str, Any]:
        with open(manager.inside.directory + path.removeprefix(PLACE)) as file:
            text = file.read()
        assert text.endswith("\n")
        found: dict[str, Any] = json.loads(text)
        return found

    return procs.eventually(read)


# -- what systemd says of them ----------------------------------------------------------------------------------------


def test_every_option_is_accepted(system_manager: Manager) -> None:
    """`systemd-analyze verify` has nothing to say, whichever option, in either form."""
    paths = []
    for number, settings in enumerate(OPTIONS):
        for ready in ("started", "port"):
            text = systemd_unit(
                record(["/bin/true", "-x"], **{"ready": [ready], **settings}), "/bin/true", system=True
            )
            paths.append(f"exported-{number}-{ready}.service")
            with open(f"{system_manager.inside.directory}/{paths[-1]}", "w") as file:
                file.write(text)
    done = system_manager.run("systemd-analyze", "verify", *(f"{PLACE}/{path}" for path in paths))
    for path in paths:
        os.unlink(f"{system_manager.inside.directory}/{path}")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_control_what_is_not_accepted(system_manager: Manager) -> None:
    """Negative control: a directive that there is not."""
    path = f"{system_manager.inside.directory}/wrong.service"
    text = systemd_unit(record(["/bin/true"]), "/bin/true", system=True)
    with open(path, "w") as file:
        file.write(text.replace("Type=", "Tpye="))
    done = system_manager.run("systemd-analyze", "verify", f"{PLACE}/wrong.service")
    os.unlink(path)

    assert "Tpye" in done.stderr


# -- what they start --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ready", "name"), [("started", "a.sh"), ("started", "a's.sh"), ("streams", "a's.sh")]
)
def test_every_word_and_variable_is_what_it_was(
    system_manager: Manager, reported: str, ready: str, name: str
) -> None:
    """Odd ones included: in the words, the variables, the directory, the path of the program."""
    odd = f"{system_manager.inside.directory}/odd $x %n é;"
    os.makedirs(odd, exist_ok=True)
    program = f"{odd}/{name}"
    with open(program, "w") as file:
        file.write(f'#!/bin/sh\nexec {PYTHON} -S -E {REPORT} "$@"\n')
    os.chmod(program, 0o755)
    inside = odd.replace(system_manager.inside.directory, PLACE)
    variables = {"A": "x y", "B": "$HOME %n \"'\\\n\té", "C": "", "PYTHONSTARTUP": "/x", "a-b": "c"}
    if ready == "started":
        del variables["a-b"]  # the shell does not pass it on
    was = record(
        [f"{inside}/{name}", f"into={reported}", *ODD],
        directory=inside,
        ready=[ready],
        environment=variables,
    )
    unit = export(system_manager, was)
    unit.start()
    found = report(system_manager, reported)

    assert found["argv"] == [f"into={reported}", *ODD]
    assert {name: found["environ"].get(name) for name in variables if name != "a-b"} == {
        name: value for name, value in variables.items() if name != "a-b"
    }
    assert found["cwd"] == inside
    assert ("daemonize" in exec_path(unit)) == (ready == "streams" or "'" in name)


def exec_path(unit: Unit) -> str:
    """What is executed."""
    (found,) = unit.show("ExecStart")
    return os.path.basename(found.split(" ; ")[0])


def test_words_that_are_no_text(system_manager: Manager, reported: str) -> None:
    """They are what they were, though `systemctl show` of this systemd fails on such a unit, which it says itself."""
    was = record(
        [PYTHON, "-S", "-E", REPORT, f"into={reported}", "\udcff\udcfe", "é\udcc3"], ready=["started"]
    )
    text = systemd_unit(was, COMMAND, system=True)
    unit = system_manager.install(text)
    system_manager.ctl("daemon-reload", check=True)
    unit.start()
    found = report(system_manager, reported)
    system_manager.units.remove(unit)  # it cannot be asked for its processes
    system_manager.ctl("stop", unit.name, check=True)
    os.unlink(f"{system_manager.inside.directory}/units/{unit.name}")
    system_manager.ctl("daemon-reload", check=True)

    assert found["argv"][1:] == ["\udcff\udcfe", "é\udcc3"]
    assert "# Not all words of its command line are UTF-8" in text


@pytest.mark.parametrize("ready", ["started", "streams"])
def test_its_surroundings_are_what_they_were(system_manager: Manager, reported: str, ready: str) -> None:
    """User, directory, mask, niceness, limits, stdin: by systemd's directives, or by our options."""
    was = record(
        [PYTHON, "-S", "-E", REPORT, f"into={reported}"], directory="/root", ready=[ready], user=USER, umask=0o27, nice=3,
        limits={"nofile": [100, 200], "cpu": [1000, None]}, core=False, stdin="/etc/passwd", stdout=f"{reported}.out",
        environment={"HOME": "/nowhere"},
    )  # fmt: skip
    unit = export(system_manager, was)
    unit.start()
    found = report(system_manager, reported)

    assert (found["uid"], found["gid"]) == (65534, 65534)
    assert (found["umask"], found["nice"], found["stdin"]) == (0o27, 3, "/etc/passwd")
    assert found["limits"]["Max open files"] == ["100", "200"]
    assert found["limits"]["Max cpu time"][0] == "1000"
    assert found["limits"]["Max core file size"] == ["0", "0"]
    assert found["environ"]["HOME"] == "/nowhere"
    out = found["streams"]["stdout"]["target"]
    assert (out == f"{reported}.out") == (ready == "started")
    if ready == "streams":
        assert found["environ"]["DAEMONIZE_STDOUT"] == f"{reported}.out"


def test_files_are_truncated_or_appended_to(system_manager: Manager, reported: str) -> None:
    """As they were; stderr, of which nothing was said, goes to the journal, and not where stdout goes."""
    path = f"{reported}.out"
    out = system_manager.inside.directory + path.removeprefix(PLACE)
    for append, expected in ((False, "out\n"), (True, "out\nout\n")):
        with open(out, "a") as file:
            file.write("" if append else "before\n")
        was = record(["/bin/sh", "-c", "echo out; echo err >&2; exec sleep 1000"], stdout=path, append=append)
        unit = export(system_manager, was)
        unit.start()
        procs.eventually(lambda expected=expected: _assert_contains(out, expected))
        procs.eventually(lambda unit=unit: _assert_said(unit, "err"))
        assert unit.ctl("stop") == 0


def _assert_contains(path: str, text: str) -> None:
    with open(path) as file:
        assert file.read() == text


def _assert_said(unit: Unit, line: str) -> None:
    assert line in unit.journal()


def test_a_server_that_listens(manager: Manager) -> None:
    """When `start` returns the first client is answered; it ends as one that was stopped."""
    port = ports.free_port()
    command = [PYTHON, "-m", "http.server", "--bind", ports.HOST, str(port)]
    unit = export(manager, record(command, ready=[f"port:{port}"]))
    unit.start()
    answer = ports.get(port)
    assert unit.ctl("stop") == 0

    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert unit.show("Type", "NotifyAccess", "KillMode", "ActiveState", "Result") == [
        "notify", "main", "mixed", "inactive", "success",
    ]  # fmt: skip
    assert not unit.complaints()


def test_logs_with_time_stamps(system_manager: Manager, reported: str) -> None:
    """A file that a drain writes, for a server of another user."""
    command = ["/bin/sh", "-c", "echo out; exec sleep 1000"]
    was = record(
        command, ready=["started"], stdout=f"{reported}.log", timestamps=True, log_rotate=[1000, 1], user=USER
    )
    unit = export(system_manager, was)
    unit.start()
    path = system_manager.inside.directory + f"{reported}.log".removeprefix(PLACE)

    def written() -> None:
        with open(path, "rb") as file:
            line = file.read()
        assert parse(line)
        assert line.endswith(b"Z out\n")

    procs.eventually(written)
    assert unit.ctl("stop") == 0


def test_a_server_that_never_listens(manager: Manager) -> None:
    """It is daemonize that gives up, and says what it has waited for."""
    unit = export(manager, record(["/bin/sleep", "1000"], ready=["port:1"], timeout=0.5))
    assert unit.ctl("start") != 0
    assert any("was not ready within 0.5 s (waited for: port:1" in line for line in unit.journal())


def test_a_server_that_notifies(manager: Manager) -> None:
    """From a child of its, too, as daemonize would have heard it; the command is its own."""
    told = 'import os, socket; socket.socket(1, 2).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"]);'
    wait = "import time; time.sleep(1000)"
    for who in ("", "import os; os.fork() and os.wait();"):
        unit = export(manager, record([PYTHON, "-S", "-E", "-c", f"{who}{told}{wait}"], ready=["notify"]))
        unit.start()
        main = unit.main()
        assert main
        assert "READY=1" in procs.command_line(main.pid)
        assert unit.ctl("stop") == 0


def test_a_server_that_never_notifies(manager: Manager) -> None:
    """Negative control: it is waited for."""
    assert export(manager, record(["/bin/sleep", "1000"], ready=["notify"], timeout=0.5)).ctl("start") != 0


@pytest.mark.parametrize("with_pid_file", [False, True])
def test_a_server_that_daemonizes_itself(manager: Manager, with_pid_file: bool) -> None:
    """What it leaves behind is the main process; a pid file that was asked for names it."""
    pid_file = f"{manager.runtime}/exported.pid"
    settings = {"pid_file": pid_file} if with_pid_file else {}
    command = [PYTHON, "-S", "-E", f"{PLACE}/programs/self_daemonizes.py", "last"]
    unit = export(manager, record(command, ready=["exit"], **settings))
    unit.start()
    main = unit.main()
    assert main
    assert unit.show("Type", "PIDFile") == ["forking", pid_file if with_pid_file else ""]
    assert unit.processes() == [main]
    assert "self_daemonizes" in procs.command_line(main.pid)
    if with_pid_file:
        with open(manager.path(pid_file)) as file:
            assert file.read() == f"{inner_pid(main.pid)}\n"
    assert not unit.complaints()


def test_sockets_are_handed_over(system_manager: Manager, reported: str) -> None:
    """By daemonize, which fills in where they are."""
    command = [PYTHON, "-S", "-E", REPORT, f"into={reported}", "{fd}"]
    unit = export(system_manager, record(command, listen=["127.0.0.1:0"], ready=["started"]))
    unit.start()
    found = report(system_manager, reported)

    assert found["argv"][1] == "3"
    assert found["descriptors"]["3"].startswith("socket:")
