"""What servers say while a test runs: what its report is to have when it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemonize.errors import printable

if TYPE_CHECKING:
    from collections.abc import Collection

    from daemonize.background.logs import Logs
    from daemonize.background.server import BackgroundServer

#: So many of the last lines of each stream.
MOST_LINES = 200


class Heard:
    """What one test hears of its servers. own: those that it has started, for itself.

    lasting: those that others use as well; the list may grow. older: those of them of which only counts what they say
    from now on.
    """

    def __init__(
        self, lasting: Collection[BackgroundServer] = (), older: Collection[BackgroundServer] = ()
    ) -> None:
        self.own: list[BackgroundServer] = []
        self._lasting = lasting
        self._before = {server: _logs(server).sizes for server in older}

    def parts(self) -> list[tuple[str, str]]:
        """Title and numbered lines, of all its own servers, and of those lasting ones that have said anything."""
        said = [_part(server, (0, 0)) for server in self.own]
        for server in self._lasting:
            before = self._before.get(server, (0, 0))
            if _logs(server).sizes != before:
                said.append(_part(server, before))
        return said


def _logs(server: BackgroundServer) -> Logs:
    logs = server._logs  # noqa: SLF001 (of one room)
    assert logs is not None, "it has been started"
    return logs


def _part(server: BackgroundServer, since: tuple[int, int]) -> tuple[str, str]:
    words = " ".join(map(printable, server.command))
    port = "" if server.port is None else f", port {server.port}"
    title = f"server output: {words} (pid {server.pid}{port})"
    return title, _logs(server).numbered(since, most=MOST_LINES)
