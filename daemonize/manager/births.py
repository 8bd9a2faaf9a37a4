"""How a task comes into the world: the owner's side of the fork.

Signals are blocked meanwhile: what is to be known of the child is put down before a handler can raise.
"""

from __future__ import annotations

import _socket
import fcntl
import gc
import os
from typing import TYPE_CHECKING, Any

from daemonize.manager import body
from daemonize.manager.inbox import Inbox
from daemonize.offspring import forking, mortal, settling
from daemonize.offspring.process import Child
from daemonize.posix import signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.manager.command import Command
    from daemonize.manager.tasks import Options

    #: A child, what it says or None, and if it is a command that and the descriptor of its report.
    Born = tuple[Child, Inbox | None, tuple[Command, int] | None]


def of_function(function: Callable[..., Any], options: Options, *, with_channel: bool, threads: bool) -> Born:
    """Fork it. With signals blocked. Raises OSError."""
    ours, theirs = _pair()
    try:
        birth = body.Birth(
            function, with_channel, theirs, ours, os.getpid(), mortal.lasts(), options.memory, signals.changed(),
            settling.streams_there_are() if threads else None, gc.isenabled(),
        )  # fmt: skip
        # A handler may have said something meanwhile.
        forking.flush(threads=threads)
        pid = forking.fork_quietly(threads=threads)
        if pid == 0:
            body.live(birth)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Child(pid), Inbox(ours), None


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


def of_command(command: Command) -> Born:
    """Fork it. With signals blocked. Raises OSError."""
    pid, report = command.fork()
    return Child(pid), None, (command, report)
