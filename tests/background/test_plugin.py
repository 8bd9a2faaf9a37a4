"""The pytest plugin, in tests that a pytest of their own runs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

from tests.support import inner, procs

if TYPE_CHECKING:
    from pathlib import Path

SECTION = re.compile(r"^-+ (server output: .*?) -+$", re.MULTILINE)


def sections(said: str) -> list[str]:
    """The titles of the sections with the output of servers."""
    return SECTION.findall(said)


# --- background_server


STARTS = """
def test_starts(background_server):
    first, second = background_server(echo("first")), background_server(echo("second"), env={"A": "1"})
    assert first.listening and second.listening and first.port != second.port
    tell(first, "hello")
    assert first.stdout == "first serves\\ntold hello\\n"
    note(first.pid, second.pid)

def test_after():
    note(*noted("ended"))
"""


def test_servers_end_with_their_test(tmp_path: Path) -> None:
    """What a test has started is ready when it has it, and is stopped before the next test, the last one first."""
    done = inner.run(tmp_path, STARTS)

    assert done.status == 0, done.said
    pids, ended = inner.noted(tmp_path)
    assert ended == "second first"
    inner.assert_ended([int(pid) for pid in pids.split()])
    assert sections(done.said) == []


FAILS_TO_STOP = """
def still_runs(server):
    def stop():
        daemonize.BackgroundServer.stop(server)
        raise daemonize.StillRunning([(server.pid, server.stdout.split()[0])])
    return stop

def test_stops(background_server):
    for name in ("first", "second", "third"):
        server = background_server(echo(name))
        if name != "first":
            server.stop = still_runs(server)
"""


def test_all_are_stopped_though_one_cannot_be(tmp_path: Path) -> None:
    """StillRunning fails the teardown, and the other servers are stopped all the same."""
    done = inner.run(tmp_path, FAILS_TO_STOP)

    assert done.status == 1
    assert "1 passed, 1 error" in done.said
    assert "ERROR at teardown of test_stops" in done.said
    assert "still running, although everything was done that this user may do: second (pid " in done.said
    assert "still running, although everything was done that this user may do: third (pid " in done.said
    assert inner.noted(tmp_path, "ended") == ["third", "second", "first"]


def test_a_server_that_does_not_start_is_told_in_the_test(tmp_path: Path) -> None:
    """The report shows the line of the test and what the server said, once, and no line of ours. Others are stopped."""
    code = "def test_it(background_server):\n    background_server(echo())\n    background_server(CRASH, port=0)\n"
    done = inner.run(tmp_path, code)

    assert done.status == 1
    assert ">       background_server(CRASH, port=0)" in done.said
    assert "daemonize.outcomes.CrashedOnStartup: " in done.said
    assert done.said.count("out 0: no luck") == 1
    assert "pytest_plugin.py" not in done.said
    assert inner.noted(tmp_path, "ended") == ["echo"]
    assert len(sections(done.said)) == 1


# --- what servers said


SAYS = """
def test_fails(background_server):
    tell(background_server(echo("talker")), "hello")
    background_server(echo("quiet"))
    assert not "this is so"

def test_passes(background_server):
    tell(background_server(echo()), "hello")

@pytest.mark.xfail
def test_is_expected_to_fail(background_server):
    background_server(echo())
    assert not "this is so"

def test_skips(background_server):
    background_server(echo())
    pytest.skip("no reason")

def test_has_none():
    assert not "this is so"
"""


def test_the_report_of_a_failing_test_has_what_its_servers_said(tmp_path: Path) -> None:
    """Each of them a section, with the command, the pid and the port, and the numbered lines. Other reports have none."""
    done = inner.run(tmp_path, SAYS)

    assert "2 failed, 1 passed, 1 skipped, 1 xfailed" in done.said
    talker, quiet = sections(done.said)
    assert re.fullmatch(r"server output: \S+ -S -E \S+/echo\.py talker (\d+) \(pid \d+, port \1\)", talker)
    assert " quiet " in quiet
    assert "-\n  out 0: talker serves\n  out 1: told hello\n  err 0: on stderr hello\n-" in done.said
    assert "-\n  out 0: quiet serves\nerr: <empty>\n_" in done.said


LASTING = """
@pytest.fixture(scope="session")
def server(background_server_factory):
    return background_server_factory(echo("lasting"))

