"""A process beside the wrapper that repeats a check until it holds: no check holds up the wrapper's loop.

    wrapper ── fork ── checker ── fork, for exec: ── the check
       ◀──── tells ──────┘

On `tells` it says, one line each:

    not yet WORDS          why it does not hold, when that changes
    held                   it exits

A `tells` that nobody reads any more, also because the wrapper was killed, ends it and all that it has started. It has a
session of its own: a Ctrl-C is for the wrapper, and no check asks for a password on the terminal.
"""

from __future__ import annotations

import gc
import os
import select
from time import monotonic
from typing import TYPE_CHECKING

from daemonize.errors import printable
from daemonize.posix import child, fds, prctl, signals
from daemonize.posix.identity import Process, wait_for_end
from daemonize.posix.tree import Tree

if TYPE_CHECKING:
    from daemonize.readiness.probe import Launch, Probe

#: Seconds between two checks: the first pause, and the longest, which is also the time after which a lost checker is
#: started again. A pause is never shorter than the check was, unless that took longer than this.
_FIRST, _LONGEST = 0.005, 0.25
_PATIENCE = 0.5  # seconds after which the first check that has not ended is a reason
_KILL_GRACE = 5.0  # seconds that a checker has to end what it has started
_MOST_WORDS = 500  # characters of a reason that are told: a line goes through the pipe in one piece


class Check:
    """What is repeated, in the checker. growth: of the pause. starts: whether it starts processes, which it ends itself."""

    growth = 2.0
    starts = False

    def begin(self) -> None:
        """In the checker, once, all signals blocked and at their default."""

    def run(self, tells: int) -> str:
        """Why it does not hold; "" if it does. Whatever it raises is a reason as well.

        tells: has an error (POLLERR) when the checker is to end.
        """
        raise NotImplementedError  # pragma: no cover (every subclass has its own)


class Checker:
    """The wrapper's side, for one probe: `start` when the server may answer, `tick` and `close` as the probe's."""

    def __init__(self, probe: Probe, launch: Launch, check: Check) -> None:
        self._probe, self._launch, self._check = probe, launch, check
        self._process: Process | None = None
        self._tells = -1
        self._rest = b""

    def start(self) -> None:
        """Fork it. Where that cannot be done now, it is tried again."""
        try:
            self._fork()
        except OSError as error:
            self._again(f"no process can be started that looks: {error.strerror}")
        else:
            self._probe.due = monotonic() + _PATIENCE

    def _fork(self) -> None:
        tells_end, tells = self._launch.owner.pipe()
        parent = os.getpid()
        mask = signals.block_all()
        try:
            pid = child.fork_alone()
            if pid == 0:
                _be(self._check, tells, parent)
            self._process = Process(pid)
            self._launch.helpers.add(pid)
        except OSError:
            self._launch.owner.shut(tells_end)
            raise
        finally:
            signals.restore_mask(mask)
            self._launch.owner.shut(tells)
        self._tells, self._rest = tells_end, b""
        self._launch.watch(self._probe, tells_end, self._read)

    def _read(self) -> None:
        data = os.read(self._tells, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, _, rest = line.partition(b" yet ")
            if word == b"held":
                self._probe.held = True
            else:
                self._probe.problem = rest.decode()
        if not data:
            self._shut()
            if not self._probe.held:
                self.close()
                self._again("the process that looks has ended; another is started")

    def _again(self, problem: str) -> None:
        self._probe.problem = problem
        self._probe.due = monotonic() + _LONGEST

    def tick(self) -> None:
        """Start it again; or it has not said anything for a while."""
        self._probe.due = None
        if not self._process:
            self.start()
        elif not self._probe.problem:
            self._probe.problem = "no answer yet"

    def _shut(self) -> None:
        if self._tells >= 0:
            self._launch.loop.forget(self._tells)
            self._launch.owner.shut(self._tells)
            self._tells = -1

    def close(self) -> None:
        """End it, and what it has started. What may not be signalled (sudo) is left."""
        self._shut()
        if not self._process:
            return
        process, self._process = self._process, None
        if not (self._check.starts and await_end(process.pid)):
            process.send(signals.SIGKILL)
        if not _reap(process.pid) and self._check.starts:
            for stat in Tree((), session=process.pid).living():
                kill(stat.pid)
        process.close()
        self._launch.helpers.discard(process.pid)


def await_end(pid: int) -> bool:
    """Wait for the end of a process that has been told to end; False: it does not."""
    try:
        return wait_for_end(pid, _KILL_GRACE)
    except ProcessLookupError:
        return True


def _reap(pid: int) -> bool:
    """Whether the checker has ended by itself. Somebody else may have reaped it: Reaper (launcher/intermediate.py)."""
    try:
        return os.waitpid(pid, 0)[1] == 0
    except ChildProcessError:
        return False


def kill(pid: int) -> bool:
    """SIGKILL, to a process that cannot have been reaped meanwhile, or is gone; False if it was not sent."""
    try:
        os.kill(pid, signals.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


# -- the checker's side ---------------------------------------------------------------------------------------------------


def _be(check: Check, tells: int, parent: int) -> None:
    """Be the checker, in a freshly forked process with all signals blocked. Never returns."""
    try:
        os.setsid()
        fds.sweep({tells})
        fds.point_at_null(0, 1, 2)
        signals.set_defaults()
        signals.ignore(signals.SIGPIPE)
        # What was there before the fork is never finalized here; what the checks leave is.
        gc.freeze()
        gc.enable()
        if not check.starts:
            prctl.die_with_parent(signals.SIGKILL)
        check.begin()
        signals.restore_mask(())
        if os.getppid() == parent:
            _repeat(check, tells)
        os._exit(0)
    finally:
        os._exit(1)


def _repeat(check: Check, tells: int) -> None:
    """Until it holds, or nobody listens."""
    poll = select.poll()
    poll.register(tells, 0)
    pause, told = _FIRST, ""
    gone = False
    while not gone:
        began = monotonic()
        try:
            problem = check.run(tells)
        except Exception as error:  # noqa: BLE001 (whatever a check raises, it has not held)
            problem = describe(error)
        if not problem:
            _tell(tells, "held")
            return
        if problem != told:
            told = problem
            _tell(tells, f"not yet {printable(problem)[:_MOST_WORDS]}")
        took = monotonic() - began
        gone = bool(poll.poll(min(max(pause, took), _LONGEST) * 1000))
        pause = min(pause * check.growth, _LONGEST)


def _tell(tells: int, line: str) -> None:
    try:
        fds.write_all(tells, line.encode() + b"\n")
    except BrokenPipeError:
        pass  # nobody listens: the next look at it ends us


def describe(error: Exception) -> str:
    """An exception as a reason: a clause that begins in lower case."""
    reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return reason[:1].lower() + reason[1:]
