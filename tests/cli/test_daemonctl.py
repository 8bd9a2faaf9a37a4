"""`daemonctl`: what it shows of daemons, how it is asked, and how it ends whatever becomes of its output."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import cli, control, procs
from tests.support.listening import server
from tests.support.programs import PYTHON, program
from tests.support.progress import line_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.family import Family
    from tests.support.programs import Trigger

COLUMNS = ["NAME", "STATE", "PID", "UPTIME", "READY", "MEMORY", "COMMAND"]


def listed(*words: str, **how: Any) -> dict[str, dict[str, Any]]:
    """What `list --json` has, by name."""
    result = control.run("list", "--json", *words, **how)
    assert result[0] == 0, result
    found: list[dict[str, Any]] = json.loads(result.out)
    return {known["name"]: known for known in found}


def rows(result: cli.Result) -> list[list[str]]:
    """The lines of a table in a pipe, without the first."""
    head, *lines = result.out.decode().splitlines()
    assert head.split("\t") == COLUMNS
    return [line.split("\t") for line in lines]


def in_terminal(*words: str, columns: int) -> str:
    """What `daemonctl` prints in a real terminal of that width."""
    leader, follower = os.openpty()
    try:
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {"COLUMNS": None, "LINES": None, "TERM": "xterm"}
        done = control.run(*words, stdout=follower, stderr=follower, env=environment)
        assert done.status == 0
        os.close(follower)
        follower = -1
        text = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while more := os.read(leader, 65536):
                text += more
        return text.decode().replace("\r\n", "\n")
    finally:
        os.close(leader)
        if follower >= 0:
            os.close(follower)


@pytest.fixture
def four(trigger: Trigger, servers: Family) -> Iterator[dict[str, int]]:
    """Daemons in the four states, by name; the pids that they have or had."""
    pids = {name: control.started(name, *program("repoints")) for name in ("running", "stopped", "dead")}
    assert control.run("stop", "stopped").status == 0
    procs.stop(pids["dead"])
    held = program("repoints", "started", trigger.arg)
    pids["starting"] = control.started("starting", *program("repoints"))
    assert control.run("stop", "starting").status == 0
    with cli.popen("--name", "starting", *held) as launch:
        procs.eventually(lambda: _is(listed("--all")["starting"]["state"], "starting"))
        try:
            yield pids
        finally:
            trigger.release()
            launch.communicate(timeout=20)


def _is(found: object, wanted: object) -> None:
    assert found == wanted


# -- list ----------------------------------------------------------------------------------------------------------------


def test_states(four: dict[str, int]) -> None:
    """Running ones and those that are being started; with --all stopped ones and dead ones too, in alphabetical order."""
    assert [(row[0], row[1]) for row in rows(control.run("list"))] == [
        ("running", "running"),
        ("starting", "starting"),
    ]
    for words in (["list", "--all"], ["ps", "-a"]):
        assert [row[:2] for row in rows(control.run(*words))] == [[name, name] for name in sorted(four)]
    assert {name: known["state"] for name, known in listed("--all").items()} == {name: name for name in four}
    assert listed().keys() == {"running", "starting"}


def test_facts(four: dict[str, int]) -> None:
    """--json has all that there is to know; pid and what follows from it only of one that runs."""
    known = listed("--all")
    pid, record = four["running"], control.record("running")
    running = known["running"]
    assert running["pid"] == pid
    assert running["process"] == procs.stat(pid).name  # type: ignore[union-attr]
    assert running["ready"] is True
    assert running["ready_after"] == record["seconds"] > 0
    assert running["since"] == record["began"]
    assert running["uptime"] >= 0
    assert running["memory"] > 1 << 20
    assert running["command"] == program("repoints")
    assert (running["stdout"], running["stderr"]) == (record["stdout"], record["stderr"])
    assert running["suspended"] is False
    for name in ("stopped", "dead", "starting"):
        assert [known[name][fact] for fact in ("pid", "process", "uptime", "memory", "ready")] == [
            None,
            None,
            None,
            None,
            False,
        ]
        assert known[name].keys() == running.keys()
    assert known["stopped"]["stopped"] >= record["began"] - 60
    assert known["dead"]["stopped"] is None


def test_columns_in_a_pipe(servers: Family) -> None:
    """Tabs between them, nothing is cut, and no word has a tab or a line feed of its own."""
    odd = "a\tb\nc\x1b[31m\x7f"
    long = "x" * 1000
    pid = control.started("web", *program("repoints", odd, long))

    (row,) = rows(control.run("list"))

    assert row[:3] == ["web", "running", str(pid)]
    assert row[3].endswith("s")
    assert row[4] == f"{control.record('web')['seconds']:.3f}s"
    assert row[5][-1] in "KM"
    assert row[6].endswith(f"'a\\tb\\nc\\x1b[31m\\x7f' {long}")
    assert listed()["web"]["command"][-2:] == [odd, long]


def test_columns_in_a_terminal(servers: Family) -> None:
    """Aligned, and cut to its width; in a wide one they are whole."""
    for name in ("web", "a-longer-name"):
        control.started(name, *program("repoints", "word" * 300))

    lines = in_terminal("list", columns=60).splitlines()
    wide = in_terminal("list", columns=3000).splitlines()

    assert len(lines) == 3
    assert all(len(line) <= 60 for line in lines)
    assert [len(line) == 60 and line.endswith("…") for line in lines[1:]] == [True, True]
    at = lines[0].index("STATE")
    assert [line[at:].startswith("running") for line in lines[1:]] == [True, True]
    assert [line[:at].strip() for line in lines] == ["NAME", "a-longer-name", "web"]
    assert "\t" not in "".join(lines)
    assert [line.endswith("word" * 300) for line in wide] == [False, True, True]


def test_nothing_to_list(family: Family) -> None:
    """Before the first daemon there is no directory: an empty table, an empty list, status 0, and nothing is made."""
    for words in ([], ["--all"]):
        assert rows(control.run("list", *words)) == []
        assert listed(*words) == {}
    assert not os.path.exists(os.environ["DAEMONIZE_RUNTIME_DIR"])


def test_a_record_that_cannot_be_used(servers: Family) -> None:
    """One line about it, status 4, and all the others are listed."""
    control.started("web", *program("repoints"))
    with open(control.record_path("bad"), "w") as file:
        file.write("{")
    os.chmod(control.record_path("bad"), 0o600)

    result = control.run("list")

    assert [row[0] for row in rows(result)] == ["web"]
    assert result.status == 4
    assert (
        result.err
        == (
            f"daemonctl: the record of bad cannot be used: {control.record_path('bad')}: it is damaged: it is no JSON; "
            "to be rid of it: daemonctl forget bad\n"
        ).encode()
    )
    assert control.run("forget", "bad").status == 0
    assert control.run("list").status == 0


def test_names_beyond_ascii(servers: Family) -> None:
    """A name of other letters, in the C locale too, in a pipe and in JSON; one that is not UTF-8 is escaped."""
    control.started("wéb-漢", *program("repoints", "argu\udcff"))
    for locale in ("C", "C.UTF-8", "POSIX"):
        result = control.run("list", env={"LC_ALL": locale, "PYTHONUTF8": None, "PYTHONCOERCECLOCALE": "0"})
        assert result.status == 0, result
        (row,) = rows(result)
        assert row[0] == "wéb-漢"
        assert row[-1].endswith("argu\\udcff'") or row[-1].endswith("argu\\udcff")
        assert list(listed(env={"LC_ALL": locale})) == ["wéb-漢"]
        assert control.run("status", "wéb-漢", env={"LC_ALL": locale}).status == 0
    wrong = control.run("status", b"w\xffb", env={"LC_ALL": "C"})
    assert (wrong.status, wrong.err) == (4, b'daemonctl: no daemon named "w\\udcffb"\n')


# -- status --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["running"], 0),
        (["dead"], 1),
        (["stopped"], 3),
        (["starting"], 3),
        (["nix"], 4),
        (["running", "running"], 0),
        (["running", "dead"], 1),
        (["stopped", "dead", "running"], 3),
        (["nix", "stopped", "running"], 4),
    ],
)
def test_statuses_of_status(four: dict[str, int], names: list[str], status: int) -> None:
    """As Linux Standard Base has them: 0 running, 1 dead, 3 stopped, 4 unknown; of several the worst. Every one is told."""
    result = control.run("status", *names)

    assert result.status == status
    told = [line.partition(":")[0] for line in result.out.decode().splitlines() if not line.startswith(" ")]
    assert told == [name for name in dict.fromkeys(names) if name != "nix"]
    assert (b'daemonctl: no daemon named "nix"\n' in result.err) == ("nix" in names)
    assert control.run("status", "--json", *names).status == status


def test_what_status_tells(servers: Family) -> None:
    """Whether it runs, since when, its pid, command, files, and the last lines that it wrote, without control characters."""
    lines = "".join(f"line {number}\\n" for number in range(9))
    says = f"import os; os.write(1, b'{lines}\\x1b[31mred\\n'); import time; time.sleep(60)"
    pid = control.started("web", "-r", "log:red", *PYTHON, "-c", says)

    text = control.run("status", "web").out.decode()

    record = control.record("web")
    head, *facts = text.splitlines()
    assert head.startswith("web: running since ")
    assert f"ready after {record['seconds']:.3f} s" in head
    assert any(line.split()[:2] == ["pid", str(pid)] for line in facts)
    assert any(line.split()[:2] == ["stdout", record["stdout"]] for line in facts)
    assert facts[-1].endswith("| \\x1b[31mred")
    assert "\x1b" not in text
    assert sum("| line " in line for line in facts) == 4
    assert (
        sum("| " in line for line in control.run("status", "-n", "0", "web").out.decode().splitlines()) == 0
    )
    assert "| line 0" in control.run("status", "-n", "100", "web").out.decode()
    known = control.run("status", "--json", "web").json
    assert {name: known[name] for name in ("name", "state", "pid")} == {
        "name": "web",
        "state": "running",
        "pid": pid,
    }


def test_status_shows_no_words_of_an_earlier_launch(servers: Family) -> None:
    """They are in the same log, and say nothing of this server; its own are shown as soon as there are some."""
    fails = [*PYTHON, "-c", "import sys; sys.exit('cannot open database')"]
    assert cli.run("--name", "web", "-r", "log:up", *fails).status == 1
    control.started("web", "-r", "started", "sleep", "1000")

    assert "cannot open" not in control.run("status", "web").out.decode()
    assert "cannot open" in control.run("logs", "web").out.decode()
    with open(control.record("web")["stderr"], "ab") as log:
        log.write(b"its own\n")
    assert "stderr| its own" in control.run("status", "web").out.decode()


def test_status_of_a_suspended_one(servers: Family) -> None:
    """It runs, and that it is suspended is said: SIGSTOP is no reason to start another."""
    pid = control.started("web", *program("repoints"))
    os.kill(pid, signal.SIGSTOP)

    result = control.run("status", "web")

    assert result.status == 0
    assert b"suspended by a signal (SIGSTOP)" in result.out
    assert listed()["web"]["suspended"] is True


def test_status_of_the_first_start(trigger: Trigger, servers: Family) -> None:
    """There is no record of it yet: it is being started, status 3."""
    with cli.popen("--name", "web", *program("repoints", "hello", trigger.arg)) as launch:
        procs.eventually(lambda: _is(control.run("status", "web").status, 3))
        assert control.run("status", "web").out == b"web: being started, for the first time\n"
        assert control.run("status", "--json", "web").json == {
            "name": "web",
            "state": "starting",
            "pid": None,
            "launch": launch.pid,
        }
        trigger.release()
        assert launch.communicate(timeout=20) == (b"hello\n", b"")
    assert control.run("status", "web").status == 0


def test_a_pid_that_is_anothers(servers: Family) -> None:
    """A record whose pid is another process's by now, or that is of another boot, is of a dead daemon."""
    control.started("web", *program("repoints"))
    assert control.run("status", "web").status == 0
    start = control.record("web")["start"]
    control.change_record("web", start=start + 1)
    assert control.run("status", "web").status == 1
    control.change_record("web", start=start, boot_id="another")
    assert control.run("status", "web").status == 1