@pytest.fixture(scope="session")
def other(background_server_factory):
    return background_server_factory(echo("other"))

def test_first(server):
    tell(server, "first")
    assert not "this is so"

def test_passes(server, other):
    tell(server, "passes")

def test_last(server, other):
    tell(server, "last\\nand more")
    assert not "this is so"

def test_without(server, other):
    assert not "this is so"

def test_later(server, other):
    note(server.pid, other.pid, other.listening)
"""


def test_of_a_server_of_the_session_there_is_what_it_said_during_the_test(tmp_path: Path) -> None:
    """One that was there before counts from then on, and one that said nothing meanwhile is not mentioned."""
    done = inner.run(tmp_path, LASTING)

    assert "3 failed, 2 passed" in done.said
    first, last = sections(done.said)
    assert " lasting " in first
    assert first == last
    assert "-\n  out 0: lasting serves\n  out 1: told first\n  err 0: on stderr first\n_" in done.said
    assert "-\n  out 0: told last\n  out 1: and more\n  err 0: on stderr last\n_" in done.said
    assert inner.noted(tmp_path, "ended") == ["other", "lasting"]
    server, other, listening = inner.noted(tmp_path)[0].split()
    assert listening == "True"
    inner.assert_ended([int(server), int(other)])


MODULE = """
@pytest.fixture(scope="module")
def server(background_server_factory):
    server = background_server_factory(echo("module's"))
    yield server
    server.stop()

@pytest.fixture(scope="class")
def own():
    with daemonize.BackgroundServer(echo("class's")) as server:
        yield server

class Test:
    def test_fails(self, server, own):
        tell(server, "failing")
        assert own.listening and not "this is so"

    def test_passes(self, server, own):
        note(server.pid, own.pid)
"""


def test_fixtures_of_any_scope_can_have_servers(tmp_path: Path) -> None:
    """One of the factory's can be stopped earlier, and is then not stopped again. What any of them says is attached."""
    done = inner.run(tmp_path, MODULE)

    assert "1 failed, 1 passed" in done.said
    of_class, of_module = sorted(sections(done.said))
    assert "class's" in of_class
    assert "module's" in of_module
    assert "out 1: told failing" in done.said
    assert inner.noted(tmp_path, "ended") == ["class's", "module's"]
    inner.assert_ended([int(pid) for pid in inner.noted(tmp_path)[0].split()])


MANY_MODULES = """
@pytest.mark.parametrize("number", range(4))
def test_it(background_server_factory, number):
    background_server_factory(echo()).stop()
    note(len(os.listdir("/proc/self/fd")))
"""


def test_a_server_that_was_stopped_is_let_go(tmp_path: Path) -> None:
    """Its logs, which are open files, do not add up until the end of the session."""
    done = inner.run(tmp_path, MANY_MODULES)

    assert done.status == 0, done.said
    counts = inner.noted(tmp_path)
    assert counts[1:] == counts[1:2] * 3


PHASES = """
@pytest.fixture
def failing_setup(background_server):
    tell(background_server(echo("in-setup")), "before")
    raise RuntimeError("setup")

@pytest.fixture
def failing_teardown(background_server):
    server = background_server(echo("for-teardown"))
    yield server
    tell(server, "at last")
    raise RuntimeError("teardown")

def test_setup(failing_setup):
    pass

def test_teardown(failing_teardown):
    tell(failing_teardown, "meanwhile")
"""


def test_failures_of_setup_and_teardown_have_it_too(tmp_path: Path) -> None:
    """What the servers have said until then."""
    done = inner.run(tmp_path, PHASES)

    assert "1 passed, 2 errors" in done.said
    setup, teardown = sections(done.said)
    assert " in-setup " in setup
    assert " for-teardown " in teardown
    assert "  out 1: told before\n" in done.said
    assert "  out 1: told meanwhile\n  out 2: told at last\n" in done.said


