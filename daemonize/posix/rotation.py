"""Rotation of a log: NAME becomes NAME.1, which was NAME.2 before, and a new NAME begins.

    NAME.1 ─▶ NAME.2 ...    up to the first number that is free, or the last one that is kept
    NAME   ─▶ NAME.1        by a second name (link(2)), so that there is a NAME, and a locked one, at every moment
    NAME.rotating ─▶ NAME   the new file, claimed before it has the name

Whoever is killed in between has lost nothing: the numbers have a gap, or NAME.1 is a second name of NAME. Both are mended
by the next rotation. Everything happens in one directory that is held open, and only plain files of the log's owner, or of
ours, are moved or replaced.
"""

from __future__ import annotations

import errno
import os
import stat

from daemonize.posix.fds import try_lock

_NEW = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: What link(2) says where it cannot be used: vfat; a file of somebody else's (protected_hardlinks).
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


def rotate(directory: int, name: bytes, log: int, keep: int) -> int:
    """A descriptor of the new file, locked, of the same mode and owner; the old one's is still the caller's to close.

    directory: where `name` is. log: a descriptor of the file there; if it has been moved away, whatever log is there now is
    gone on in. keep: how many old ones stay. Raises OSError; then the caller goes on in the file that he has.
    """
    status = os.fstat(log)
    there = _plain(directory, name, status)
    if there is None or not os.path.samestat(there, status):
        return _open_there(directory, name, status)
    fresh = name + b".rotating"
    new = _make(directory, fresh, status)
    try:
        if keep:
            _shift(directory, name, keep, status)
            _name_too(directory, name, name + b".1")
        os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.close(new)
        os.unlink(fresh, dir_fd=directory)
        raise
    return new


def _plain(directory: int, name: bytes, log: os.stat_result) -> os.stat_result | None:
    """What lies there; None: nothing. Raises OSError if it is no plain file, or a stranger's."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), log.st_uid):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    return status


def _shift(directory: int, name: bytes, keep: int, log: os.stat_result) -> None:
    """Make room at NAME.1."""
    numbered = [b"%s.%d" % (name, number) for number in range(1, keep + 1)]
    there = [_plain(directory, path, log) for path in numbered]
    if there[0] and os.path.samestat(there[0], log):  # somebody was killed between the steps
        os.unlink(numbered[0], dir_fd=directory)
        return
    gap = there.index(None) if None in there else keep - 1
    for place in range(gap, 0, -1):
        os.rename(numbered[place - 1], numbered[place], src_dir_fd=directory, dst_dir_fd=directory)
    if not gap and there[0]:
        os.unlink(numbered[0], dir_fd=directory)


def _name_too(directory: int, name: bytes, second: bytes) -> None:
    try:
        os.link(name, second, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(name, second, src_dir_fd=directory, dst_dir_fd=directory)


def _make(directory: int, name: bytes, log: os.stat_result) -> int:
    """A new file as the log is, locked. One that is left of somebody who was killed is replaced."""
    left = _plain(directory, name, log)
    if left:
        if left.st_size:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.unlink(name, dir_fd=directory)
    fd = os.open(name, _NEW | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
    try:
        os.fchmod(fd, stat.S_IMODE(log.st_mode))
        status = os.fstat(fd)
        if (status.st_uid, status.st_gid) != (log.st_uid, log.st_gid):
            os.fchown(fd, log.st_uid, log.st_gid)
    except OSError:
        pass  # it is ours alone, then
    return _claimed(fd)


def _open_there(directory: int, name: bytes, log: os.stat_result) -> int:
    """The log that somebody else has put there, or a new one."""
    if _plain(directory, name, log) is None:
        return _make(directory, name, log)
    return _claimed(os.open(name, _NEW, dir_fd=directory))


def _claimed(fd: int) -> int:
    """The descriptor of a log, locked where there are locks. Raises BlockingIOError if another has it."""
    os.set_blocking(fd, True)
    try:
        free = try_lock(fd)
    except OSError:
        free = True
    if not free:
        os.close(fd)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fd
