"""Names of daemons, and where their files are (design: files).

A log in use is locked (flock(2)) through the very descriptors its server writes with, so the lock is held exactly as
long as somebody writes: that is how a free name is told from a taken one without asking for pids.
"""

from __future__ import annotations

import errno
import os
import stat

from daemonize.errors import SetupError
from daemonize.posix.fds import try_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemonize.posix.fds import Descriptors

_LONGEST_NAME = 100
_MOST_NUMBERS = 10_000


def state_dir(environment: Mapping[bytes, bytes]) -> bytes:
    """Where logs are kept: $DAEMONIZE_STATE_DIR; root: /var/log/daemonize; else $XDG_STATE_HOME/daemonize.

    Always absolute: where there is no home, /tmp/daemonize-UID.
    """
    given = environment.get(b"DAEMONIZE_STATE_DIR")
    if given:
        return os.path.abspath(given)
    if os.geteuid() == 0:
        return b"/var/log/daemonize"
    base = environment.get(b"XDG_STATE_HOME", b"")
    if not base.startswith(b"/"):  # the specification: a relative path is invalid
        base = os.path.expanduser(b"~/.local/state")
    if not base.startswith(b"/"):  # no home, as for an arbitrary uid in a container, or a relative one
        return b"/tmp/daemonize-%d" % os.geteuid()
    return os.path.join(base, b"daemonize")


def ensure_private(directory: bytes) -> None:
    """Make the directory (0700) unless it is there; it must be ours and not writable by others. Raises SetupError."""
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        status = _make(directory)
    except OSError as error:
        raise SetupError("use", os.fsdecode(directory), error) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        reason = OSError(1, "it must be a directory of this user's that nobody else can write to")
        raise SetupError("use", os.fsdecode(directory), reason)


def _make(directory: bytes) -> os.stat_result:
    try:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass  # another launch was faster
        return os.lstat(directory)
    except OSError as error:
        raise SetupError("make directory", os.fsdecode(directory), error) from None


def base_name(command: bytes) -> str:
    """A name for a daemon that was given none: the command's base name, fit to be a file name."""
    name = os.fsdecode(os.path.basename(command.rstrip(b"/")))[:_LONGEST_NAME]
    return "".join(c if c.isprintable() and not c.isspace() else "_" for c in name).lstrip(".-") or "daemon"


class LogTakenError(Exception):
    """The log belongs to another daemon that runs, or what lies at its path is no file of ours."""


class Logs:
    """The two logs of a daemon, `NAME.out` and `NAME.err`; NAME is numbered where it is taken.

    directory: None where logs cannot be kept; `problem` says why.
    """

    def __init__(self, base: str, directory: bytes | None) -> None:
        self.directory = directory
        self.problem: SetupError | None = None
        self._base, self._number = base, 1

    @property
    def name(self) -> str:
        """The daemon's name."""
        return self._base if self._number == 1 else f"{self._base}-{self._number}"

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
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not (_lock(fd) or share):
            owner.shut(fd)
            raise LogTakenError
        os.set_blocking(fd, True)
        return fd

    def give_up(self, problem: SetupError | None = None) -> None:
        """There can be no logs after all; None: none is wanted."""
        self.directory, self.problem = None, problem

    def next(self) -> None:
        """Try the next number."""
        self._number += 1
        if self._number > _MOST_NUMBERS:
            self.directory = None

    def skip_taken(self) -> None:
        """Go on to a number whose logs nobody writes to now. Nothing is claimed."""
        while self.directory is not None and any(_is_taken(self.path(stream)) for stream in ("out", "err")):
            self.next()


#: What lies at the path of a log: a symlink, a directory, a fifo without a reader, a socket.
_NOT_OURS = (errno.ELOOP, errno.EISDIR, errno.ENXIO)


def _is_taken(path: bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not stat.S_ISREG(os.fstat(fd).st_mode) or not _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Take the lock of a log; False if somebody else has it, or nobody can."""
    try:
        return try_lock(fd)
    except OSError:
        return False


def find_logs(command: bytes, environment: Mapping[bytes, bytes], heir: str = "") -> Logs:
    """The logs of a command, not numbered yet. Never raises: where there can be no directory, there are no logs.

    heir: whom the server runs as, if that is not us. His logs are in a directory of ours beside our own,
    which he can pass through, and in which he can make nothing.
    """
    logs = Logs(base_name(command), None)
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
