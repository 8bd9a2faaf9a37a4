"""Time stamps in logs: `2026-11-21T18:20:33.123456Z ` before a line, in UTC."""

from __future__ import annotations

import re
from datetime import datetime

#: Bytes of a time stamp, with the space that ends it.
LENGTH = 28
_FORM = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ")


def moment(line: bytes) -> float | None:
    """The time that a line begins with, in seconds since the epoch; None if it begins with none."""
    if not _FORM.match(line):
        return None
    try:
        return datetime.fromisoformat(line[: LENGTH - 1].decode("ascii")).timestamp()
    except ValueError:
        return None
