"""What goes between an owner, its keeper and the wrappers of its servers. Pickled: all of them are of this package."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from daemonize.errors import DaemonizeError
    from daemonize.launcher.outputs import Targets
    from daemonize.launcher.request import Request


#: Before an order: whether its wrapper is the owner's alone, or may outlive it and its keeper.
OWN, SHARED = b"o", b"s"


class Order(NamedTuple):
    """What an owner asks for.

    The descriptors that go along, in this order: the socket to answer on, the directory to launch from, those of `targets`
    that there are, those of `request.keep_fds`, and of a shared server the socket that others come to.

    keeps: the server is kept, and ends with its users; targets are its logs. is_shared: others may come. Not kept: it is
    launched. facts: about one that is kept, for its other users. stop_signal: what asks it to end. environment, umask:
    the owner's.
    """

    keeps: bool
    is_shared: bool
    request: Request
    targets: Targets
    facts: object
    stop_signal: int
    environment: dict[bytes, bytes]
    umask: int


class Began(NamedTuple):
    """What is told first of a server that is kept.

    token: `NAME=value` that marks its environment. facts: as they came with the order, for users who did not start it.
    """

    token: bytes
    facts: object


class Forked(NamedTuple):
    """What is told of a server that is kept before it is let through its gate. Nothing marks it yet."""

    pid: int
    start: int


class Ended(NamedTuple):
    """What is told at last of a server that was kept.

    error: why the launch failed, or None. status: wait status of its main process, None if that is not known. survivors:
    (pid, name) of what could not be stopped.
    """

    error: DaemonizeError | None
    status: int | None
    survivors: list[tuple[int, str]]


#: What text and numbers are made of, and how to have them without what a subclass makes of them.
_PLAIN: dict[type, Any] = {str: str.__str__, bytes: bytes.__bytes__, int: int.__int__, float: float.__float__}


class _Pickler(pickle.Pickler):
    """Of text and numbers of a class of the caller's (an enum) the plain value: a wrapper has no module of the caller's."""

    def reducer_override(self, value: Any) -> Any:
        """How to have the value again."""
        for plain, bare in _PLAIN.items():
            if isinstance(value, plain):
                return plain, (bare(value),)
        return NotImplemented


def packed(order: Order) -> bytes:
    """As it goes to the keeper."""
    file = io.BytesIO()
    _Pickler(file).dump(order)
    return file.getvalue()
