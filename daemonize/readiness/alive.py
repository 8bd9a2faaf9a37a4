"""`alive:DURATION`: still running after that time."""

from __future__ import annotations

from daemonize.errors import UsageError
from daemonize.readiness import Probe
from daemonize.units import parse_timeout


class Alive(Probe):
    """Counts from exec(2) on. A server that ends before it ends the launch; that is the wrapper's business."""

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        self.least = parse_timeout(argument)
        if self.least == float("inf"):
            raise UsageError("it would never hold")

    def executed(self, now: float) -> None:
        """The time begins."""
        self.due = now + self.least

    def tick(self, now: float) -> None:
        """Ready when the time has passed."""
        if self.due is not None and now >= self.due:
            self.held, self.due = True, None
