"""What goes wrong with a `ChildServer`: errors apart from the others, because no launch needs them."""

from __future__ import annotations

from daemonize.errors import DaemonizeError, InvalidState, printable


class ServerError(DaemonizeError):
    """A `ChildServer` did not start. It has ended, and what it forked until it said so as well.

    reason: what went wrong, in words. status: its exit status, 128+N if it died of signal N; None: it was ended because
    it failed, or somebody else has reaped it. traceback: of the exception in `initialize_server`, as Python shows it.
    stderr: what was written to descriptor 2 meanwhile.
    """

    def __init__(
        self, name: str, reason: str, status: int | None = None, traceback: str = "", stderr: str = ""
    ) -> None:
        self.name, self.reason, self.status = name, reason, status
        self.traceback, self.stderr = traceback, stderr
        super().__init__(name, reason, status, traceback, stderr)

    def __str__(self) -> str:
        """One line."""
        return f"{printable(self.name)} did not start: {printable(self.reason)}"


class ServerAlreadyStarted(InvalidState):
    """A `ChildServer` has been started, and not stopped since. pid: of it, also if it has died."""

    def __init__(self, name: str, pid: int | None = None) -> None:
        self.name, self.pid = name, pid
        super().__init__(name, pid)

    def __str__(self) -> str:
        """One line."""
        pid = "" if self.pid is None else f" (pid {self.pid})"
        return f"{printable(self.name)} has already been started{pid}: stop it first, or make another one"


class ServerNotStarted(InvalidState):
    """A `ChildServer` has not been started, or (stopped) has been stopped."""

    def __init__(self, name: str, stopped: bool = False) -> None:
        self.name, self.stopped = name, stopped
        super().__init__(name, stopped)

    def __str__(self) -> str:
        """One line."""
        what = (
            "has been stopped: call start() again"
            if self.stopped
            else "has not been started: call start() first"
        )
        return f"{printable(self.name)} {what}"
