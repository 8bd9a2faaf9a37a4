"""The owner's hold on one server that a keeper's wrapper keeps: what has been told of it, read by whoever needs to know.

Any thread may ask. One of those that wait reads the socket, and the others wait until it has read something.
"""

from __future__ import annotations

import pickle
import select
import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING

from daemonize.launcher.orders import Began, Ended, Forked
from daemonize.launcher.ready import Ready
from daemonize.posix import frames

if TYPE_CHECKING:
    from collections.abc import Callable


_DAY = 86400.0


class Link:
    """sock: to the wrapper. began, forked, ready, ended: what was told at first, of the server's process, and so on.

    lost: the wrapper is gone. left: others use it, and we no longer. logs: descriptors of its logs, where somebody else has
    started it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._changed = threading.Condition()
        self._reader: int | None = None
        self.began: Began | None = None
        self.forked: Forked | None = None
        self.ready: Ready | None = None
        self.ended: Ended | None = None
        self.lost = self.left = False
        self.logs: list[int] = []

    @property
    def over(self) -> bool:
        """Whether nothing more will be told."""
        return self.lost or self.left or self.ended is not None

    def send(self, word: str, value: float | None) -> None:
        """Ask something of the wrapper; one that has gone cannot be asked."""
        with self._changed:
            if not self.over:
                try:
                    frames.send(self._sock, pickle.dumps((word, value)))
                except OSError:
                    pass  # the end of the socket will be read

    def wait(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until it is so, or nothing more will be told; at most `timeout` seconds. Whether it is so."""
        deadline = float("inf") if timeout is None else monotonic() + timeout
        while True:
            left = min(max(deadline - monotonic(), 0.0), _DAY)
            with self._changed:
                if until() or self.over:
                    return until()
            if not self._wait(left) and left <= 0:
                with self._changed:
                    return until()

    def look(self) -> None:
        """Take in what has been told by now."""
        self.wait(lambda: False, 0)

    def _wait(self, timeout: float) -> bool:
        """One turn; whether something was told."""
        ours = threading.get_ident()
        before = ours if self._reader == ours else None
        there = False
        # An exception may come from a signal handler, between any two lines: only `with` is certain to put the lock back.
        try:
            with self._changed:
                if self._reader not in (None, ours):
                    return self._changed.wait(timeout)
                if before == ours and timeout <= 0:
                    return False  # in a signal handler: what the one below reads is not taken from him for a look
                self._reader = ours  # a handler that stops the server reads in the stead of the one below
                if self.over:
                    return True
            there = _is_readable(self._sock, timeout)
        finally:
            with self._changed:
                if self._reader == ours:
                    self._reader = before
                    if there and not self.over:
                        self._take()
                    if self.over and before is None:
                        self._sock.close()  # nobody else reads it now
                    self._changed.notify_all()
        return there

    def _take(self) -> None:
        received = frames.receive(self._sock)
        if received is None:
            self.lost = True
            return
        told = pickle.loads(received[0])  # noqa: S301 (from a process of this user that runs this package)
        self.logs += received[1]
        if isinstance(told, Began):
            self.began = told
        elif isinstance(told, Forked):
            self.forked = told
        elif isinstance(told, Ready):
            self.ready = told
        elif isinstance(told, Ended):
            self.ended = told
        else:
            self.left = True

    def close(self) -> None:
        """Let go: a server that nobody else uses is stopped."""
        with self._changed:
            self.lost = self.lost or not self.over
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side has gone
            while self._reader not in (None, threading.get_ident()):
                self._changed.wait()
            self._sock.close()


def _is_readable(sock: socket.socket, timeout: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
