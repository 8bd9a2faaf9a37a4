"""Follow a file that a server appends to, as tail -F does for one that is not replaced.

From its size at launch on; again from 0 when it shrinks (truncated by the server or by a rotation). At first a timer looks;
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
        self.finished = False
        self.full = False
        self._more = False  # the last look was cut short: the loop has others to look after
        self._goal = 0
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
        """One chunk; False at the end of the file."""
        if os.fstat(self.source).st_size < self.position:
            self.position = self._goal = 0
        data = os.pread(self.source, _CHUNK, self.position)
        self.position += len(data)
        self._take(data)
        return bool(data)

    def _resume(self) -> None:
        self.look()

    def mark(self) -> None:
        """What is in the file by now belongs to the launch: `caught_up` tells when all of it is with the reader."""
        self._goal = os.fstat(self.source).st_size
        self.look()

    @property
    def caught_up(self) -> bool:
        """Whether everything up to `mark` has been handed to the reader."""
        return not self._pending and not self._waiting and self.position >= self._goal

    def stop(self) -> None:
        """Follow no more."""
        if self._events is not None:
            self.loop.forget(self._events)
            os.close(self._events)
            self._events = None
        self._stop_waiting()
