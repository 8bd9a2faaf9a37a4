"""`-f`: no intermediate parent and no new session; the wrapper stays the server's parent.

    caller ── wrapper ── fork ── server        (same session, same terminal, same stdin)
                 │ relays, forwards signals, reaps, exits as the server does
                 └ tells a service manager above it of the server (launcher/outward.py)

The wrapper adopts what the server leaves behind, so that a server that daemonizes itself stays in the foreground all the
same. A wrapper that is killed with SIGKILL takes the server along: the kernel sends it SIGTERM.
"""

from __future__ import annotations

import gc
import os
from time import monotonic

from daemonize import notify
from daemonize.errors import LaunchError, SetupError
from daemonize.launcher.deadline import Deadline
from daemonize.launcher.intermediate import Reaper
from daemonize.launcher.outward import Outward
from daemonize.launcher.ready import Ready
from daemonize.launcher.watchdog import Watchdog
from daemonize.launcher.wrapper import Wrapper
from daemonize.notify import SOCKET
from daemonize.outcomes import Exited
from daemonize.posix import child, prctl, signals
from daemonize.posix.identity import is_below
from daemonize.posix.signals import (
    SIGALRM,
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGQUIT,
    SIGSTOP,
    SIGTERM,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGUSR1,
    SIGUSR2,
    SIGVTALRM,
    SIGWINCH,
    SIGXFSZ,
)
from daemonize.readiness import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from daemonize.launcher.outputs import Targets
    from daemonize.launcher.request import Request
    from daemonize.launcher.sockets import Sockets
    from daemonize.launcher.words import Waiting
    from daemonize.readiness import Probe

    Outcome = TypeVar("Outcome", bound="Ready | LaunchError")

#: What is not the server's: what nobody can catch, job control, which is for the process group, and what we need ourselves
#: (SIGVTALRM: signals.TimeLimit).
_KEPT = frozenset((SIGKILL, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGCHLD, SIGVTALRM))
#: What a server is told to end by.
_ENDING = (SIGINT, SIGQUIT, SIGTERM)
#: What the kernel sends in our own name to whoever writes to a pipe that nobody reads, or makes a file too large.
_ABOUT_US = (SIGPIPE, SIGXFSZ)
#: What is passed on where there is no signalfd(2): our own faults would be taken for others' words.
_ASKING = (SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH)


def _open_queue() -> signals.SignalQueue | signals.SignalDescriptor:
    signals.unignore((SIGCHLD,))  # else the kernel would throw the server's status away
    try:
        return signals.SignalDescriptor({*signals.valid() - _KEPT, SIGCHLD})
    except OSError:
        return signals.SignalQueue((*_ASKING, SIGCHLD))


class _Program(child.Program):
    """What is executed. It ignores what our caller ignores: nohup(1) and a shell's `&` mean the whole group by it."""

    def set_signals(self) -> None:
        """Every other signal as a program expects it."""
        ignored = signals.ignored()
        super().set_signals()
        for number in ignored:
            signals.ignore(number)