def test_of_many_lines_there_are_the_last(tmp_path: Path) -> None:
    """200 of each stream, and how many there were before them."""
    code = """
def test_it(background_server):
    server = background_server(echo())
    tell(server, "\\n".join(map(str, range(1, 501))))
    assert not "this is so"
"""
    said = inner.run(tmp_path, code).said

    assert "-\n  out: 301 lines before these\n  out 301: 301\n  out 302: 302\n" in said
    assert "\n  out 500: 500\n  err 0: on stderr 1\n=" in said
    assert len(re.findall(r"^  out \d", said, re.MULTILINE)) == 200


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--server-logs=none"], 0),
        (["--server-logs=none", "-rA"], 0),
        (["-rP"], 2),
        (["--server-logs=failed", "-rA"], 2),
        (["--server-logs=all"], 2),
        (["--server-logs=all", "-rP"], 3),
        (["--server-logs=all", "-rA"], 3),
    ],
)
def test_which_reports_have_it_can_be_chosen(tmp_path: Path, options: list[str], expected: int) -> None:
    """None, those of failing tests, or all; pytest shows those of passing tests when it is asked to."""
    said = inner.run(tmp_path, SAYS, *options).said

    assert len(sections(said)) == expected


# --- pytest-xdist


SHARED = """
@pytest.fixture(scope="session")
def server(background_server_factory):
    return background_server_factory(echo("shared"), shared="echo")

@pytest.mark.parametrize("number", range(8))
def test_it(server, number, worker_id):
    note(worker_id, server.pid, server.port)
    tell(server, f"from {number}")

def test_fails(server, background_server):
    tell(background_server(echo("own")), "\\N{SNOWMAN} \\x1b[1m")
    tell(server, "failing")
    assert not "this is so"
"""


def test_workers_share_a_server_and_send_what_it_said(tmp_path: Path) -> None:
    """All workers have one, which ends with the last of them; the sections arrive where the reports are shown."""
    done = inner.run(tmp_path, SHARED, "-n", "2")

    assert "1 failed, 8 passed" in done.said
    notes = [note.split(maxsplit=1) for note in inner.noted(tmp_path)]
    assert {worker for worker, _ in notes} == {"gw0", "gw1"}
    assert len({who for _, who in notes}) == 1
    assert sorted(inner.noted(tmp_path, "ended")) == ["own", "shared"]
    own, shared = sections(done.said)
    assert " own " in own
    assert " shared " in shared
    assert "told \N{SNOWMAN}" in done.said
    assert "told failing" in done.said
    inner.assert_ended([int(notes[0][1].split()[0])])


def test_options_reach_the_workers(tmp_path: Path) -> None:
    """As they are."""
    code = "def test_it(background_server):\n    background_server(SILENT, port=0)\n"
    said = inner.run(tmp_path, code, "-n", "1", "--server-boot-timeout=40ms", "--server-logs=none").said

    assert "was not ready within 0.04 s" in said


# --- options


@pytest.mark.parametrize(
    ("option", "settings", "seconds"),
    [
        ("--server-boot-timeout=0.03", "", "0.03"),
        ("--server-boot-timeout=50ms", "", "0.05"),
        ("--server-boot-timeout=60", ", boot_timeout='40ms'", "0.04"),
    ],
)
def test_how_long_servers_may_take(tmp_path: Path, option: str, settings: str, seconds: str) -> None:
    """As the option says, and as the test says if it does."""
    code = f"def test_it(background_server_factory):\n    background_server_factory(SILENT{settings})\n"
    done = inner.run(tmp_path, code, option)

    assert done.status == 1
    assert f"was not ready within {seconds} s" in done.said


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--server-boot-timeout=soon", "'soon' is not a duration; write 500ms, 90s, 2min, 1h or infinity"),
        ("--server-boot-timeout=0", "'0' leaves no time; write a longer duration"),
        ("--server-logs=some", "invalid choice: 'some' (choose from "),
    ],
)
def test_values_that_cannot_be_are_usage_errors(tmp_path: Path, option: str, words: str) -> None:
    """Nothing is run."""
    done = inner.run(tmp_path, "def test_it(): pass", option)

    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert f"argument {option.partition('=')[0]}: {words}" in done.said


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    """Without it there are no such fixtures and options."""
    off = inner.run(tmp_path, "def test_it(background_server): pass", "-p", "no:daemonize")
    option = inner.run(tmp_path, "", "-p", "no:daemonize", "--server-logs=all")

    assert "fixture 'background_server' not found" in off.said
    assert option.status == pytest.ExitCode.USAGE_ERROR


def test_the_package_is_a_plugin() -> None:
    """Pytest finds it by its entry point."""
    (found,) = entry_points(group="pytest11", name="daemonize")

    assert found.load() is sys.modules["daemonize.pytest_plugin"]