# -- forget --------------------------------------------------------------------------------------------------------------


def test_forget(four: dict[str, int]) -> None:
    """Records of daemons that do not run; those that do are refused with words, and the others forgotten all the same."""
    control.started("stopped", "-r", "log:hello", *server("say('hello')"))
    log = control.record("stopped")["stdout"]
    assert control.run("stop", "stopped").status == 0

    result = control.run("forget", "stopped", "running", "nix", "starting", "dead")

    assert (result.status, result.out) == (4, b"")
    told = re.sub(rb"by pid \d+: ", b"by somebody: ", result.err)
    assert told.splitlines() == [
        b"daemonctl: running is running (pid %d); to stop it first: daemonctl stop running" % four["running"],
        b'daemonctl: no daemon named "nix"',
        b"daemonctl: starting is being started by somebody: wait for that, or interrupt it",
    ]
    assert listed("--all").keys() == {"running", "starting"}
    assert os.path.getsize(log) == len("hello\n")


# -- how it is asked -----------------------------------------------------------------------------------------------------

MEANT = b'no daemon named "wbe"; did you mean "web"?'
VERBS = ["status", "stop", "start", "restart", "reload", "wait", "forget", "signal", "show", "logs", "export"]
MISSPELT = [
    *((verb, "wbe", MEANT) for verb in VERBS),
    ("status", "xyzzy", b'no daemon named "xyzzy"'),
    ("stop", "", b'no daemon named ""'),
    ("stop", "../web", b'no daemon named "../web"; did you mean "web"?'),
    ("start", "\x1b[m", b'no daemon named "\\x1b[m"'),
]


