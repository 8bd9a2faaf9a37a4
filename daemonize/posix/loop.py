"""The one loop shape: wait, dispatch. Callers reap and decide between two rounds."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

POLLIN, POLLOUT = select.POLLIN, select.POLLOUT
POLLHUP, POLLERR = select.POLLHUP, select.POLLERR


_DAY = 86400.0  # poll(2) takes milliseconds in an int


class Loop:
    """poll(2) over descriptors, each with a callback that gets the events.

    HUP and ERR are always reported, also for a descriptor watched with no events.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` when one of `events` is there; replaces what was said of fd before."""
        self._poll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Watch fd no longer; must be called before it is closed. Not watched: nothing happens."""
        if self._callbacks.pop(fd, None):
            self._poll.unregister(fd)

    def run_once(self, timeout: float | None) -> None:
        """Wait for events, at most `timeout` seconds (None: for ever; never more than a day), and dispatch them."""
        for fd, events in self._poll.poll(None if timeout is None else min(max(timeout, 0), _DAY) * 1000):
            callback = self._callbacks.get(fd)
            if callback:  # a callback before it may have forgotten it
                callback(events)
