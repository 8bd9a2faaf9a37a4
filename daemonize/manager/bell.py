"""What lets a wait of the manager end: a wake-up, a task with much to say, or for those who watch it, the time."""

from __future__ import annotations

import _socket
import os
import select
from typing import TYPE_CHECKING

from daemonize.daemon_errors import NotPossible
from daemonize.posix import prctl
from daemonize.posix.blocked import Blocked
from daemonize.posix.loop import POLLIN, Loop, Selectable

if TYPE_CHECKING:
    from collections.abc import Callable


_ASKS = b"\1"


class Bell:
    """loop: in which it rings; the bell's own. timer: None until somebody asks for the descriptor. Raises OSError.

    listen: called when a task asks to be listened to before it has ended.
    """

    def __init__(self, listen: Callable[[], object]) -> None:
        self.loop = Selectable() if hasattr(select, "epoll") else Loop()
        self._listen = listen
        self.timer: int | None = None
        try:
            self._hears, self._rings = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        except OSError:
            self.loop.close()
            raise
        self._hears.setblocking(False)
        self._rings.setblocking(False)
        #: The descriptor that a task keeps, for `ask`.
        self.asks = self._rings.fileno()
        self.loop.watch(self._hears.fileno(), POLLIN, self._heard)

    def ring(self) -> None:
        """For any thread, and for signal handlers."""
        try:
            self._rings.send(b"\0")
        except OSError:
            pass  # it will be heard; or it has just been closed

    def ask(self) -> None:
        """In a task: wait until it is sure that the owner will listen. Raises OSError."""
        while True:
            try:
                self._rings.send(_ASKS)
            except BlockingIOError:
                poll = select.poll()
                poll.register(self.asks, select.POLLOUT)
                poll.poll()
            else:
                return

    def _heard(self, _events: int) -> None:
        # Who has asked does not ask again: a handler that raises must not come in between.
        with Blocked():
            if _ASKS in self._hears.recv(4096):
                self._listen()

    def fileno(self) -> int:
        """Of the loop, which is told of the time from now on. Raises NotPossible."""
        if self.timer is None and isinstance(self.loop, Selectable):
            self.timer = prctl.timer()
            if self.timer is not None:
                self.loop.watch(self.timer, POLLIN, lambda _events: None)
        if self.timer is None or not isinstance(self.loop, Selectable):
            raise NotPossible(
                "a manager of processes", "has no descriptor on this system: call step() instead"
            )
        return self.loop.fileno()

    @property
    def descriptors(self) -> list[int]:
        """All that it has."""
        loop = [self.loop.fileno()] if isinstance(self.loop, Selectable) else []
        timer = [] if self.timer is None else [self.timer]
        return [*loop, self._hears.fileno(), self._rings.fileno(), *timer]

    def set_timer(self, seconds: float | None) -> None:
        """When `step` is to be called though nothing happens; None: never."""
        if self.timer is not None:
            prctl.set_timer(self.timer, seconds)

    def close(self) -> None:
        """Give everything back; in a forked child as well, where nothing is unwatched: it would be so in the owner, too."""
        self.loop.close()
        self._hears.close()
        self._rings.close()
        if self.timer is not None:
            os.close(self.timer)
            self.timer = None
