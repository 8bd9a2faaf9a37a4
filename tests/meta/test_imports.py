"""Start-up time is the product: what the default launch loads is listed here, and nothing else is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, control, procs
from tests.support.programs import program

if TYPE_CHECKING:
    from pathlib import Path

#: What a launch may load on top of what the bare interpreter loads by itself. All but a few are built in.
ALLOWED = frozenset(
    {
        "__future__",
        "_ctypes",
        "_signal",
        "_socket",
        "errno",
        "fcntl",
        "gc",
        "posix",
        "select",
        "stat",
        "time",
    }
)
#: Rule 10 of the design. Each costs more than the fork of the server.
FORBIDDEN = frozenset(
    {
        "click", "daemon", "dataclasses", "typing", "re", "enum", "functools", "collections", "pathlib", "json",
        "signal", "socket", "selectors", "subprocess", "ctypes",
    }
)  # fmt: skip
PREFIX = "import time:"


def loaded(report: bytes) -> set[str]:
    """The modules named in what `python -X importtime` writes to stderr."""
    lines = [line for line in report.decode().splitlines() if line.startswith(PREFIX)]
    return {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}


def loaded_by(code: str) -> set[str]:
    """The modules that a Python program loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return loaded(done.stderr)


@pytest.fixture(scope="module")
def bare() -> set[str]:
    """What the interpreter loads before it runs a line of ours."""
    return loaded_by("pass")


def test_the_default_launch_loads_only_what_is_listed(bare: set[str]) -> None:
    """From the first line of the command to ready, the wrapper and what it forks load the listed modules only."""
    # The server is told to be silent about its own imports by -E, which Python obeys before anything else.
    mark = f"MARK_{os.getpid()}"  # other tests, which run beside these, profile imports as well
    result = cli.run(*program("repoints", "ready"), env={"PYTHONPROFILEIMPORTTIME": "1", mark: "1"})
    (server,) = [process.pid for process in procs.carrying(mark)]
    procs.stop(server)
    launch = {name for name in loaded(result.err) - bare if name.partition(".")[0] != "daemonize"}

    assert result.status == 0
    assert "daemonize.launcher" in loaded(result.err)
    assert launch & FORBIDDEN == set()
    assert launch <= ALLOWED


@pytest.mark.parametrize("word", ["plain", '"odd"'])
def test_a_stop_loads_only_what_is_listed(bare: set[str], tmp_path: Path, word: str) -> None:
    """Whoever waits for the end of `daemonctl stop` waits for all to be given back that it has loaded."""
    pid_file = tmp_path / "server.pid"
    launched = cli.run("--name", "light", "-p", pid_file, "-E", f"WORD={word}", *program("repoints", "ready"))
    result = control.run("stop", "light", env={"PYTHONPROFILEIMPORTTIME": "1"})
    stop = {name for name in loaded(result.err) - bare if name.partition(".")[0] != "daemonize"}

    assert (launched.status, result.status) == (0, 0)
    assert not pid_file.exists()
    assert {"daemonize.launcher.stopping", "daemonize.posix.pidfiles"} <= loaded(result.err)
    assert stop <= {*ALLOWED, "_json"}


def test_import_daemonize_is_light(bare: set[str]) -> None:
    """`import daemonize` loads none of what a launch must not load: its public names come when they are used."""
    found = loaded_by("import daemonize") - bare

    assert "daemonize" in found
    assert found & FORBIDDEN == set()


def test_the_servers_side_is_light(bare: set[str]) -> None:
    """A server that calls ready() where nobody listens loads neither what command lines need nor sockets."""
    found = loaded_by("import daemonize; daemonize.ready('serving'); daemonize.notify.watchdog()") - bare

    assert {"daemonize.announce", "daemonize.notify"} <= found
    assert found & FORBIDDEN == set()


def test_each_public_name_exists() -> None:
    """What `daemonize.__all__` promises can be had, and `dir()` shows it."""
    code = "import daemonize as d; print(*[n for n in d.__all__ if not hasattr(d, n) or n not in dir(d)])"
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )

    assert done.stdout == b"\n"


def test_a_heavy_import_is_seen(bare: set[str]) -> None:
    """Negative control: a module that is loaded indirectly is seen."""
    assert {"re", "enum", "functools"} <= loaded_by("import re") - bare
    assert os.path.basename(cli.COMMAND) == "daemonize"
