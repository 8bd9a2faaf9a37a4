"""Time stamps of log lines: `2026-11-21T18:20:33.123456Z ` before each line. UTC, with microseconds."""

from __future__ import annotations

import time

#: Bytes of a time stamp and the space that follows it.
LENGTH = 28


def stamp(moment: float) -> bytes:
    """The time stamp of a moment, which is in seconds since the epoch, and the space that follows it."""
    microseconds = round(moment * 1_000_000)
    seconds, fraction = divmod(microseconds, 1_000_000)
    return b"%s.%06dZ " % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode(), fraction)


def parse(line: bytes) -> float | None:
    """The moment that a line begins with, in seconds since the epoch; None if it begins with none."""
    from datetime import datetime

    text = line[: LENGTH - 1]
    if len(line) < LENGTH or (text[10:11], text[19:20], line[26:LENGTH]) != (b"T", b".", b"Z "):
        return None
    try:
        return datetime.fromisoformat(text.decode("ascii")).timestamp()
    except ValueError:
        return None
