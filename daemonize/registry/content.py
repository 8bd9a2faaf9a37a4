"""The text of a record: one line of JSON (RFC 8259), in ASCII. A launch has no time to load a library for it.

It begins with the fields that say whether its daemon runs, in a fixed order: they can be read without looking at the rest.
Whatever does not begin like that is left to registry/record.py.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
_FIRST = ("version", "pid", "start", "boot_id", "explicit")
_BEGIN = b'{"version": %d, "pid": ' % VERSION
#: The largest number that the kernel takes for a pid.
LAST_PID = (1 << 31) - 1
_LONGEST = 200  # bytes that these fields have at most
_MOST_FORMER = 8


class Head:
    """What a launch must know of a record. pid: None where nobody knew it. start: clock ticks. explicit: --name."""

    __slots__ = ("boot_id", "explicit", "pid", "start")

    def __init__(self, pid: int | None, start: int, boot_id: str, explicit: bool) -> None:
        self.pid, self.start, self.boot_id, self.explicit = pid, start, boot_id, explicit


def read_head(text: bytes) -> Head | None:
    """The first fields; None if it does not look like what `write` writes."""
    if not (text.startswith(_BEGIN) and text.endswith(b"}\n")):
        return None
    parts = text[:_LONGEST].split(b", ", len(_FIRST))[: len(_FIRST)]
    values = [part.partition(b": ")[2] for part in parts]
    names = [part.partition(b": ")[0].strip(b'{"').decode("ascii", "replace") for part in parts]
    if tuple(names) != _FIRST or values[4] not in (b"true", b"false"):
        return None
    pid, start, boot_id = values[1], values[2], values[3].strip(b'"')
    if not (pid.isdigit() or pid == b"null") or not start.isdigit():
        return None
    number = None if pid == b"null" else int(pid)
    if number is not None and not 0 < number <= LAST_PID:
        return None
    return Head(number, int(start), boot_id.decode("ascii", "replace"), values[4] == b"true")


def read_marks(text: bytes) -> list[str]:
    """The tokens of what may be left of a daemon that has ended, in a text that `read_head` could read.

    None of one that has been stopped: there is nothing left of it. (In words of somebody's a quote follows a backslash.)
    """
    if b'"stopped": null' not in text:
        return []
    token, former = (text.partition(mark)[2] for mark in (b'"token": "', b'"former": ['))
    found = [token.partition(b'"')[0], *(part.strip(b' "') for part in former.partition(b"]")[0].split(b","))]
    return [mark.decode("ascii", "replace") for mark in found if mark][:_MOST_FORMER]


def write(fields: Mapping[str, object]) -> bytes:
    """The text of a record. fields: among them the first ones."""
    ordered = {"version": VERSION, **{name: fields[name] for name in _FIRST[1:]}, **fields}
    return _encode(ordered).encode("ascii") + b"\n"


def _encode(value: object) -> str:
    """Of what a launch is made of; bytes are text, as the system encodes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value == float("inf"):
        return '"infinity"'
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, bytes)):
        return _text(os.fsdecode(value))
    if isinstance(value, dict):
        pairs = (f"{_text(os.fsdecode(key))}: {_encode(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[" + ", ".join(map(_encode, value)) + "]"
    raise TypeError(f"{value!r} cannot be in a record")


def _text(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    try:
        from _json import encode_basestring_ascii  # with which `json` does it, and loads `re`, too
    except ImportError:
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii(text)
