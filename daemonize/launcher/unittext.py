"""How systemd wants words, values and paths to be written in a unit file (systemd.syntax(7), systemd.service(5)).

In words, what is odd is escaped; a path is taken as it stands there, but for `%`, so that not every path can be written.
"""

from __future__ import annotations

import os
import re
from math import isinf

#: Words that need no quotes. Any other has them: outside of quotes a lone `;` would end the command.
_PLAIN = re.compile(r"[\w@%+=:,./$-]+", re.ASCII)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}


def quote(text: str) -> str:
    """A word of Environment= and its like, percent signs doubled: else they are specifiers."""
    escaped = "".join(map(_escape, text)).replace("%", "%%")
    return escaped if _PLAIN.fullmatch(escaped) else f'"{escaped}"'


def argument(text: str) -> str:
    """A word of ExecStart=, where `$` is doubled, too: else it is a variable's."""
    return quote(text).replace("$", "$$")


def program(path: str, first: str) -> str:
    """The first words of ExecStart=: what is executed, and what it finds as its first argument, if that is another.

    In the path, and nowhere else, `$` stands for itself.
    """
    if "$" in path or os.path.basename(first) != os.path.basename(path):
        return f"@{quote(path)} {argument(first)}"
    return quote(path)


def _escape(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def is_program(path: str) -> bool:
    """Whether systemd executes a program of this name."""
    return is_text(path) and not any(c in "\"'\\\x7f" or c < " " for c in path)


def is_path(path: str) -> bool:
    """Whether a path can be written as it is: not what is no text, nor what would be taken for the layout of the file."""
    return path.isprintable() and path == path.strip() and not path.endswith("\\")


def is_value(text: str) -> bool:
    """Whether systemd takes it as the value of a variable: text without control characters, but for tabs and newlines."""
    return is_text(text) and not any((c < " " and c not in "\t\n") or c == "\x7f" for c in text)


def is_text(text: str) -> bool:
    """Whether all bytes of it are UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_name(text: str) -> bool:
    """Whether systemd takes it as the name of a variable."""
    return re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII) is not None


def is_account(text: str) -> bool:
    """Whether systemd takes it as the name, or the number, of a user or group."""
    return re.fullmatch(r"\w[\w.-]*", text, re.ASCII) is not None


def path(text: str) -> str:
    """A path, where one is wanted alone."""
    return text.replace("%", "%%")


def duration(seconds: float) -> str:
    """A time span. Nothing at all is a millisecond: zero would be for ever."""
    if isinf(seconds):
        return "infinity"
    return f"{max(seconds, 0.001):.3f}".rstrip("0").rstrip(".") + "s"
