"""`exit`: the command itself exits 0 and leaves a daemon behind, as under systemd's Type=forking."""

from __future__ import annotations

from daemonize.readiness import Probe


class Exit(Probe):
    """Holds when the server has daemonized itself."""

    def executed(self, now: float) -> None:
        """It may stay."""
        self.problem = "the command has not exited"

    def daemonized(self) -> None:
        """Ready."""
        self.held, self.problem = True, ""
