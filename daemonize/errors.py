"""Every error of the package: its facts, its one line, its exit status."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Survivor = tuple[int | None, str]

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


def who(pid: int | None, name: str, uid: int | None) -> str:
    """A process, as far as it is known, as shown to people: `nginx (pid 4)`; "" where nothing is."""
    if pid is not None:
        return f"{printable(name)} (pid {pid})" if name else f"pid {pid}"
    return "" if uid is None else f"somebody of user {user_name(uid)}"


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


#: Of whom only his parent knows that he is there: no /proc tells the pid.
NAMELESS: Survivor = (None, "?")


class StillRunning(DaemonizeError):
    """A stop plan came to its end and processes are left. `survivors`: (pid, name) of each, or NAMELESS."""

    exit_status = STATUS_UNMET

    def __init__(self, survivors: Sequence[Survivor]) -> None:
        self.survivors = list(survivors)
        super().__init__(self.survivors)

    def __str__(self) -> str:
        """One line."""
        names = ", ".join(
            f"{printable(name)} (pid {pid})" if pid else "somebody whom only /proc could name"
            for pid, name in self.survivors
        )
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
        return who(self.pid, self.name, self.uid)

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


class LaunchError(DaemonizeError):
    """A launch that did not end with a ready server. The facts are filled in by the launch.

    command: the argument list. pid: the server's, or None. seconds: since the launch began. name: the daemon's.
    output: the last of what the server said (only from `launch()`). log: path of the log it wrote to, or None.
    files: paths of the files for stdout and stderr.
    drain: pid of the drain process, where one was left. survivors: (pid, name) of what could not be stopped.
    told: what the server said about itself over its notification socket: `status`, `errno`, `exit_status`.
    listen: where the sockets listened that it was given. record: what the registry has of a server that was left running.
    report: more for people than one line. left: whether the server was left running.
    """

    outcome = "failed"
    left = False
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
    survivors: Sequence[Survivor] = ()
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
