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
from daemonize.posix.tree import Tree
from daemonize.readiness.checker import Check, Checked, end_all

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHELL = b"/bin/sh"
_LIMIT = 10.0  # seconds that a check may take
_KEPT = 4096  # bytes of its output


class Command(Checked):
    """It is run again and again: how much of the machine that takes is up to the command."""

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        try:
            self._command = os.fsencode(argument)
        except UnicodeEncodeError as error:
            raise UsageError(f"it is no text: {error.reason}") from None
        if not self._command.strip() or b"\0" in self._command:
            raise UsageError("it names no command")

    def check(self) -> Check:
        """The command, with the pid of the main process."""
        environment = {**self._launch.environment}
        environment.pop(b"MAINPID", None)
        if self._launch.main:
            environment[b"MAINPID"] = b"%d" % self._launch.main
        return _Run(self._command, environment)

    def daemonized(self) -> None:
        """The main process is another one."""
        if not self.held:
            self.close()
            self.executed(monotonic())


class _Run(Check):
    """Runs the command once. The checker is the subreaper of all that it leaves behind, and ends it with the check."""

    starts = True

    def __init__(self, command: bytes, environment: Mapping[bytes, bytes]) -> None:
        self._command, self._environment = command, environment
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
        if _reap():
            end_all(Tree({os.getpid()}), _reap)

    def hear(self) -> None:
        """Take what there is of its output, at most what a pipe holds."""
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return
        self._said = (self._said + data)[-_KEPT:]
        if not data:
            self._loop.forget(self._output)

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
