"""The probes of one launch: all must hold."""

from __future__ import annotations

import os

from daemonize.errors import DaemonizeError, SetupError, UsageError, printable
from daemonize.readiness import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from daemonize.launcher.family import Family
    from daemonize.posix.sockdiag import Bound, Listener
    from daemonize.readiness import Launch, Probe


class Probes:
    """All that were asked for, told of what happens as one. Raises UsageError for a spec that cannot be, or cannot hold.

    specs: readiness specs. timeout: seconds that there are. besides: probes that are told what happens, and not waited for.
    """

    def __init__(self, specs: Sequence[str], timeout: float, besides: Sequence[Probe] = ()) -> None:
        self._besides = besides
        self.specify(specs)
        self._told_executed = self._told_ended = False
        self._said: dict[Probe, str] = {}
        for probe in self._probes:
            if probe.least >= timeout:
                raise UsageError(f"{probe.spec} cannot hold within a timeout of {timeout:g} s")

    def specify(self, specs: Sequence[str]) -> None:
        """Before anything else: these are the specs. Raises UsageError."""
        self._probes = [parse(spec) for spec in dict.fromkeys(specs)]
        self._all = [*self._probes, *self._besides]

    def refuse_trivial(self, sockets: Sequence[Listener | Bound]) -> None:
        """A spec must say something that is not so already. sockets: what the server is given, and listens.

        Raises UsageError.
        """
        for probe in self._probes:
            try:
                met = probe.met_by(sockets)
            except OSError:
                continue  # a name without an address, which `prepare` tells
            if met:
                raise UsageError(
                    f"{printable(probe.spec)} would hold before the server runs: it is given a socket that listens there; "
                    "wait for its answer (--ready http://HOST:PORT/, exec:COMMAND) or for its word (--ready notify)"
                )

    @property
    def use_pipes(self) -> bool:
        """Whether the server's streams must be pipes."""
        return any(probe.uses_pipes for probe in self._probes)

    @property
    def hear_output(self) -> bool:
        """Whether what the server says is to be told to `said`."""
        return any(probe.hears_output for probe in self._probes)

    @property
    def need_launch(self) -> bool:
        """Whether `prepare` is to be called."""
        return any(probe.needs_launch for probe in self._all)

    @property
    def held(self) -> bool:
        """Whether all have held."""
        return all(probe.held for probe in self._probes)

    @property
    def unmet(self) -> list[str]:
        """The specs that have not held."""
        return [probe.spec for probe in self._probes if not probe.held]

    @property
    def problems(self) -> dict[str, str]:
        """Why they have not held, as far as that is known."""
        return {probe.spec: probe.problem for probe in self._probes if not probe.held and probe.problem}

    @property
    def found(self) -> dict[str, str]:
        """What made them hold, where that is of interest."""
        return {probe.spec: probe.found for probe in self._probes if probe.found}

    @property
    def variables(self) -> dict[bytes, bytes]:
        """For the server's environment."""
        return {name: value for probe in self._all for name, value in probe.variables.items()}

    @property
    def placed(self) -> dict[int, int]:
        """What the server is to have at which descriptor number."""
        return {number: fd for probe in self._all for number, fd in probe.placed.items()}

    @property
    def due(self) -> float | None:
        """When (monotonic) one of them wants to look; None: there is nothing to look at."""
        return min(
            (probe.due for probe in self._probes if not probe.held and probe.due is not None), default=None
        )

    def take_numbers(self, kept: Sequence[int]) -> set[int]:
        """The descriptor numbers that are asked for, of which none may be twice. kept: what the server inherits.

        Raises UsageError.
        """
        taken = {*kept}
        for probe in self._all:
            if probe.number in taken:
                raise UsageError(
                    f"{probe.spec}: the server is to have something else at descriptor {probe.number}"
                )
            if probe.number:
                taken.add(probe.number)
        return taken

    def prepare(self, launch: Launch) -> None:
        """Before anything is started or written. Raises UsageError, AlreadyRunning, SetupError."""
        for probe in self._all:
            try:
                probe.prepare(launch)
            except DaemonizeError:
                raise
            except OSError as error:
                raise SetupError("prepare to wait for", probe.spec, error) from None

    def refuse_variables(self, given: Collection[bytes]) -> None:
        """A variable says one thing. given: those that the server is given besides. Raises UsageError."""
        taken = {*given}
        for probe in self._all:
            for name in taken.intersection(probe.variables):
                shown = printable(os.fsdecode(name))
                raise UsageError(f"{printable(probe.spec)}: the server is to find something else in {shown}")
            taken.update(probe.variables)

    def tell(self, family: Family, now: float, say: Callable[[str], None]) -> None:
        """That the command has been executed, once; that it is time to look."""
        if family.executed and not self._told_executed:
            self._told_executed = True
            for probe in self._all:
                attempt(probe, probe.executed, now)
        for probe in self._probes:
            if not probe.held and probe.due is not None and now >= probe.due:
                attempt(probe, probe.tick, now)
            if self._told_executed and probe.problem and probe.problem != self._said.get(probe):
                self._said[probe] = probe.problem
                say(f"{probe.spec}: not yet: {probe.problem}")

    def tell_alive(self, family: Family) -> None:
        """That the streams are closed, or the command has left a daemon behind, and the main process lives."""
        for probe in self._probes:
            attempt(probe, probe.daemonized if family.replaced else probe.streams_closed)

    def said(self, stream: str, data: bytes) -> None:
        """What the server has written to `out` or `err`."""
        for probe in self._probes:
            if probe.hears_output and not probe.held:
                attempt(probe, probe.said, stream, data)

    def tell_ended(self) -> None:
        """That the server has ended, once: it may have told something just before."""
        if not self._told_ended:
            self._told_ended = True
            for probe in self._all:
                attempt(probe, probe.ended)

    def close(self) -> None:
        """The launch is over."""
        for probe in self._all:
            probe.close()


def attempt(probe: Probe, hook: Callable[..., None], *arguments: Any) -> None:
    """Call a hook. An exception means "not yet"."""
    try:
        hook(*arguments)
    except Exception as error:  # noqa: BLE001 (whatever a check raises, it has not held)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        probe.problem = printable(f"{type(error).__name__}: {reason}" if reason else type(error).__name__)
