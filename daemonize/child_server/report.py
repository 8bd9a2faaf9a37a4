"""How the start of a server went: what it tells its owner, and what the owner raises.

b""                              it is initialised; whatever it said on descriptor 2 is where it belongs
exception, type, text, traceback   a pickle; the exception is one itself, or b"" where it cannot be pickled
end of file, or its end          it has ended before: its exit status says how
"""

from __future__ import annotations

import pickle
import select
import socket
from typing import TYPE_CHECKING, NoReturn, TypeVar

from daemonize.channel import codec
from daemonize.channel_errors import ChannelError
from daemonize.child_errors import ServerError
from daemonize.errors import signal_name
from daemonize.posix import frames

if TYPE_CHECKING:
    from daemonize.child_server.process import Child

E = TypeVar("E", bound=Exception)
#: Milliseconds between two looks whether it has ended, where the kernel does not tell.
_LOOK = 20


def tell(sock: socket.socket, error: BaseException | None = None) -> None:
    """In the server: it is initialised, or that failed. An owner that has gone is told nothing."""
    body = b"" if error is None else _packed(error)
    try:
        frames.send(sock, body)
    except OSError:
        pass


def _packed(error: BaseException) -> bytes:
    try:
        pickled = pickle.dumps(error)
    except Exception:  # noqa: BLE001 (whatever its class does)
        pickled = b""
    body = codec.object_of(codec.body_of_error(error, ""))
    return pickle.dumps((pickled, body["type"], body["text"], body["traceback"]))


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
        raise _noted(ServerError(name, reason, child.status, "", stderr), "", stderr)
    pickled, kind, text, traceback = pickle.loads(told)  # noqa: S301 (our own child, which has met nobody yet)
    words = f"{kind}: {' '.join(text.split())}" if text else kind
    failure = ServerError(name, f"initialize_server raised {words}", None, traceback, stderr)
    error = _unpickled(pickled)
    if error is None:
        raise _noted(failure, traceback, stderr)
    raise _noted(error, "", stderr) from _noted(failure, traceback, "")


def _unpickled(pickled: bytes) -> Exception | None:
    """An exception that belongs to nobody but the program: KeyboardInterrupt, say, would not be the owner's."""
    try:
        error = pickle.loads(pickled)  # noqa: S301 (likewise)
    except Exception:  # noqa: BLE001 (whatever its class does)
        return None
    return error if isinstance(error, Exception) else None


def _noted(error: E, traceback: str, stderr: str) -> E:
    """For Python's own report of it."""
    for what, text in (("in the server", traceback), ("the server said on stderr", stderr)):
        if text:
            error.add_note(f"{what}:\n{text.rstrip()}")
    return error


def _end_of(child: Child) -> str:
    if child.died_of is not None:
        return f"it died of {signal_name(child.died_of)}"
    return "it ended" if child.status is None else f"it exited with status {child.status}"
