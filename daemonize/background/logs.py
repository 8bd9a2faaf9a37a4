"""What a server says: two files without a name, which it appends to and we read."""

from __future__ import annotations

import fcntl
import os
import tempfile

from daemonize.errors import SetupError

_STREAMS = ("out", "err")


class Logs:
    """The logs of one server. opened: descriptors of logs that there are already, for stdout and stderr.

    Raises SetupError.
    """

    def __init__(self, opened: tuple[int, int] | None = None) -> None:
        self.descriptors: tuple[int, ...] = opened or ()
        try:
            while len(self.descriptors) < len(_STREAMS):
                self.descriptors += (_make(),)
        except OSError as error:
            raise SetupError("make", "a file for its output", error) from None

    def bytes(self, stream: str = "", since: int = 0) -> bytes:
        """What was said on `out`, or `err`, or on both, one after the other, beyond so many bytes."""
        streams = [stream] if stream else list(_STREAMS)
        return b"".join(_read(self.descriptors[_STREAMS.index(name)], since) for name in streams)

    def text(self, stream: str) -> str:
        """What was said on `out`, or `err`. What is not UTF-8 is escaped."""
        return _text(self.bytes(stream))

    @property
    def sizes(self) -> tuple[int, int]:
        """How many bytes were said on each."""
        out, err = (os.fstat(fd).st_size for fd in self.descriptors)
        return out, err

    def numbered(self, since: tuple[int, int] = (0, 0), most: int | None = None) -> str:
        """The lines, those of stdout first: `  out 0: text`, with as many digits for each as for their count.

        since: only what was said beyond so many bytes on each. most: only so many of the last lines of each (None: all).
        """
        return "\n".join(
            _numbered(stream, _text(self.bytes(stream, beyond)), most)
            for stream, beyond in zip(_STREAMS, since, strict=True)
        )

    def __del__(self) -> None:
        for fd in self.descriptors:
            os.close(fd)


def _make() -> int:
    with tempfile.TemporaryFile(buffering=0) as file:
        fd = os.dup(file.fileno())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd


def _read(fd: int, since: int) -> bytes:
    parts = []
    while data := os.pread(fd, 1 << 20, since):
        parts.append(data)
        since += len(data)
    return b"".join(parts)


def _text(said: bytes) -> str:
    return said.decode("utf-8", "backslashreplace")


def _numbered(stream: str, text: str, most: int | None) -> str:
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        return f"{stream}: <empty>"
    digits, left_out = len(str(len(lines))), 0 if most is None else max(len(lines) - most, 0)
    shown = [f"  {stream} {number:0{digits}}: {line}" for number, line in enumerate(lines)][left_out:]
    return "\n".join([f"  {stream}: {left_out} lines before these"] * bool(left_out) + shown)
