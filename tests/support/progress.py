"""What the command says on its way, under `-v`."""

from __future__ import annotations

import signal
from typing import IO, TYPE_CHECKING, Any

from tests.support import cli

if TYPE_CHECKING:
    import subprocess


def line_with(stream: IO[bytes] | None, text: bytes) -> bytes:
    """The next line of a pipe that has it. An AssertionError if none has."""
    assert stream
    said = []
    for line in stream:
        said.append(line)
        if text in line:
            return line
    raise AssertionError(f"{text!r} is not in {said!r}")


def await_line(wrapper: subprocess.Popen[bytes], text: str) -> None:
    """Read its stderr until a line has `text` in it. An AssertionError if none has."""
    line_with(wrapper.stderr, text.encode())


def assert_not_yet(reason: str, *words: cli.Word, **how: Any) -> None:
    """A launch says, sooner or later, that this is why it is not ready; then it is interrupted."""
    with cli.popen("-v", "-t", "20s", *words, **how) as wrapper:
        try:
            await_line(wrapper, f": not yet: {reason}")
        finally:
            wrapper.send_signal(signal.SIGINT)
            wrapper.communicate(timeout=20)
