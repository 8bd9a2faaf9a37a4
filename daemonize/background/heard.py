"""What servers say while a test runs: what its report is to have when it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemonize.errors import printable

if TYPE_CHECKING:
    from daemonize.background.logs import Logs
    from daemonize.background.server import BackgroundServer

#: So many of the last lines of each stream.
MOST_LINES = 200


class Heard:
    """What one test hears of the servers of this process, by whatever they were started.

    own: those that are certainly its own. fresh: whether all that there are were started for it; else of those that are
    there now only counts what they say from now on.
    """

    def __init__(self, *, fresh: bool = False) -> None:
        self.own: list[BackgroundServer] = []
        self._before = {} if fresh else {logs: logs.sizes for logs, _ in _started()}

    def parts(self) -> list[tuple[str, str]]:
        """Title and numbered lines, of all its own servers, and of those others that have said anything."""
        found, own = _started(), {id(server) for server in self.own}
        ours = [(logs, server) for logs, server in found if id(server) in own]
        others = [(logs, server) for logs, server in found if logs.sizes != self._size_before(logs)]
        return [self._part(logs, server) for logs, server in dict.fromkeys([*ours, *others])]

    def _size_before(self, logs: Logs) -> tuple[int, int]:
        return self._before.get(logs, (0, 0))

    def _part(self, logs: Logs, server: BackgroundServer) -> tuple[str, str]:
        words = " ".join(map(printable, server.command))
        port = "" if server.port is None else f", port {server.port}"
        title = f"server output: {words} (pid {server.pid}{port})"
        return title, logs.numbered(self._size_before(logs), most=MOST_LINES)


def _started() -> list[tuple[Logs, BackgroundServer]]:
    """In the order in which they were started; none of those that nobody has any more."""
    from daemonize.background.server import started

    return started()
