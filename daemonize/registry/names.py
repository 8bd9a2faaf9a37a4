"""Names of daemons: each is the name of files."""

from __future__ import annotations

import os

from daemonize.errors import UsageError, printable

#: Characters of a name, and bytes: a file name has 255 with what stands before and after it.
_LONGEST_NAME, _MOST_BYTES = 100, 230
_LONGEST_NUMBER = 6


def base_name(command: bytes) -> str:
    """A name for a daemon that was given none: the command's base name, fit to be a file name, with room for a number."""
    return _fit(command, _LONGEST_NAME - _LONGEST_NUMBER)


def _fit(command: bytes, longest: int) -> str:
    name = os.fsdecode(os.path.basename(command.rstrip(b"/"))[:_MOST_BYTES])[:longest]
    return "".join(c if c.isprintable() and not c.isspace() else "_" for c in name).lstrip(".-") or "daemon"


def is_name(text: str) -> bool:
    """Whether there can be a daemon of that name: with a number, it may be longer than one that is given."""
    try:
        return 0 < len(os.fsencode(text)) <= _MOST_BYTES + _LONGEST_NUMBER and not {"/", "\0"} & {*text}
    except UnicodeEncodeError:
        return False


def check_name(name: str) -> str:
    """A name that a user gives. Raises UsageError."""
    if not isinstance(name, str):
        raise UsageError(f"the name of a daemon must be text, not {name!r}")
    if not is_name(name) or len(name) > _LONGEST_NAME or _fit(os.fsencode(name), _LONGEST_NAME) != name:
        raise UsageError(
            f"'{printable(name)}' cannot be the name of a daemon; write at most {_LONGEST_NAME} letters, digits or signs, "
            "without blanks and slashes, and no '.' or '-' first"
        )
    return name
