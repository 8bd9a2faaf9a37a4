"""Servers that are ready when they say so: a client that is started next, and asks once, is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import cli, ports, procs
from tests.support.servers import TRUTHFUL, Server, launched

if TYPE_CHECKING:
    import os

pytestmark = [
    pytest.mark.servers,
    pytest.mark.parametrize("server", TRUTHFUL, ids=lambda server: server.name),
]


def test_it_is_answered_at_once(server: Server, tmp_path: os.PathLike[str]) -> None:
    """Exit status 0 means that the first request succeeds."""
    port = ports.free_port()
    with launched(*server.prepare(str(tmp_path), "", port)) as report:
        answer = server.ask(port)
        # nginx lets go of stderr a moment after its first process has exited: a drain may be there, for that moment.
        drained = report["drain"] is None or procs.wait_ended(report["drain"])

    assert answer.endswith(server.answer)
    assert drained


def test_a_bad_configuration_ends_it_with_its_own_words_and_status(
    server: Server, tmp_path: os.PathLike[str]
) -> None:
    """What the server says about its configuration is on stderr, and its status is ours."""
    result = cli.run(*server.prepare(str(tmp_path), server.mistake, ports.free_port()))

    assert result.status == server.status
    assert server.words in result.err
    assert b"daemonize: " not in result.err
    assert result.out == b""


def test_a_taken_port_ends_it_with_its_own_words_and_status(
    server: Server, tmp_path: os.PathLike[str]
) -> None:
    """A failure after the configuration was read is the caller's to see as well."""
    with ports.taken() as port:
        result = cli.run(*server.prepare(str(tmp_path), "", port))

    status, words = server.taken
    assert result.status == status
    assert words in result.err


@pytest.mark.stress
def test_it_is_answered_at_once_every_time(server: Server, tmp_path: os.PathLike[str]) -> None:
    """No start of a hundred is reported too early."""
    for _ in range(100):
        port = ports.free_port()
        with launched(*server.prepare(str(tmp_path), "", port)):
            assert server.ask(port).endswith(server.answer)
