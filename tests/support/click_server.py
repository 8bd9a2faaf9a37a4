"""examples/click_server.py as the tests of all supervisors run it: unchanged, and held back where it reads its greeting."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from tests.support import ports
from tests.support.procs import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATH = os.path.join(ROOT, "examples", "click_server.py")


def command(port: int, *options: str) -> list[str]:
    """The argument list that runs it on this port."""
    return [sys.executable, PATH, "--port", str(port), *options]


class Answer(NamedTuple):
    """What a client gets: the greeting, and the pid of the server as that sees it."""

    greeting: str
    pid: int


def ask(port: int) -> Answer:
    """Connect, once, and read the answer. OSError if nobody listens."""
    greeting, _, pid = ports.ask(port, b"").decode().rpartition(" from pid ")
    return Answer(greeting, int(pid))


class Greeting:
    """A FIFO in place of the file with the greeting: the server waits there until it is told.

    "Not ready yet", or "reloading", is then a fact and not a guess. If the test dies, the greeting is empty.
    """

    def __init__(self, directory: str | os.PathLike[str], name: str = "greeting") -> None:
        self.path = os.path.join(directory, name)
        os.mkfifo(self.path)
        os.chmod(self.path, 0o644)

    @contextlib.contextmanager
    def asked(self) -> Iterator[Callable[[str], None]]:
        """Wait until the server asks; it waits for as long as the block lasts, unless it is answered by this function.

        An AssertionError or OSError if it does not ask in time.
        """
        with contextlib.ExitStack() as open_end:
            fd = eventually(lambda: os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), 20)
            open_end.callback(os.close, fd)

            def answer(text: str) -> None:
                os.write(fd, f"{text}\n".encode())
                open_end.close()

            yield answer
