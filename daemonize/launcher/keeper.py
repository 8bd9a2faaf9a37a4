"""The keeper: a small process, executed once for its owner, that starts servers in the owner's stead.

    owner ── spawn ── keeper (executed) ─┬─ fork ── wrapper of one launch() ── ...           (leaves when it is ready)
      │ ── requests ────▶                └─ fork ── wrapper that keeps one server ── server  (launcher/kept.py)
      │ ◀─ a socket for each, which goes along with its request ─▶ wrapper

To fork the owner would copy the memory of a large one, and locks that other threads of it hold; to execute a wrapper for
each server takes longer than the server. The keeper is as its owner was when it was executed: what a server inherits and
no request can carry (posix/callers.py: surroundings) is the reason to execute another one.

It watches a pidfd of its owner: a socket that an unrelated child of the owner's has inherited never comes to its end. So
does each wrapper, so that nothing depends on the keeper; what a killed wrapper has left is ended by the keeper, if that is
still there (it does not wait for a server that others use, too). It has
nothing of the owner's open, is in a session of its own, and is nobody's child, so that an owner that waits for any child
never sees it. It leaves with its owner, and when it has had nothing to do for a while.
"""

from __future__ import annotations

import ctypes  # noqa: F401 (what is imported now, every wrapper has)
import gc
import os
import pickle
import socket
import sys
from typing import TYPE_CHECKING

from daemonize.launcher import drain, kept, request, surroundings  # noqa: F401 (what is imported now, every wrapper has)
from daemonize.launcher.beginning import make_token
from daemonize.launcher.orders import SHARED
from daemonize.posix import child, fds, follow, frames, signals, sockdiag, stop, tree  # noqa: F401 (likewise)
from daemonize.posix.loop import POLLIN, Loop
from daemonize.readiness import listening, port  # noqa: F401 (likewise)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds without work after which it leaves.
IDLE = 30.0
#: Seconds of the stop plan for what a killed wrapper has left.
_GRACE = 1.0
#: Seconds without an order after which the next wrapper is forked: not while the one before is at work.
_PAUSE = 0.02
#: Seconds until it is tried again where no process could be had (RLIMIT_NPROC, a full control group).
_LONG_PAUSE = 1.0


class _Wrapper:
    """A wrapper that waits for its order. pid. token: what is going to mark its server's environment. orders: a socket."""

    def __init__(self, pid: int, token: bytes, orders: socket.socket) -> None:
        self.pid, self.token, self.orders = pid, token, orders

    def send(self, message: bytes, passed: Sequence[int]) -> bool:
        """Give it its order; False if it has gone."""
        try:
            frames.send(self.orders, message, passed)
        except OSError:
            return False
        finally:
            self.orders.close()
        return True


