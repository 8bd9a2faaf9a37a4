"""What a message looks like in its frame, and what may be written."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any, Protocol

from daemonize.channel_errors import MalformedMessage, RemoteError, UnknownMessage
from daemonize.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LENGTH = 4
#: Characters of each part of an error that are sent, at most: of a traceback, both ends say most.
_MOST = {"type": 200, "text": 4000, "message": 1000, "traceback": 16_000}
#: Bytes of an error, at most: as many as so many characters can become in JSON.
MOST_OF_ERROR = 12 * sum(_MOST.values()) + 1000
Bytes = bytes | bytearray | memoryview


class HasFileno(Protocol):
    """An open file, a socket."""

    def fileno(self) -> int:
        """Its descriptor."""


def body_of_list(strings: Sequence[str | bytes]) -> bytes:
    """Each string's length (32 bit, network order), and its bytes. Raises UsageError."""
    parts: list[bytes] = []
    for string in strings:
        data = _encoded(string)
        parts += len(data).to_bytes(_LENGTH, "big"), data
    return b"".join(parts)


def _encoded(string: str | bytes) -> bytes:
    if isinstance(string, bytes):
        return string
    try:
        return string.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"{string!r} cannot be written: {error}") from None
    except AttributeError:
        hint = "; write(*strings) takes one by one"
        raise UsageError(f"a list is of str and bytes, and {string!r} is neither{hint}") from None


def list_of(body: bytes) -> list[str]:
    """What is not UTF-8 becomes surrogates, as in names of files (os.fsencode). Raises MalformedMessage."""
    strings, at = [], 0
    while at < len(body):
        end = at + _LENGTH + int.from_bytes(body[at : at + _LENGTH], "big")
        if end > len(body):
            raise MalformedMessage(f"a string of the list is to end at byte {end} of {len(body)}")
        strings.append(body[at + _LENGTH : end].decode("utf-8", "surrogateescape"))
        at = end
    return strings


def body_of_scalar(data: Bytes) -> bytes | memoryview:
    """The bytes themselves, and not a copy. Raises UsageError."""
    if isinstance(data, bytes):
        return data
    try:
        return memoryview(data).cast("B")
    except TypeError:
        raise UsageError(f"a scalar is a row of bytes, and {data!r} is not") from None


def body_of_object(value: dict[str, Any]) -> bytes:
    """JSON (RFC 8259). Raises UsageError."""
    if not isinstance(value, dict):
        raise UsageError(f"an object is a dict, and {value!r} is not")
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"this is no JSON object: {error}") from None


def object_of(body: bytes) -> dict[str, Any]:
    """Raises MalformedMessage."""
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"it is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise MalformedMessage("it is JSON, and no object")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def body_of_error(error: object, message: object) -> bytes:
    """An exception as JSON, shortened. message: the name of the message that it answers. Raises UsageError."""
    if not isinstance(error, BaseException) or not isinstance(message, str):
        raise UsageError(f"an error is an exception and the name of a message, not {error!r} and {message!r}")
    if isinstance(error, RemoteError):
        parts = {name: str(getattr(error, name)) for name in _MOST}
    else:
        parts = {
            "type": type_of(error),
            "text": text_of(error),
            "message": message,
            "traceback": "".join(traceback.format_exception(error)),
        }
    return json.dumps({name: _shortened(text, _MOST[name]) for name, text in parts.items()}).encode()


def type_of(error: BaseException) -> str:
    """The name of its class, with its module unless that is Python's own."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    """What it says; nothing where it cannot."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 (another's __str__)
        return ""


def _shortened(text: str, most: int) -> str:
    half = most // 2 - 10
    return text if len(text) <= most else f"{text[:half]}\n[...]\n{text[-half:]}"


def error_of(body: bytes) -> RemoteError:
    """Raises MalformedMessage."""
    parts = object_of(body)
    if parts.keys() != _MOST.keys() or not all(isinstance(part, str) for part in parts.values()):
        raise MalformedMessage("an error has a type, a text, a message and a traceback")
    kind = UnknownMessage if parts["type"] == UnknownMessage.__name__ else RemoteError
    error = kind(**parts)
    if error.traceback:
        error.add_note(f"in the other process:\n{error.traceback.rstrip()}")
    return error


def descriptor_of(file: HasFileno | int) -> int:
    """Raises UsageError."""
    try:
        fd: object = file if isinstance(file, int) else file.fileno()
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise UsageError(
            f"an open file, or the number of one, is wanted, and not {file!r}: {error}"
        ) from None
    if not isinstance(fd, int) or not 0 <= fd < 1 << 31:
        raise UsageError(f"an open file, or the number of one, is wanted, and {fd} is none")
    return fd
