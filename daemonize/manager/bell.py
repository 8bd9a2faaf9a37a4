"""What lets a wait of the manager end: a wake-up, or for those who watch its descriptor, the time."""

from __future__ import annotations

import os
import select
import socket

from daemonize.daemon_errors import NotPossible
from daemonize.posix import prctl
from daemonize.posix.loop import POLLIN, Loop, Selectable


class Bell:
    """loop: in which it rings; the bell's own. Raises OSError."""

    def __init__(self) -> None:
        self.loop = Selectable() if hasattr(select, "epoll") else Loop()
        self._timer: int | None = None
        try:
            self._hears, self._rings = socket.socketpair()
        except OSError:
            self.loop.close()
            raise
        self._hears.setblocking(False)
        self._rings.setblocking(False)
        self.loop.watch(self._hears.fileno(), POLLIN, self._heard)

    def ring(self) -> None:
        """For any thread, and for signal handlers."""
        try:
            self._rings.send(b"\0")
        except OSError:
            pass  # it will be heard; or it has just been closed

    def _heard(self, _events: int) -> None:
        self._hears.recv(4096)

    def fileno(self) -> int:
        """Of the loop, which is told of the time from now on. Raises NotPossible."""
        if self._timer is None and isinstance(self.loop, Selectable):
            self._timer = prctl.timer()
            if self._timer is not None:
                self.loop.watch(self._timer, POLLIN, lambda _events: None)
        if self._timer is None or not isinstance(self.loop, Selectable):
            raise NotPossible(
                "a manager of processes", "has no descriptor on this system: call step() instead"
            )
        return self.loop.fileno()

    @property
    def tells_time(self) -> bool:
        """Whether somebody has asked for the descriptor."""
        return self._timer is not None

    def set_timer(self, seconds: float | None) -> None:
        """When `step` is to be called though nothing happens; None: never."""
        if self._timer is not None:
            prctl.set_timer(self._timer, seconds)

    def close(self) -> None:
        """Give everything back; in a forked child as well, where nothing is unwatched: it would be so in the owner, too."""
        self.loop.close()
        self._hears.close()
        self._rings.close()
        if self._timer is not None:
            os.close(self._timer)
            self._timer = None
