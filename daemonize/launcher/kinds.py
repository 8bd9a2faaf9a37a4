"""What Python code may give for the keywords of `launch()` and `BackgroundServer()`; a command line gives only text."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from daemonize.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Text = TypeVar("Text", bound=str)

_PATH = (str, bytes, os.PathLike), "a path"
_MAPPING = Mapping, "a mapping of names to values"
_SWITCH = bool, "True or False"
_SECONDS = (int, float, str), "a number of seconds, or text such as '5s'"
#: By keyword: kinds of values, and how to call them. None is left to others.
_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    **dict.fromkeys(("cwd", "stdout", "stderr", "stdin", "chroot", "pid_file", "lock_file"), _PATH),
    **dict.fromkeys(("env", "limits"), _MAPPING),
    **dict.fromkeys(("strict", "clear_env", "append", "timestamps", "safe"), _SWITCH),
    **dict.fromkeys(("timeout", "stop_timeout", "boot_timeout", "term_timeout"), _SECONDS),
    "keep_fds": (Iterable, "a list of descriptors"),
    "ready": (Iterable, "a readiness spec, or a list of them"),
    "listen": (Iterable, "an address to listen on, or a list of them"),
    "log_rotate": ((str, tuple), "text such as '10M:5', or (bytes, how many are kept)"),
    "shared": (str, "a name"),
}


def check(given: Mapping[str, object]) -> None:
    """given: by keyword; others than those above are not looked at. Raises UsageError that names the first bad one."""
    for name, value in given.items():
        kinds, said = _KINDS.get(name, (object, ""))
        if value is not None and not isinstance(value, kinds):
            raise UsageError(f"{name} must be {said}, not {value!r}")


@contextlib.contextmanager
def refusing(call: str) -> Iterator[None]:
    """A value of a wrong type within one of the right kind, wherever it comes to light, is a UsageError.

    So is a number that is too large, and text that no file name or environment can hold (half a character).
    """
    try:
        yield
    except (TypeError, AttributeError, OverflowError, UnicodeEncodeError) as error:
        raise UsageError(f"an argument of {call} cannot be used: {error}") from error


def several(given: Text | Sequence[Text] | None) -> tuple[Text, ...]:
    """One, or a list of them, or None, as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given or ())
