"""Follow a file that a server appends to, as tail -F does for one that is not replaced.

From its size at launch on; again from 0 when it shrinks (truncated by the server or by a rotation); woken by inotify(7),
or by a timer where there is none.
"""

from __future__ import annotations

import os

from daemonize.posix.loop import POLLIN
from daemonize.posix.prctl import inotify
from daemonize.posix.streams import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize.posix.loop import Loop
    from daemonize.posix.streams import Sink

_CHUNK = 65536
_IN_MODIFY = 0x2
_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05


class FileRelay(Relay):
    """From a regular file (a descriptor of our own, open for reading) to a sink.

    next_look: seconds until `look` wants to be called, or None when the kernel tells of every write.
    """

    def __init__(self, loop: Loop, source: int, sink: Sink, *, keep: int = 0) -> None:
        super().__init__(loop, sink, keep)
        self.source = source
        self.position = os.fstat(source).st_size
        self.finished = False
        self.full = False
        self._wait = _FIRST_WAIT
        self._events = inotify(b"/proc/self/fd/%d" % source, _IN_MODIFY)
        if self._events is not None:
            loop.watch(self._events, POLLIN, self._modified)

    @property
    def next_look(self) -> float | None:
        """Seconds until the next look, where the kernel does not tell."""
        return self._wait if self._events is None and not self._waiting else None

    def _modified(self, _events: int) -> None:
        if self._events is not None:
            try:
                os.read(self._events, 4096)
            except BlockingIOError:
                pass
        self.look()

    def look(self) -> None:
        """Relay what has come since the last look."""
        before = self.total
        while not self._waiting and self._flush():
            size = os.fstat(self.source).st_size
            if size < self.position:
                self.position = 0
            data = os.pread(self.source, _CHUNK, self.position)
            if not data:
                break
            self.position += len(data)
            self._take(data)
        self._wait = _FIRST_WAIT if self.total > before else min(self._wait * 2, _LONGEST_WAIT)

    def _resume(self) -> None:
        self.look()

    def mark(self) -> None:
        """Take one more look: what is in the file by now belongs to the launch."""
        self.look()

    @property
    def caught_up(self) -> bool:
        """Whether everything seen has been handed to the reader."""
        return not self._pending and not self._waiting

    def stop(self) -> None:
        """Follow no more."""
        if self._events is not None:
            self.loop.forget(self._events)
            os.close(self._events)
            self._events = None
        self._stop_waiting()
