"""Negative controls: real servers that say something before it is true, and the spec that is not deceived by it.

Their application waits in the middle of being imported, so that "not yet" is a fact.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, ports, procs
from tests.support.known_servers import DAEMON, UVICORN_SPECS, Way
from tests.support.python_servers import GUNICORN, HELD, UVICORN, hold
from tests.support.servers import launched

if TYPE_CHECKING:
    from tests.support.family import Family
    from tests.support.programs import Trigger

pytestmark = pytest.mark.servers

WORKERS, DETACHED = UVICORN.run_with("--workers", "2"), GUNICORN.run_with("-D", "--preload")
DECEIVED = (
    Way("uvicorn says that it runs", ("log:Uvicorn running on",), WORKERS),
    Way("gunicorn sends READY=1", ("notify",), GUNICORN),
    Way("gunicorn -D exits", ("exit",), DETACHED),
)
NOT_DECEIVED = (
    Way("uvicorn's workers listen", UVICORN_SPECS, WORKERS),
    Way("gunicorn sends READY=1", ("notify",), GUNICORN.run_with("--preload")),
    Way("gunicorn answers", ("http://127.0.0.1:PORT/",), GUNICORN),
    Way("gunicorn -D exits, and listens", DAEMON, DETACHED),
)


def is_answered(port: int) -> bool:
    """Whether a client gets what it asks for, without waiting for long."""
    try:
        return ports.ask(port, b"GET / HTTP/1.0\r\n\r\n", timeout=0.2).endswith(b" is here")
    except (ConnectionRefusedError, TimeoutError):
        return False


@pytest.mark.parametrize("way", DECEIVED, ids=lambda way: way.name)
def test_what_comes_first_is_not_readiness(way: Way, place: str, trigger: Trigger, servers: Family) -> None:
    """It is said to be ready while its application waits: a client is refused, or not answered."""
    port = ports.free_port()
    command = way.command(place, port)
    hold(place, trigger)
    with launched(*command):
        answered = is_answered(port)
        let_go(trigger)

    assert not answered


@pytest.mark.parametrize("way", NOT_DECEIVED, ids=lambda way: way.name)
def test_another_spec_waits(way: Way, place: str, trigger: Trigger, servers: Family) -> None:
    """While its application waits it is not ready; when it is, a client that asks once is answered."""
    port = ports.free_port()
    command = way.command(place, port)
    hold(place, trigger)
    with cli.popen(*command) as wrapper:
        procs.eventually(lambda: os.stat(os.path.join(place, HELD)))
        waiting = wrapper.poll() is None
        let_go(trigger)
        status = wrapper.wait(20)
        answer = way.server.ask(port)

    assert waiting
    assert status == 0
    assert answer.endswith(way.server.answer)


def let_go(trigger: Trigger) -> None:
    """Every process that imports the application: two, at the most."""
    for _ in range(2):
        trigger.release()
