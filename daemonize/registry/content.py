"""The text of a record: one line of JSON (RFC 8259), in ASCII. A launch has no time to load a library for it."""

from __future__ import annotations

import os

from daemonize.registry.head import FIRST, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def write(fields: Mapping[str, object]) -> bytes:
    """The text of a record. fields: among them the first ones."""
    ordered = {"version": VERSION, **{name: fields[name] for name in FIRST[1:]}, **fields}
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
    import json  # a few words in a thousand are odd; nobody escapes them better

    return json.dumps(text)
