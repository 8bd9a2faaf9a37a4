"""Every error of the package: its facts, its one line, its exit status."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Exit statuses of `daemonize` that are not the server's own (coreutils timeout, env; sysexits).
STATUS_UNMET = 1
STATUS_USAGE = 2
STATUS_UNKNOWN = 4
STATUS_ALREADY_RUNNING = 75
STATUS_TIMED_OUT = 124
STATUS_FAILED = 125
STATUS_NOT_EXECUTABLE = 126
STATUS_NOT_FOUND = 127
STATUS_SIGNAL = 128


def printable(text: str) -> str:
    """Text of another's making, safe to show on a terminal: everything unprintable is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def signal_name(number: int) -> str:
    """The name of a signal: `SIGTERM`; `signal 63` for one without a name."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def user_name(uid: int) -> str:
    """The name of a user, fit to be shown; the number of one without a name."""
    import pwd

    try:
        return printable(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return str(uid)


class DaemonizeError(Exception):
    """Anything that goes wrong here. `exit_status` is what the command exits with."""

    exit_status = STATUS_FAILED


class UsageError(DaemonizeError, ValueError):
    """An argument that cannot be used; the text says which, and what would be right."""

    exit_status = STATUS_USAGE


class SetupError(DaemonizeError):
    """Something of ours could not be made or opened (a file, a pipe, a process), before any server ran."""

    def __init__(self, action: str, what: str, error: OSError) -> None:
        self.action, self.what, self.errno, self.reason = action, what, error.errno, error.strerror
        super().__init__(action, what, error)

    def __str__(self) -> str:
        """One line."""
        return f"cannot {self.action} {printable(self.what)}: {self.reason}"


class StillRunning(DaemonizeError):
    """A stop plan came to its end and processes are left. `survivors`: (pid, name) of each."""

    exit_status = STATUS_UNMET

    def __init__(self, survivors: Sequence[tuple[int, str]]) -> None:
        self.survivors = list(survivors)
        super().__init__(self.survivors)

    def __str__(self) -> str:
        """One line."""
        names = ", ".join(f"{printable(name)} (pid {pid})" for pid, name in self.survivors)
        return f"still running, although everything was done that this user may do: {names}"


class AlreadyRunning(DaemonizeError):
    """The lock file, the pid file, the port or the socket is taken; nothing was started and nothing was changed.

    what: `name`, `lock file`, `pid file`, `port` or `socket`. path: of it; the name itself, the number of a port. pid, name:
    of who has it (None and "" where that is not known). uid: of who has it, where no more is known. launching: it is another
    launch that uses the name, the pid file or the socket, and no server yet. proven: the process is certainly the one that
    the pid file was written for, and none that got its pid later.
    """

    exit_status = STATUS_ALREADY_RUNNING
    outcome = "already-running"
    #: The command that was not started for it, where that is to be said.
    refused = ""

    def __init__(
        self,
        what: str,
        path: str,
        pid: int | None = None,
        name: str = "",
        uid: int | None = None,
        *,
        launching: bool = False,
        proven: bool = False,
    ) -> None:
        self.what, self.path, self.pid, self.name, self.uid = what, path, pid, name, uid
        self.launching, self.proven = launching, proven
        super().__init__(what, path, pid, name, uid)

    @property
    def _of_name(self) -> str:
        name, who = printable(self.path), f": {self._who}" if self._who else ""
        if self.launching:
            return f"another launch of {name} is under way{who}"
        return f"{name} is already running{who}; see 'daemonctl status {name}'"

    @property
    def _who(self) -> str:
        if self.pid is not None:
            return f"{printable(self.name)} (pid {self.pid})" if self.name else f"pid {self.pid}"
        return "" if self.uid is None else f"somebody of user {user_name(self.uid)}"

    def __str__(self) -> str:
        """One line."""
        return f"{self._described}, refusing to start {self.refused}" if self.refused else self._described

    @property
    def _described(self) -> str:
        if self.what == "name":
            return self._of_name
        if self.what in ("port", "socket") and not self.launching:
            by = f" by {self._who}" if self._who else ""
            return f"{self.what} {printable(self.path)} is already in use{by}"
        taken = f"the {self.what} {printable(self.path)}"
        if self.launching:
            who = f"{printable(self.name)}, pid {self.pid}" if self.name else self._who
            return f"another launch is using {taken}" + (f" ({who})" if who else "")
        if self.what == "pid file":
            doubt = "" if self.proven else "; if that is something else, remove the file"
            return f"already running: {self._who}, says {taken}{doubt}"
        if self._who:
            return f"already running: {self._who} holds {taken}"
        return f"already running: {taken} is held (by whom, the kernel does not tell this user)"


class InvalidState(DaemonizeError, RuntimeError):
    """What was asked of a server cannot be done in the state it is in; the text says why."""


class NoSuchDaemon(DaemonizeError):
    """There is no record of a daemon of that name. `similar`: a name that there is one of, or None."""

    exit_status = STATUS_UNKNOWN

    def __init__(self, name: str, similar: Sequence[str] = ()) -> None:
        self.name, self.similar = name, similar[0] if similar else None
        super().__init__(name, similar)

    def __str__(self) -> str:
        """One line."""
        guess = f'; did you mean "{printable(self.similar)}"?' if self.similar else ""
        return f'no daemon named "{printable(self.name)}"{guess}'


class BadRecord(DaemonizeError):
    """The record of a daemon cannot be used. name: of the daemon. path: of the record. reason: why not.

    exposed: only because others may use it, too.
    """

    exit_status = STATUS_UNKNOWN

    def __init__(self, name: str, path: str, reason: str, *, exposed: bool = False) -> None:
        self.name, self.path, self.reason, self.exposed = name, path, reason, exposed
        super().__init__(name, path, reason)

    def __str__(self) -> str:
        """One line."""
        name, path = printable(self.name), printable(self.path)
        remedy = (
            f"if nobody has changed it: chmod 600 {path}"
            if self.exposed
            else f"to be rid of it: daemonctl forget {name}"
        )
        return f"the record of {name} cannot be used: {path}: {self.reason}; {remedy}"


class NotPossible(DaemonizeError):
    """What was asked of a daemon cannot be done as it stands. name: of the daemon; the text says why, and what to do."""

    exit_status = STATUS_UNMET

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(name, reason)

    def __str__(self) -> str:
        """One line."""
        return f"{printable(self.name)} {self.reason}"


class NotYet(NotPossible):
    """What was waited for has not happened in time."""

    exit_status = STATUS_TIMED_OUT


class NotReloaded(NotPossible):
    """A daemon that was told to read its configuration again did not come to the end of it."""


class LaunchError(DaemonizeError):
    """A launch that did not end with a ready server. The facts are filled in by the launch.

    command: the argument list. pid: the server's, or None. seconds: since the launch began. name: the daemon's.
    output: the last of what the server said (only from `launch()`). log: path of the log it wrote to, or None.
    files: paths of the files for stdout and stderr.
    drain: pid of the drain process, where one was left. survivors: (pid, name) of what could not be stopped.
    told: what the server said about itself over its notification socket: `status`, `errno`, `exit_status`.
    listen: where the sockets listened that it was given. record: what the registry has of a server that was left running.
    report: more for people than one line.
    """

    outcome = "failed"
    record: Mapping[str, object] = {}
    command: Sequence[str] = ()
    pid: int | None = None
    seconds = 0.0
    name = ""
    files: Sequence[str] = ()
    output = b""
    log: str | None = None
    log_empty = False
    drain: int | None = None
    survivors: Sequence[tuple[int, str]] = ()
    told: Mapping[str, str | int] = {}
    listen: Sequence[str] = ()
    report = ""
    #: Whether the server is the caller's own program, started by an option of its command line; whether the remedy is
    #: said in words of Python.
    by_option = by_call = False

    @property
    def shown(self) -> str:
        """The command, as shown to people."""
        if self.by_option:
            return "the server"
        return printable(self.command[0]) if self.command else "the server"

    @property
    def after(self) -> str:
        """How long the launch took, as shown to people."""
        return f"after {self.seconds:.3f} s"

    @property
    def stopped(self) -> str:
        """What became of the server, as shown to people."""
        if self.survivors:
            return str(StillRunning(self.survivors))
        return f"{self.shown} has been stopped" if self.pid else f"{self.shown} was not started"

    def describe(self) -> str:
        """One line: what happened, to what."""
        raise NotImplementedError  # pragma: no cover (every subclass has its own)

    def __str__(self) -> str:
        """One line: what happened, to what, and where more is written. Below that the report, if there is one."""
        if self.report:
            return f"{self.describe()}\n{self.report}"
        if self.log is None:
            return self.describe()
        path = printable(self.log)
        return (
            f"{self.describe()} (log {path} is empty)"
            if self.log_empty
            else f"{self.describe()} (log: {path})"
        )


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
