"""The one loop shape: wait, dispatch. Callers reap and decide between two rounds."""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

POLLIN, POLLOUT = select.POLLIN, select.POLLOUT
POLLHUP, POLLERR = select.POLLHUP, select.POLLERR


#: Events that are dispatched in one round; the others are in the next. By default memory is taken for a thousand.
_MOST = 64
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

    def abandon(self) -> None:
        """In a forked child: forget all of them, and unwatch none, since that would be so in the owner, too."""
        self._callbacks.clear()

    def close(self) -> None:
        """Give everything back."""
        self.abandon()

    def run_once(self, timeout: float | None) -> None:
        """Wait for events, at most `timeout` seconds (None: for ever; never more than a day), and dispatch them."""
        for fd, events in self._poll.poll(None if timeout is None else min(max(timeout, 0), _DAY) * 1000):
            callback = self._callbacks.get(fd)
            if callback:  # a callback before it may have forgotten it
                callback(events)


class Selectable(Loop):
    """A Loop that is itself to be watched: `fileno` is readable when `run_once` has something to dispatch (epoll(7)).

    Raises OSError. What is not forgotten before it is closed goes on being told of, if another process has a copy.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks = {}

    def fileno(self) -> int:
        """The descriptor."""
        return self._epoll.fileno()

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """See Loop."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """See Loop."""
        if self._callbacks.pop(fd, None):
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Give everything back. What was watched is, in other processes with a copy, as before."""
        super().close()
        self._epoll.close()

    def run_once(self, timeout: float | None) -> None:
        """See Loop."""
        for fd, events in self._epoll.poll(None if timeout is None else min(max(timeout, 0), _DAY), _MOST):
            callback = self._callbacks.get(fd)
            if callback:
                callback(events)
