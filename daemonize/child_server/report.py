"""How the start of a server went: what it tells its owner, and what the owner raises.

b""                              it is initialised; whatever it said on descriptor 2 is where it belongs
an exception                     it has failed (offspring/failures.py)
end of file, or its end          it has ended before: its exit status says how
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, NoReturn

from daemonize.channel_errors import ChannelError
from daemonize.child_errors import ServerError
from daemonize.errors import signal_name
from daemonize.offspring import failures
from daemonize.posix import frames

if TYPE_CHECKING:
    from daemonize.offspring.process import Child

#: Before the notes that an error gets.
_RAISED, _SAID = "in the server", "the server said on stderr"
#: Milliseconds between two looks whether it has ended, where the kernel does not tell.
_LOOK = 20


def tell(sock: socket.socket, error: BaseException | None = None) -> None:
    """In the server: it is initialised, or that failed. An owner that has gone is told nothing."""
    body = b"" if error is None else failures.packed(error)
    try:
        frames.send(sock, body)
    except OSError:
        pass


def hear(sock: socket.socket, child: Child) -> bytes | None:
    """In the owner: what it tells; None: it has ended without a word. What it has forked may have the socket, too."""
    reader, ended = frames.Reader(sock, frozenset({frames.KEEPERS})), False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if child.fd is not None:
        poll.register(child.fd, select.POLLIN)
    while True:
        try:
            return reader.take(socket.MSG_DONTWAIT)[0] if reader.head(socket.MSG_DONTWAIT) else None
        except BlockingIOError:
            if ended:
                return None
        except ChannelError:
            return None
        poll.poll(_LOOK if child.fd is None else None)
        ended = child.look()


def fail(name: str, told: bytes | None, child: Child, stderr: str) -> NoReturn:
    """Raise what the server told, its cause a ServerError; or that alone."""
    if told is None:
        reason = f"{_end_of(child)} before it was initialised"
        raise failures.noted(ServerError(name, reason, child.status, "", stderr), (_SAID, stderr))
    failed = failures.unpacked(told)
    failure = ServerError(name, f"initialize_server raised {failed.words}", None, failed.traceback, stderr)
    if failed.exception is None:
        raise failures.noted(failure, (_RAISED, failed.traceback), (_SAID, stderr))
    cause = failures.noted(failure, (_RAISED, failed.traceback))
    raise failures.noted(failed.exception, (_SAID, stderr)) from cause


def _end_of(child: Child) -> str:
    if child.died_of is not None:
        return f"it died of {signal_name(child.died_of)}"
    return "it ended" if child.status is None else f"it exited with status {child.status}"
