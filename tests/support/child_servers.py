"""Child servers for the tests, and owners of some that can be killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from typing import TYPE_CHECKING

from daemonize import ChildServer, MessageChannel, message_handler
from tests.support import procs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Echo(ChildServer):
    """Answers what it is told to do."""

    @message_handler
    def echo(self, *strings: str) -> None:
        """The same again."""
        self.client.write(*strings)

    @message_handler
    def pid(self) -> None:
        """The server's."""
        self.client.write(str(os.getpid()))

    @message_handler
    def random(self) -> None:
        """A number."""
        self.client.write(str(random.random()))

    @message_handler
    def fail(self, text: str) -> None:
        """An exception."""
        raise ValueError(text)

    @message_handler
    def leave(self, status: str) -> None:
        """By sys.exit."""
        sys.exit(int(status))

    @message_handler
    def quit(self) -> None:
        """The main loop."""
        self.quit_main()

    @message_handler
    def hang(self) -> None:
        """Until somebody ends it, and say so before."""
        self.client.write("hanging")
        while True:
            time.sleep(1000)


class Stubborn(Echo):
    """SIGTERM does not end it."""

    def initialize_server(self) -> None:
        """Ignore it."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def ask(server: ChildServer, *message: str) -> list[str] | None:
    """What it answers."""
    server.server.write(*message)
    return server.server.read(timeout=10)


@contextlib.contextmanager
def owned(start: Callable[[MessageChannel], object]) -> Iterator[tuple[int, MessageChannel]]:
    """A process that calls the function, which may start servers, with a channel to the test, and waits for ever.

    Its pid, and the test's end. It is killed at the end of the block, if it is still there.
    """
    ours, theirs = MessageChannel.pair(timeout=10)
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            start(theirs)
            theirs.read(timeout=None)
        except BaseException as error:  # noqa: BLE001 (the test hears of it)
            with contextlib.suppress(Exception):
                theirs.write_error(error)
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        try:
            yield pid, ours
        finally:
            procs.send(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
