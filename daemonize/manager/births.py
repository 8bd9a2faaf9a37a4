"""How a task comes into the world: the owner's side of the fork.

Signals are blocked meanwhile: what is to be known of the child is put down before a handler can raise.

After a fork, each page of memory that is written to is copied, in the owner as long as the child has it, and in the child;
that takes longer than most system calls, and for Python to call a function is to write. So there are few calls here and in
`body`, and what can be made once is made before the first fork (`mortal.prepare`).
"""

from __future__ import annotations

import _socket
import fcntl
import threading
from typing import TYPE_CHECKING, Any

from daemonize.manager import body, holdings
from daemonize.manager.inbox import Inbox
from daemonize.offspring import forking
from daemonize.offspring.process import Child
from daemonize.posix import child

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.manager.bell import Bell


class Function:
    """A task that is forked. with_channel: whether it is called with one. threads: whether others live in the owner."""

    __slots__ = ("call", "memory", "threads", "with_channel")

    def __init__(
        self, function: Callable[..., Any], memory: int | None, *, with_channel: bool, threads: bool
    ) -> None:
        self.call, self.memory, self.with_channel, self.threads = function, memory, with_channel, threads

    def bear(self, bell: Bell) -> tuple[Child, Inbox, None]:
        """Fork it. With it, what it says. With all signals blocked. Raises OSError."""
        ours, theirs = _pair()
        if _socket.getdefaulttimeout() is not None:
            ours.settimeout(None)
            theirs.settimeout(None)
        threads, me = self.threads, threading.get_ident()
        try:
            # A handler may have said something meanwhile.
            forking.flush(threads=threads)
            inbox = Inbox(ours, heard=self.with_channel)
            birth = body.Birth(self, theirs, inbox.fd, bell)
            holdings.forkers[me] = bell.asks
            pid = forking.fork_quietly(threads=True) if threads else child.fork_alone()
            if pid == 0:
                body.live(birth)
        except BaseException:
            ours.close()
            raise
        finally:
            holdings.forkers.pop(me, None)
            theirs.close()
        return Child(pid), inbox, None


def _pair() -> tuple[_socket.socket, _socket.socket]:
    """The task's end is none of 0, 1 and 2, to which it may write: the owner may have closed them. Raises OSError."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    if theirs.fileno() > 2:
        return ours, theirs
    try:
        return ours, _socket.socket(fileno=fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
