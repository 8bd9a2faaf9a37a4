"""The rule that never mistakes a death for readiness (design 3.1), one look at a time.

A process closes its descriptors *before* it can be reaped, so at end of file most dying processes still look alive:

    exit_group ──▶ PF_EXITING on every thread ──▶ descriptors closed ──▶ ... ──▶ pidfd readable, zombie
                                                       ▲ we are woken here

and programs that close stdout and stderr themselves just before they exit have not even PF_EXITING at that moment.
Re-pointed descriptors (1 and 2 are open again) are said on purpose: alive. Closed ones are watched for a while.

The design would call a closed server ready as soon as all its threads sleep, or after 100 ms. A server that closes its
streams, sleeps 20 ms in the middle of its own clean-up and dies would then be taken for ready, and on a loaded machine so
would one that waits 100 ms for a CPU to die on. So sleeping counts when it has lasted for `DWELL`, and running only when
CPU time was used. Servers that re-point their streams, as they should, pay nothing for it.
"""

from __future__ import annotations

from daemonize.posix.identity import ASLEEP, EXITING, GONE, UNKNOWN, holds_descriptors, read_stat, standing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize.launcher.family import Family

#: Seconds that a process with closed streams must sleep without a break; after LIMIT seconds, to have used `WORK` clock
#: ticks of CPU time is as good. After PATIENCE seconds it is alive whatever it does: nobody takes so long to die.
DWELL, LIMIT, WORK, PATIENCE = 0.05, 0.1, 3, 1.0
_FIRST_LOOK, _LONGEST_LOOK = 0.001, 0.01


class Verdict:
    """Whether the process that went silent at `since` (monotonic) is alive. Its end is seen by others, sooner.

    due: monotonic time of the next look. dwell: see DWELL. repointed: whether open descriptors 1 and 2 settle it.
    """

    def __init__(self, pid: int, since: float, *, dwell: float = DWELL, repointed: bool = True) -> None:
        self.pid, self.since, self.due = pid, since, since
        self._dwell, self._repointed = dwell, repointed
        self._wait = _FIRST_LOOK
        self._asleep_since: float | None = None
        self._cpu: int | None = None

    def alive(self, now: float) -> bool:
        """Take a look. True: alive, for good. False: not known yet; look again at `due`, unless it ends before."""
        state = standing(self.pid)
        if state == UNKNOWN:  # no /proc: only the end itself can tell, so give it its time
            self._wait = LIMIT
            alive = now - self.since >= LIMIT
        elif state in (EXITING, GONE):
            alive, self._asleep_since = False, None
        else:
            alive = (self._repointed and holds_descriptors(self.pid, 1, 2)) or self._settled(state, now)
        self.due = now + self._wait
        self._wait = min(self._wait * 2, _LONGEST_LOOK)
        return alive

    def _settled(self, state: str, now: float) -> bool:
        if state != ASLEEP:
            self._asleep_since = None
        elif self._asleep_since is None:
            self._asleep_since = now
        if self._asleep_since is not None and now - self._asleep_since >= self._dwell:
            return True
        silent = now - self.since
        return silent >= PATIENCE or (self._works() and silent >= LIMIT)

    def _works(self) -> bool:
        """Whether it has used CPU time since the first look: more than it takes to exit."""
        stat = read_stat(self.pid)
        if stat is None:
            return False
        if self._cpu is None:
            self._cpu = stat.cpu
        return stat.cpu - self._cpu >= WORK


class Judge:
    """Judges every main process of a family once: the server when it goes silent, a daemon when it is left behind.

    silent: monotonic time at which both pipes were closed by everybody, or None.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self.silent: float | None = None
        self._judged: object = self  # the main process that the verdict is, or was, about; at first nobody
        self._verdict: Verdict | None = None

    @property
    def busy(self) -> bool:
        """Whether a verdict is being awaited."""
        return self._verdict is not None

    @property
    def due(self) -> float | None:
        """Monotonic time of the next look, or None."""
        return self._verdict.due if self._verdict else None

    def finds_alive(self, now: float) -> bool:
        """Take a look where one is due. True once for every main process that is found alive."""
        family = self._family
        if family.ended is not None:
            self._verdict = None
            return False
        if (
            family.executed
            and family.main is not self._judged
            and (family.replaced or self.silent is not None)
        ):
            self._judged, self._verdict = family.main, None
            if family.main is None:
                return True  # left behind, and nobody can say who it is
            self._verdict = self._open(family.main.pid, now)
        if not self._verdict or now < self._verdict.due or not self._verdict.alive(now):
            return False
        self._verdict = None
        return True

    def _open(self, pid: int, now: float) -> Verdict:
        if self._family.replaced or self.silent is None:
            # The middle process of a double fork lives a moment longer: only one that sleeps is the daemon.
            return Verdict(pid, now, dwell=0.0, repointed=False)
        return Verdict(pid, self.silent)
