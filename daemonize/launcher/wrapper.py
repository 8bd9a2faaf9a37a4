"""The wrapper: what the caller waits for. It starts a server and watches it until it is ready, or is not.

    caller ── wrapper ─┬─ fork ─ intermediate parent ─ fork ─ server ─ gate ─ exec
                       ◀── events ────────┘                    ││
                       ◀── report ─────────────────────────────┘│
                       ◀── stdout, stderr ──────────────────────┘

One loop: wait, dispatch, decide. What happens only changes facts (launcher/family.py, launcher/outputs.py); `_judge` and
launcher/decision.py alone turn facts into an outcome, and an outcome is carried out in this order: stop what is to be
stopped, relay what is left, look again whether a ready server still lives, leave a drain, write the pid file, detach, and
wait for the intermediate parent, so that the server already belongs to init when the caller goes on.
"""

from __future__ import annotations

import os
from time import monotonic

from daemonize.errors import LaunchError, SetupError
from daemonize.launcher import intermediate
from daemonize.launcher.beginning import Beginning
from daemonize.launcher.decision import Decision
from daemonize.launcher.ready import Ready
from daemonize.launcher.remains import Remains
from daemonize.posix import child, signals
from daemonize.posix.loop import POLLIN
from daemonize.posix.signals import SIGCONT, SIGHUP, SIGINT, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from daemonize.launcher.outputs import Targets
    from daemonize.launcher.request import Request
    from daemonize.launcher.words import Waiting

    Outcome = TypeVar("Outcome", bound="Ready | LaunchError")

#: What interrupts a launch.
CANCELLING = (SIGINT, SIGTERM, SIGHUP)
#: Seconds that the intermediate parent is given to go when it has nothing left to do.
KILL_GRACE = 5.0


def catch_interrupts(also: Iterable[int] = ()) -> signals.SignalQueue:
    """What interrupts a launch, to be read, and other signals. What is ignored, as under nohup(1), does not."""
    caught = [number for number in CANCELLING if not signals.is_ignored(number)]
    return signals.SignalQueue({*caught, SIGCONT, *also})


