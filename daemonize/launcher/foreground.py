"""`-f`: no intermediate parent and no new session; the wrapper stays the server's parent.

    caller ── wrapper ── fork ── server        (same session, same terminal, same stdin)
                 │ relays, forwards signals, reaps, exits as the server does

The wrapper adopts what the server leaves behind, so that a server that daemonizes itself stays in the foreground all the
same. A wrapper that is killed with SIGKILL takes the server along: the kernel sends it SIGTERM.
"""

from __future__ import annotations

import gc
import os

from daemonize.errors import Exited, LaunchError, SetupError
from daemonize.launcher.deadline import Deadline
from daemonize.launcher.intermediate import Reaper
from daemonize.launcher.ready import Ready
from daemonize.launcher.wrapper import Wrapper
from daemonize.posix import child, prctl, signals
from daemonize.posix.identity import is_below
from daemonize.posix.signals import (
    SIGALRM,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
    SIGWINCH,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.launcher.outputs import Targets
    from daemonize.launcher.request import Request
    from daemonize.launcher.words import Waiting

FORWARDED = (SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH)


def _open_queue() -> signals.SignalQueue | signals.SignalDescriptor:
    numbers = (*FORWARDED, SIGCHLD)
    try:
        return signals.SignalDescriptor(numbers)
    except OSError:
        return signals.SignalQueue(numbers)


class Foreground(Wrapper):
    """A launch that goes on after ready. `on_ready` is told; `run` returns when the server has ended."""

    def __init__(
        self,
        request: Request,
        targets: Targets,
        *,
        say: Callable[[str], None],
        on_ready: Callable[[Ready], None],
        waiting: Waiting | None = None,
    ) -> None:
        # By default nobody waits for readiness: it stays with its reader.
        shown = waiting if request.moves_streams else None
        super().__init__(request, targets, queue=_open_queue(), say=say, waiting=shown)
        self._on_ready = on_ready
        self._serving = False
        self._passed_on: set[int] = set()
        self._early: list[tuple[int, int | None]] = []  # signals that came before the server was at its gate
        self._reaper: Reaper | None = None

    def run(self) -> Ready | LaunchError:
        """Start the server, and return when it has ended."""
        gc.enable()
        try:
            return super().run()
        finally:
            if self.queue:
                self.queue.close()

    def _fork(self, report: int, gate: int) -> None:
        prctl.become_subreaper()
        self.family.parent = os.getpid()
        mask = signals.block_all()
        try:
            server = child.fork(self.program, report, gate)
        except OSError as error:
            raise SetupError("start", self.request.shown[0], error) from None
        finally:
            signals.restore_mask(mask)
        self._reaper = Reaper(server, self.family.helpers)
        self.family.note([b"forked", b"%d" % server])

    def _round(self) -> None:
        super()._round()
        while self._early and self.family.main:
            self._forward(*self._early.pop(0))

    def _signalled(self, _events: int) -> None:
        for number, sender in self.queue.read() if self.queue else ():
            if number != SIGCHLD:
                self._forward(number, sender)
            elif self._reaper:
                for line in self._reaper.reap():
                    self.family.note(line.split())

    def _forward(self, number: int, sender: int | None) -> None:
        main = self.family.main
        if main is None:
            self._early.append((number, sender))
            return
        if sender == 0 and _has_been_told(main.pid, number):
            return  # twice is something else to many a server
        if sender and is_below(sender, main.pid):
            return  # it tells its parent something (an X server: SIGUSR1, ready), and wants no echo
        self._passed_on.add(number)
        try:
            main.send(number)
        except PermissionError:
            self.say(f"signal {number} cannot be sent to pid {main.pid}: not permitted")

    def _judge(self, now: float) -> Ready | LaunchError | None:
        if not self._serving:
            return super()._judge(now)
        return None if self.family.ended is None else self._decision.of_end(self.family.ended)

    def _conclude(self) -> None:
        if not isinstance(self.outcome, Ready):
            self.claims.remove()
            self._finished = True
            return
        self._write_pid()
        self._on_ready(self._result_of(self.outcome))
        self._serving = True
        if self.waiting:
            self.waiting.close()
            self.waiting = self.outputs.screen = None
        self._rewind()
        self.deadline = Deadline(float("inf"))

    def _result(self) -> Ready | LaunchError:
        outcome = super()._result()
        if isinstance(outcome, Exited):
            outcome.served = self._serving or outcome.signal in self._passed_on
        return outcome

    def _abandon(self) -> None:
        self.family.shut_gate()
        self._remains.stop_now()
        self.claims.remove()


def _has_been_told(pid: int, number: int) -> bool:
    """Whether the terminal has sent the signal to that process too: to the whole group; a hang-up to the leader alone."""
    if number == SIGHUP and os.getsid(0) == os.getpid():
        return False
    try:
        return os.getpgid(pid) == os.getpgrp()
    except ProcessLookupError:
        return True
