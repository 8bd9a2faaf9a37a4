"""How a task comes into the world: the owner's side of the fork.

Signals are blocked meanwhile: what is to be known of the child is put down before a handler can raise.
"""

from __future__ import annotations

import _socket
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
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        birth = body.Birth(
            function, with_channel, theirs, ours, os.getpid(), mortal.lasts(), options.memory, signals.changed(),
            settling.streams() if threads else None, gc.isenabled(),
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


def of_command(command: Command) -> Born:
    """Fork it. With signals blocked. Raises OSError."""
    pid, report = command.fork()
    return Child(pid), None, (command, report)
