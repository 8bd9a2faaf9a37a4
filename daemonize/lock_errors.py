"""What goes wrong with a `FileLock`: an error apart from the others, because no launch needs it."""

from __future__ import annotations

import os

from daemonize.errors import STATUS_TIMED_OUT, DaemonizeError, printable, who


class LockTaken(DaemonizeError, TimeoutError):
    """Somebody else has had the lock for as long as it was waited for.

    path: of its file. timeout: seconds. pid, name: of who has it (None and "" where that is not known). uid: of who has it,
    where no more is known.
    """

    exit_status = STATUS_TIMED_OUT

    def __init__(
        self, path: str, timeout: float, pid: int | None = None, name: str = "", uid: int | None = None
    ) -> None:
        self.path, self.timeout, self.pid, self.name, self.uid = path, timeout, pid, name, uid
        super().__init__(path, timeout, pid, name, uid)
        self.args = (path, timeout, pid, name, uid)  # two arguments of an OSError would be errno and text

    def __str__(self) -> str:
        """One line."""
        holder = who(self.pid, self.name, self.uid) or "somebody whom the kernel does not tell this user"
        if self.pid == os.getpid():
            holder = "this process, by another FileLock"
        waited = f", and was when {self.timeout:g} s had been waited for" if self.timeout else ""
        return f"the lock {printable(self.path)} is held by {holder}{waited}"
