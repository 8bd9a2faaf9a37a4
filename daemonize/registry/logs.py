"""The logs of a daemon that names no files for its output (design: files).

A log in use is locked (flock(2)) through the very descriptors its server writes with, so the lock is held exactly as
long as somebody writes: that is how a free name is told from a taken one without asking for pids.
"""

from __future__ import annotations

import errno
import os
import stat

from daemonize.errors import SetupError
from daemonize.posix.fds import Descriptors, try_lock
from daemonize.registry.private import ensure_private, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemonize.registry.entry import Entry

#: Bytes beyond which a log is rotated at launch, and how many old ones are kept.
ROTATION = (10 << 20, 5)


class LogTakenError(Exception):
    """The log belongs to another daemon that runs, or what lies at its path is no file of ours."""


class Logs:
    """The two logs of a daemon, `NAME.out` and `NAME.err`.

    entry: its name; one that was not given goes on to the next number where a log is taken, one that was given shares it.
    directory: None where logs cannot be kept; `problem` says why. rotation: as ROTATION.
    """

    rotation = ROTATION

    def __init__(self, entry: Entry, directory: bytes | None) -> None:
        self.directory = directory
        self.problem: SetupError | None = None
        self._entry = entry

    @property
    def name(self) -> str:
        """The daemon's name."""
        return self._entry.name

    def path(self, stream: str) -> bytes:
        """The path of one log (`out` or `err`); /dev/null where logs cannot be kept."""
        if self.directory is None:
            return b"/dev/null"
        return os.path.join(self.directory, os.fsencode(f"{self.name}.{stream}"))

    def open(self, stream: str, owner: Descriptors, *, share: bool = False) -> int:
        """Open a log to append to it, and claim it for as long as the descriptor is open in any process.

        One that has become too large is rotated before. share: somebody else may have claimed it too. Raises
        LogTakenError, OSError.
        """
        path = self.path(stream)
        if self.directory is None:
            return owner.open(path, os.O_WRONLY)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        while True:
            fd = _open(path, flags, owner)
            status = os.fstat(fd)
            is_ours = _lock(fd)
            if not stat.S_ISREG(status.st_mode) or not (is_ours or share or self._entry.is_explicit):
                owner.shut(fd)
                raise LogTakenError
            if not is_ours or _is_at(path, status):
                break
            owner.shut(fd)  # it was rotated between the two
        if is_ours and not share and status.st_size >= self.rotation[0]:
            fd = self._rotate(path, fd, owner)
        os.set_blocking(fd, True)
        return fd

    def _rotate(self, path: bytes, fd: int, owner: Descriptors) -> int:
        """The new log in place of one that has been claimed; the same where it cannot be rotated."""
        from daemonize.posix.rotation import rotate

        try:
            directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                new = owner.add(rotate(directory, os.path.basename(path), fd, self.rotation[1]))
            finally:
                os.close(directory)
        except OSError:
            return fd
        owner.shut(fd)
        return new

    def open_fifo(self, stream: str, owner: Descriptors) -> tuple[int, bytes]:
        """A new fifo beside the log, `NAME.out.fifo`: its read end, claimed as a log is, and its path.

        One that is left of a process that was killed is replaced, and so is one by a name that was given: what has it
        then is left of an earlier daemon. Raises LogTakenError, OSError.
        """
        path = self.path(stream) + b".fifo"
        while True:
            try:
                os.mkfifo(path, 0o600)
                new = True
            except FileExistsError:
                new = False
            try:
                fd = _open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, owner)
            except FileNotFoundError:
                continue  # it was just removed
            status = os.fstat(fd)
            if not stat.S_ISFIFO(status.st_mode) or not (_lock(fd) or self._entry.is_explicit):
                owner.shut(fd)
                raise LogTakenError
            if _is_at(path, status):
                if new:
                    return fd, path
                os.unlink(path)
            owner.shut(fd)

    def give_up(self, problem: SetupError | None = None) -> None:
        """There can be no logs after all; None: none is wanted."""
        self.directory, self.problem = None, problem

    def next(self) -> None:
        """Try the next number. There are no logs where there is none."""
        if not self._entry.next():
            self.directory = None

    def skip_taken(self) -> None:
        """Go on to a number whose logs nobody writes to now. Nothing is claimed, but what is too large is rotated."""
        while self.directory is not None:
            sizes = {stream: self._free_size(stream) for stream in ("out", "err")}
            if None not in sizes.values():
                self._rotate_large(
                    [stream for stream, size in sizes.items() if (size or 0) >= self.rotation[0]]
                )
                return
            self.next()

    def _free_size(self, stream: str) -> int | None:
        """How large a log is; None: it cannot be had by this name, if that was given, or without somebody else's words."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(self.path(stream), flags)
        except FileNotFoundError:
            return 0
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            is_free = stat.S_ISREG(status.st_mode) and (self._entry.is_explicit or _lock(fd))
            return status.st_size if is_free else None
        finally:
            os.close(fd)

    def _rotate_large(self, streams: list[str]) -> None:
        owner = Descriptors()
        try:
            for stream in streams:
                self.open(stream, owner)
        except (LogTakenError, OSError):
            pass  # somebody was faster; or the server will find that it cannot go on there
        finally:
            owner.close()


#: What lies at the path of a log: a symlink, a directory, a fifo without a reader, a socket.
_NOT_OURS = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


def _open(path: bytes, flags: int, owner: Descriptors) -> int:
    """Open what is to be ours. Raises LogTakenError if it cannot be, OSError."""
    try:
        return owner.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in _NOT_OURS:
            raise LogTakenError from None
        raise


def _is_at(path: bytes, status: os.stat_result) -> bool:
    """Whether that very file still lies there: who rotates a log gives the old one up when the new one is there."""
    try:
        return os.path.samestat(os.lstat(path), status)
    except FileNotFoundError:
        return False


def _lock(fd: int) -> bool:
    """Take the lock of a log; False if somebody else has it, or nobody can."""
    try:
        return try_lock(fd)
    except OSError:
        return False


def find_logs(entry: Entry, environment: Mapping[bytes, bytes], heir: str = "") -> Logs:
    """The logs of a daemon. Never raises: where there can be no directory, there are no logs.

    heir: whom the server runs as, if that is not us. His logs are in a directory of ours beside our own,
    which he can pass through, and in which he can make nothing.
    """
    logs = Logs(entry, None)
    try:
        directory = state_dir(environment)
        if heir:
            directory += b"-" + os.fsencode(heir)
        ensure_private(directory)
        if heir:
            os.chmod(directory, 0o711)  # to pass through, whatever his group is today; the logs are his alone
        logs.directory = directory
    except SetupError as problem:
        logs.problem = problem
    except OSError as error:  # a relative directory, and the current one has been deleted
        logs.problem = SetupError("find", "the state directory", error)
    return logs
