"""Why a `BackgroundServer` did not start, for those who have nothing but the exception."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from daemonize.errors import AlreadyRunning, DaemonizeError, InvalidState, LaunchError, printable
from daemonize.outcomes import Cancelled, CrashedOnStartup, Exited, NotExecuted, TimedOut

if TYPE_CHECKING:
    from daemonize.background.logs import Logs


def explained(
    error: DaemonizeError | None, command: list[str], status: int | None, logs: Logs | None
) -> DaemonizeError:
    """The error of a launch, with command, exit status and output. error: None if the launch was ended by us."""
    words = printable(shlex.join(command))
    if error is None or isinstance(error, Cancelled):
        return InvalidState("it was stopped before it was ready")
    if type(error) is Exited:
        error = CrashedOnStartup.of(error)
    if isinstance(error, LaunchError) and logs:
        error.command, error.by_call, error.output = command, True, logs.bytes()
        error.report = (
            f"cmd: {words}\nexit status: {_shown(status, error)}\nserver output:\n{logs.numbered()}"
        )
    elif isinstance(error, AlreadyRunning):
        error.refused = words
    return error


def _shown(status: int | None, error: LaunchError) -> str:
    if isinstance(error, NotExecuted):
        return "(never executed)"
    if status is None:
        return "(unknown)"
    return f"{status} (it has been stopped)" if isinstance(error, TimedOut) else str(status)