@pytest.mark.parametrize(("verb", "name", "error"), MISSPELT)
def test_misspelt_names(servers: Family, verb: str, name: str, error: bytes) -> None:
    """One line, which has what may have been meant; status 4."""
    control.started("web", *program("repoints"))
    more = {"signal": ["HUP"], "export": ["--format", "systemd"]}.get(verb, [])

    assert control.run(verb, name, *more)[:3] == (4, b"", b"daemonctl: " + error + b"\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["stat", "web"], b'there is no verb "stat"; did you mean "status"? (try \'daemonctl --help\')'),
        (["stpo", "web"], b'there is no verb "stpo"; did you mean "stop"? (try \'daemonctl --help\')'),
        (["xyzzy"], b"there is no verb \"xyzzy\" (try 'daemonctl --help')"),
        (["\x1b[m"], b"there is no verb \"\\x1b[m\" (try 'daemonctl --help')"),
        (["stop"], b"Missing argument 'NAME...' (try 'daemonctl stop --help')"),
        (["start", "a", "b"], b"Got unexpected extra argument (b) (try 'daemonctl start --help')"),
        (["stop", "--frce", "web"], b"--frce"),
        (["stop", "--timeout", "soon", "web"], b"soon"),
        (["wait", "--timeout", "-1", "web"], b"-1"),
        (["list", "web"], b"Got unexpected extra argument (web) (try 'daemonctl list --help')"),
    ],
)
def test_wrong_usage(family: Family, words: list[str], error: bytes) -> None:
    """One line that says what is wrong and where to read on; status 2."""
    result = control.run(*words)

    assert (result.status, result.out) == (2, b"")
    assert error in result.err
    assert result.err.count(b"\n") == 1
    assert result.err.startswith(b"daemonctl: ")


