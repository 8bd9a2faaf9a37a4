"""What is said to people about a launch, on stderr: one line each, and only where the server has not said it itself."""

from __future__ import annotations

import os
from time import monotonic

from daemonize.errors import LaunchError
from daemonize.posix.fds import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from daemonize.errors import DaemonizeError
    from daemonize.launcher.progress import Progress
    from daemonize.launcher.ready import Ready
    from daemonize.launcher.wrapper import Wrapper

#: Seconds before people are shown what is waited for.
MOMENT = 1.0


def complain(text: str, program: str = "daemonize") -> None:
    """One line on stderr; nothing to be done if nobody can read it. program: who says it."""
    try:
        write_all(2, f"{program}: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


class Waiting:
    """Shows people at a terminal what is waited for, when they have waited for a moment.

    program: who says it. hint: a line for those who wait long for `streams`. due: monotonic time of the next turn.
    """

    def __init__(self, hint: str, program: str = "daemonize", fd: int = 2) -> None:
        self._hint, self._program, self._fd = hint, program, fd
        self._began = monotonic()
        self.due = self._began + MOMENT
        self._progress: Progress | None = None
        self._free = True  # nothing of the server's stands in the row

    def update(self, now: float, unmet: Sequence[str], told: Mapping[str, str | int]) -> None:
        """It is time. unmet: what is waited for. told: what the server says of itself."""
        if self._progress is None:
            from daemonize.launcher.progress import Progress

            self._progress = Progress(self._began, self._program, self._hint, self._fd)
        self.due = self._progress.update(now, unmet, told, free=self._free)

    def clear(self) -> None:
        """Somebody else is going to write there."""
        if self._progress:
            self._progress.clear()

    def wrote(self, last: int) -> None:
        """Somebody has written; the last byte of it."""
        self._free = last == ord("\n")

    def close(self) -> None:
        """The launch is over, or nobody waits for it any more."""
        if self._progress:
            self._progress.close()
            self._progress = None


def waiting(hint: str, program: str = "daemonize") -> Waiting | None:
    """What shows people what is waited for; None where stderr is no terminal. program, hint: as of Waiting."""
    return Waiting(hint, program) if os.isatty(2) else None


def needs_words(failure: DaemonizeError) -> bool:
    """Whether a failure is to be explained.

    A server that explained its own end on stderr is not explained again, unless one has to look into a file, or some of it
    still runs.
    """
    from daemonize.outcomes import Exited

    if not isinstance(failure, Exited) or failure.survivors:
        return True
    return not (failure.spoke and not failure.log and failure.status)


def lines(wrapper: Wrapper, outcome: Ready | LaunchError) -> Iterator[str]:
    """What there is to be said when a launch is over."""
    yield from problems(wrapper)
    if isinstance(outcome, LaunchError) and needs_words(outcome):
        yield str(outcome)


def problems(wrapper: Wrapper, *, verbose: bool = False) -> Iterator[str]:
    """What went wrong beside the launch itself. verbose: also what is of no consequence this time."""
    for error in wrapper.outputs.errors:
        yield f"the server's output could not be relayed to the end: {error.strerror}"
    if wrapper.entry.problem and (verbose or wrapper.outputs.lacks_log):
        yield f"no record is kept, and daemonctl will not know it: {wrapper.entry.problem}"
    if wrapper.logs.problem and (verbose or wrapper.outputs.lacks_log):
        yield f"no log is kept: {wrapper.logs.problem}"
