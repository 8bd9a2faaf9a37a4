"""The probes of one launch: all must hold."""

from __future__ import annotations

from daemonize.errors import UsageError
from daemonize.readiness import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemonize.launcher.family import Family


class Probes:
    """All that were asked for, told of what happens as one. Raises UsageError for a spec that cannot be, or cannot hold.

    specs: readiness specs. timeout: seconds that there are.
    """

    def __init__(self, specs: Sequence[str], timeout: float) -> None:
        self._probes = [parse(spec) for spec in specs]
        self._told_executed = False
        for probe in self._probes:
            if probe.least >= timeout:
                raise UsageError(f"{probe.spec} cannot hold within a timeout of {timeout:g} s")

    @property
    def use_pipes(self) -> bool:
        """Whether the server's streams must be pipes."""
        return any(probe.uses_pipes for probe in self._probes)

    @property
    def held(self) -> bool:
        """Whether all have held."""
        return all(probe.held for probe in self._probes)

    @property
    def unmet(self) -> list[str]:
        """The specs that have not held."""
        return [probe.spec for probe in self._probes if not probe.held]

    @property
    def due(self) -> float | None:
        """When (monotonic) one of them wants to look; None: there is nothing to look at."""
        return min(
            (probe.due for probe in self._probes if not probe.held and probe.due is not None), default=None
        )

    def tell(self, family: Family, now: float) -> None:
        """That the command has been executed, once; that it is time to look."""
        if family.executed and not self._told_executed:
            self._told_executed = True
            for probe in self._probes:
                probe.executed(now)
        for probe in self._probes:
            if probe.due is not None and now >= probe.due:
                probe.tick(now)

    def tell_alive(self, family: Family) -> None:
        """That the streams are closed, or the command has left a daemon behind, and the main process lives."""
        for probe in self._probes:
            if family.replaced:
                probe.daemonized()
            else:
                probe.streams_closed()
