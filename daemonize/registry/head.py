"""The beginning of a record: whether its daemon runs, for a launch, which has no time to load a JSON parser.

A record is one line of JSON that begins with these fields, in this order. What does not is left to registry/record.py.
"""

from __future__ import annotations

VERSION = 1
FIRST = ("version", "pid", "start", "boot_id", "explicit")
_BEGIN = b'{"version": %d, "pid": ' % VERSION
_LONGEST = 200  # bytes that these fields have at most


class Head:
    """What a launch must know of a record. pid: None where nobody knew it. start: clock ticks. explicit: --name."""

    __slots__ = ("boot_id", "explicit", "pid", "start")

    def __init__(self, pid: int | None, start: int, boot_id: str, explicit: bool) -> None:
        self.pid, self.start, self.boot_id, self.explicit = pid, start, boot_id, explicit


def read_head(text: bytes) -> Head | None:
    """The first fields; None if it does not look like what `write` writes."""
    if not (text.startswith(_BEGIN) and text.endswith(b"}\n")):
        return None
    parts = text[:_LONGEST].split(b", ", len(FIRST))[: len(FIRST)]
    values = [part.partition(b": ")[2] for part in parts]
    names = [part.partition(b": ")[0].strip(b'{"').decode("ascii", "replace") for part in parts]
    if tuple(names) != FIRST or values[4] not in (b"true", b"false"):
        return None
    pid, start, boot_id = values[1], values[2], values[3].strip(b'"')
    if not (pid.isdigit() or pid == b"null") or not start.isdigit():
        return None
    number = None if pid == b"null" else int(pid)
    return Head(number, int(start), boot_id.decode("ascii", "replace"), values[4] == b"true")
