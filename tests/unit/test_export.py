"""A record as a unit: type, directives, options, and what cannot be said. That systemd takes it: tests/systemd."""

from __future__ import annotations

from typing import Any

import pytest

from daemonize.daemon_errors import NotPossible
from daemonize.launcher.export import systemd_unit
from daemonize.launcher.unittext import duration
from tests.support.records import Record

COMMAND = "/opt/daemonize/bin/daemonize"


def unit(*, system: bool = True, record: dict[str, Any] | None = None, **settings: Any) -> list[str]:
    """The lines of the unit of a server."""
    settings = {"command": ["server", "-x"], **settings}
    given = {"program": "/usr/bin/server", "directory": "/srv", "settings": settings, **(record or {})}
    return systemd_unit(Record(**given), COMMAND, system=system).splitlines()


def exec_of(lines: list[str]) -> str:
    """Its command line."""
    (line,) = [line for line in lines if line.startswith("ExecStart=")]
    return line.removeprefix("ExecStart=")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"ready": ["notify"]}, "notify"),
        ({"ready": ["started"]}, "exec"),
        ({"stdout": "/tmp/log"}, "exec"),
        ({"ready": ["exit"]}, "forking"),
    ],
)
def test_systemd_waits_for_what_it_can_wait_for(settings: dict[str, Any], kind: str) -> None:
    """The server itself is the command."""
    lines = unit(**settings)
    assert f"Type={kind}" in lines
    assert exec_of(lines) == "/usr/bin/server -x"
    assert ("NotifyAccess=all" in lines) == (kind == "notify")


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, "--ready streams"),
        ({"ready": ["port:80"]}, "--ready port:80"),
        ({"ready": ["exit", "port:80"]}, "--ready exit --ready port:80"),
        ({"ready": ["notify", "http://127.0.0.1/"]}, "--ready notify --ready http://127.0.0.1/"),
    ],
)
def test_for_anything_else_there_is_daemonize(settings: dict[str, Any], options: str) -> None:
    """In the foreground, with the same specs and the same timeout, and systemd waits longer than that."""
    lines = unit(**settings)
    assert {"Type=notify", "NotifyAccess=main", "KillMode=mixed", "TimeoutStartSec=105s"} <= set(lines)
    assert exec_of(lines) == f"{COMMAND} -f {options} --timeout 90s -- /usr/bin/server -x"


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"listen": ["a=8080", "unix:/run/x"]}, "--listen a=8080 --listen unix:/run/x"),
        ({"pid_file": "/run/x.pid"}, "--pid-file /run/x.pid"),
        ({"lock_file": "/run/x.lock"}, "--lock-file /run/x.lock"),
        ({"strict": True}, "--strict"),
        ({"safe": True}, "--safe"),
        ({"clear_environment": True, "environment": {"A": "b"}}, "--clear-env --env A=b"),
        ({"environment": {"a-b": "c"}}, "--env a-b=c"),
        ({"environment": {"A": "\x01"}}, r'--env "A=\x01"'),
        ({"directory": "/a\nb"}, r'--chdir "/a\nb"'),
        ({"stdout": "/a\nb", "ready": ["started"]}, r'-o "/a\nb"'),
        ({"user": "odd@name"}, "--user odd@name"),
    ],
)
def test_what_systemd_has_no_word_for(settings: dict[str, Any], option: str) -> None:
    """Is an option of daemonize, whatever is waited for."""
    lines = unit(**{"ready": ["started"], **settings})
    assert f" {option} " in exec_of(lines)
    assert "Type=notify" in lines


@pytest.mark.parametrize("ready", ["started", "port:80"])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["WorkingDirectory=-/srv", "TimeoutStopSec=10s"]),
        ({"user": "www-data"}, ["User=www-data"]),
        ({"user": "www-data:adm"}, ["User=www-data", "Group=adm"]),
        ({"user": 33}, ["User=33"]),
        ({"umask": 0o27}, ["UMask=0027"]),
        ({"nice": 40}, ["Nice=19"]),
        ({"nice": -3}, ["Nice=-3"]),
        ({"environment": {"A": "b c%"}}, ['Environment="A=b c%%"']),
        ({"stdin": "/a %b"}, ["StandardInput=file:/a %%b"]),
        ({"stdout": "/o"}, ["StandardOutput=truncate:/o", "StandardError=journal"]),
        ({"stderr": "/e", "append": True}, ["StandardError=append:/e"]),
        ({"stdout": "/dev/null", "stderr": "/e"}, ["StandardOutput=null", "StandardError=truncate:/e"]),
        ({"stop_timeout": 0}, ["TimeoutStopSec=0.001s"]),
        ({"stop_timeout": 1.5}, ["TimeoutStopSec=1.5s"]),
        ({"timeout": "infinity"}, ["TimeoutStartSec=infinity"]),
    ],
)
def test_directives(settings: dict[str, Any], expected: list[str], ready: str) -> None:
    """Whether the command is the server's or ours."""
    assert set(expected) <= set(unit(ready=[ready], **settings))


def test_what_would_bind_daemonize_too_is_its_option() -> None:
    """A limit on memory, or another root, is the server's."""
    bounds = {
        "limits": {"nofile": [10, 20], "as": -1, "cpu": [3, None]},
        "core": False,
        "chroot": "/srv/root",
    }
    native = unit(ready=["started"], **bounds)
    wrapped = unit(ready=["port"], user="www-data", environment={"PYTHONPATH": "/x", "A": "b"}, **bounds)

    assert {
        "LimitNOFILE=10:20", "LimitAS=infinity:infinity", "LimitCPU=3:infinity", "LimitCORE=0",
        "RootDirectory=/srv/root", "WorkingDirectory=/",
    } <= set(native)  # fmt: skip
    for option in (
        "--env PYTHONPATH=/x", "--chroot /srv/root", "--user www-data", "--no-core",
        "--limit nofile=10:20", "--limit as=unlimited", "--limit cpu=3",
    ):  # fmt: skip
        assert f" {option} " in exec_of(wrapped)
    assert "Environment=A=b" in wrapped
    assert not [line for line in wrapped if line.startswith(("Limit", "Root", "User="))]


