"""The start of a launch: what is asked for is checked and claimed, and the server is forked.

Nothing is started or written before all that can be refused has been: who is refused hears so at once, and nothing is left.
"""

from __future__ import annotations

import os
from time import monotonic

from daemonize.errors import SetupError, UsageError, printable
from daemonize.launcher import intermediate, program
from daemonize.launcher.claims import Claims
from daemonize.launcher.deadline import Deadline
from daemonize.launcher.environment import caller_environment
from daemonize.launcher.family import Family
from daemonize.launcher.outputs import Outputs
from daemonize.launcher.probes import Probes
from daemonize.launcher.verdict import Judge
from daemonize.notify import ID
from daemonize.posix import child, signals
from daemonize.posix.fds import Descriptors, occupy_standard
from daemonize.posix.loop import Loop
from daemonize.registry.entry import Entry
from daemonize.registry.logs import find_logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from daemonize.launcher.account import Account
    from daemonize.launcher.outputs import Targets
    from daemonize.launcher.registration import Registration
    from daemonize.launcher.request import Request
    from daemonize.launcher.sockets import Sockets
    from daemonize.readiness import Probe

#: Seconds after which a server that is not ready yet leaves time to prepare its record.
_SPARE_TIME = 0.01


def make_token() -> bytes:
    """What marks the environment of one server: `NAME=value`."""
    return ID + b"=" + os.urandom(8).hex().encode()