def loaded(directory: Path, fixtures: str, *options: str) -> set[str]:
    """The modules that there are in a test of a pytest that has no other plugins."""
    code = f"""
import sys
def test_it({fixtures}):
    with open("notes", "w") as notes:
        print(*sys.modules, file=notes)
"""
    inner.write(directory, code, imports="")
    done = inner.run_words(directory, *inner.command(directory, *options), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert done.status == 0, done.said
    return set(inner.noted(directory).pop().split())


def test_a_pytest_that_does_not_use_it_loads_little(tmp_path: Path) -> None:
    """Only what notes how the process was at its start. Negative control: a fixture needs more."""
    plugin = ("-p", "daemonize.pytest_plugin")
    bare = loaded(tmp_path, "")
    idle = loaded(tmp_path, "", *plugin)
    used = loaded(tmp_path, "background_server", "-p", "daemonize")

    assert idle - bare == {
        "daemonize",
        "daemonize.loading",
        "daemonize.posix",
        "daemonize.posix.arrival",
        "daemonize.posix.fds",
        "daemonize.posix.prctl",
        "daemonize.posix.signals",
        "daemonize.pytest_plugin",
    }
    assert {"daemonize.background.server", "asyncio"} <= used - idle


# --- the end of pytest


HANGS = """
@pytest.fixture(scope="session")
def lasting(background_server_factory):
    return background_server_factory(echo("lasting"))

def test_it(lasting, background_server):
    server = background_server(echo("own"))
    print("pids", lasting.pid, server.pid, flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_server_outlives_pytest(tmp_path: Path, number: int) -> None:
    """Whatever ends pytest in the middle of a test: its servers end, and what kept them."""
    inner.write(tmp_path, HANGS)
    with subprocess.Popen(
        inner.command(tmp_path, "-s"),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout
        line = next(line for line in run.stdout if "pids" in line)
        pids = [int(word) for word in line.split() if word.isdigit()]
        wrappers = {process.ppid for process in procs.processes(pids)}
        keepers = {process.ppid for process in procs.processes(wrappers)}
        run.send_signal(number)
        run.stdout.read()

    inner.assert_ended([*pids, *wrappers, *keepers])
    assert len(wrappers) == 2
    assert len(keepers) == 1
    assert run.returncode == (pytest.ExitCode.INTERRUPTED if number == signal.SIGINT else -number)
    assert sorted(inner.noted(tmp_path, "ended")) == ["lasting", "own"]


# --- daemonize_dir


DAEMONS = """
from daemonize import Daemon, daemons, launch
NAMES = ("DAEMONIZE_RUNTIME_DIR", "DAEMONIZE_STATE_DIR")

def now():
    return [os.environ.get(name) for name in NAMES]

BEFORE = now()
OTHER = os.path.join(HERE, "other")

def test_starts(daemonize_dir):
    running = [launch(SILENT, ready="started", name=name) for name in ("one", "two")]
    running[0].stop()
    note(daemonize_dir, running[1].pid, running[1].stdout)
    assert [daemon.name for daemon in daemons()] == ["one", "two"]
    assert oct(daemonize_dir.stat().st_mode & 0o777) == "0o700"

def test_is_put_back():
    assert now() == BEFORE

def test_fresh(daemonize_dir):
    assert now() != BEFORE
    assert daemons() == []

def test_changes(monkeypatch, daemonize_dir):
    for name in NAMES:
        monkeypatch.setenv(name, OTHER)
    note(launch(SILENT, ready="started", name="elsewhere").pid)

def test_is_put_back_again():
    assert now() == BEFORE
"""


def test_daemons_have_directories_of_their_own(tmp_path: Path) -> None:
    """What was started there is stopped after the test, what is registered elsewhere is not. The environment is put back."""
    done = inner.run(tmp_path, DAEMONS)
    first, elsewhere = inner.noted(tmp_path)
    was_alive = procs.alive(int(elsewhere))
    procs.stop(int(elsewhere))

    assert "5 passed" in done.said, done.said
    assert was_alive
    directory, pid, log = first.split()
    assert directory.startswith(f"{tmp_path}/base/")
    assert log.startswith(directory)
    inner.assert_ended([int(pid)])
