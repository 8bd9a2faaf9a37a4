"""What a failed launch must not leave behind."""

from __future__ import annotations

from time import monotonic

from daemonize.errors import NAMELESS
from daemonize.posix.identity import has_proc, read_stat
from daemonize.posix.signals import SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemonize.errors import Survivor
    from daemonize.launcher.family import Family
    from daemonize.posix.loop import Loop
    from daemonize.posix.stop import Stop
    from daemonize.posix.tree import Tree


_PATIENCE = 0.5  # seconds that a server gets to exit at the gate (it has nothing to lose yet), and who cannot be signalled
_AGAIN = 0.1  # seconds until somebody who does not answer is killed again


class Remains:
    """Stops everything of a launch, within the loop of the wrapper.

    first: the signal that asks it to end. reap: reaps what has ended, where we adopt what the server leaves behind; else
    None. session: the session everything is in, or None if that is the caller's own. token: what marks the environment of
    the server. grace: seconds of the stop plan.
    """

    def __init__(
        self, loop: Loop, family: Family, token: bytes, grace: float, say: Callable[[str], None]
    ) -> None:
        self._loop, self._family, self._token, self.grace, self._say = loop, family, token, grace, say
        self.reap: Callable[[], object] | None = None
        self.first: int = SIGTERM
        self._stop: Stop | None = None
        self._patience_until: float | None = None

    def _expect_exit(self, *, at_once: bool) -> None:
        """A process that hangs before the gate (stopped, or in a directory that does not answer) is killed in the end."""
        if self._out_of_patience() or at_once:
            self._patience_until = monotonic() + _AGAIN
            self._family.kill_unexecuted()

    def _out_of_patience(self) -> bool:
        now = monotonic()
        if self._patience_until is None:
            self._patience_until = now + min(self.grace, _PATIENCE)
        return now >= self._patience_until

    @property
    def _waits_patiently(self) -> bool:
        return not self._family.reported or self._may_leave_somebody

    @property
    def timeout(self) -> float | None:
        """Seconds until `gone` wants to be called even if nothing happens."""
        if self._patience_until is not None and self._waits_patiently:
            return max(self._patience_until - monotonic(), 0)
        return self._stop.timeout if self._stop and not self._stop.done else None

    @property
    def survivors(self) -> Sequence[Survivor]:
        """(pid, name) of what could not be stopped. Who cannot be named is NAMELESS (daemonize/errors.py)."""
        found = tuple(self._stop.survivors) if self._stop else ()
        return found or ((NAMELESS,) if self._family.nameless else ())

    def gone(self, *, at_once: bool) -> bool:
        """Begin or continue to stop; True when nothing is left to stop. at_once: without waiting for the grace to pass."""
        self._family.shut_gate()
        if not self._family.reported:
            self._expect_exit(at_once=at_once)
            return False  # before the gate: it exits there by itself, and the end of its report proves it
        if self._family.failed:
            return self._family.ended is not None or self._family.lost  # it is exiting by itself
        if self._stop is None:
            if not self._anything:
                return True
            if self._family.nameless:
                return self._out_of_patience() or at_once
            self._stop = self._begin()
        if at_once and not self._stop.done:
            self._stop.hurry()
        else:
            self._stop.advance()
        if self._stop.done and self._may_leave_somebody:
            return self._out_of_patience() or at_once
        return self._stop.done

    @property
    def _may_leave_somebody(self) -> bool:
        """Whether all whom we can name have ended, and there may be others: without /proc their parent alone knows of it."""
        family = self._family
        if self._stop and not self._stop.done:
            return False
        waits_for_word = (
            bool(self._stop) and family.left is None and not (family.blind or family.lost or has_proc())
        )
        return family.nameless or waits_for_word

    @property
    def _anything(self) -> bool:
        family = self._family
        return bool(family.left) if family.ended is not None else family.pid != 0

    def _begin(self) -> Stop:
        # Only now: a launch that goes well never needs it.
        from daemonize.posix.stop import Stop, default_plan

        family = self._family
        main = (family.main.pid, family.main.start) if family.main and family.ended is None else None
        self._say("stopping the server")
        stop = Stop(self._loop, self._tree(main), main, default_plan(self.grace, self.first))
        stop.begin()
        return stop

    def _tree(self, main: tuple[int, int] | None) -> Tree:
        from daemonize.posix.tree import Offspring, Tree

        family = self._family
        if self.reap and read_stat(1):  # not with a /proc that hides other users' processes (hidepid)
            return Offspring(family.helpers, self.reap)
        roots = {main[0]} if main else set()
        if not family.lost:
            roots.add(family.parent)
        return Tree(
            roots,
            family.session,
            [self._token],
            exclude={family.parent, *family.helpers},
            known=() if family.nameless else family.left or (),
        )

    def stop_now(self) -> None:
        """Stop what is left, with nothing else to wait for, and without a parent that reaps."""
        main = self._family.main
        if main is None or main.ended:
            return
        from daemonize.posix import stop
        from daemonize.posix.loop import Loop
        from daemonize.posix.tree import Tree

        tree = Tree({main.pid}, self._family.session, [self._token], exclude={self._family.parent})
        stop.run(Loop(), tree, (main.pid, main.start), stop.default_plan(self.grace))

    def close(self) -> None:
        """Give up: nothing more is signalled or watched."""
        if self._stop:
            self._stop.close()
