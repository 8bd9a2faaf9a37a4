"""A log and its rotated files, as they lie in their directory: NAME, NAME.1 (the one before it), NAME.2, ...

Somebody may be renaming them while we look. Where one of them lies is therefore never remembered: the file that we hold
open is looked for by device and inode, which nobody else can have as long as we hold it.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    #: Device and inode.
    Key = tuple[int, int]

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: So many in a row are missing, at most, while files are being renamed: one, and NAME itself.
_GAP = 2
#: How often it is tried again when the files are renamed under our eyes.
_TRIES = 10


class NotALogError(OSError):
    """What lies there is no plain file, and nothing to read a log from."""


def open_plain(path: str) -> int:
    """Open a plain file to read it, without waiting for anybody, and not through a symlink. Raises OSError."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotALogError(error.errno, "it is a symbolic link", path) from None
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise NotALogError(error.errno, "it is not a plain file", path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotALogError(errno.EINVAL, "it is not a plain file", path)
    return fd


def key_of(status: os.stat_result) -> Key:
    """Which file it is."""
    return status.st_dev, status.st_ino


def there(path: str) -> os.stat_result | None:
    """What lies at a path (lstat(2)); None if nothing does. Raises OSError."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_if_there(path: str) -> int | None:
    """As open_plain; None if nothing lies there. Raises OSError."""
    try:
        return open_plain(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def from_newest(path: str) -> Generator[int, None, None]:
    """The files of a log, newest first, each open; whoever gets one has it. One that is renamed meanwhile comes once.

    An older one that cannot be read is the last. Raises OSError where the newest cannot be.
    """
    fd = open_if_there(path)
    if fd is None:
        fd = open_if_there(_name(path, 1))
    while fd is not None:
        before = os.dup(fd)  # it may be closed by whoever got it
        try:
            yield fd
            fd = older(path, before)
        except OSError:
            return
        finally:
            os.close(before)


def older(path: str, held: int) -> int | None:
    """Open the file of a log that came before the one held open; None if there is none. Raises OSError."""
    return _beside(path, held, 1)


def newer(path: str, held: int) -> int | None:
    """Open the file of a log that comes after the one held open; None if there is none yet. Raises OSError.

    Where the one held has been removed, all that are left came after it, unless they have not been written to since.
    """
    fd = _beside(path, held, -1)
    return _oldest_since(path, os.fstat(held)) if fd is None else fd


def _name(path: str, number: int) -> str:
    return f"{path}.{number}" if number else path


def _numbers(path: str) -> Iterator[tuple[int, os.stat_result]]:
    """The files of a log, newest first."""
    number = missing = 0
    while missing <= _GAP:
        status = there(_name(path, number))
        missing = 0 if status else missing + 1
        if status:
            yield number, status
        number += 1


def _where(path: str, key: Key) -> int | None:
    return next((number for number, status in _numbers(path) if key_of(status) == key), None)


def _is_at(path: str, number: int, key: Key) -> bool:
    status = there(_name(path, number))
    return status is not None and key_of(status) == key


def _beside(path: str, held: int, step: int) -> int | None:
    """Open the file `step` places from the one held; it is only believed if that has not been moved meanwhile."""
    key = key_of(os.fstat(held))
    for _ in range(_TRIES):
        number = _where(path, key)
        if number is None and os.fstat(held).st_nlink:
            continue  # it was renamed under our eyes
        if number is None or number + step < 0:
            return None
        if step > 0 and _is_at(path, number + 1, key):
            number += 1  # for a moment of its rotation it has two names (posix/rotation.py)
        fd = _open_first(path, range(number + 1, number + 2 + _GAP) if step > 0 else (number + step,))
        if _is_at(path, number, key):
            return fd
        if fd is not None:
            os.close(fd)
    return None


def _open_first(path: str, numbers: Iterable[int]) -> int | None:
    """Open the first of these that is there: who renames the others leaves a gap for a moment, or was killed."""
    for number in numbers:
        fd = open_if_there(_name(path, number))
        if fd is not None:
            return fd
    return None


def _oldest_since(path: str, held: os.stat_result) -> int | None:
    if _where(path, key_of(held)) is not None:
        return None
    for _ in range(_TRIES):
        later = [
            (number, key_of(status))
            for number, status in _numbers(path)
            if status.st_mtime_ns >= held.st_mtime_ns
        ]
        if not later:
            return None
        number, key = later[-1]
        fd = open_if_there(_name(path, number))
        if fd is not None:
            if key_of(os.fstat(fd)) == key:
                return fd
            os.close(fd)
    return None