def test_help(family: Family) -> None:
    """Of all, and of every verb; without a verb it goes to stderr, status 2."""
    text = control.run("--help").out.decode()
    verbs = [
        "list",
        "status",
        "stop",
        "start",
        "restart",
        "signal",
        "reload",
        "logs",
        "show",
        "wait",
        "forget",
        "export",
    ]
    for verb in verbs:
        assert f"\n  {verb} " in text
        result = control.run(verb, "-h")
        assert (result.status, result.err) == (0, b"")
        assert result.out.startswith(f"Usage: daemonctl {verb} ".encode())
    nothing = control.run()
    assert (nothing.status, nothing.out) == (2, b"")
    assert nothing.err.startswith(b"Usage: daemonctl ")
    assert control.run("--version").out.startswith(b"daemonctl ")


def test_completion_of_names(four: dict[str, int]) -> None:
    """A shell is told the names that begin so."""
    for shell, words, at in (("bash", "daemonctl stop st", "2"), ("zsh", "daemonctl status st", "2")):
        variables = {"_DAEMONCTL_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": at}
        out = control.run(env=variables).out.decode()
        assert "starting" in out
        assert "stopped" in out
        assert "running" not in out


# -- how it ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["list", "--all"], ["list", "--all", "--json"], ["status", "web"], ["--help"]]
)
def test_a_full_disk(servers: Family, words: list[str]) -> None:
    """What could not be written is no success: one line, status 1."""
    control.started("web", *program("repoints"))
    with open("/dev/full", "wb") as full:
        result = control.run(*words, stdout=full)

    assert result.status == 1
    assert result.err == b"daemonctl: cannot write: No space left on device\n"


