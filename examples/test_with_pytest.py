"""Tests against a real server, with pytest: `pytest examples/test_with_pytest.py`, also with `-n 4` (pytest-xdist).

The fixtures come with the package. What a server has said is in the report of a test that fails.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

import daemonize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemonize import BackgroundServer

    Start = Callable[..., BackgroundServer]

#: `{port}` is a free port. The server is ready when it listens there.
SERVER = [sys.executable, os.path.join(os.path.dirname(__file__), "http_server.py"), "--port", "{port}"]


def get(server: BackgroundServer) -> str:
    """What the server answers, at the first attempt: it is ready."""
    url = f"http://127.0.0.1:{server.port}/"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


# --- a server for each test


@pytest.fixture
def greeter(background_server: Start) -> BackgroundServer:
    """Started for one test, and stopped after it."""
    return background_server([*SERVER, "--greeting", "good day"], boot_timeout="20s")


def test_it_greets(greeter: BackgroundServer) -> None:
    """It answers, and what it says can be read."""
    assert get(greeter).startswith("good day from pid")
    assert '"GET / HTTP/1.1" 200' in greeter.stderr


def test_it_refuses_a_bad_configuration(background_server: Start, tmp_path: Path) -> None:
    """A server that cannot start is an error at once, with its status and its words."""
    config = tmp_path / "server.conf"
    config.write_text("colour = blue\n")

    with pytest.raises(daemonize.CrashedOnStartup, match="unknown option 'colour'") as failure:
        background_server([*SERVER, "--config", config])

    assert failure.value.status == 78


# --- one for a module, one for the session, which all workers share


@pytest.fixture(scope="module")
def polite() -> Iterator[BackgroundServer]:
    """A fixture of any scope can have a server of its own."""
    with daemonize.BackgroundServer([*SERVER, "--greeting", "how do you do"]) as server:
        yield server


@pytest.fixture(scope="session")
def shared(background_server_factory: Start) -> BackgroundServer:
    """The first worker that needs it starts it, and it ends with the last one."""
    return background_server_factory(SERVER, shared="greeter")


@pytest.mark.parametrize("number", range(4))
def test_many_tests_use_one(shared: BackgroundServer, polite: BackgroundServer, number: int) -> None:
    """Without a start for each."""
    assert get(shared) == f"hello from pid {shared.pid}\n"
    assert get(polite) == f"how do you do from pid {polite.pid}\n"


# --- daemons


def test_a_daemon_is_registered(daemonize_dir: Path) -> None:
    """What the test launches is seen by nobody else, and is stopped at the latest after the test."""
    daemon = daemonize.launch([*SERVER[:-2]], name="greeter")

    assert [found.name for found in daemonize.daemons()] == ["greeter"]
    assert daemon.stderr.startswith(str(daemonize_dir))
