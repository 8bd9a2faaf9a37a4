"""Lock files: one server at a time.

A lock is flock(2) on a file that is never removed: it is held as long as any process has the descriptor, and gone with the
last of them, however that ended. Who gets a lock looks whether the path still names what was locked: it may have been
renamed or removed in between.
"""

from __future__ import annotations

import errno
import os
from time import monotonic, sleep

from daemonize.errors import AlreadyRunning, SetupError
from daemonize.posix.fds import Descriptors, lock, try_lock
from daemonize.posix.paths import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from daemonize.posix.holders import Holder

    Waits = Callable[[Callable[[Any], object], Any], None]

_TRIES = 100
#: Longest pause between two looks at a lock that is waited for, in seconds.
_PAUSE = 0.01


class TakenError(Exception):
    """Somebody else has the lock."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        super().__init__(holder)


def take(fd: int) -> None:
    """Take the lock. Raises TakenError, OSError."""
    if try_lock(fd):
        return
    from daemonize.posix.holders import NOBODY, holder_of

    holder = holder_of(fd)
    # Where nobody was found, it may have been let go of while we looked.
    if holder != NOBODY or not try_lock(fd):
        raise TakenError(holder)


def _at_once(function: Callable[[Any], object], argument: object) -> None:
    function(argument)


def _take_until(fd: int, end: float | None, waits: Waits = _at_once) -> None:
    """Take the lock, and wait for it until then (monotonic time; None: for ever). Raises TakenError, OSError.

    waits: calls what waits.
    """
    if end is None:
        waits(lock, fd)
        return
    pause = 0.001  # flock(2) knows no timeout
    while monotonic() < end:
        if try_lock(fd):
            return
        waits(sleep, pause)
        pause = min(pause * 1.5, _PAUSE)
    take(fd)


def open_locked(place: Place, *, write: bool, until: float | None = 0.0, waits: Waits = _at_once) -> int:
    """The file that lies there, made if need be, locked. Raises TakenError, OSError."""
    for _ in range(_TRIES):
        fd = place.open(write=write)
        if fd is None:
            fd = place.create(write=write)
        if fd is None:
            continue
        if os.fstat(fd).st_nlink > 1:
            raise OSError(errno.EMLINK, "it has a second name (a hard link)")
        _take_until(fd, until, waits)
        if place.holds(fd):
            return fd
        place.shut(fd)
    raise OSError(errno.EBUSY, "it is removed and made anew all the time")


def _lock_unwritable(place: Place, until: float | None, waits: Waits) -> int:
    """Locked through a descriptor that cannot be written to: the server has it, and must not choose whom root stops."""
    try:
        return open_locked(place, write=False, until=until, waits=waits)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
    return open_locked(place, write=True, until=until, waits=waits)  # flock(2): NFS will have it so


class LockFile:
    """A lock file (-l), locked. Never truncated, never removed. Raises AlreadyRunning, SetupError.

    fd: the lock is held as long as any process has it. path: absolute. trusted: uids, besides root and this one, whose
    file may be used where others can write. until: the monotonic time until which it is waited for; None: for ever.
    waits: calls what waits.
    """

    def __init__(
        self,
        path: bytes,
        owner: Descriptors,
        trusted: Collection[int] = (),
        until: float | None = 0.0,
        waits: Waits = _at_once,
    ) -> None:
        try:
            self.fd = _lock_unwritable(Place.at(path, owner, trusted), until, waits)
        except TakenError as taken:
            raise AlreadyRunning("lock file", os.fsdecode(path), *taken.holder) from None
        except OSError as error:
            raise SetupError("lock", os.fsdecode(path), error) from None
