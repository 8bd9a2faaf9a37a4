"""`exec:COMMAND`: the shell command exits 0.

The caller's command, run as the caller, in his directory and environment, whoever the server runs as. It reads nothing, and
what it writes is seen by nobody, but for its last line in the reason why it does not hold. MAINPID is the pid of the server.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

from daemonize.errors import UsageError, signal_name
from daemonize.posix import child, fds, prctl, signals
from daemonize.posix.loop import POLLIN, Loop
from daemonize.posix.tree import descendants
from daemonize.readiness.checker import Check, Checker, await_end, kill
from daemonize.readiness.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemonize.readiness.probe import Launch

_SHELL = b"/bin/sh"
_LIMIT = 10.0  # seconds that a check may take
_KEPT = 4096  # bytes of its output


class Command(Probe):
    """A checker runs it again and again: how much of the machine that takes is up to the command."""

    needs_launch = True

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        if not argument.strip() or "\0" in argument:
            raise UsageError("it names no command")
        self._launch: Launch
        self._checker: Checker | None = None

    def prepare(self, launch: Launch) -> None:
        """Nothing is run before the server is."""
        self._launch = launch

    def executed(self, now: float) -> None:
        """From now on it may succeed."""
        environment = {name: value for name, value in self._launch.environment.items() if name != b"MAINPID"}
        if self._launch.main:
            environment[b"MAINPID"] = b"%d" % self._launch.main
        check = _Run(os.fsencode(self.argument), environment, self._launch.directory)
        self._checker = Checker(self, self._launch, check)
        self._checker.start()

    def daemonized(self) -> None:
        """The main process is another one."""
        if not self.held:
            self.close()
            self.executed(monotonic())

    def tick(self, now: float) -> None:
        """Whoever looked has been killed."""
        if self._checker:
            self._checker.tick()

    def close(self) -> None:
        """End a check that is under way."""
        if self._checker:
            self._checker.close()


class _Run(Check):
    """Runs the command once. The checker is the subreaper of all that it leaves behind, and ends it with the check."""

    starts = True

    def __init__(self, command: bytes, environment: Mapping[bytes, bytes], directory: bytes) -> None:
        self._command, self._environment, self._directory = command, environment, directory
        self._queue: signals.SignalQueue

    def begin(self) -> None:
        """Be told of the command's end."""
        prctl.become_subreaper()
        self._queue = signals.SignalQueue((signals.SIGCHLD,))

    def run(self, tells: int) -> str:
        """Its status, and the last that it said."""
        owner = fds.Descriptors()
        try:
            output_end, output = owner.pipe()
            run = _Running(self._fork(output), output_end, self._queue, tells)
            owner.shut(output)
            run.wait()
            run.end()
            run.hear()
        finally:
            owner.close()
        return f"{run.problem}: {run.last_line}" if run.problem and run.last_line else run.problem

    def _fork(self, output: int) -> int:
        parent = os.getpid()
        mask = signals.block_all()
        try:
            pid = child.fork_alone()
            if pid == 0:
                self._execute(output, parent)
            return pid
        finally:
            signals.restore_mask(mask)

    def _execute(self, output: int, parent: int) -> None:
        """In the child. Never returns."""
        try:
            os.setpgid(0, 0)
            os.chdir(self._directory)
            os.dup2(output, 1)
            os.dup2(output, 2)
            signals.set_defaults()
            prctl.die_with_parent(signals.SIGKILL)
            signals.restore_mask(())
            if os.getppid() == parent:
                os.execve(_SHELL, [_SHELL, b"-c", self._command], self._environment)
        except OSError as error:
            os.write(2, os.fsencode(f"{os.fsdecode(_SHELL)}: {error.strerror}\n"))
        finally:
            os._exit(127)


class _Running:
    """One run: `wait` returns when it has ended, has taken too long, or the checker is to end."""

    def __init__(self, pid: int, output: int, queue: signals.SignalQueue, tells: int) -> None:
        self._pid, self._output, self._queue = pid, output, queue
        self._end: os.waitid_result | None = None
        self._said = b""
        self._over = False
        os.set_blocking(output, False)
        self._loop = Loop()
        self._loop.watch(tells, 0, self._left_alone)
        self._loop.watch(queue.fd, POLLIN, self._child_ended)
        self._loop.watch(output, POLLIN, lambda _events: self.hear())

    def wait(self) -> None:
        """Raises OSError."""
        until = monotonic() + _LIMIT
        while self._end is None and not self._over and (left := until - monotonic()) > 0:
            self._loop.run_once(left)

    def _left_alone(self, _events: int) -> None:
        self._over = True

    def _child_ended(self, _events: int) -> None:
        self._queue.read()
        # It is not reaped yet, so that its number is still that of its process group.
        self._end = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def end(self) -> None:
        """End and reap all that is below this process, its subreaper. What may not be signalled (sudo) is left."""
        try:
            os.killpg(self._pid, signals.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        while _reap() and (signalled := [pid for pid in descendants(os.getpid()) if kill(pid)]):
            for pid in signalled:
                await_end(pid)

    def hear(self) -> None:
        """Take what there is of its output."""
        try:
            while data := os.read(self._output, 65536):
                self._said = (self._said + data)[-_KEPT:]
            self._loop.forget(self._output)
        except BlockingIOError:
            pass

    @property
    def problem(self) -> str:
        """Why it does not hold; "" if it does."""
        if self._end is None:
            return f"no answer within {_LIMIT:g} s"
        if self._end.si_code != os.CLD_EXITED:
            return f"killed by {signal_name(self._end.si_status)}"
        return f"exit status {self._end.si_status}" if self._end.si_status else ""

    @property
    def last_line(self) -> str:
        """The last line with anything in it."""
        lines = self._said.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _reap() -> bool:
    """Whether there are children that have not ended; those that have are gone afterwards."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True
