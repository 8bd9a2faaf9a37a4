"""listen_fds(): what a server finds that was given sockets, as sd_listen_fds(3) would say; nothing for anybody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import cli, listening

if TYPE_CHECKING:
    from collections.abc import Mapping

PRELUDE = """
import fcntl, json, os, threading, daemonize
def state():
    return {name: value for name, value in os.environ.items() if name.startswith("LISTEN_")}
def inherited():
    return [fd for fd in range(3, 6) if not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC]
"""


def found(expression: str, changes: Mapping[str, str | None] | None = None, setup: str = "") -> Any:
    """The value of an expression in a process that was given three descriptors. changes: to its environment."""
    code = f"{PRELUDE}\n{setup}\nprint(json.dumps({expression}))"
    words = listening.handed(("a", "", "c"), sys.executable, "-c", code, environment=changes)
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, check=True, env=cli.environ(None)
    )
    return json.loads(done.stdout)


def test_what_was_given() -> None:
    """The numbers, in order; the names; and nobody inherits them from here on."""
    value = found(
        "[inherited(), daemonize.listen_fds(), daemonize.listen_fds_with_names(), inherited(), len(state())]"
    )

    assert value == [[3, 4, 5], [3, 4, 5], {"3": "a", "4": "", "5": "c"}, [], 3]


def test_unset_environment() -> None:
    """The variables are gone, whatever they were, and a second call gives nothing."""
    both = "[{0}(unset_environment=True), {0}(), state()]"

    assert found(both.format("daemonize.listen_fds"), {"LISTEN_PIDFDID": "7"}) == [[3, 4, 5], [], {}]
    assert found(both.format("daemonize.listen_fds_with_names"))[1:] == [{}, {}]
    assert found(both.format("daemonize.listen_fds"), {"LISTEN_PID": "1"}) == [[], [], {}]


def test_without_names() -> None:
    """As systemd calls those without one."""
    names = {"3": "unknown", "4": "unknown", "5": "unknown"}

    assert found("daemonize.listen_fds_with_names()", {"LISTEN_FDNAMES": None}) == names


@pytest.mark.parametrize("names", ["", "a", "a:b", "a:b:c:d"])
def test_names_of_another_number(names: str) -> None:
    """There is nothing that could be said by name; the numbers are right all the same."""
    asked = "[daemonize.listen_fds_with_names(), daemonize.listen_fds()]"

    assert found(asked, {"LISTEN_FDNAMES": names}) == [{}, [3, 4, 5]]


@pytest.mark.parametrize(
    "changes",
    [
        {"LISTEN_PID": None},
        {"LISTEN_PID": ""},
        {"LISTEN_PID": "1"},
        {"LISTEN_PID": "self"},
        {"LISTEN_PID": "٣"},
        {"LISTEN_FDS": None},
        {"LISTEN_FDS": ""},
        {"LISTEN_FDS": "0"},
        {"LISTEN_FDS": "-1"},
        {"LISTEN_FDS": "3 "},
        {"LISTEN_FDS": "many"},
        {"LISTEN_FDS": "40"},
        {"LISTEN_FDS": "9999999999"},
        {"LISTEN_FDS": "9" * 5000},
    ],
    ids=lambda changes: "=".join(f"{name}={value}"[:30] for name, value in changes.items()),
)
def test_nothing(changes: dict[str, str | None]) -> None:
    """For somebody else, or of no use: no descriptors, no exception."""
    assert found("[daemonize.listen_fds(), daemonize.listen_fds_with_names()]", changes) == [[], {}]


def test_a_forked_child_is_given_nothing() -> None:
    """LISTEN_PID is of the process that was executed."""
    setup = """
r, w = os.pipe()
if os.fork() == 0:
    os.write(w, json.dumps(daemonize.listen_fds()).encode())
    os._exit(0)
os.wait()
"""
    assert found("[os.read(r, 99).decode(), daemonize.listen_fds()]", setup=setup) == ["[]", [3, 4, 5]]


def test_any_thread() -> None:
    """They are the process's."""
    setup = """
values = []
thread = threading.Thread(target=lambda: values.append(daemonize.listen_fds()))
thread.start()
thread.join()
"""
    assert found("values", setup=setup) == [[3, 4, 5]]


def test_by_hand_there_is_nothing() -> None:
    """A server that is started in a terminal binds for itself."""
    import daemonize

    assert "LISTEN_FDS" not in os.environ
    assert daemonize.listen_fds(unset_environment=True) == []
    assert daemonize.listen_fds_with_names() == {}
