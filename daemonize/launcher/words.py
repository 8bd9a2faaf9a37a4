"""What is said to people about a launch, on stderr: one line each, and only where the server has not said it itself."""

from __future__ import annotations

import os
from time import monotonic

from daemonize.errors import Exited, LaunchError
from daemonize.posix.fds import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemonize.errors import DaemonizeError
    from daemonize.launcher.progress import Progress
    from daemonize.launcher.ready import Ready
    from daemonize.launcher.wrapper import Wrapper


def complain(text: str, program: str = "daemonize") -> None:
    """One line on stderr; nothing to be done if nobody can read it. program: who says it."""
    try:
        write_all(2, f"{program}: {text}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def progress(hint: str, program: str = "daemonize") -> Progress | None:
    """What shows people at a terminal what is waited for; None where stderr is none. program, hint: as of Progress."""
    if not os.isatty(2):
        return None
    from daemonize.launcher.progress import Progress

    return Progress(monotonic(), program, hint)


def needs_words(failure: DaemonizeError) -> bool:
    """Whether a failure is to be explained.

    A server that explained its own end on stderr is not explained again, unless one has to look into a file.
    """
    return not isinstance(failure, Exited) or not (failure.spoke and not failure.log and failure.status)


def lines(wrapper: Wrapper, outcome: Ready | LaunchError) -> Iterator[str]:
    """What there is to be said when a launch is over."""
    yield from problems(wrapper)
    if isinstance(outcome, LaunchError) and needs_words(outcome):
        yield str(outcome)


def problems(wrapper: Wrapper, *, verbose: bool = False) -> Iterator[str]:
    """What went wrong beside the launch itself. verbose: also what is of no consequence this time."""
    for error in wrapper.outputs.errors:
        yield f"the server's output could not be relayed to the end: {error.strerror}"
    if wrapper.logs.problem and (verbose or wrapper.outputs.lacks_log):
        yield f"no log is kept: {wrapper.logs.problem}"
