"""`started`: exec(2) succeeded. Compatibility with the C `daemonize`, not readiness."""

from __future__ import annotations

from daemonize.readiness import Probe


class Started(Probe):
    """Says nothing about whether the server can do its work."""

    def executed(self, now: float) -> None:
        """All there is to wait for."""
        self.held = True
