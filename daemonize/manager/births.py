"""How a task comes into the world: the owner's side of the fork.

Signals are blocked meanwhile: what is to be known of the child is put down before a handler can raise.

After a fork, each page of memory that is written to is copied, in the owner as long as the child has it, and in the child;
that takes longer than most system calls, and for Python to call a function is to write. So there are few calls here and in
`body`, and what can be made once is made before the first fork (`mortal.prepare`).
"""

from __future__ import annotations

import _socket
import fcntl
import gc
import os
import threading
from sys import modules
from typing import TYPE_CHECKING, Any

from daemonize.manager import body, holdings
from daemonize.manager.inbox import Inbox
from daemonize.offspring import forking, mortal, settling
from daemonize.offspring.process import Child
from daemonize.posix import child, signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.manager.bell import Bell
    from daemonize.manager.holdings import Holdings


class Function:
    """A task that is forked.

    with_channel: whether it is called with one. threads: whether others live in the owner; streams: what is to be stdout
    and stderr if they do. lasts: whether the thread does that forks it. sock: its end; heard: whether the owner listens
    before its end, whose bell that is.
    """

    __slots__ = (
        "bell", "call", "heard", "lasts", "memory", "sock", "streams", "threads", "with_channel",
    )  # fmt: skip
    bell: Bell
    sock: _socket.socket

    def __init__(
        self, function: Callable[..., Any], memory: int | None, with_channel: bool, threads: bool
    ) -> None:
        self.call, self.memory, self.with_channel, self.threads = function, memory, with_channel, threads
        self.heard = with_channel

    def bear(self, held: Holdings) -> tuple[Child, Inbox, None]:
        """Fork it. With it, what it says. In `Blocked`. Raises OSError."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        threads, me = self.threads, threading.get_ident()
        try:
            if theirs.fileno() <= 2 or _socket.getdefaulttimeout() is not None:
                theirs = _usable(ours, theirs)
            # A handler may have said something meanwhile.
            forking.flush(threads=threads)
            inbox = Inbox(ours, self.with_channel)
            self.sock, self.bell = theirs, held.bell
            owner = os.getpid()
            # The main thread has the number of the process (mortal.py).
            self.lasts = threading.get_native_id() == owner or mortal.lasts()
            self.streams = settling.streams_there_are() if threads else None
            plain = self.lasts and not (
                threads
                or self.with_channel
                or self.memory is not None
                or "numpy.random" in modules
                or ("asyncio" in modules and settling.is_in_event_loop())
            )
            reset, collects = signals.changed(), gc.isenabled()
            known = self.call, theirs.sendall, held.dies, inbox.fd, owner, reset, collects, plain
            holdings.forkers[me] = held.bell.asks
            pid = forking.fork_quietly(threads=True) if threads else child.fork_alone()
            if pid == 0:
                body.live(self, known)
        except BaseException:
            ours.close()
            raise
        finally:
            holdings.forkers.pop(me, None)
            theirs.close()
        return Child(pid, held.reaping), inbox, None


def _usable(ours: _socket.socket, theirs: _socket.socket) -> _socket.socket:
    """Both wait for ever; the task's end is none of 0, 1 and 2, to which it may write: the owner may have closed them.

    Raises OSError.
    """
    if theirs.fileno() <= 2:
        low = theirs
        theirs = _socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
        low.close()
    ours.settimeout(None)
    theirs.settimeout(None)
    return theirs
