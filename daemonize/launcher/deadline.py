"""How much of the start timeout is left, in time that the server really had."""

from __future__ import annotations

_SLICE = 0.25


class Deadline:
    """Seconds that are spent by waiting, never by the clock alone.

    A wait that lasts longer than was asked for means that the wrapper did not run (stopped, frozen, suspended): the
    excess is not counted, and waits are cut into slices so that the excess can be told. Nor is time counted in which the
    server was blocked only by our own reader.
    """

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    @property
    def passed(self) -> bool:
        """Whether all of it is spent."""
        return self.left <= 0

    def slice(self) -> float | None:
        """How long to wait at most before the next `spend`; None: without end."""
        return None if self.left == float("inf") else max(min(self.left, _SLICE), 0.0)

    def spend(self, waited: float, asked: float | None) -> None:
        """A wait is over: it was asked to last `asked` seconds and lasted `waited`.

        No less than a slice is believed: rounds that wait for nothing, because there is always something to copy, take
        their time too.
        """
        self.left -= waited if asked is None else min(waited, max(asked, _SLICE))
