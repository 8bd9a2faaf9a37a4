"""Real servers, each with the spec that tells the truth about it: a client that comes next, and asks once, is answered."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import users
from tests.support.known_servers import WAYS, Way
from tests.support.ports import free_port
from tests.support.servers import launched

if TYPE_CHECKING:
    from tests.support.family import Family

#: Launches of each (a tenth of DAEMONIZE_TESTS_RACES).
RACES = int(os.environ.get("DAEMONIZE_TESTS_RACES", "200")) // 10

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)]


def test_it_is_answered_at_once(way: Way, place: str, servers: Family) -> None:
    """Exit status 0 means that the first request succeeds. SIGTERM to the main process ends it, with all that is of it."""
    port = free_port()
    with launched(*way.command(place, port)):
        answer = way.server.ask(port)

    assert answer.endswith(way.server.answer)
    servers.nobody()


@pytest.mark.stress
def test_it_is_answered_at_once_every_time(way: Way, servers: Family) -> None:
    """No start of many is reported too early, and none names a process that is about to exit."""
    for _ in range(RACES):
        with users.open_directory() as place:
            test_it_is_answered_at_once(way, place, servers)