class Wrapper(Beginning):
    """One launch. `run` gives its outcome.

    queue: of what interrupts it. waiting: what shows people at a terminal what is waited for (launcher/words.py), or None.
    """

    def __init__(
        self,
        request: Request,
        targets: Targets,
        *,
        queue: signals.SignalSource | None = None,
        say: Callable[[str], None] = lambda _text: None,
        waiting: Waiting | None = None,
        token: bytes | None = None,
        environment: dict[bytes, bytes] | None = None,
    ) -> None:
        super().__init__(request, targets, say=say, token=token, environment=environment)
        request = self.request  # it may be a copy, with what the server is told of its sockets
        self.queue, self.waiting = queue, waiting
        self.outputs.screen = waiting
        self.outcome: Ready | LaunchError | None = None
        self._decision = Decision(request, self.family, self.outputs, self.probes, self._life, self.token)
        self._remains = Remains(self.loop, self.family, self.token, request.stop_timeout, say)
        self._continued = self._stopped = self._marked = self._hurried = self._finished = False

    def run(self) -> Ready | LaunchError:
        """Start the server and wait for the outcome.

        Raises SetupError. Whatever else is raised (KeyboardInterrupt in a caller of `launch()`): the server has been
        stopped before.
        """
        try:
            self._begin()
            return self._watch()
        except BaseException:
            self._abandon()
            raise
        finally:
            self._close()

    def _start_server(self) -> None:
        if self.queue:
            self.loop.watch(self.queue.fd, POLLIN, self._signalled)
        super()._start_server()

    def _watch(self) -> Ready | LaunchError:
        while not self._finished:
            self._round()
        return self._result()

    # -- wait, dispatch -----------------------------------------------------------------------------------------------

    def _round(self) -> None:
        asked = self._patience()
        before = monotonic()
        self.loop.run_once(asked)
        now = monotonic()
        if asked is not None and now - before > asked:
            # SIGCONT, which says that we were stopped, ends a wait without being seen in it.
            self.loop.run_once(0)
        if self.outcome is None and not self._continued and not self.outputs.blocks_server:
            self.deadline.spend(now - before, asked)
        self._continued = False
        self.outputs.look()
        if self.family.ended is not None:
            self.probes.tell_ended()
        self.probes.tell(self.family, now, self.say)
        if self._life.finds_alive(now):
            self.probes.tell_alive(self.family)
        if self.outcome is None:
            self.outcome = self._judge(now)
        self._continue()
        if self._spare_moment is not None and self.outcome is None and now >= self._spare_moment:
            self._prepare_record()
        if self.waiting and self.outcome is None and now >= self.waiting.due:
            self.waiting.update(now, self.probes.unmet, self.family.told)

    def _continue(self) -> None:
        if self.outcome is not None:
            if self.waiting:
                self.waiting.clear()
            self._carry_out()

    def _patience(self) -> float | None:
        """Seconds until something must be looked at even if nothing happens; None: nothing."""
        now = monotonic()
        waits = [self.outputs.next_look, self._remains.timeout]
        if self.outcome is None:
            waits.append(self.deadline.slice())
            moments = (self.probes.due, self._life.due, self._decision.due)
            waits += [moment - now for moment in moments if moment is not None]
            waits += [self.waiting.due - now] if self.waiting else []
            waits += [self._spare_moment - now] if self._spare_moment is not None else []
        return min((max(wait, 0.0) for wait in waits if wait is not None), default=None)

    def _signalled(self, _events: int) -> None:
        if self.queue:
            for number, _ in self.queue.read():
                self._interrupt(number)
            if self.queue.ended:
                self.loop.forget(self.queue.fd)

    def _interrupt(self, number: int) -> None:
        if number == SIGCONT:
            self._continued = True
        elif isinstance(self.outcome, LaunchError):
            self._hurried = True
        else:
            from daemonize.outcomes import Cancelled

            self._rewind()
            self.outcome = Cancelled(number)

    # -- decide -------------------------------------------------------------------------------------------------------

    def _judge(self, now: float) -> Ready | LaunchError | None:
        """The outcome that the facts amount to, or None."""
        family = self.family
        if family.failed:
            failure = child.not_executed(self.program, self.request.chroot, *family.failed)
            failure.user = self._heir.shown if self._heir else ""
            return failure
        return self._decision.outcome(self.deadline, now)

    # -- carry the outcome out ----------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        """Take the next steps, as far as they can be taken now."""
        self._stopped = self._stopped or self._leaves_running or self._remains.gone(at_once=self._hurried)
        if not self._stopped:
            return
        if not self._marked:
            self._marked = True
            self.outputs.mark()
        if not self._has_relayed():
            return
        if self._leaves_running and self._is_overtaken():
            self._carry_out()  # the other outcome, now: there may be no event that would wake us for it
            return
        if not self._has_relayed():
            return  # somebody said his last words, and closed the pipe, before the last look: no drain would have them
        if self._leaves_running and not self.family.lives:
            # It died while the rest of its words were relayed. Nothing is running: its status will be here at once,
            self._rewind()
            if self.family.ended is not None or self.family.lost:
                # or is here already, by the last look, and no event will wake us for it.
                self.outcome = self._judge(monotonic())
                self._continue()
            return
        self._conclude()

    def _has_relayed(self) -> bool:
        return self.outputs.caught_up or self._hurried

    def _is_overtaken(self) -> bool:
        """Whether a signal came before the event that made the outcome.

        poll(2) that is woken by a signal, but runs only when there is an event as well, returns the event; the signal's
        byte is written after that.
        """
        outcome = self.outcome
        self.loop.run_once(0)
        return self.outcome is not outcome

    def _rewind(self) -> None:
        """Back to watching."""
        self.outcome, self._stopped, self._marked = None, False, False
        self.outputs.unmark()

    def _conclude(self) -> None:
        """Everything is in order; let go. The pid file is complete before anybody is told."""
        self._leave_drain()
        if self._leaves_running:
            self._put_down()
        else:
            self._give_back()
        self._detach()
        self._finished = True

    @property
    def _leaves_running(self) -> bool:
        return isinstance(self.outcome, Ready) or (self.outcome is not None and self.outcome.left)

    def _put_down(self) -> None:
        """Complete the pid file, and the record of a given name; another may wait."""
        main = self.family.chosen
        pid, start = (main.pid, main.start) if main else (None, 0)
        outcome = self.outcome or Ready(pid, start, self.family.parent, self.token)
        if isinstance(outcome, Ready):
            # While the rest of its words were relayed, the server may have named another one, or that one may have ended.
            outcome.pid, outcome.start = pid, start
        self.claims.write(pid, start)
        if self.request.is_registered and (self.entry.is_explicit or self.request.foreground):
            self._record(outcome)

    def _record(self, outcome: Ready | LaunchError) -> None:
        self._prepare_record().write(self._result_of(outcome), self.family)

    def _give_back(self) -> None:
        """Nothing is running: what was claimed for it is free."""
        self.claims.remove()
        self.entry.abandon()

    def _leave_drain(self) -> None:
        lifelong = self.outputs.lifelong
        if lifelong and self.outcome is not None and self._leaves_running:
            main = self.family.chosen
            lifelong.go_on((main.pid, main.start) if main else None)
            if self.outputs.needs_drain:
                self.outcome.drain = lifelong.pid
                self.say(f"the drain (pid {lifelong.pid}) writes the log")
        self._leave_copying_drain()

    def _leave_copying_drain(self) -> None:
        pipes = self.outputs.held() if self._leaves_running else []
        if not pipes or self.outcome is None:
            return
        from daemonize.launcher import drain

        try:
            pid = drain.start(pipes)
        except OSError as error:
            raise SetupError("start", "the drain", error) from None
        self.outcome.drain = self.outcome.drain or pid
        self.say(f"a pipe is still held: the drain (pid {pid}) copies it to the log")

    def _detach(self) -> None:
        """Let the intermediate parent go, and wait until it is gone: then the server is init's child.

        To close what there is to be closed meanwhile would save 0.1 ms. But who is interrupted here (KeyboardInterrupt in a
        caller of `launch()`) must find a server that has been stopped, and for that everything is still needed.
        """
        if self.queue and self._leaves_running:
            # A signal that ends this process no longer ends the server, and must not look as if it had. For good: it is
            # the wrapper's own process, which has nothing left to do but to leave.
            signals.block_all()
        try:
            os.write(self._control, intermediate.DETACH)
        except BrokenPipeError:
            pass  # it has been killed
        if self.outcome is not None and self._leaves_running and not self.entry.is_explicit:
            # Now: the other takes a while to leave, and a launch without a name is as good without a record.
            self._record(self.outcome)
        intermediate.reap(self.family.parent, KILL_GRACE)

    def _abandon(self) -> None:
        """Something was raised: a closed control pipe makes the intermediate parent stop the server."""
        self.owner.shut(self._control)
        self.family.shut_gate()
        intermediate.reap(self.family.parent, self.request.stop_timeout + 2 * KILL_GRACE)
        self._remains.stop_now()  # only if the intermediate parent was killed before it could
        self._give_back()

    def _close(self) -> None:
        if self.waiting:
            self.waiting.close()
        self._remains.close()
        self.probes.close()
        self.family.close()
        self.outputs.stop()
        self.owner.close()
        if self.outputs.lifelong and not (self._finished and self._leaves_running):
            self.outputs.lifelong.wait()

    def _result(self) -> Ready | LaunchError:
        """The outcome with its facts."""
        if self.outcome is None:
            raise SystemError("a launch ended without an outcome")  # cannot be: _finished is set with one
        return self._result_of(self.outcome)

    def _result_of(self, outcome: Outcome) -> Outcome:
        outcome.seconds = monotonic() - self.began
        files = [os.fsdecode(path) for path in self.outputs.files]
        outcome.name, outcome.files = self.logs.name, files
        outcome.listen = self.sockets.shown if self.sockets else []
        if isinstance(outcome, Ready):
            outcome.pid_file = os.fsdecode(self.request.pid_file) if self.request.pid_file else None
            outcome.pid_file_is_locked = self.claims.shares
            outcome.found = self.probes.found
            return outcome
        from daemonize.outcomes import Exited

        outcome.told = dict(self.family.told)
        if isinstance(outcome, Exited):
            outcome.spoke, outcome.blind = self.outputs.spoke_on_stderr, self.family.blind
        outcome.command = self.request.shown
        outcome.by_option = self.request.shown_as is not None
        outcome.pid = None if self.family.failed else self.family.pid or None
        outcome.output = self.outputs.tail
        outcome.survivors = self._remains.survivors
        if not self.family.failed:
            outcome.log, outcome.log_empty = self.outputs.log
        return outcome
