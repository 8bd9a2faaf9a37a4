"""What every probe is: an object that is told what happens and says when its spec holds."""

from __future__ import annotations


class Probe:
    """Watches for one readiness spec. All hooks do nothing by default.

    held: the spec has been met (it stays so). uses_pipes: the server's streams must be pipes to the wrapper.
    least: seconds that it takes at least. due: the monotonic time at which `tick` wants to be called, or None.
    """

    uses_pipes = False
    least = 0.0

    def __init__(self, spec: str, argument: str) -> None:
        self.spec, self.argument = spec, argument
        self.held = False
        self.due: float | None = None

    def executed(self, now: float) -> None:
        """exec(2) has succeeded."""

    def streams_closed(self) -> None:
        """Both streams are closed and the server is alive."""

    def daemonized(self) -> None:
        """The server exited 0 and left a daemon of its own behind."""

    def tick(self, now: float) -> None:
        """`due` has passed."""