class Keeper:
    """One keeper. requests: the socket to its owner. owner: a pidfd of it, or None where there are none."""

    def __init__(self, requests: socket.socket, owner: int | None) -> None:
        self._requests, self._owner = requests, owner
        self._loop, self._queue = Loop(), signals.SignalQueue((signals.SIGCHLD,))
        #: What marks the server of each wrapper, by the pid of that; which of them are not waited for.
        self._wrappers: dict[int, bytes] = {}
        self._shared: set[int] = set()
        self._spare: _Wrapper | None = None
        self._pause = _PAUSE
        self._leaves = False

    def run(self) -> None:
        """Until the owner has gone, or has nothing to do, and all wrappers have ended that are its own."""
        self._loop.watch(self._queue.fd, POLLIN, lambda _events: self._reap())
        self._loop.watch(self._requests.fileno(), POLLIN, lambda _events: self._hear())
        if self._owner is not None:
            self._loop.watch(self._owner, POLLIN, lambda _events: self._part())
        gc.freeze()
        while not self._leaves or self._wrappers.keys() - self._shared:
            if self._wait(self._patience()):
                continue
            if self._spare is None and self._prepare():
                continue
            if not (self._wrappers or self._leaves):
                self._leave_if_idle()
        self._dispose_of_spare()

    def _prepare(self) -> bool:
        """Fork the next wrapper before it is needed; False if there can be none now."""
        try:
            self._spare = self._fork(rehearses=True)
        except OSError:
            self._pause = _LONG_PAUSE
            return False
        self._pause = _PAUSE
        return True

    def _dispose_of_spare(self) -> None:
        """Nobody is to find it when we have gone; it has nothing yet that would have to be given back."""
        if self._spare:
            os.kill(self._spare.pid, signals.SIGKILL)
            os.waitpid(self._spare.pid, 0)

    def _patience(self) -> float | None:
        """Seconds until there is something to do although nothing happens."""
        if self._leaves:
            return None
        return self._pause if self._spare is None else (None if self._wrappers else IDLE)

    def _wait(self, timeout: float | None) -> bool:
        """One round; whether something happened."""
        self._happened = False
        self._loop.run_once(timeout)
        return self._happened

    def _leave_if_idle(self) -> None:
        # A request that is sent from now on fails; one that was sent before is still served.
        self._requests.shutdown(socket.SHUT_RD)
        while not self._leaves:
            self._hear()

    def _hear(self) -> None:
        self._happened = True
        received = frames.receive(self._requests)
        if received is None:
            self._part()
            return
        message, passed = received
        try:
            self._start(message, passed)
        finally:
            for fd in passed:
                os.close(fd)

    def _part(self) -> None:
        """No more requests: the owner has gone, or has another keeper."""
        self._happened = True
        if not self._leaves:
            self._leaves = True
            self._loop.forget(self._requests.fileno())
            if self._owner is not None:
                self._loop.forget(self._owner)

    def _start(self, message: bytes, passed: Sequence[int]) -> None:
        spare, self._spare = self._spare, None
        try:
            while spare is None or not spare.send(message[1:], passed):
                spare = self._fork()
        except OSError as error:
            kept.refuse(passed[0], error)
            return
        self._wrappers[spare.pid] = spare.token
        if message[:1] == SHARED:
            self._shared.add(spare.pid)

    def _fork(self, *, rehearses: bool = False) -> _Wrapper:
        """A wrapper that waits for its order. rehearses: it does what it can do without. Raises OSError."""
        token = make_token()
        ours, theirs = socket.socketpair()
        with theirs:
            mask = signals.block_all()
            try:
                pid = child.fork_alone()
                if pid == 0:
                    self._become(theirs, token, rehearses=rehearses)
            finally:
                signals.restore_mask(mask)
        return _Wrapper(pid, token, ours)

    def _become(self, orders: socket.socket, token: bytes, *, rehearses: bool) -> None:
        """Be a wrapper, in a freshly forked process with all signals blocked. Never returns."""
        status = 1
        try:
            self._queue.close()
            signals.restore_mask(())
            fds.sweep({orders.fileno(), *(() if self._owner is None else (self._owner,))})
            if rehearses:
                # The first to write to a page of memory after a fork waits until it is copied: half of a start.
                kept.rehearse()
            received = frames.receive(orders)
            orders.close()
            if received:
                kept.serve(*received, token, self._owner)
            status = 0
        finally:
            os._exit(status)

    def _reap(self) -> None:
        self._happened = True
        self._queue.read()
        spare = self._spare
        if spare and os.waitpid(spare.pid, os.WNOHANG)[0]:
            spare.orders.close()
            self._spare = None
        for pid, token in list(self._wrappers.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._wrappers[pid]
                self._shared.discard(pid)
                if status:
                    self._clean(token)

    def _clean(self, token: bytes) -> None:
        """A wrapper was killed: end what bears its mark. In a process of its own, if there can be one."""
        try:
            pid = child.fork_alone()
        except OSError:
            _end(token)
            return
        if pid == 0:
            try:
                self._queue.close()
                _end(token)
            finally:
                os._exit(0)
        self._wrappers[pid] = token


def _end(token: bytes) -> None:
    stop.run(Loop(), tree.Tree((), tokens=[token]), None, stop.default_plan(_GRACE))


def main(arguments: list[str]) -> None:
    """In a fresh interpreter. arguments: the socket to the owner and a pidfd of it (-1: there is none), as descriptors."""
    requests_fd, owner = (int(word) for word in arguments)
    for fd in (requests_fd, owner):
        if fd >= 0:
            os.set_inheritable(fd, False)
    if os.fork():
        os._exit(0)  # whoever waits for us does so no longer, and the other is nobody's child
    sys.stdin = sys.stdout = sys.stderr = None
    # A program that takes its signals by sigwait(3) has blocked them, and we are told by ours.
    signals.restore_mask(())
    requests = socket.socket(fileno=requests_fd)
    frames.send(requests, pickle.dumps(os.getpid()))
    Keeper(requests, None if owner < 0 else owner).run()
    os._exit(0)  # there is nothing to be tidied up, and somebody may be waiting
