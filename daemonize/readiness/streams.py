"""`streams`: both streams are closed and the server is alive, or it left a daemon of its own behind."""

from __future__ import annotations

from daemonize.readiness.probe import Probe


class Streams(Probe):
    """The default. Whether a server that closed its streams lives is judged by the wrapper (launcher/verdict.py)."""

    uses_pipes = True

    def streams_closed(self) -> None:
        """Ready."""
        self.held = True

    def daemonized(self) -> None:
        """Ready: the parent's exit is how such a server says so."""
        self.held = True