def test_a_pid_file_of_what_daemonizes_itself() -> None:
    """Daemonize writes it, in the background, and systemd reads it."""
    lines = unit(ready=["exit"], pid_file="/run/x.pid", stdout="/o", stdin="/i", timeout=5)
    assert {"Type=forking", "PIDFile=/run/x.pid", "TimeoutStartSec=20s"} <= set(lines)
    options = "--ready exit --timeout 5s --pid-file /run/x.pid -o /o --stdin /i"
    assert exec_of(lines) == f"{COMMAND} {options} -- /usr/bin/server -x"
    assert "KillMode=mixed" not in lines


def test_a_server_goes_on_in_the_logs_that_it_had() -> None:
    """One that lets go of its streams is told of files, as it was: those that were asked for, or its own."""
    own = {"stdout": "/var/log/daemonize/web.out", "stderr": "/var/log/daemonize/web.err"}
    assert f" -a -o {own['stdout']} -e {own['stderr']} -- " in exec_of(unit(record=own))
    assert " -a -o /o -- " in exec_of(unit(record=own, ready=["streams"], stdout="/o", append=True))
    assert " -o " not in exec_of(unit(record=own, ready=["port"]))


def test_logs_with_time_stamps() -> None:
    """Files that are written by a drain go on being written so."""
    drained = {"log_rotate": [1000, 3], "timestamps": True}
    lines = unit(stdout="/o", ready=["started"], user="www-data", **drained)
    options = "--user www-data --log-rotate 1000:3 --timestamps -o /o"
    assert exec_of(lines).endswith(f" {options} -- /usr/bin/server -x")
    own = unit(record={"stdout": "/v/web.out", "stderr": "/v/web.err"}, **drained)
    assert " -a --log-rotate 1000:3 --timestamps -o /v/web.out -e /v/web.err -- " in exec_of(own)
    assert not [line for line in lines + own if "journal" in line]


def test_a_foreground_record() -> None:
    """Of which nobody said how it becomes ready: it was never waited for."""
    assert "Type=exec" in unit(record={"foreground": True})
    lines = unit(record={"foreground": True}, ready=["port"])
    assert "TimeoutStartSec=infinity" in lines
    assert "--timeout infinity" in exec_of(lines)


def test_a_program_with_an_option_of_its_own() -> None:
    """It daemonizes itself, as it did, and sees to all that it was asked for by itself; systemd reads its pid file."""
    record = {"by_option": True, "pid_file": "/run/x.pid"}
    lines = unit(
        record=record, command=["server", "--daemonize"], user="x", umask=7, ready=["streams"], timeout=5
    )
    assert exec_of(lines) == "/usr/bin/server --daemonize"
    assert {"Type=forking", "PIDFile=/run/x.pid", "TimeoutStartSec=5s", "WorkingDirectory=-/srv"} <= set(
        lines
    )
    assert not [line for line in lines if line.startswith(("User=", "UMask="))]


def test_a_user_unit() -> None:
    """For the manager of a user, who cannot be somebody else."""
    lines = unit(system=False, ready=["started"], user="www-data")
    assert "WantedBy=default.target" in lines
    assert not [line for line in lines if line.startswith("User=")]
    assert any(line.startswith("# The unit of a user") for line in lines)
    assert "WantedBy=multi-user.target" in unit()


@pytest.mark.parametrize(
    ("settings", "remark"),
    [
        ({"keep_fds": [7]}, "descriptor 7"),
        ({"on_timeout": "leave"}, "--on-timeout=leave"),
        ({"log_rotate": [1, 2], "ready": ["port"]}, "in the journal, which has time stamps"),
        ({"timestamps": True, "ready": ["notify"]}, "in the journal, which has time stamps"),
        ({"invented": "a\nb"}, r"invented='a\nb'"),
        ({"command": ["server", "\udcff"]}, "not all words"),
    ],
)
def test_what_cannot_be_said_is_said(settings: dict[str, Any], remark: str) -> None:
    """In a comment."""
    remarks = [line for line in unit(**settings) if line.startswith("#")]
    assert any(remark.lower() in line.lower() for line in remarks), remarks


def test_names_are_no_directives() -> None:
    """What is in a name cannot become a line of the unit, nor a specifier."""
    lines = unit(record={"name": "a\nExecStart=/bin/evil %n\x1b"})
    assert len([line for line in lines if line.startswith("ExecStart=")]) == 1
    assert r"Description=a\nExecStart=/bin/evil %%n\x1b" in lines


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"program": None}, "the path of the program server is not known"),
        ({"settings": {"command": ["s"] + ["x" * 1000] * 1100}}, "too long for a line"),
        ({"settings": {"command": ["s"], "ready": ["exit"], "pid_file": "/a\nb"}}, "takes no pid file"),
    ],
)
def test_what_cannot_be_exported(record: dict[str, Any], why: str) -> None:
    """An error in words, of one line."""
    with pytest.raises(NotPossible, match=f"web cannot be exported to systemd: .*{why}") as caught:
        unit(record=record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90.0, "90s"), (0.5, "0.5s"), (0.0, "0.001s"), (1e6, "1000000s"), (float("inf"), "infinity")],
)
def test_durations(seconds: float, text: str) -> None:
    """As systemd reads them; zero is not for ever."""
    assert duration(seconds) == text
