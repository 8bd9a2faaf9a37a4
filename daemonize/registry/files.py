"""Files of the registry: this user's alone, in a directory that nobody else can write to, and never followed anywhere."""

from __future__ import annotations

import os
import stat

from daemonize.posix.fds import write_all

#: More than any record has: what is larger is none.
_MOST = 4 << 20


class RefusedError(Exception):
    """What lies there is not used; the text says why."""


class ExposedError(RefusedError):
    """It is this user's, but others may use it, too."""


def read_own(path: bytes) -> bytes | None:
    """The content of a file; None if there is none. Raises OSError, RefusedError for what is not this user's alone."""
    try:
        fd = open_file(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        content = os.read(fd, _MOST)
        while more := os.read(fd, _MOST):
            content += more
            if len(content) > _MOST:
                raise RefusedError("it is too large")
        return content
    finally:
        os.close(fd)


def _refuse(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError("it is not a regular file")
    if status.st_uid != os.geteuid():
        raise RefusedError("it belongs to another user")
    if status.st_mode & 0o077:
        raise ExposedError(f"others may use it (its mode is {status.st_mode & 0o777:03o}, not 600)")


def open_own(path: bytes) -> int:
    """A descriptor of a file to be locked, which is made if need be. Raises RefusedError, OSError."""
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    os.fchmod(fd, 0o600)  # whatever the umask
    return fd


def open_file(path: bytes, flags: int) -> int:
    """open(2) of a regular file that is this user's alone. Raises RefusedError, OSError."""
    try:
        # Before it is opened: that alone would rewind a tape, start a watchdog, or wake who waits at a fifo.
        _refuse(os.lstat(path))
    except FileNotFoundError:
        pass  # it is to be made; else open(2) says so
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)


def is_in_the_way(path: bytes) -> bool:
    """Whether something lies there that is no file of this user's alone."""
    try:
        _refuse(os.lstat(path))
    except FileNotFoundError:
        return False
    except RefusedError:
        return True
    return False


def remove(path: bytes) -> None:
    """Let nothing be there: whatever it is, it is only a name in a directory of ours. Raises OSError if it is full."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        os.rmdir(path)


def open_new(path: bytes) -> int:
    """Make an empty file, whatever was there; a descriptor to write to. Raises OSError."""
    remove(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(fd, 0o600)  # whatever the umask
    return fd


def write_new(path: bytes, content: bytes) -> None:
    """Make a file, whatever was there, with this content. Nothing is there if that fails. Raises OSError."""
    fd = open_new(path)
    try:
        try:
            write_all(fd, content)
        finally:
            os.close(fd)
    except OSError:
        os.unlink(path)
        raise
