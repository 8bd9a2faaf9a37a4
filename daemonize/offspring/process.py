"""The child, as its owner sees it: whether it lives, how it ended, and the end of it. Nobody else's child is touched."""

from __future__ import annotations

import os
import select
from _thread import RLock
from time import monotonic, sleep
from typing import TYPE_CHECKING

from daemonize.errors import STATUS_SIGNAL, StillRunning
from daemonize.posix import signals, stop, tree
from daemonize.posix.identity import pidfd_open, read_stat
from daemonize.posix.loop import Loop

if TYPE_CHECKING:
    import resource

#: Seconds between two looks, where the kernel tells nothing of an end: the first, and the longest.
_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05
_DAY = 86400.0


class Child:
    """A child of this process, just forked. status: when it has ended, its exit status, 128+N if it died of signal N.

    It is None as well if somebody else has reaped it. died_of: the signal. fd: a pidfd, None where there is
    none. measured: whether its usage of resources is wanted, for which Python imports at each wait4(2). reaping: whoever
    looks, from any thread, is not overtaken between two steps; of one manager, all children may share it.
    """

    __slots__ = ("_ended", "_owner", "_reaping", "died_of", "fd", "measured", "pid", "status", "usage")

    def __init__(self, pid: int, reaping: RLock | None = None) -> None:
        self.pid, self.fd, self._owner = pid, pidfd_open(pid), os.getpid()
        self.status: int | None = None
        self.died_of: int | None = None
        self.usage: resource.struct_rusage | None = None
        self.measured = self._ended = False
        self._reaping = reaping or RLock()

    def look(self) -> bool:
        """Whether it has ended; it is reaped then."""
        with self._reaping:
            if self._ended:
                return True
            try:
                if self.fd is not None:
                    # If somebody else has reaped it, another child may have its pid by now.
                    signals.pidfd_send_signal(self.fd, 0)
            except ProcessLookupError:
                self._ended = True
                return True
            except PermissionError:
                pass  # it is there, and another user's
            try:
                # As long as it is not reaped, its pid is its own.
                if self.measured:
                    pid, status, self.usage = os.wait4(self.pid, os.WNOHANG)
                else:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._ended = True  # by os.wait() of somebody's, or by the kernel, where SIGCHLD is ignored
                return True
            if not pid:
                return False
            code = os.waitstatus_to_exitcode(status)  # as `subprocess` has it
            if code < 0:
                self.died_of = -code
            self.status = STATUS_SIGNAL - code if code < 0 else code
            self._ended = True
            return True

    def wait(self, timeout: float) -> bool:
        """Until it has ended, at most so many seconds; whether it has."""
        until, pause = monotonic() + timeout, _FIRST_WAIT
        while not self.look():
            left = until - monotonic()
            if left <= 0:
                return False
            if self.fd is None:
                sleep(min(pause, left))
                pause = min(pause * 2, _LONGEST_WAIT)
            else:
                poll = select.poll()
                poll.register(self.fd, select.POLLIN)
                poll.poll(min(left, _DAY) * 1000)
        return True

    def end(self, grace: float) -> None:
        """SIGTERM, `grace` seconds, SIGKILL, to it and to what is below it; it is reaped. Raises StillRunning."""
        if self.look():
            return
        # When it has ended, nothing tells any longer whose children it had.
        below = tree.descendants(self.pid)
        stat = read_stat(self.pid)
        main = self.pid, stat.start if stat else 0
        survivors = stop.run(Loop(), tree.Tree({self.pid, *below}), main, stop.default_plan(grace), self.look)
        if survivors:
            raise StillRunning(survivors)
        self.wait(stop.KILL_GRACE)

    def send(self, number: int) -> bool:
        """Send it a signal; False: it has ended, or is no child of ours. Raises PermissionError: it is another user's."""
        # In a forked process its descriptor may be another's.
        if os.getpid() != self._owner or self.look():
            return False
        try:
            if self.fd is not None:
                signals.pidfd_send_signal(self.fd, number)
            else:
                os.kill(self.pid, number)  # it is not reaped, so its pid is its own
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)
