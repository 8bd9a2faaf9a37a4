"""Names that users give to daemons: each is the name of files."""

from __future__ import annotations

import os

from daemonize.errors import UsageError, printable
from daemonize.registry.entry import LONGEST_NAME, LONGEST_NUMBER, MOST_BYTES, fit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def is_name(text: str) -> bool:
    """Whether there can be a daemon of that name: with a number, it may be longer than one that is given."""
    try:
        return 0 < len(os.fsencode(text)) <= MOST_BYTES + LONGEST_NUMBER and not {"/", "\0"} & {*text}
    except UnicodeEncodeError:
        return False


def check_name(name: str) -> str:
    """A name that a user gives. Raises UsageError."""
    if not isinstance(name, str):
        raise UsageError(f"the name of a daemon must be text, not {name!r}")
    if not is_name(name) or len(name) > LONGEST_NAME or fit(os.fsencode(name), LONGEST_NAME) != name:
        raise UsageError(
            f"'{printable(name)}' cannot be the name of a daemon; write at most {LONGEST_NAME} letters, digits or signs, "
            "without blanks and slashes, and no '.' or '-' first"
        )
    return name


def similar(word: str, among: Iterable[str]) -> list[str]:
    """What somebody may have meant: the word that is most like his, if there is one."""
    from difflib import get_close_matches  # only where somebody has mistyped

    return get_close_matches(word, list(among), 1)