@pytest.mark.parametrize(
    "words", [["list"], ["list", "--json"], ["status", "web"], ["--help"], ["stop", "web"]]
)
def test_closed_streams(servers: Family, words: list[str]) -> None:
    """Who closes stdout does not want to read: nothing is said of that."""
    control.started("web", *program("repoints"))
    for closed in ("<&-", ">&-", "<&- >&-"):
        line = ["sh", "-c", f'exec "$@" {closed}', "sh", control.COMMAND, *words]
        done = subprocess.run(
            line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=False, timeout=20
        )
        assert (done.returncode, done.stderr) == (0, b"")
    if words[0] == "stop":
        servers.nobody()


def test_a_reader_who_has_seen_enough(servers: Family) -> None:
    """`| head -1` of a list that fills the pipe: no complaint, no traceback."""
    control.started("web", *program("repoints"))
    with open(control.record_path("web")) as file:
        text = file.read()
    for number in range(100):
        with open(control.record_path(f"web{number}"), "w") as file:
            renamed = text.replace('"name": "web"', f'"name": "web{number}"')
            file.write(renamed.replace('"command": [', '"command": ["' + "x" * 2000 + '", '))
        os.chmod(control.record_path(f"web{number}"), 0o600)
    assert len(listed()) == 101
    for word in ("list", "list --json"):
        line = f"{control.COMMAND} {word}; echo $? >&2"
        done = subprocess.run(
            ["sh", "-c", f"({line}) | head -c 10"], capture_output=True, check=False, timeout=30
        )
        assert len(done.stdout) == 10
        assert done.stderr == b"0\n"


#: It says so when it begins to wait.
SAYING = """
import os
from daemonize.cli import daemonctl
from daemonize.launcher.daemon import Daemon
wait = Daemon.wait
Daemon.wait = lambda *words: os.write(2, b"waiting\\n") and wait(*words)
daemonctl.main()
"""


def test_ctrl_c(servers: Family) -> None:
    """It ends by the signal, as a shell expects, and without a traceback."""
    control.started("web", *program("repoints"))
    with subprocess.Popen([sys.executable, "-c", SAYING, "wait", "web"], stderr=subprocess.PIPE) as waiting:
        assert line_with(waiting.stderr, b"waiting")
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=20)
    assert waiting.returncode == -signal.SIGINT
    assert err.strip() == b""
