"""The logs of a daemon that names no files for its output (design: files).

A log in use is locked (flock(2)) through the very descriptors its server writes with, so the lock is held exactly as
long as somebody writes: that is how a free name is told from a taken one without asking for pids.
"""

from __future__ import annotations

import errno
import os
import stat

from daemonize.errors import SetupError
from daemonize.posix.fds import try_lock
from daemonize.registry.directories import ensure_private, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemonize.posix.fds import Descriptors
    from daemonize.registry.entry import Entry


class LogTakenError(Exception):
    """The log belongs to another daemon that runs, or what lies at its path is no file of ours."""


class Logs:
    """The two logs of a daemon, `NAME.out` and `NAME.err`.

    entry: its name; one that was not given goes on to the next number where a log is taken, one that was given shares it.
    directory: None where logs cannot be kept; `problem` says why.
    """

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

        share: somebody else may have claimed it too. Raises LogTakenError, OSError.
        """
        path = self.path(stream)
        if self.directory is None:
            return owner.open(path, os.O_WRONLY)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        try:
            fd = owner.open(path, flags, 0o600)
        except OSError as error:
            if error.errno in _NOT_OURS:
                raise LogTakenError from None
            raise
        share = share or self._entry.is_explicit
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not (_lock(fd) or share):
            owner.shut(fd)
            raise LogTakenError
        os.set_blocking(fd, True)
        return fd

    def give_up(self, problem: SetupError | None = None) -> None:
        """There can be no logs after all; None: none is wanted."""
        self.directory, self.problem = None, problem

    def next(self) -> None:
        """Try the next number. There are no logs where there is none."""
        if not self._entry.next():
            self.directory = None

    def skip_taken(self) -> None:
        """Go on to a number whose logs nobody writes to now. Nothing is claimed."""
        while self.directory is not None and any(map(self._is_taken, ("out", "err"))):
            self.next()

    def _is_taken(self, stream: str) -> bool:
        """Whether a stream cannot be logged: by this name, if that was given, or without somebody else's words."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(self.path(stream), flags)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            return not stat.S_ISREG(os.fstat(fd).st_mode) or not (self._entry.is_explicit or _lock(fd))
        finally:
            os.close(fd)


#: What lies at the path of a log: a symlink, a directory, a fifo without a reader, a socket.
_NOT_OURS = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


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
