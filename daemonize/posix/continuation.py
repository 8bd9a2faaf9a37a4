"""A server that is not another program: the caller's own goes on in a process that has been made fit to be a server.

    program ── fork ── intermediate parent ── fork ── the program goes on, where it called for this

It is set up as every server is (posix/child.py), but what the program has done itself stays: descriptors it opened, its
signal handlers, its memory. Only what it was given by its caller goes (posix/arrival.py).
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Any

from daemonize.posix import arrival, signals
from daemonize.posix.child import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


class Continuation(Program):
    """The caller's own program as a server.

    before: the environment that the program has. foreign: gives the descriptors that are not the program's, when it is
    forked. prepare: called in the server, as the last step before it is let go; signals are blocked.
    """

    continues = True

    def __init__(
        self,
        *args: Any,
        before: Mapping[bytes, bytes],
        foreign: Callable[[], set[int]],
        prepare: Callable[[], None],
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self._before, self._foreign, self._prepare = before, foreign, prepare
        self._collects = gc.isenabled()
        self._timers = signals.timers()

    def hold(self, *ours: int) -> None:
        """Close what the program did not open itself, and nothing else: hooks of its own may have opened more by now."""
        for fd in self._foreign() - {0, 1, 2, *ours, *self.keep}:
            os.close(fd)

    def set_signals(self) -> None:
        """What the program ignores or handles it goes on to; what it was made to ignore it does not: `release_signals`."""

    def prepare(self) -> None:
        """The server's environment, and what the caller has to prepare."""
        for name in self._before.keys() - self.environment.keys():
            os.environb.pop(name, None)  # a hook of the program's may have removed it at the fork
        os.environb.update(self.environment.items() - self._before.items())
        self._prepare()

    def start(self) -> None:
        """Be the server from here on. Signals stay blocked, since a handler of the program's may raise."""
        if self._collects:
            gc.enable()
        signals.set_timers(self._timers)

    @staticmethod
    def release_signals(mask: Collection[int]) -> None:
        """Let signals in again, but for those that this process was given blocked. mask: the program's own.

        Only when the intermediate parent's handler of SIGCHLD has given way to what was there before it.
        """
        signals.unignore(arrival.IGNORED)
        signals.restore_mask(set(mask) - set(arrival.BLOCKED))
