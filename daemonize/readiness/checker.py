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
from daemonize.posix.identity import Process
from daemonize.posix.tree import Tree
from daemonize.readiness import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.readiness import Launch

#: Seconds between two checks: the shortest pause, and the longest, which is also the time after which a lost checker is
#: started again. A pause is this share of the time that has been waited so far, and never shorter than the check was, unless
#: that took longer than the longest.
_FIRST, _LONGEST, _SHARE = 0.005, 0.25, 0.1
_PATIENCE = 0.5  # seconds after which the first check that has not ended is a reason
_KILL_GRACE = 5.0  # seconds that a checker has to end what it has started
_MOST_WORDS = 500  # characters of a reason that are told: a line goes through the pipe in one piece


class Check:
    """What is repeated, in the checker. starts: whether it starts processes, which it ends itself."""

    starts = False

    def begin(self) -> None:
        """In the checker, once, all signals blocked and at their default."""

    def run(self, tells: int) -> str:
        """Why it does not hold; "" if it does. Whatever it raises is a reason as well.

        tells: has an error (POLLERR) when the checker is to end.
        """
        raise NotImplementedError  # pragma: no cover (every subclass has its own)


class Checked(Probe):
    """A probe with a checker, which looks as soon as the server has been executed."""

    needs_launch = True

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        self._launch: Launch
        self._check: Check
        self._process: Process | None = None
        self._tells = -1
        self._rest = b""
        self._answered = False
        self._pause = _FIRST

    def check(self) -> Check:
        """What is to be repeated, of the server as it is now."""
        raise NotImplementedError  # pragma: no cover (every subclass has its own)

    def prepare(self, launch: Launch) -> None:
        """Nothing is looked at before the server is there."""
        self._launch = launch

    def executed(self, now: float) -> None:
        """From now on it may hold."""
        self._start(now)

    def again(self, now: float, pause: float) -> None:
        """Start a checker."""
        self.held, self.problem, self._pause = False, "", pause
        self._start(now)

    def tick(self, now: float) -> None:
        """Start a checker again; or the one there is has not said anything for a while."""
        self.due = None
        if not self._process:
            self._start(now)
        elif not self.problem:
            self.problem = "no answer yet"

    def close(self) -> None:
        """End the checker, and what it has started. What may not be signalled (sudo) is left."""
        self._shut()
        if not self._process:
            return
        process, self._process = self._process, None
        if not (self._check.starts and _ends(process)):
            process.send(signals.SIGKILL)
        if not _reap(process.pid) and not self._answered and self._check.starts:
            end_all(Tree((), session=process.pid))
        process.close()
        self._launch.helpers.discard(process.pid)

    def _start(self, now: float) -> None:
        self._check = self.check()
        try:
            self._fork()
        except OSError as error:
            self._again(now, f"no process can be started that looks: {error.strerror}")
        else:
            self.due = now + max(_PATIENCE, 2 * self._pause)

    def _again(self, now: float, problem: str) -> None:
        self.problem, self.due = problem, now + _LONGEST

    def _fork(self) -> None:
        tells_end, tells = self._launch.owner.pipe()
        parent = os.getpid()
        mask = signals.block_all()
        try:
            pid = child.fork_alone()
            if pid == 0:
                _be(self._check, tells, parent, self._pause)
            self._process = Process(pid)
            self._launch.helpers.add(pid)
        except OSError:
            self._launch.owner.shut(tells_end)
            raise
        finally:
            signals.restore_mask(mask)
            self._launch.owner.shut(tells)
        self._tells, self._rest, self._answered = tells_end, b"", False
        self._launch.watch(self, tells_end, self._read)

    def _read(self) -> None:
        data = os.read(self._tells, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line == b"held":
                self._answered = True
            else:
                self.problem = line.removeprefix(b"not yet ").decode()
        if data:
            return
        self.close()
        problem = self.confirm() if self._answered else "the process that looks has ended; another is started"
        if problem:
            self._again(monotonic(), problem)
        else:
            self.held, self.due, self.problem = True, None, ""

    def confirm(self) -> str:
        """The check holds. Why that does not count; "": it does."""
        return ""

    def _shut(self) -> None:
        if self._tells >= 0:
            self._launch.loop.forget(self._tells)
            self._launch.owner.shut(self._tells)
            self._tells = -1


def _ends(process: Process) -> bool:
    """Whether it ends by itself, which it does when nobody reads what it tells."""
    if process.fd is None:
        return True
    poll = select.poll()
    poll.register(process.fd, select.POLLIN)
    return bool(poll.poll(_KILL_GRACE * 1000))


def _reap(pid: int) -> bool:
    """Whether the checker has ended by itself. Somebody else may have reaped it: Reaper (launcher/intermediate.py)."""
    try:
        return os.waitpid(pid, 0)[1] == 0
    except ChildProcessError:
        return False


def end_all(tree: Tree, reap: Callable[[], object] = lambda: None) -> None:
    """Kill them all, and wait for their end. What may not be signalled (sudo) is left."""
    # Only now: a check that goes well never needs it.
    from daemonize.posix import stop
    from daemonize.posix.loop import Loop

    stop.run(Loop(), tree, None, ((signals.SIGKILL, _KILL_GRACE),), reap)


# -- the checker's side ---------------------------------------------------------------------------------------------------


def _be(check: Check, tells: int, parent: int, least: float) -> None:
    """Be the checker, in a freshly forked process with all signals blocked. Never returns.

    least: seconds between two checks.
    """
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
            _repeat(check, tells, least)
        os._exit(0)
    finally:
        os._exit(1)


def _repeat(check: Check, tells: int, least: float) -> None:
    """Until it holds, or nobody listens."""
    poll = select.poll()
    poll.register(tells, 0)
    first = began = monotonic()
    told, gone = "", False
    while not gone:
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
        now = monotonic()
        pause = min(max(now - began, (now - first) * _SHARE), _LONGEST)
        gone = bool(poll.poll(max(pause, least) * 1000))
        began = monotonic()


def _tell(tells: int, line: str) -> None:
    try:
        fds.write_all(tells, line.encode() + b"\n")
    except BrokenPipeError:
        pass  # nobody listens: the next look at it ends us


def describe(error: Exception) -> str:
    """An exception as a reason: a clause that begins in lower case."""
    reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return reason[:1].lower() + reason[1:]
