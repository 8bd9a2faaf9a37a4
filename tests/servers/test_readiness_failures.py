"""Real servers that cannot start, each under the spec that tells the truth about it: who says why, with which status."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, ports, procs
from tests.support.known_servers import WAYS, Way

if TYPE_CHECKING:
    from tests.support.family import Family

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)]


def test_a_bad_configuration_ends_it_with_its_own_words_and_status(
    way: Way, place: str, family: Family
) -> None:
    """Whatever was waited for, the server's end is the end, and its status is ours."""
    result = cli.run(*way.command(place, ports.free_port(), way.server.mistake))

    assert way.server.words in result.out + result.err
    assert result.status == way.server.status
    family.nobody()


def test_a_taken_port_is_refused(way: Way, place: str, family: Family) -> None:
    """By us where we know the port, before anything is started: 75, and who has it. Else by the server, in its own words."""
    with ports.taken() as port:
        result = cli.run(*way.command(place, port))

    if way.names_port:
        holder = procs.stat(os.getpid())
        assert holder
        said = f"daemonize: port {port} is already in use by {holder.name} (pid {holder.pid})\n".encode()
        assert (result.status, result.out, result.err) == (75, b"", said)
    else:
        status, words = way.server.taken
        assert words in result.out + result.err
        assert result.status == status
    family.nobody()
