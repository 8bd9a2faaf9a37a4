"""`file:PATH`: the file is there, and is not the one that was there before the server was started.

Anything of it may have changed: it is another file, or was written or touched since. A directory, a socket, a fifo will do.
PATH is the caller's: relative to his directory, and outside a new root of the server's.

It is looked for by a timer. inotify(7) would tell sooner, but to give its watch back takes the kernel 10 to 20 ms, for which
the caller would have to wait (posix/follow.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daemonize.errors import UsageError
from daemonize.readiness.probe import Probe

if TYPE_CHECKING:
    from daemonize.readiness.probe import Launch

#: Seconds between two looks: in the first EARLY seconds, and later.
_OFTEN, _SELDOM, _EARLY = 0.002, 0.02, 10.0


class File(Probe):
    """Compares inode, times and size."""

    needs_launch = True

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        if not argument or "\0" in argument:
            raise UsageError("it names no file")
        self._path = b""
        self._before: tuple[int, ...] | None = None
        self._began = 0.0

    def prepare(self, launch: Launch) -> None:
        """Note what is there now."""
        self._path = os.path.join(launch.directory, os.fsencode(self.argument))
        self._before = self._look()

    def executed(self, now: float) -> None:
        """From now on it may be there."""
        self._began = now
        self.tick(now)

    def tick(self, now: float) -> None:
        """Look. An OSError means that the file cannot be looked at."""
        self.due = now + (_OFTEN if now - self._began < _EARLY else _SELDOM)
        seen = self._look()
        if seen is None:
            self.problem = "there is no such file"
        elif seen == self._before:
            self.problem = "the file is the one that was there before"
        else:
            self.held, self.due = True, None

    def _look(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
