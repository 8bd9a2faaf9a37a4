"""An exception of a child's, as its owner is told of it.

A pickle of (exception, type, text, traceback): the exception is a pickle itself, or b"" where there can be none.
"""

from __future__ import annotations

import pickle
from typing import NamedTuple, TypeVar

from daemonize.channel import codec

E = TypeVar("E", bound=BaseException)


class Failure(NamedTuple):
    """exception: None where it cannot be had, or would not belong to the program alone.

    type, text, traceback: as RemoteError has them.
    """

    exception: Exception | None
    type: str
    text: str
    traceback: str

    @property
    def words(self) -> str:
        """Type and text in one line."""
        return f"{self.type}: {' '.join(self.text.split())}" if self.text else self.type


def packed(error: BaseException) -> bytes:
    """In the child."""
    try:
        pickled = pickle.dumps(error)
    except Exception:  # noqa: BLE001 (whatever its class does)
        pickled = b""
    body = codec.object_of(codec.body_of_error(error, ""))
    return pickle.dumps((pickled, body["type"], body["text"], body["traceback"]))


def unpacked(told: bytes) -> Failure:
    """In the owner."""
    pickled, kind, text, traceback = pickle.loads(told)  # noqa: S301 (our own child, which has met nobody yet)
    return Failure(_unpickled(pickled), kind, text, traceback)


def _unpickled(pickled: bytes) -> Exception | None:
    """An exception that belongs to nobody but the program: KeyboardInterrupt, say, would not be the owner's."""
    try:
        error = pickle.loads(pickled)  # noqa: S301 (likewise)
    except BaseException:  # noqa: BLE001 (whatever its class does)
        return None
    return error if isinstance(error, Exception) else None


def noted(error: E, *said: tuple[str, str]) -> E:
    """For Python's own report of it: what was said, by whom or where."""
    for what, text in said:
        if text:
            error.add_note(f"{what}:\n{text.rstrip()}")
    return error
