"""The parser for the usual case. It accepts only what it positively recognises; all else goes to click from scratch.

Importing click takes longer than starting most servers. Whatever is accepted here, click reads alike (a property test).
"""

from __future__ import annotations

import os

from daemonize.cli.options import FLAG, MANY, OPTIONS
from daemonize.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize.cli.options import Option

_BY_NAME = {name: option for option in OPTIONS for name in option.names}


class _NotRecognisedError(Exception):
    """Let click look at it."""


def parse(arguments: list[str]) -> tuple[dict[str, object], list[str]] | None:
    """The options that were given, by `dest`, and the command; None: not a usual case."""
    try:
        return _parse(arguments)
    except (_NotRecognisedError, UsageError):
        return None


def _parse(arguments: list[str]) -> tuple[dict[str, object], list[str]]:
    found: dict[str, object] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            _long(word, rest, found)
        else:
            _short(word, rest, found)
    if not rest:
        raise _NotRecognisedError
    for option in OPTIONS:
        value = os.environ.get(option.envvar) if option.envvar and option.dest not in found else None
        if value:
            found[option.dest] = option.convert(value)
    return found, rest


def _long(word: str, rest: list[str], found: dict[str, object]) -> None:
    name, equals, value = word.partition("=")
    option = _option(name)
    if option.kind == FLAG:
        if equals:
            raise _NotRecognisedError
        found[option.dest] = True
    else:
        _store(option, value if equals else _next(rest), found)


def _short(word: str, rest: list[str], found: dict[str, object]) -> None:
    letters = word[1:]
    while letters:
        option = _option("-" + letters[0])
        letters = letters[1:]
        if option.kind == FLAG:
            found[option.dest] = True
        else:
            _store(option, letters or _next(rest), found)
            return


def _option(name: str) -> Option:
    option = _BY_NAME.get(name)
    if option is None:
        raise _NotRecognisedError
    return option


def _next(rest: list[str]) -> str:
    # A value that looks like an option is left to click to judge.
    if not rest or rest[0].startswith("-"):
        raise _NotRecognisedError
    return rest.pop(0)


def _store(option: Option, text: str, found: dict[str, object]) -> None:
    value = option.convert(text)
    if option.kind == MANY:
        found[option.dest] = (*found.get(option.dest, ()), value)  # type: ignore[misc]
    else:
        found[option.dest] = value