class Foreground(Wrapper):
    """A launch that goes on after ready. `on_ready` is told; `run` returns when the server has ended.

    warn: is told what goes wrong later.
    """

    def __init__(
        self,
        request: Request,
        targets: Targets,
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        on_ready: Callable[[Ready], None],
        waiting: Waiting | None = None,
        token: bytes | None = None,
        environment: dict[bytes, bytes] | None = None,
    ) -> None:
        self._outward = Outward(say, feeds=request.watchdog is not None)
        if self._outward.waits and not request.names_readiness and SOCKET not in request.environment:
            # The manager expects it of the server; closed streams say it only to us.
            request.ready = ("notify",)
        self._watchdog: Watchdog | None = None
        # By default nobody waits for readiness: it stays with its reader.
        shown = waiting if request.moves_streams else None
        super().__init__(
            request,
            targets,
            queue=_open_queue(),
            say=say,
            waiting=shown,
            token=token,
            environment=environment,
        )
        self._outward.connect(self.loop)
        self._on_ready, self._warn = on_ready, warn
        self._serving = self._started = False
        self._written: int | None = None
        self._forwarded: set[int] = set()
        self._early: list[tuple[int, int | None]] = []  # signals that came before the server was at its gate
        # Said by a server of whose readiness nobody had been told.
        self._later: list[Mapping[bytes, bytes]] = []
        self._reaper: Reaper | None = None

    def _besides(self) -> list[Probe]:
        request = self.request
        found: list[Probe] = []
        if request.watchdog is not None:
            self._watchdog = Watchdog(request.watchdog)
            found.append(self._watchdog)
        if self._outward.hears and "notify" not in request.ready and SOCKET not in request.environment:
            found.append(parse("notify"))
        return found

    def _bind(self, sockets: Sockets) -> None:
        super()._bind(sockets)
        if self._watchdog and self.request.watchdog is not None:
            self._watchdog.specify(self.request.watchdog)

    def run(self) -> Ready | LaunchError:
        """Start the server, and return when it has ended."""
        gc.freeze()  # what there is stays: it need not be looked through at once
        gc.enable()
        try:
            return super().run()
        finally:
            self._outward.close()
            if self.queue:
                self.queue.close()

    def _kind(self, *arguments: Any, **settings: Any) -> child.Program:
        return _Program(*arguments, **settings)

    def _fork(self, report: int, gate: int) -> None:
        if prctl.become_subreaper():
            self._remains.reap = self._reap
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

    @property
    def _variables(self) -> dict[bytes, bytes]:
        return {**super()._variables, **self._outward.variables}

    def _pass_on(self, fields: Mapping[bytes, bytes]) -> None:
        if self.probes.held and not self._serving:
            self._later.append(fields)  # that the server is ready will be told in this round, or in the next
        else:
            self._outward.pass_on(fields)

    def _pass_on_later(self) -> None:
        while self._later:
            self._outward.pass_on(self._later.pop(0))

    def _round(self) -> None:
        super()._round()
        while self._early and self.family.main:
            self._forward(*self._early.pop(0))
        if self.family.executed and not self._started:
            self._started = True
            self._begin_to_wait()
        if self._watchdog and self._serving:
            self._watchdog.tick(monotonic())

    def _begin_to_wait(self) -> None:
        if not self.request.names_readiness:
            self._put_down()  # nobody has said how it becomes ready, and most servers never say
        if not self._serving:
            self._outward.waiting(self.probes.unmet)

    def _patience(self) -> float | None:
        waits = [super()._patience()]
        if self._watchdog and self._serving and self._watchdog.due is not None:
            waits.append(max(0.0, self._watchdog.due - monotonic()))
        return min((wait for wait in waits if wait is not None), default=None)

    def _signalled(self, _events: int) -> None:
        for number, sender in self.queue.read() if self.queue else ():
            if number != SIGCHLD:
                self._forward(number, sender)
            else:
                self._reap()

    def _reap(self) -> None:
        for line in self._reaper.reap() if self._reaper else ():
            self.family.note(line.split())

    def _forward(self, number: int, sender: int | None) -> None:
        main = self.family.main
        if main is None:
            self._early.append((number, sender))
            return
        if number in _ABOUT_US and sender == os.getpid():
            return
        if sender == 0 and _has_been_told(main.pid, number):
            return  # twice is something else to many a server
        if sender and is_below(sender, main.pid):
            return  # it tells its parent something (an X server: SIGUSR1, ready), and wants no echo
        self._forwarded.add(number)
        try:
            main.send(number)
        except PermissionError:
            self.say(f"signal {number} cannot be sent to pid {main.pid}: not permitted")

    def _judge(self, now: float) -> Ready | LaunchError | None:
        if not self._serving:
            return super()._judge(now)
        return None if self.family.ended is None else self._decision.of_end(self.family.ended, served=True)

    def _conclude(self) -> None:
        if not isinstance(self.outcome, Ready):
            self._pass_on_later()
            self._give_back()
            self._finished = True
            return
        self._put_down()
        outcome = self._result_of(self.outcome)
        self._on_ready(outcome)
        self._serving = True
        self._outward.ready(outcome, self.request.ready)
        self._pass_on_later()
        self._begin_to_feed()
        if self.waiting:
            self.waiting.close()
            self.waiting = self.outputs.screen = None
        self._rewind()
        self.deadline = Deadline(float("inf"))

    def _put_down(self) -> None:
        main = self.family.chosen
        if main and main.pid == self._written:
            return
        super()._put_down()
        self._written = main.pid if main else None

    def _begin_to_feed(self) -> None:
        if not self._watchdog:
            return
        interval = notify.watchdog_interval()
        if interval is None:
            self.say("no service manager waits for a watchdog (WATCHDOG_USEC): it is not fed")
        else:
            self._watchdog.start(monotonic(), interval, self._outward.feed, self._starve)

    def _starve(self, why: str) -> None:
        if self._forwarded.intersection(_ENDING):
            return  # it is about to end, and need not answer any more
        self._warn(f"the watchdog is not fed: {why}")
        self._outward.starve(why)

    def _result_of(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Ready) and self.outputs.lifelong:
            outcome.drain = self.outputs.lifelong.pid
        return super()._result_of(outcome)

    def _result(self) -> Ready | LaunchError:
        outcome = super()._result()
        if isinstance(outcome, Exited):
            outcome.served = self._serving or outcome.signal in self._forwarded
            if not self.request.names_readiness:
                outcome.unmet = outcome.met = None  # nobody has said that it is to stay
        return outcome

    def _abandon(self) -> None:
        self.family.shut_gate()
        self._remains.stop_now()
        self._give_back()


def _has_been_told(pid: int, number: int) -> bool:
    """Whether the terminal has sent the signal to that process too: to the whole group; a hang-up to the leader alone."""
    if number == SIGHUP and os.getsid(0) == os.getpid():
        return False
    try:
        return os.getpgid(pid) == os.getpgrp()
    except ProcessLookupError:
        return True
