"""The name beside a file under which its successor is prepared: whoever has locked it changes the file.

    launch A   lock .NAME.new   ... what it is to be ...   rename .NAME.new to NAME
    launch B                    lock .NAME.new: taken

Nobody else can open it: a lock on NAME could be kept by any of its readers.
"""

from __future__ import annotations

import errno
import os
from time import monotonic

from daemonize.errors import AlreadyRunning, printable
from daemonize.posix.locks import TakenError, open_locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize.posix.paths import Place

_LONGEST_NAME = 255


def reservation_name(name: bytes) -> bytes:
    """That of the file of this name."""
    if len(b".%s.new" % name) <= _LONGEST_NAME:
        return b".%s.new" % name
    # A number stands for it, the same in every process (that of hash() is not).
    return b".%x.new" % (int.from_bytes(name, "big") % (2**127 - 1))


class Change:
    """With it, nobody else who asks for it changes what lies at a place. Raises OSError.

    Of a socket file, say, which is made at once: the reservation is there for a moment only. Raises AlreadyRunning, too, if
    somebody keeps it for `patience` seconds. what, path: how he is told of.
    """

    def __init__(self, place: Place, what: str, path: str, patience: float) -> None:
        self._reservation = place.beside(reservation_name(place.name))
        name = printable(os.fsdecode(self._reservation.name))
        try:
            self._fd = open_locked(self._reservation, write=True, until=monotonic() + patience)
        except TakenError as taken:
            raise AlreadyRunning(what, path, *taken.holder, launching=True) from None
        except OSError as error:
            raise OSError(error.errno, f"{name} beside it: {error.strerror}") from None
        if os.fstat(self._fd).st_size:
            raise OSError(errno.EEXIST, f"{name} beside it: it is there already, and not empty")

    def __enter__(self) -> None:
        """It is had already."""

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        try:
            if self._reservation.holds(self._fd):
                self._reservation.unlink()
        except OSError:
            pass  # what is left is empty, and the next one uses it
        self._reservation.shut(self._fd)
