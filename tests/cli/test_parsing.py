"""The command line: two parsers that read alike, one clear line for what cannot be read, one line of JSON for what was."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import daemonize
from daemonize.cli import command, fast
from daemonize.cli.options import FLAG, OPTIONS
from daemonize.errors import UsageError
from tests.support import cli, procs
from tests.support.programs import SHELL, program

if TYPE_CHECKING:
    from pathlib import Path

    from daemonize.cli.options import Option
    from tests.support.family import Family

# --- whatever the small parser accepts, click reads alike ------------------------------------------------------------

NAMES = [name for option in OPTIONS for name in option.names]
VALUES = [
    "streams", "started", "exit", "alive:1s", "wrong", "500ms", "90s", "2min", "1min 30s", "infinity", "0", "5", "1.5",
    "stop", "leave", "/tmp", "A=1", "B=", "=", "name", "3", "12", "-1", "-", "--", "", "a b", "é", "\udcff", "x=y=z", "-x",
]  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(VALUES),
    st.builds("{}={}".format, st.sampled_from(NAMES), st.sampled_from(VALUES)),
    st.builds("{}{}".format, st.sampled_from(NAMES), st.sampled_from(VALUES)),
    st.builds(
        lambda letters: "-" + "".join(letters), st.lists(st.sampled_from("artfqvceoEx-3="), max_size=5)
    ),
    st.sampled_from([name[:size] for name in NAMES for size in (4, 6, 8)]),
    st.text(max_size=6).filter(lambda text: "\0" not in text),
    st.sampled_from(["--help", "--version", "--", "-", "sleep", "true", "100"]),
)


def by_click(arguments: list[str]) -> object:
    """What click makes of it; the text of a usage error."""
    try:
        return command.parse(list(arguments))
    except UsageError as error:
        return str(error)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arguments=st.lists(WORDS, max_size=7),
    timeout=st.sampled_from([None, "", "5s", "infinity", "0", "nonsense", " 1 s "]),
)
@example(arguments=["-t", "5s", "true"], timeout="nonsense")
@example(arguments=["true"], timeout="")
@example(arguments=["-t", "5s", "-t", "6s", "true"], timeout=None)
@example(arguments=["--", "--", "true"], timeout=None)
@example(arguments=["-qr", "started", "true"], timeout=None)
@example(arguments=["-t=5s", "true"], timeout=None)
@example(arguments=["-"], timeout=None)
@example(arguments=[""], timeout=None)
def test_parsers_agree(arguments: list[str], timeout: str | None) -> None:
    """Whatever the small parser accepts, click reads alike, DAEMONIZE_TIMEOUT included; what it does not is click's."""
    changes = {} if timeout is None else {"DAEMONIZE_TIMEOUT": timeout}
    with mock.patch.dict(os.environ, changes):
        found = fast.parse(list(arguments))
        if found is not None:
            assert found == by_click(arguments)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.names[-1])
def test_small_parser_knows_every_option(option: Option) -> None:
    """The negative control: the small parser does accept each option, in each usual way to write it."""
    value = {
        "timeout": "5s", "on_timeout": "leave", "stop_timeout": "5s", "environment": "A=1", "keep_fds": "5",
            "umask": "027", "nice": "3", "limits": "nofile=64:128", "log_rotate": "10M:3",
    }.get(option.dest, "word")  # fmt: skip
    for name in option.names:
        ways = [[name, value], [f"{name}={value}"] if name.startswith("--") else [name + value]]
        for words in [[name]] if option.kind == FLAG else ways:
            found = fast.parse([*words, "true"])
            assert found is not None
            assert found[0].keys() == {option.dest}
            assert found == by_click([*words, "true"])


# --- bad input ---------------------------------------------------------------------------------------------------------

