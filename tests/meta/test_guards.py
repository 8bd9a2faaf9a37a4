"""Each guard catches what it is there for: bad tests, run by a pytest of their own under the same guards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests.support import guards, procs

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

BAD_TESTS = """
import os, signal, subprocess
import pytest
from tests.support.programs import program

GIVEN = [os.open("/etc/passwd", os.O_RDONLY) for _ in range(2)]
PROCESSES = []

def leave_a_daemon(**options):
    subprocess.run(program("self_daemonizes", "last"), stdout=subprocess.DEVNULL, check=True, **options)

def test_leaves_a_descriptor():
    os.open("/etc/passwd", os.O_RDONLY)

def test_closes_a_descriptor():
    os.close(GIVEN.pop())

def test_points_a_descriptor_elsewhere():
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, GIVEN[0])
    os.close(null)

def test_leaves_a_child():
    PROCESSES.append(subprocess.Popen(program("repoints")))

def test_leaves_a_zombie():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def test_leaves_a_daemon():
    leave_a_daemon()

def test_leaves_a_daemon_without_environment():
    leave_a_daemon(env={})

def test_changes_a_handler():
    signal.signal(signal.SIGUSR1, lambda *_: None)

def test_changes_the_mask():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])

def test_changes_the_umask():
    os.umask(0o123)

def test_changes_the_directory():
    os.chdir("/")

@pytest.mark.timeout(1)
def test_hangs():
    signal.pause()

@pytest.mark.servers
def test_is_skipped():
    pytest.skip("no such server")

def test_leaves_nothing():
    with open("/etc/passwd") as file:
        file.read()
    subprocess.run(["true"], check=True)
    os.environ["LEFT_BEHIND"] = "1"

def test_finds_a_clean_environment():
    assert "LEFT_BEHIND" not in os.environ
    assert "NOTIFY_SOCKET" not in os.environ
    assert "DAEMONIZE_TIMEOUT" not in os.environ
    assert "PYTHONFAULTHANDLER" not in os.environ
    assert os.environ["DAEMONIZE_STATE_DIR"].startswith(os.environ["BASE"])
    assert os.environ["HOME"].startswith(os.environ["BASE"])
"""

#: test -> what its failure says.
CAUGHT = {
    "test_leaves_a_descriptor": r"descriptor \d+ was left open: /etc/passwd",
    "test_closes_a_descriptor": r"descriptor \d+ was closed: /etc/passwd",
    "test_points_a_descriptor_elsewhere": r"descriptor \d+ was pointed elsewhere: from /etc/passwd to /dev/null",
    "test_leaves_a_child": r"process was left running: python\S* \(pid \d+\): .*repoints\.py",
    "test_leaves_a_zombie": r"child was not reaped: ",
    "test_leaves_a_daemon": r"process was left running: python\S* \(pid \d+\): .*self_daemonizes\.py last",
    "test_leaves_a_daemon_without_environment": r"process was left running: .*self_daemonizes\.py last",
    "test_changes_a_handler": r"the handler of SIGUSR1 was changed",
    "test_changes_the_mask": r"the signal mask was changed: from \[\] to \[.*SIGUSR2",
    "test_changes_the_umask": r"the umask was changed: from \d+ to 0123",
    "test_changes_the_directory": r"the directory was changed: from /\S+ to /",
    "test_hangs": r"Timeout",
    "test_is_skipped": r"DAEMONIZE_TESTS_REQUIRE names servers, so this is a failure: .*no such server",
}
CLEAN = ("test_leaves_nothing", "test_finds_a_clean_environment")


def run_bad_tests(directory: str, *select: str, **environment: str) -> dict[str, str]:
    """Run the bad tests; for each, what its report says (empty: it passed)."""
    path, report = f"{directory}/test_bad.py", f"{directory}/report.xml"
    with open(path, "w") as file:
        file.write(BAD_TESTS)
    own = ["-p", "tests.support.guards", "-p", "no:cacheprovider", f"--junitxml={report}"]
    base = [f"--basetemp={directory}/base", f"--rootdir={ROOT}", f"--config-file={ROOT}/pyproject.toml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *own, *base, *select, path],
        cwd=ROOT,
        env={**os.environ, "BASE": f"{directory}/base", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout.decode()
    said: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  (pytest wrote it just now)
        found = [child.get("message", "") for child in case if child.tag in {"failure", "error", "skipped"}]
        said[case.get("name", "")] = said.get(case.get("name", ""), "") + "\n".join(found)
    return said


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What became of each bad test where the tests of real servers are required."""
    return run_bad_tests(
        str(tmp_path_factory.mktemp("bad")),
        DAEMONIZE_TESTS_REQUIRE="servers systemd",
        DAEMONIZE_TIMEOUT="1",
        NOTIFY_SOCKET="/nowhere",
        PYTHONFAULTHANDLER="1",
    )


@pytest.mark.parametrize("name", CAUGHT)
def test_a_bad_test_fails_and_is_told_why(said: Mapping[str, str], name: str) -> None:
    """Whatever a test leaves behind, it fails, and the report names what was left."""
    assert re.search(CAUGHT[name], said[name], re.MULTILINE), said[name]


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_test_passes(said: Mapping[str, str], name: str) -> None:
    """A test that leaves nothing behind passes, in an environment of its own."""
    assert said[name] == ""


def test_every_bad_test_is_accounted_for(said: Mapping[str, str]) -> None:
    """No bad test is without an expectation."""
    assert set(said) == {*CAUGHT, *CLEAN}


def test_what_was_left_is_ended(said: Mapping[str, str]) -> None:
    """The guard ends what it finds."""
    left = [int(pid) for text in said.values() for pid in re.findall(r"left running: .* \(pid (\d+)\)", text)]

    assert len(left) == 3
    assert not any("programs" in procs.command_line(pid) for pid in left if procs.alive(pid))


def test_a_skip_is_a_skip_where_it_is_not_required(tmp_path: os.PathLike[str]) -> None:
    """Without DAEMONIZE_TESTS_REQUIRE, a real server that is not installed is no failure."""
    assert guards.REQUIRE not in os.environ

    said = run_bad_tests(str(tmp_path), "-k", "test_is_skipped")

    assert said == {"test_is_skipped": "no such server"}
