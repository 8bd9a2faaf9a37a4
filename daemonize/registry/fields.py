"""The fields of a record, and what each may be.

A record is believed by whoever signals processes and opens files by it. So whatever passes here can be used without another
look: numbers are such as the kernel takes, text is such as can be a path, and the token is one that a launch has made.
"""

from __future__ import annotations

import os

from daemonize.notify import ID
from daemonize.registry.content import LAST_PID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[object], bool]

#: The last second that has a date of four digits.
_LAST_SECOND = 253_402_300_799
# An empty one, or HOME=/root, would be found in the environment of every process.
_MARK = ID.decode() + "="
_HEX = frozenset("0123456789abcdef")


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_pid(value: object) -> bool:
    return _is_count(value) and 0 < value <= LAST_PID  # type: ignore[operator]


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LAST_SECOND


def _is_token(value: object) -> bool:
    if not isinstance(value, str) or not value.startswith(_MARK):
        return False
    digits = value.removeprefix(_MARK)
    return 8 <= len(digits) <= 64 and _HEX.issuperset(digits)


def _are_tokens(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_token, value))


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict) and _is_list([*value, *value.values()])


def _is_command(value: object) -> bool:
    return isinstance(value, list) and bool(value) and _is_list(value)


def _are_settings(value: object) -> bool:
    """Those that are used without a Request being made of them; that one looks at all."""
    if not isinstance(value, dict) or not _is_command(value.get("command")):
        return False
    grace = value.get("stop_timeout", 0)
    return grace == "infinity" or _is_seconds(grace)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


FIELDS: Mapping[str, Check] = {
    "name": _is_text,
    "pid": _or_none(_is_pid),
    "start": _is_count,
    "boot_id": _is_text,
    "explicit": _is_flag,
    "since": _is_count,
    "session": _is_count,
    "token": _is_token,
    "former": _are_tokens,
    "process": _is_text,
    "ready": _is_flag,
    "foreground": _is_flag,
    "by_option": _is_flag,
    "began": _is_seconds,
    "seconds": _is_seconds,
    "stopped": _or_none(_is_seconds),
    "stdout": _is_text,
    "stderr": _is_text,
    "pid_file": _or_none(_is_text),
    "pid_file_is_locked": _is_flag,
    "drain": _or_none(_is_pid),
    "drain_start": _is_count,
    "notify_socket": _or_none(_is_text),
    "listen": _is_list,
    "found": _is_mapping,
    "directory": _or_none(_is_text),
    "program": _or_none(_is_text),
    "settings": _are_settings,
}