USAGE = {
    "nothing": ((), "no command was given"),
    "only --": (("--",), "no command was given"),
    "unknown option": (("--frobnicate", "true"), "--frobnicate"),
    "unknown letter": (("-Z", "true"), "-Z"),
    "no value": (("--ready",), "--ready"),
    "wrong spec": (
        ("-r", "soon", "true"),
        "'soon' is not a readiness spec; it can be streams, started, exit, alive:DURATION",
    ),
    "spec without argument": (("-r", "alive", "true"), "alive:DURATION"),
    "spec with a wrong argument": (("-r", "alive:soon", "true"), "alive:DURATION"),
    "spec that never holds": (("-r", "alive:infinity", "true"), "never hold"),
    "spec with too much": (("-r", "exit:0", "true"), "exit"),
    "empty spec": (("-r", "", "true"), "it can be"),
    "control characters": (("-r", "\x1b[31mred\n", "true"), r"\x1b[31mred\n"),
    "wrong duration": (("-t", "soon", "true"), "500ms, 90s, 2min"),
    "no time": (("-t", "0", "true"), "leaves no time"),
    "negative duration": (("-t", "-5s", "true"), "-5"),
    "empty duration": (("-t", "", "true"), "duration"),
    "wrong stop timeout": (("--stop-timeout", "1 parsec", "true"), "parsec"),
    "wrong on-timeout": (("--on-timeout", "panic", "true"), "neither stop nor leave"),
    "variable without =": (("-E", "NAME", "true"), "NAME=VALUE"),
    "variable without a name": (("-E", "=x", "true"), "NAME=VALUE"),
    "descriptor that is not open": (("--keep-fd", "77", "true"), "77"),
    "descriptor of the server's own": (("--keep-fd", "2", "true"), "2"),
    "descriptor that is none": (("--keep-fd", "x", "true"), "x"),
    "huge descriptor": (("--keep-fd", "99999999999999999999", "true"), "99999999999999999999"),
    "odd digits": (("--keep-fd", "٣", "true"), "descriptor"),
    "-a without a file": (("-a", "true"), "append"),
    "-f --on-timeout=leave": (("-f", "--on-timeout=leave", "true"), "foreground"),
    "no user": (("-u", "", "true"), "USER[:GROUP]"),
    "a group alone": (("-u", ":adm", "true"), "USER[:GROUP]"),
    "wrong umask": (("--umask", "088", "true"), "octal"),
    "large umask": (("--umask", "1777", "true"), "octal"),
    "odd umask": (("--umask", "٠٢٢", "true"), "octal"),
    "wrong nice": (("--nice", "very", "true"), "niceness"),
    "huge nice": (("--nice", "1000", "true"), "niceness"),
    "limit without a value": (("--limit", "nofile", "true"), "NAME=SOFT[:HARD]"),
    "limit without a number": (("--limit", "nofile=", "true"), "amount"),
    "negative limit": (("--limit", "nofile=-1", "true"), "amount"),
    "huge limit": (("--limit", "as=99999999999T", "true"), "amount"),
    "unknown limit": (("--limit", "files=1", "true"), "nofile"),
    "limit in capitals": (("--limit", "NOFILE=1", "true"), "nofile"),
    "soft above hard": (("--limit", "nofile=2:1", "true"), "soft"),
    "--core and --no-core": (("--core", "--no-core", "true"), "exclude"),
    "--core and a limit of core": (("--core", "--limit", "core=0", "true"), "exclude"),
    "empty pid file": (("-p", "", "true"), "empty"),
    "empty lock file": (("-l", "", "true"), "empty"),
    "empty root": (("--chroot", "", "true"), "empty"),
    "empty path": (("-o", "", "true"), "empty"),
    "empty directory": (("-c", "", "true"), "empty"),
    "flag with a value": (("--strict=yes", "true"), "--strict"),
}


@pytest.mark.parametrize("kind", USAGE)
def test_usage_errors(kind: str, family: Family, tmp_path: Path) -> None:
    """2, one line on stderr that says what is wrong, nothing on stdout, nothing left behind, and no file touched."""
    words, says = USAGE[kind]
    done = cli.run(*words, cwd=tmp_path)

    text = done.err.decode()
    assert (done.status, done.out) == (2, b"")
    assert text.startswith("daemonize: ")
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert says in text
    assert os.listdir(tmp_path) == []
    family.nobody()


def test_usage_errors_are_said_even_when_quiet() -> None:
    """-q silences lines about the launch, not about its own misuse."""
    assert b"soon" in cli.run("-q", "-r", "soon", "true").err


