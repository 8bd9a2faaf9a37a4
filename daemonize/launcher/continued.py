"""A launch whose server is the caller's own program, for a `--daemonize` option.

    program = wrapper ── fork ── intermediate parent ── fork ── server = the program goes on
        │ relays, and leaves with the outcome's status               │ `run` returns None

The caller's process must have one thread: another one may hold any lock at the moment of the fork, for ever.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from daemonize.launcher.wrapper import CANCELLING, Wrapper, catch_interrupts
from daemonize.posix import arrival, fds, signals
from daemonize.posix.continuation import Continuation
from daemonize.posix.loop import POLLIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.errors import LaunchError
    from daemonize.launcher.outputs import Targets
    from daemonize.launcher.ready import Ready
    from daemonize.launcher.request import Request
    from daemonize.launcher.words import Waiting


class Continued(Wrapper):
    """A launch of the program that calls `launch`.

    prepare: called in the server before it is let go, when it has its environment and its streams. Raises OSError.
    takes_over: whether the whole process is the wrapper from now on. Then signals that interrupt the launch are caught, as
    by the command; else it is another program's as well, and KeyboardInterrupt may be raised.
    """

    def __init__(
        self,
        request: Request,
        targets: Targets,
        prepare: Callable[[], None],
        *,
        takes_over: bool,
        waiting: Waiting | None = None,
    ) -> None:
        # Of a program that is not the server's, also what it opened itself: pytest keeps its own stdout as a copy, and a
        # pipe there would be held as long as the server runs.
        self._foreign = arrival.descriptors() if takes_over else arrival.unchanged()
        relayed_to = {target for target in (targets.stdout, targets.stderr) if target is not None}
        self._before = fds.still_open() - (set() if takes_over else relayed_to)
        self._prepare, self._takes_over = prepare, takes_over
        super().__init__(request, targets, waiting=waiting)

    def launch(self) -> Ready | LaunchError | None:
        """The outcome, or None: this is the server, in which signals are still blocked. Raises as `run` does."""
        try:
            self._begin()
            if self.goes_on:
                return None
            with signals.SigpipeBlocked():
                outcome = self._watch()
        except BaseException:
            self._abandon()
            raise
        finally:
            if not self.goes_on:
                self._close()
        return outcome

    def release_signals(self) -> None:
        """In the server: let signals in again."""
        Continuation.release_signals(self._mask)

    def _kind(self, *arguments: Any, **settings: Any) -> Continuation:
        return Continuation(
            *arguments,
            before=self.outer,
            foreign=lambda: self._foreign | self.owner.all,
            prepare=self._prepare,
            **settings,
        )

    def _fork(self, report: int, gate: int) -> None:
        self._mask = signals.block_all()
        # Of the launch. The rest of it is in `owner`; what the program's own hooks open when it is forked stays.
        self._foreign |= fds.still_open() - self._before
        try:
            super()._fork(report, gate)
            if self._takes_over and not self.goes_on:
                # Not before: the server goes on with the program's own handlers, and with its timers. Here they are silent.
                signals.set_timers(dict.fromkeys(signals.timers(), (0.0, 0.0)))
                self.queue = catch_interrupts(signals.handled())
                gc.disable()  # nothing of the program's is to be done here any more
                self.loop.watch(self.queue.fd, POLLIN, self._signalled)
        finally:
            if not self.goes_on:
                signals.restore_mask(self._mask)

    def _interrupt(self, number: int) -> None:
        if number in (*CANCELLING, signals.SIGCONT):
            super()._interrupt(number)

    def _close(self) -> None:
        super()._close()
        # The process that was called leaves at once if there has been a server: what comes now must not look as if it had
        # changed the outcome. Else it goes on, to its own end.
        if self.queue and not self.family.executed:
            self.queue.close()
