"""How a launch can fail: the outcomes other than `Ready`. One that goes well never loads them."""

from __future__ import annotations

import os

from daemonize.errors import (
    STATUS_FAILED,
    STATUS_NOT_EXECUTABLE,
    STATUS_NOT_FOUND,
    STATUS_SIGNAL,
    STATUS_TIMED_OUT,
    STATUS_UNMET,
    LaunchError,
    StillRunning,
    printable,
    signal_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Exited(LaunchError):
    """The server ended before it was ready. `status`: its own, or 128+N; `signal`: N, or None.

    Where it exited 0 and left nothing behind, `unmet`: the readiness spec that did not hold; `met`: one that had just held.
    """

    outcome = "exited"
    #: Whether it said something on stderr; in the foreground, whether it had been ready or was
    #: ended by a signal that was passed on to it; whether this system cannot
    #: tell what it left behind.
    spoke = served = blind = False

    def __init__(self, wait_status: int, unmet: str | None = None, met: str | None = None) -> None:
        code = os.waitstatus_to_exitcode(wait_status)
        self.signal = -code if code < 0 else None
        self.status = STATUS_SIGNAL - code if code < 0 else code
        self.unmet, self.met = unmet, met
        super().__init__(wait_status, unmet, met)

    @property
    def exit_status(self) -> int:  # type: ignore[override]
        """The server's own; 1 where it exited 0 but was to stay: by a readiness spec other than `streams` and `started`."""
        return STATUS_UNMET if self.status == 0 and (self.unmet or self.met) else self.status

    def describe(self) -> str:
        """One line."""
        return self._describe_end() + (f"; {StillRunning(self.survivors)}" if self.survivors else "")

    def _describe_end(self) -> str:
        if self.signal:
            how = f"was killed by {signal_name(self.signal)}"
            return f"{self.shown} {how} {self.after}, before it was ready{_told(self.told)}"
        if self.status:
            how = f"exited with status {self.status}"
            return f"{self.shown} {how} {self.after}, before it was ready{_told(self.told)}"
        if self.unmet or self.met:
            held = (
                f"before '{printable(self.unmet)}' held"
                if self.unmet
                else f"when '{printable(self.met or '')}' had held"
            )
            return f"{self.shown} exited 0 {self.after}, {held}: nothing is running{_told(self.told)}"
        left = (
            "what it left running, if anything, cannot be told on this system"
            if self.blind
            else "nothing is running"
        )
        return f"{self.shown} exited 0 {self.after}, {left}"


class CrashedOnStartup(Exited):
    """A `BackgroundServer` ended before it was ready. `report`: command, exit status and what it has said."""

    @classmethod
    def of(cls, error: Exited) -> CrashedOnStartup:
        """The same, with its facts."""
        crashed = cls(*error.args)
        crashed.__dict__.update(error.__dict__)
        return crashed


class StrictFailure(LaunchError):
    """Under strict: the server said something on stderr before it was ready. Its own status, or 1."""

    outcome = "stopped"

    def __init__(self, status: int = 0) -> None:
        self.status = status
        if status:
            self.outcome = "exited"
        super().__init__(status)

    @property
    def exit_status(self) -> int:  # type: ignore[override]
        """The server's own where it exited by itself and not with 0, else 1."""
        return self.status or STATUS_UNMET

    def describe(self) -> str:
        """One line."""
        ended = f"it exited with status {self.status}" if self.status else self.stopped
        return f"{self.shown} wrote to stderr before it was ready (--strict){_told(self.told)}; {ended}"


class NotExecuted(LaunchError):
    """The command never ran: `stage` (what failed, as in `exec`, `chdir`, `fork`), `errno`, `what` it failed on.

    `user`: who was to execute it, if that is not the caller.
    """

    outcome = "not-executed"
    user = ""

    def __init__(self, stage: str, errno: int, what: str = "", *, found: bool = False) -> None:
        self.stage, self.errno, self.what, self.found = stage, errno, what, found
        super().__init__(stage, errno, what)

    @property
    def exit_status(self) -> int:  # type: ignore[override]
        """127: not found; 126: found, and cannot be executed; 125: a step before that failed."""
        if self.stage != "exec":
            return STATUS_FAILED
        return STATUS_NOT_EXECUTABLE if self.found else STATUS_NOT_FOUND

    def describe(self) -> str:
        """One line."""
        import errno

        reason = os.strerror(self.errno)
        if self.command and not self.command[0]:
            return "the name of the command is empty"
        if self.stage != "exec":
            on = f" {printable(self.what)}" if self.what else ""
            return f"cannot start {self.shown}: {self.stage}{on}: {reason}"
        if not self.found:
            reason = "command not found" if "/" not in self.shown else reason
            if " " in self.shown:
                reason += " (all of that is one word: each argument must be a word of its own)"
        elif self.errno == errno.ENOENT:
            reason = "the interpreter of its #! line (or its loader) does not exist"
        elif self.errno == errno.ENOEXEC:
            reason += " (a script without a #! line?)"
        elif self.errno == errno.EACCES and os.path.isdir(self.what):
            reason = "Is a directory"
        whom = f" as {self.user}" if self.user and self.found else ""
        return f"cannot execute {printable(self.what) or self.shown}{whom}: {reason}"


class Unsafe(NotExecuted):
    """Under safe: root was not to execute a program that others may write to. `what`: the program; `reason`: who may."""

    def __init__(self, program: str, reason: str) -> None:
        self.reason = reason
        super().__init__("exec", 1, program, found=True)
        self.args = (program, reason)

    def describe(self) -> str:
        """One line."""
        return f"{printable(self.what)} is not safe to execute as root (--safe): {printable(self.reason)}"


class TimedOut(LaunchError):
    """Not ready in time. `waiting_for`: the specs that did not hold; `left`: it was left running.

    `problems`: why they did not, by spec, as far as that is known. `still_open`: which of its streams somebody still holds.
    `listens`: where it listened (TCP). `pid_file`: path, where it was left running with one.
    """

    pid_file: str | None = None

    outcome = "timed-out"
    exit_status = STATUS_TIMED_OUT

    def __init__(
        self,
        waiting_for: Sequence[str],
        timeout: float,
        *,
        left: bool = False,
        still_open: Sequence[str] = (),
        problems: Mapping[str, str] = {},
        listens: Sequence[str] = (),
    ) -> None:
        self.waiting_for, self.timeout, self.left = list(waiting_for), timeout, left
        self.still_open, self.problems, self.listens = list(still_open), dict(problems), list(listens)
        super().__init__(self.waiting_for, timeout)

    def describe(self) -> str:
        """One line, with the spec that helps a server that never closes its streams."""
        fate = (
            f"it was left running (pid {self.pid})" if self.left else self.stopped.replace(self.shown, "it")
        )
        waited = ", ".join(map(self._waited, self.waiting_for)) + _told(self.told)
        line = f"{self.shown} was not ready within {self.timeout:g} s (waited for: {waited}); {fate}"
        if self._own:
            line += f"; it listens on {', '.join(self._own)}"
        if "streams" not in self.waiting_for:
            return line
        held = " and ".join(self.still_open) or "stdout and stderr"
        return f"{line}. It, or a child of it, holds {held}; {self._remedy}"

    @property
    def _own(self) -> list[str]:
        """Where it listens by itself; what it was given says nothing of it."""
        return [address for address in self.listens if address not in self.listen]

    @property
    def _remedy(self) -> str:
        if self.by_option:
            return (
                "it lets go by calling daemonize.ready(), a child by being started afterwards or without them; "
                "if it is only slow, give it a longer timeout"
            )
        if self._own:
            port = self._own[0].rpartition(":")[2]
            return f"if it never lets go, say how it becomes ready: {self._asking(f'port:{port}')}"
        if self.listen:
            specs = self._asking("http://HOST:PORT/", "log:REGEX", "alive:2s")
            return f"if it never lets go, say how it becomes ready: {specs}"
        return (
            f"if it never lets go, say how it becomes ready: {self._asking('port', 'log:REGEX', 'alive:2s')}"
        )

    def _asking(self, *specs: str) -> str:
        """How these are asked for."""
        words = [f'"{spec}"' if self.by_call else spec for spec in specs]
        shown = words[0] if len(words) == 1 else f"{', '.join(words[:-1])}, or {words[-1]}"
        return f"ready={shown}" if self.by_call else f"--ready {shown}"

    def _waited(self, spec: str) -> str:
        problem = self.problems.get(spec)
        return f"{printable(spec)}: {problem}" if problem else printable(spec)


def _told(told: Mapping[str, str | int]) -> str:
    """What the server said about itself, as shown to people."""
    parts = []
    if told.get("status"):
        parts.append(f"it last said: {_shortened(printable(str(told['status'])))}")
    if told.get("errno"):
        parts.append(f"its error: {os.strerror(int(told['errno']))}")
    if told.get("exit_status"):
        parts.append(f"it announced exit status {told['exit_status']}")
    return "".join(f"; {part}" for part in parts)


def _shortened(text: str, most: int = 200) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


class Cancelled(LaunchError):
    """The wrapper was interrupted by `signal`; the server has been stopped."""

    outcome = "cancelled"

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(signal)

    @property
    def exit_status(self) -> int:  # type: ignore[override]
        """128+N."""
        return STATUS_SIGNAL + self.signal

    def describe(self) -> str:
        """One line."""
        return f"interrupted by {signal_name(self.signal)} {self.after}{_told(self.told)}; {self.stopped}"


class Lost(LaunchError):
    """The intermediate parent was killed, and with it the server's exit status; the server has been stopped."""

    outcome = "lost"

    def describe(self) -> str:
        """One line."""
        return f"the intermediate parent was killed {self.after}; {self.stopped}"
