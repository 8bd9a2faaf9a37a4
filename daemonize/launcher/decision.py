"""From the facts of a launch to its outcome. Nothing is carried out here."""

from __future__ import annotations

import os

from daemonize.errors import LaunchError, SetupError
from daemonize.launcher.ready import Ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize.launcher.deadline import Deadline
    from daemonize.launcher.family import Family
    from daemonize.launcher.outputs import Outputs
    from daemonize.launcher.probes import Probes
    from daemonize.launcher.request import Request
    from daemonize.launcher.verdict import Judge

#: Seconds that a strict launch waits for a server that complained to exit by itself.
STRICT_GRACE = 2.0


class Decision:
    """What the facts amount to.

    due: when (monotonic) it is to be asked again even if nothing happens, or None. token: what marks the server.
    """

    due: float | None = None

    def __init__(
        self, request: Request, family: Family, outputs: Outputs, probes: Probes, life: Judge, token: bytes
    ) -> None:
        self._request, self._family, self._outputs = request, family, outputs
        self._probes, self._life, self._token = probes, life, token

    def outcome(self, deadline: Deadline, now: float) -> Ready | LaunchError | None:
        """The outcome of a launch of which no step has failed, or None: not known yet."""
        family = self._family
        if family.ended is not None:
            if not family.reported:
                # poll(2) may have seen its end, and missed what it had said before: it looks at one pipe after the other.
                return self._of_time(deadline)
            return self.of_end(family.ended) or self._of_time(deadline)
        if family.lost:
            from daemonize.outcomes import Lost

            return Lost()
        if family.executed and not self._life.busy and self._probes.held:
            return self._of_ready(now)
        return self._of_time(deadline)

    def of_end(self, status: int, *, served: bool = False) -> LaunchError | None:
        """The main process has ended: the outcome, unless a daemon may have been left behind. served: it had been ready."""
        from daemonize.outcomes import Exited, StrictFailure

        family = self._family
        if family.lost:
            return Exited(status)
        if family.left is None or (status == 0 and family.left):
            return None  # there will be word of who is left, or of their end
        if status == 0 and family.blind and self._outputs.protocol and not self._outputs.closed:
            family.follow_unknown()  # where nobody adopts orphans, a pipe that is held still tells that there are some
            return None
        if self.due is not None:
            return StrictFailure(Exited(status).status)
        specs = [spec for spec in self._request.ready if spec not in ("streams", "started")]
        unmet = [spec for spec in self._probes.unmet if spec != "streams"]
        met = specs[0] if specs and not (unmet or served) else None
        # In the foreground orphans come and go as long as the server runs: only one that was waited for says anything of it.
        orphan = 0 if served or not self._request.moves_streams else family.orphan_status
        return Exited(status or orphan, unmet[0] if unmet else None, met)

    def _of_time(self, deadline: Deadline) -> LaunchError | None:
        """The outcome if the time is up."""
        if not deadline.passed:
            return None
        from daemonize.outcomes import TimedOut

        left = self._request.on_timeout == "leave" and self._family.executed and self._family.lives
        outcome = TimedOut(
            self._probes.unmet, self._request.timeout, left=left, still_open=self._outputs.still_open,
            problems=self._probes.problems, listens=self._listens(),
        )  # fmt: skip
        if left and self._request.pid_file:
            outcome.pid_file = os.fsdecode(self._request.pid_file)
        return outcome

    def _listens(self) -> list[str]:
        """Where the server listens, as shown to people who wait for something else."""
        from daemonize.posix.sockets import listeners_of
        from daemonize.posix.tree import descendants

        family = self._family
        try:
            found = listeners_of(descendants(family.parent, family.helpers)) if family.parent else []
        except (SetupError, OSError):
            return []
        return sorted({str(listener) for listener in found})

    def _of_ready(self, now: float) -> Ready | LaunchError | None:
        if self._request.strict and self._outputs.spoke_on_stderr:
            from daemonize.outcomes import StrictFailure

            if self.due is None:
                self.due = now + STRICT_GRACE
            return StrictFailure() if now >= self.due else None
        main = self._family.chosen
        return Ready(main.pid if main else None, main.start if main else 0, self._family.parent, self._token)
