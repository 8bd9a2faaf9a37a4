"""What a server says: two files without a name, which it appends to and we read."""

from __future__ import annotations

import fcntl
import os
import tempfile

from daemonize.errors import SetupError

_STREAMS = ("out", "err")
#: Bytes that are read at once.
_CHUNK = 1 << 20


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
            _numbered(stream, *_last_lines(fd, beyond, most))
            for stream, fd, beyond in zip(_STREAMS, self.descriptors, since, strict=True)
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
    while data := os.pread(fd, _CHUNK, since):
        parts.append(data)
        since += len(data)
    return b"".join(parts)


def _text(said: bytes) -> str:
    return said.decode("utf-8", "backslashreplace")


def _last_lines(fd: int, since: int, most: int | None) -> tuple[int, list[str]]:
    """How many lines are left out, and the last ones.

    Of a server that has said a gigabyte no more than these is in memory: not each of its lines, to be counted.
    """
    if most is None:
        left_out, kept = 0, _read(fd, since)
    else:
        left_out, kept = 0, b""
        while data := os.pread(fd, _CHUNK, since):
            since += len(data)
            kept += data
            surplus = kept.count(b"\n") - kept.endswith(b"\n") + 1 - most
            if surplus > 0:
                left_out += surplus
                kept = kept[len(kept.rsplit(b"\n", most + kept.endswith(b"\n"))[0]) + 1 :]
    lines = _text(kept).split("\n")
    if not lines[-1]:
        lines.pop()
    return left_out, lines


def _numbered(stream: str, left_out: int, lines: list[str]) -> str:
    if not lines:
        return f"{stream}: <empty>"
    digits = len(str(left_out + len(lines)))
    shown = [f"  {stream} {number:0{digits}}: {line}" for number, line in enumerate(lines, left_out)]
    return "\n".join([f"  {stream}: {left_out} lines before these"] * bool(left_out) + shown)
