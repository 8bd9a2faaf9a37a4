"""`file:PATH`: the file is there, and is not the one that was there before the server was started.

Anything of it may have changed: it is another file, or was written or touched since. A directory, a socket, a fifo will do;
of a symbolic link it is what it points at that counts.
PATH is the caller's: relative to his directory, and outside a new root of the server's.

A timer looks. inotify(7) is asked only where times may not tell: to give its watch back takes the kernel 10 to 20 ms, for
which the caller would have to wait (posix/follow.py).
"""

from __future__ import annotations

import os
from sys import byteorder
from time import monotonic, time
from typing import TYPE_CHECKING

from daemonize.errors import UsageError
from daemonize.posix.prctl import inotify
from daemonize.readiness import Probe

if TYPE_CHECKING:
    from daemonize.readiness import Launch

#: IN_MODIFY, IN_ATTRIB, IN_MOVED_TO, IN_CREATE (inotify(7)); to close a file is not to change it.
_CHANGES = 0x2 | 0x4 | 0x80 | 0x100
#: Seconds between two looks: in the first EARLY seconds, and later.
_OFTEN, _SELDOM, _EARLY = 0.002, 0.02, 10.0
_TICK = 2.0  # seconds, of the slowest clock that a file system has (FAT)


class File(Probe):
    """Compares inode, times and size."""

    needs_launch = True

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        try:
            self._path = os.fsencode(argument)
        except UnicodeEncodeError as error:
            raise UsageError(f"it is no text: {error.reason}") from None
        if not self._path or b"\0" in self._path:
            raise UsageError("it names no file")
        self._before: tuple[int, ...] | None = None
        self._began = 0.0

    def prepare(self, launch: Launch) -> None:
        """Note what is there now."""
        self._path = os.path.join(launch.directory, self._path)
        self._before = self._look()
        if self._before and time() - self._before[3] / 1e9 < _TICK:
            self._ask(launch)

    def _ask(self, launch: Launch) -> None:
        """Be told of changes: one that comes within the tick of the last may leave the times as they are."""
        directory, name = os.path.split(self._path)
        watch = inotify(directory, _CHANGES)
        if watch is None:
            return
        events = launch.owner.add(watch)

        def changed() -> None:
            if name in _names(os.read(events, 65536)):
                self._before = None
                self.tick(monotonic())
            if self.held:
                launch.loop.forget(events)

        launch.watch(self, events, changed)

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


def _names(events: bytes) -> set[bytes]:
    """The files of a directory that inotify(7) tells of; empty for the directory itself."""
    found = set()
    while events:
        size = int.from_bytes(events[12:16], byteorder)
        found.add(events[16 : 16 + size].rstrip(b"\0"))
        events = events[16 + size :]
    return found
