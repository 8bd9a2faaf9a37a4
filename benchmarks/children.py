"""What a child costs that one can talk to: a `ChildServer`, and a `multiprocessing.Process` with a `Pipe`, in turn."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from typing import TYPE_CHECKING

from launching import CannotMeasureError

from daemonize import ChildServer, message_handler

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

#: Children of one number of a pair.
CHILDREN = 20
WORDS = ["a", "few", "words"]


class Echo(ChildServer):
    """Says it again."""

    @message_handler
    def echo(self, *strings: str) -> None:
        """The same."""
        self.client.write(*strings)


def child_server() -> float:
    """Per second, from `start` to `stop`."""
    server, began = Echo(), time.perf_counter()
    for _ in range(CHILDREN):
        with server:
            server.server.write("echo", *WORDS)
            if server.server.read() != WORDS:
                raise CannotMeasureError("row 10: the server gives no echo")
    return CHILDREN / (time.perf_counter() - began)


def _echo(ours: Connection, theirs: Connection) -> None:
    ours.close()
    with contextlib.suppress(EOFError):
        while True:
            theirs.send(theirs.recv())


def process_with_pipe() -> float:
    """The same, from `start` to `join`."""
    fork, began = multiprocessing.get_context("fork"), time.perf_counter()
    for _ in range(CHILDREN):
        ours, theirs = fork.Pipe()
        process = fork.Process(target=_echo, args=(ours, theirs))
        process.start()
        theirs.close()
        ours.send(WORDS)
        if ours.recv() != WORDS:
            raise CannotMeasureError("row 10: the process gives no echo")
        ours.close()
        process.join()
        process.close()
    return CHILDREN / (time.perf_counter() - began)
