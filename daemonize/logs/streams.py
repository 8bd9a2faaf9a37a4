"""Which logs a daemon has, by its record, and the last words in them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Protocol

from daemonize.errors import printable
from daemonize.logs.files import from_newest, key_of, there
from daemonize.logs.stamps import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The last bytes of a file in which its last words are looked for, and the most of one line.
_LAST, _LONGEST = 65536, 4096


class Kept(Protocol):
    """What is asked of the record of a daemon."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def stdout(self) -> str:
        """The file that its stdout goes to."""

    @property
    def stderr(self) -> str:
        """The file that its stderr goes to."""

    @property
    def foreground(self) -> bool:
        """Whether it was started in the foreground."""

    @property
    def began(self) -> float:
        """When it was ready, in seconds since the epoch."""

    @property
    def seconds(self) -> float:
        """How long that took."""

    @property
    def settings(self) -> Mapping[str, object]:
        """What was asked for."""


def streams_of(record: Kept, *, stderr_only: bool = False) -> dict[str, str]:
    """The path of each stream's log: of `stdout` and `stderr`; of `output`, where both go to one file."""
    if stderr_only:
        return {"stderr": record.stderr}
    if _are_one(record.stdout, record.stderr):
        return {"output": record.stdout}
    return {"stdout": record.stdout, "stderr": record.stderr}


def _are_one(path: str, other: str) -> bool:
    if path == other:
        return path != os.devnull
    try:
        one, two = there(path), there(other)
    except OSError:
        return False
    return bool(one and two and key_of(one) == key_of(two))


def why_none(record: Kept, stream: str, path: str) -> str | None:
    """Why there is no log of a stream and will be none, in words; None if there may be one."""
    if path == os.devnull and record.foreground:
        return f"{printable(record.name)} keeps no log of its {stream}: it runs in the foreground of who started it"
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    if stat.S_ISCHR(mode):
        return f"{printable(record.name)} keeps no log of its {stream} (it goes to {printable(path)})"
    return None


def last_lines(record: Kept, count: int) -> list[tuple[str, bytes]]:
    """The last lines of a daemon, (stream, line without its end), for a glance: the last of both if they have time stamps.

    Else so many of each stream, stdout's first. Never raises; what cannot be read is left out, and so is what is far from
    the end, and a file that nobody has written to since its launch: those would be the words of an earlier one. Long lines
    are cut.
    """
    launched = record.began - record.seconds
    found: list[tuple[str, bytes]] = []
    for stream, path in streams_of(record).items():
        try:
            found += [(stream, line[:_LONGEST]) for line in _last_of(path, count, launched)]
        except OSError:
            continue
    if all(parse(line) is not None for _, line in found):
        found.sort(key=lambda told: parse(told[1]) or 0.0)
        del found[: max(0, len(found) - count)]
    return found


def _last_of(path: str, count: int, since: float) -> list[bytes]:
    lines: list[bytes] = []
    for fd in from_newest(path):
        try:
            status = os.fstat(fd)
            if status.st_mtime < since:
                break
            size = status.st_size
            begin = max(0, size - _LAST)
            data = os.pread(fd, _LAST, begin)
        finally:
            os.close(fd)
        here = data.removesuffix(b"\n").split(b"\n") if data else []
        if begin and len(here) > 1:
            del here[0]
        lines = [*here, *lines]
        if begin or len(lines) >= count:
            break
    return lines[max(0, len(lines) - count) :]