def test_wrong_timeout_in_the_environment(family: Family) -> None:
    """A wrong DAEMONIZE_TIMEOUT is a usage error that names the variable."""
    done = cli.run("true", env={"DAEMONIZE_TIMEOUT": "soon"})

    assert done.status == 2
    assert b"DAEMONIZE_TIMEOUT" in done.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ready": "soon"}, "it can be"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"stop_timeout": -1.0}, "stop timeout"),
        ({"on_timeout": "panic"}, "panic"),
        ({"keep_fds": [1]}, "1"),
        ({"keep_fds": [777]}, "777"),
        ({"env": {"A=B": "x"}}, "A=B"),
        ({"env": {"": "x"}}, "variable"),
        ({"env": {"A": "x\0y"}}, "NUL"),
        ({"cwd": "a\0b"}, "NUL"),
        ({"append": True}, "append"),
        ({"stdout": ""}, "empty"),
        ({"limits": {"nofile": "1K"}}, "limit of nofile"),
        ({"limits": {"nofile": (1, 2, 3)}}, "limit of nofile"),
        ({"limits": {"nofile": (2, 1)}}, "soft"),
        ({"limits": {"files": 1}}, "nofile"),
        ({"limits": 3}, "limits must be"),
        ({"nice": "5"}, "nice must be"),
        ({"nice": 100}, "nice must be"),
        ({"nice": True}, "nice must be"),
        ({"umask": "027"}, "umask must be"),
        ({"umask": 0o1777}, "umask must be"),
        ({"user": 3.3}, "user must be"),
        ({"user": ""}, "user must be"),
        ({"core": "yes"}, "core must be"),
        ({"core": True, "limits": {"core": 1}}, "exclude"),
        ({"env": {"A": 1}}, "value of A"),
        ({"env": ["A=1"]}, "env must be"),
        ({"pid_file": 5}, "pid_file must be"),
        ({"lock_file": ""}, "empty"),
        ({"chroot": 5}, "chroot must be"),
        ({"keep_fds": 3}, "keep_fds must be"),
        ({"keep_fds": ["a"]}, "keep_fds must be"),
        ({"ready": 5}, "ready must be"),
        ({"timeout": [1]}, "timeout must be"),
        ({"relay_stdout": "out"}, "relay_stdout must be"),
    ],
)
def test_usage_errors_of_launch(options: dict[str, object], says: str, family: Family) -> None:
    """The same from Python: UsageError (a ValueError) with the reason, before anything is started."""
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        daemonize.launch(["true"], **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_status == 2
    family.nobody()


@pytest.mark.parametrize("argv", [[], "sleep 5", b"sleep", ["true", "a\0b"]])
def test_wrong_commands_of_launch(argv: object) -> None:
    """A command is a list of words without NUL bytes."""
    with pytest.raises(UsageError):
        daemonize.launch(argv)  # type: ignore[arg-type]


# --- --json --------------------------------------------------------------------------------------------------------------

ALWAYS = {"outcome", "pid", "status", "seconds", "name", "command", "files", "found", "drain", "message"}


def facts(done: cli.Result) -> dict[str, object]:
    """The line, with what holds of every line checked."""
    line = done.json
    assert line.keys() >= ALWAYS
    assert line["status"] == done.status
    assert 0 <= line["seconds"] <= done.seconds
    assert line["files"].keys() == {"stdout", "stderr"}
    return line


def test_json_ready(servers: Family) -> None:
    """Ready: the pid of the server, no message, the name and the files to continue in."""
    done = cli.run("--json", *program("repoints", "hello"))
    line = facts(done)

    assert (line["outcome"], line["status"], line["message"], line["drain"]) == ("ready", 0, None, None)
    assert line["pid"] == servers.only().pid
    assert line["command"] == program("repoints", "hello")
    assert str(line["name"]).startswith("python")
    state = os.environ["DAEMONIZE_STATE_DIR"]
    assert line["files"] == {"stdout": f"{state}/{line['name']}.out", "stderr": f"{state}/{line['name']}.err"}
    assert done.err == b"hello\n"  # the server's stdout makes room


def test_json_exited(family: Family) -> None:
    """Exited: the status, the message of our line, the name."""
    line = facts(cli.run("--json", *program("dies_silently", 9)))

    assert (line["outcome"], line["status"]) == ("exited", 9)
    assert "exited with status 9" in str(line["message"])
    assert isinstance(line["pid"], int)
    assert str(line["name"]).startswith("python")


def test_json_killed(family: Family) -> None:
    """Died of a signal: which."""
    line = facts(cli.run("--json", *program("dies_by_signal", int(signal.SIGABRT))))

    assert (line["outcome"], line["status"], line["signal"]) == ("exited", 134, 6)


def test_json_not_executed(family: Family) -> None:
    """Not executed: the stage and the error number."""
    line = facts(cli.run("--json", "no-such-command"))

    assert (line["outcome"], line["status"], line["stage"], line["errno"]) == ("not-executed", 127, "exec", 2)


def test_json_timed_out(family: Family) -> None:
    """Timed out: what was waited for, and whether it was left."""
    line = facts(cli.run("--json", "-t", "100ms", "sleep", "100"))

    assert (line["outcome"], line["status"], line["waiting_for"]) == ("timed-out", 124, ["streams"])


def test_json_timed_out_and_left(servers: Family) -> None:
    """Left running: its pid, and the drain's."""
    line = facts(cli.run("--json", "-t", "100ms", "--on-timeout", "leave", "sleep", "100"))

    assert (line["outcome"], line["left"]) == ("timed-out", True)
    assert {p.pid for p in servers.living()} == {line["pid"], line["drain"]}


def test_json_cancelled(family: Family) -> None:
    """Cancelled: by which signal."""
    with cli.popen("--json", SHELL, "-c", "echo up; sleep 100") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"up\n"
        process.terminate()
        out = process.stdout.read()
        assert process.wait(10) == 143
    line = facts(cli.Result(143, out, b"", 60))
    assert (line["outcome"], line["signal"]) == ("cancelled", 15)


def test_json_lost(family: Family) -> None:
    """Lost: the intermediate parent was killed."""
    with cli.popen("--json", SHELL, "-c", "echo up; sleep 100") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"up\n"
        (parent,) = procs.children(process.pid)
        procs.send(parent.pid, signal.SIGKILL, parent.start)
        out = process.stdout.read()
        assert process.wait(10) == 125
    assert facts(cli.Result(125, out, b"", 60))["outcome"] == "lost"


def test_json_of_a_failure_of_ours(tmp_path: Path, family: Family) -> None:
    """Even what fails before anything runs gives the one line, with the status and the message."""
    done = cli.run("--json", "-o", tmp_path / "no" / "file", "true")

    assert done.status == 125
    assert done.json["status"] == 125
    assert "No such file or directory" in done.json["message"]


def test_json_strict(family: Family) -> None:
    """--strict failures have an outcome of the list."""
    script = "echo careful >&2; exec >/dev/null 2>&1; sleep 0.2; exit 6"
    line = facts(cli.run("--json", "--strict", SHELL, "-c", script))

    assert (line["outcome"], line["status"]) == ("exited", 6)


def test_json_is_ascii_whatever_the_command_is(family: Family) -> None:
    """Bytes that are not UTF-8 in the command do not break the line; they come back with surrogateescape."""
    done = cli.run("--json", b"\xff\x1b\n", env={"LC_ALL": "C"})

    assert done.out.isascii()
    assert [os.fsencode(word) for word in done.json["command"]] == [b"\xff\x1b\n"]


# --- the rest --------------------------------------------------------------------------------------------------------------


def test_version() -> None:
    """The version, on stdout."""
    done = cli.run("--version")

    version = importlib.metadata.version("daemonize-ready")
    assert (done.status, done.out, done.err) == (0, f"daemonize {version}\n".encode(), b"")


def test_help() -> None:
    """Every option of the table, the statuses, on stdout, 0; wherever it stands before the command."""
    done = cli.run("--help")

    assert (done.status, done.err) == (0, b"")
    for option in OPTIONS:
        for name in option.names:
            assert name.encode() in done.out
    assert b"Exit status" in done.out
    assert cli.run("-q", "--help", "true").out == done.out
    assert cli.run(*program("crashes_early", 7, "--help")).err == b"--help\n"


@pytest.mark.parametrize(
    "words",
    [
        program("dies_silently", 3),
        ["true"],
        ["no-such-command"],
        ["-t", "100ms", "sleep", "100"],
        ["-o", "/nonexistent/o", "true"],
        ["-r", "exit", "true"],
    ],
)
def test_quiet(words: list[str], family: Family) -> None:
    """-q: no line of ours, the same status."""
    loud, quiet = cli.run(*words), cli.run("-q", *words)

    assert loud.status == quiet.status
    assert loud.err
    assert (quiet.out, quiet.err) == (b"", b"")
    family.nobody()


def test_quiet_still_relays(family: Family) -> None:
    """-q: the server's words are its own."""
    assert cli.run("-q", *program("crashes_early", 7)).err == b"boom\n"


def test_verbose(servers: Family) -> None:
    """-v: every step, on stderr, each line ours; a failure is explained though the server spoke."""
    done = cli.run("-v", *program("repoints", "hello"))
    pid = servers.only().pid

    lines = done.err.decode().splitlines()
    assert (done.status, done.out) == (0, b"hello\n")
    assert all(line.startswith("daemonize: ") for line in lines)
    assert f"daemonize: started pid {pid}" in lines
    assert re.fullmatch(rf"daemonize: ready after [\d.]+ s: pid {pid}", lines[-2])
    assert lines[-1].startswith("daemonize: files for its output: ")
    done = cli.run("-v", *program("crashes_early", 7))
    assert b"boom\n" in done.err
    assert b"exited with status 7" in done.err


def test_messages_are_cleaned(tmp_path: Path) -> None:
    """What others chose is shown without control characters."""
    done = cli.run(f"{tmp_path}/\x1b[31m\nred\x07")

    assert done.status == 127
    assert b"\x1b" not in done.err
    assert done.err.count(b"\n") == 1


def test_as_a_module(family: Family) -> None:
    """`python -m daemonize` is the same command."""
    argv = [sys.executable, "-m", "daemonize", *program("crashes_early", 7)]
    done = subprocess.run(argv, capture_output=True, timeout=30, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"boom\n")
