"""Follow a file that a server appends to, as tail -F does for one that is not replaced.

From its size at launch on; again from 0 when it has been truncated, by the server or by a rotation: also if it has grown
again since the last look, for then it does not have what was last seen there. At first a timer looks;
after some seconds, where there is no hurry any more, inotify(7) wakes us. To give a watch back takes the kernel 10 to 20 ms,
for which whoever closes its descriptor, or exits, has to wait: many a server is ready in less.
"""

from __future__ import annotations

import os
from time import monotonic

from daemonize.posix.loop import POLLIN
from daemonize.posix.prctl import inotify
from daemonize.posix.streams import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.posix.loop import Loop
    from daemonize.posix.streams import Sink

_CHUNK = 65536
_IN_MODIFY = 0x2
_ROUNDS = 16  # at most so many chunks before the loop looks at everything else again
#: Seconds between two looks of the timer: at first; the most where what is written is waited for, and where not.
_FIRST_WAIT, _HEARD_WAIT, _LONGEST_WAIT = 0.001, 0.002, 0.05
_BY_TIMER = 10.0  # seconds
#: Bytes before the position that are looked at again: are they others now, the file is another.
_KNOWN = 1024


class FileRelay(Relay):
    """From a regular file (a descriptor of our own, open for reading) to a sink.

    next_look: seconds until `look` wants to be called, or None when the kernel tells of every write.
    """

    def __init__(
        self,
        loop: Loop,
        source: int,
        sink: Sink,
        *,
        keep: int = 0,
        hear: Callable[[bytes], None] | None = None,
    ) -> None:
        super().__init__(loop, sink, keep, hear)
        self.source = source
        self.position = os.fstat(source).st_size
        known = min(self.position, _KNOWN)
        self._last = os.pread(source, known, self.position - known)
        self.finished = False
        self.full = False
        self._more = False  # the last look was cut short: the loop has others to look after
        self._goal: int | None = None
        self._wait = _FIRST_WAIT
        self._longest = _HEARD_WAIT if hear else _LONGEST_WAIT
        self._events: int | None = None
        self._to_watch = monotonic() + _BY_TIMER

    @property
    def next_look(self) -> float | None:
        """Seconds until the next look, where the kernel does not tell."""
        if self._waiting or (self._events is not None and not self._more):
            return None
        return 0.0 if self._more else self._wait

    def _watch(self) -> None:
        self._to_watch, self._longest = float("inf"), _LONGEST_WAIT
        self._events = inotify(b"/proc/self/fd/%d" % self.source, _IN_MODIFY)
        if self._events is not None:
            self.loop.watch(self._events, POLLIN, self._modified)

    def _modified(self, _events: int) -> None:
        if self._events is not None:
            try:
                os.read(self._events, 4096)
            except BlockingIOError:
                pass
        self.look()

    def look(self) -> None:
        """Relay what has come since the last look."""
        if monotonic() > self._to_watch:
            self._watch()
        before = self.total
        self._more = True
        for _ in range(_ROUNDS):
            if self._waiting or not self._flush() or not self._read():
                self._more = False
                break
        self._wait = _FIRST_WAIT if self.total > before else min(self._wait * 2, self._longest)

    def _read(self) -> bool:
        """One chunk; False at the end of the file, or of what is wanted of it."""
        wanted = _CHUNK if self._goal is None else max(min(_CHUNK, self._goal - self.position), 0)
        known = len(self._last)
        data = os.pread(self.source, known + wanted, self.position - known)
        if data[:known] != self._last:
            self._begin_again()
            return True
        self._last = data[-_KNOWN:]
        if len(data) == known:
            return False
        self.position += len(data) - known
        self._take(data[known:])
        return True

    def _begin_again(self) -> None:
        """It has been truncated. What has come since a mark is not the launch's."""
        self.position, self._last = 0, b""
        if self._goal is not None:
            self._goal = 0

    def _resume(self) -> None:
        self.look()

    def mark(self) -> None:
        """What is in the file by now belongs to the launch: `caught_up` tells when all of it is with the reader.

        No more than that is read until `unmark`: a server that goes on writing faster than the reader reads would keep us.
        """
        self.look()
        self._goal = os.fstat(self.source).st_size
        self.look()

    def unmark(self) -> None:
        """The launch goes on."""
        self._goal = None

    @property
    def caught_up(self) -> bool:
        """Whether everything up to `mark` has been handed to the reader."""
        return not self._pending and not self._waiting and (self._goal is None or self.position >= self._goal)

    def stop(self) -> None:
        """Follow no more."""
        if self._events is not None:
            self.loop.forget(self._events)
            os.close(self._events)
            self._events = None
        self._stop_waiting()
