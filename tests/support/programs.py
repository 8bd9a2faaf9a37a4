"""Argument lists for the tiny servers in tests/programs/, and the trigger that holds one back until a test says so."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

DIRECTORY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "programs")

#: Started fast: without site-packages, and blind to the caller's PYTHON* variables.
PYTHON = (sys.executable, "-S", "-E")
SHELL = shutil.which("sh") or "/bin/sh"


def program(name: str, *args: str | int) -> list[str]:
    """The argument list that runs tests/programs/NAME (`.py` where no ending is given)."""
    path = os.path.join(DIRECTORY, name if "." in name else f"{name}.py")
    assert os.path.exists(path), f"there is no program {path}"
    interpreter = PYTHON if path.endswith(".py") else (SHELL,)
    return [*interpreter, path, *map(str, args)]


class Trigger:
    """A FIFO that a program waits on (its argument `until=PATH`) until the test releases it.

    "Not ready yet" is then a fact and not a guess. If the test dies, its end closes and the program goes on.
    """

    def __init__(self, directory: str | os.PathLike[str], name: str = "trigger") -> None:
        self.path = os.path.join(directory, name)
        os.mkfifo(self.path)
        # Opened for both directions: then neither this open nor the program's blocks.
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    @property
    def arg(self) -> str:
        """The argument that makes a program wait for this trigger."""
        return f"until={self.path}"

    def release(self) -> None:
        """Let the program go on (once for each program that waits)."""
        os.write(self._fd, b".")

    def close(self) -> None:
        """Let every program go on, now and later."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # A program that opens the FIFO only now would wait for ever for a writer.
            os.unlink(self.path)
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
