"""What goes wrong with a task of a `ProcessManager`: errors apart from the others, because no launch needs them."""

from __future__ import annotations

from daemonize.errors import STATUS_TIMED_OUT, DaemonizeError, printable, signal_name


class ChildDeath(DaemonizeError):
    """The process of a task ended before it gave a result: that of this task alone.

    name: of the task. pid: of the process. status: its exit status, 128+N if it died of signal N; None: somebody else has
    reaped it. signal: the number of that signal, or None.
    """

    def __init__(self, name: str, pid: int, status: int | None = None, signal: int | None = None) -> None:
        self.name, self.pid, self.status, self.signal = name, pid, status, signal
        super().__init__(name, pid, status, signal)

    @property
    def _end(self) -> str:
        if self.signal is not None:
            return f"it died of {signal_name(self.signal)}"
        return "it ended" if self.status is None else f"it exited with status {self.status}"

    def __str__(self) -> str:
        """One line."""
        return f"{printable(self.name)} (pid {self.pid}) gave no result: {self._end}"


class TaskTimedOut(ChildDeath, TimeoutError):
    """A task was ended because its time was over. timeout: seconds."""

    exit_status = STATUS_TIMED_OUT

    def __init__(
        self, name: str, pid: int, status: int | None = None, signal: int | None = None, timeout: float = 0
    ) -> None:
        self.timeout = timeout
        super().__init__(name, pid, status, signal)
        self.args = (name, pid, status, signal, timeout)

    def __str__(self) -> str:
        """One line."""
        return f"{printable(self.name)} (pid {self.pid}) took longer than {self.timeout:g} s: {self._end}"


class TaskError(DaemonizeError):
    """A task raised an exception, or gave a result that cannot be had here.

    name: of the task. type, text: of the exception. traceback: as Python shows it, of the other process.
    """

    def __init__(self, name: str, type: str, text: str, traceback: str = "") -> None:  # noqa: A002 (its name)
        self.name, self.type, self.text, self.traceback = name, type, text, traceback
        super().__init__(name, type, text, traceback)

    def __str__(self) -> str:
        """One line."""
        text = " ".join(self.text.split())
        return printable(
            f"{self.name} raised {self.type}: {text}" if text else f"{self.name} raised {self.type}"
        )