class Beginning:
    """One launch, until its server has been forked. `say` is told of progress, for those who want to hear it.

    token: `NAME=value` that marks the server's environment; None: one is made. environment: the caller's, None: ours, which
    is the same in any case.
    """

    def __init__(
        self,
        request: Request,
        targets: Targets,
        *,
        say: Callable[[str], None],
        token: bytes | None,
        environment: dict[bytes, bytes] | None,
    ) -> None:
        _refuse_setuid()
        self.request, self.say = request, say
        self.began = monotonic()
        self.context, self.account = program.find_context(request)
        self.outer = caller_environment() if environment is None else environment
        self.asked = request
        self.entry = Entry(request.name, request.shown_as or request.command[0], self.outer)
        self.sockets = self._find_sockets()
        request = self.request
        self.probes = Probes(request.ready, request.timeout, self._besides())
        if self.sockets:
            self.probes.refuse_trivial(self.sockets.listeners)
        self.owner, self.loop = Descriptors(), Loop()
        self.token = token or make_token()
        heir = self._heir
        self.logs = find_logs(self.entry, self.outer, heir.login if heir else "")
        self.logs.rotation = request.log_rotate or self.logs.rotation
        self.outputs = Outputs(self.owner, self.loop, targets, self._heir)
        self.claims = Claims()
        self.family = Family(self.loop, self.owner, say)
        self.deadline = Deadline(request.timeout)
        self.program: child.Program
        self.registration: Registration | None = None
        self.goes_on = False  # this is the server, which is the caller's own program (launcher/continued.py)
        self._control = -1
        self._spare_moment: float | None = None
        self._life = Judge(self.family)

    def _besides(self) -> list[Probe]:
        """Probes that are told what happens without being waited for."""
        return []

    def _find_sockets(self) -> Sockets | None:
        """What the server finds open, if anything; the request is then our own copy, which tells the server of it."""
        if not self.request.listen and not (self.request.hands_on and b"LISTEN_FDS" in self.outer):
            return None
        from daemonize.launcher.sockets import Sockets

        sockets = Sockets(self.request, self.outer, self.say)
        self.request = sockets.request
        return sockets if sockets.all else None

    def _begin(self) -> None:
        try:
            occupy_standard(self.owner)
            self._arrange()
            if self.outputs.lifelong:
                self.outputs.lifelong.start()
            self._start_server()
        except OSError as error:
            raise SetupError("prepare", "the launch", error) from None

    @property
    def _heir(self) -> Account | None:
        """Whom the server's files are for, if that is somebody else than who makes them."""
        return None if self.account is None or self.account.is_ours else self.account

    def _kind(self, *arguments: Any, **settings: Any) -> child.Program:
        """What is executed."""
        return child.Program(*arguments, **settings)

    def _arrange(self) -> None:
        self.claims.claim(self.request, self.owner, {self.account.uid} if self.account else ())
        if self.request.is_registered:
            self.entry.claim(self.owner)
        if self.sockets:
            self._bind(self.sockets)
        if self.probes.need_launch:
            self._prepare_probes()
        if self.probes.use_pipes:
            self.outputs.open_pipes(self.request, self.logs, self._went_silent)
        else:
            self.outputs.open_files(self.request, self.logs)
        if self.probes.hear_output and not self.outputs.relays:
            raise UsageError(
                "nothing that the server writes can be read back: name plain files for -o and -e, or none"
            )
        self.program = program.build(
            self.request, self.outer, self.token, self.outputs, self.owner,
            context=self.context, account=self.account, keep=self.claims.inherited, kind=self._kind,
            variables=self._variables, placed=self._placed,
        )  # fmt: skip
        self.claims.kept |= self.entry.descriptors
        if self.entry.is_explicit:
            self._prepare_record()  # he wants to hear now that it cannot be kept

    def _start_server(self) -> None:
        report_end, report = self.owner.pipe()
        gate, gate_end = self.owner.pipe()
        self.family.watch_report(report_end, gate_end)
        self._fork(report, gate)
        if not self.goes_on:
            self.owner.shut(report, gate, *self._placed.values())
            self.outputs.forked()
            if self.request.is_registered:
                self._spare_moment = monotonic() + _SPARE_TIME

    def _prepare_record(self) -> Registration:
        """Of a server that takes a while: while nobody waits for us."""
        self._spare_moment = None
        if self.registration is None:
            from daemonize.launcher.registration import Registration

            self.registration = Registration(self.entry, self.asked, self.program, self.token)
        return self.registration

    @property
    def _variables(self) -> dict[bytes, bytes]:
        """For the server's environment."""
        return self.probes.variables

    def _pass_on(self, fields: Mapping[bytes, bytes]) -> None:
        """What the server says of itself: here there is nobody who wants to know."""

    @property
    def _placed(self) -> dict[int, int]:
        """What the server is to have at which descriptor number."""
        return {**self.probes.placed, **self.sockets.placed} if self.sockets else self.probes.placed

    def _bind(self, sockets: Sockets) -> None:
        from daemonize.launcher.sockets import Setting

        sockets.bind(Setting(self.owner, self.claims, self._heir, self.request.umask))
        self.probes.specify(self.request.ready)  # with the ports there are now
        self.probes.refuse_trivial(sockets.listeners)
        self.say(f"listening on {', '.join(map(printable, sockets.shown))}")

    def _prepare_probes(self) -> None:
        from daemonize.launcher.surroundings import Surroundings

        surroundings = Surroundings(
            self.loop, self.owner, self.family, self.deadline,
            environment=self.outer, uid=self.account.uid if self.account else os.getuid(),
            kept=(*self.request.keep_fds, *(self.sockets.fds if self.sockets else ())),
            say=self.say, pass_on=self._pass_on,
        )  # fmt: skip
        numbers = self.sockets.numbers if self.sockets else ()
        surroundings.taken |= self.probes.take_numbers((*self.request.keep_fds, *numbers))
        self.probes.prepare(surroundings)
        self.probes.refuse_variables(self.request.variables)
        if self.probes.hear_output:
            self.outputs.hear(self.probes.said)

    def _fork(self, report: int, gate: int) -> None:
        control, self._control = self.owner.pipe()
        events_end, events = self.owner.pipe()
        # Until exec: a Ctrl-C between the forks must not run a handler of ours in a child.
        mask = signals.block_all()
        try:
            pid = child.fork_alone()
            if pid == 0:
                intermediate.run(
                    self.program, self.token, self.request.stop_timeout, self.claims,
                    control=control, events=events, report=report, gate=gate,
                )  # fmt: skip
                self.goes_on = True
                return
            # Before the mask is restored: KeyboardInterrupt may be raised there, and somebody must know whom to wait for.
            self.family.parent = self.family.session = pid
        except OSError as error:
            raise SetupError("start", "the intermediate parent", error) from None
        finally:
            signals.restore_mask(mask)
        self.owner.shut(control, events)
        self.family.watch_events(events_end)

    def _went_silent(self) -> None:
        self._life.silent = monotonic()


def _refuse_setuid() -> None:
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
        reason = PermissionError(
            1, "daemonize runs with another user's rights; it must not be setuid or setgid"
        )
        raise SetupError("start", "a server", reason)
