"""What goes wrong with daemons that there are already: errors apart from the others, because no launch needs them."""

from __future__ import annotations

from daemonize.errors import STATUS_TIMED_OUT, STATUS_UNKNOWN, STATUS_UNMET, DaemonizeError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


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
