"""A server that takes its time to start, and a client that connects the moment it is said to be ready, again and again."""

from __future__ import annotations

import functools
import os
import random
import socket
from typing import TYPE_CHECKING, NamedTuple

import pytest

import daemonize
from tests.support import cli, ports, procs
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("burners")]

#: Launches for each spec (DAEMONIZE_TESTS_RACES), and the longest start-up, in milliseconds.
RACES = int(os.environ.get("DAEMONIZE_TESTS_RACES", "200"))
LONGEST = 30


class Case(NamedTuple):
    """What says that the server is ready. {port}: where the client connects; {path}: one that is not there yet.

    listens: the server listens there first, and meets the spec then; not where to listen is to meet the spec.
    """

    specs: tuple[str, ...]
    listens: bool = True
    daemonizes: bool = False


CASES = {
    "streams": Case(("streams",)),
    "notify": Case(("notify",)),
    "fd": Case(("fd:3",)),
    "fdvar": Case(("fdvar:READY_FD",)),
    "port": Case(("port:{port}",), listens=False),
    "any port": Case(("port",)),
    "unix": Case(("unix:{path}",), listens=False),
    "http": Case(("http://127.0.0.1:{port}/",), listens=False),
    "log": Case(("log:up and running",)),
    "file": Case(("file:{path}",)),
    "exec": Case(("exec:test -e {path}",)),
    "exit and port": Case(("port:{port}", "exit"), listens=False, daemonizes=True),
    "exit and notify": Case(("notify", "exit"), daemonizes=True),
}


def command(specs: list[str], argv: list[str]) -> int:
    """The pid of a server that the command has started."""
    options = [word for spec in specs for word in ("-r", spec)]
    report = cli.run("--json", *options, *argv).json
    assert report["outcome"] == "ready", report
    pid: int = report["pid"]
    return pid


def function(specs: list[str], argv: list[str]) -> int:
    """The pid of a server that this process has started."""
    return daemonize.launch(argv, ready=specs, relay_stdout=None, relay_stderr=None).pid or 0


def connect(spec: str, port: int) -> None:
    """As its client does, once. Raises OSError if nobody listens."""
    kind, _, path = spec.partition(":")
    if kind == "unix":
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    elif kind == "http":
        assert ports.get(port).endswith(b"hello\n")
    else:
        ports.connected(port).close()


def has_its_own(pid: int, case: Case) -> None:
    """Nothing beyond its streams but its listeners, and of a server that answers the last client's connection."""
    beyond = [target for fd, target in procs.descriptors(pid).items() if fd > 2]
    assert [target for target in beyond if not target.startswith("socket:")] == []
    two = case.specs[0] == "port" or case.specs[0].startswith("http")
    assert 1 <= len(beyond) <= 1 + two, beyond


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("launch", [command, function], ids=lambda launch: launch.__name__)
def test_nobody_is_refused(
    launch: Callable[[list[str], list[str]], int], name: str, tmp_path: Path, family: Family
) -> None:
    """Not one connection is; the server has no descriptor but its own, and after its end no process is left."""
    chance = random.Random(name)
    case = CASES[name]
    for number in range(RACES):
        port = ports.free_port()
        specs = [spec.format(port=port, path=tmp_path / str(number)) for spec in case.specs]
        words = [f"takes={chance.uniform(0, LONGEST):.3f}"]
        words += [f"listens={port}"] if case.listens else []
        words += ["daemonizes"] if case.daemonizes else []
        pid = launch(specs, program("meets_spec", specs[0], *words))
        connect(specs[0], port)
        procs.eventually(functools.partial(has_its_own, pid, case))
        procs.stop(pid)
        family.nobody()


def test_a_spec_that_says_less_lets_clients_be_refused(trigger: Trigger, servers: Family) -> None:
    """Negative control: a server that has only been executed, and does not listen yet."""
    port = ports.free_port()
    command(["started"], program("meets_spec", "started", f"waits={trigger.path}", f"listens={port}"))

    with pytest.raises(ConnectionRefusedError):
        connect("started", port)
