"""Names of daemons, and where their files are (design: files).

A log in use is locked (flock(2)) through the very descriptors its server writes with, so the lock is held exactly as
long as somebody writes: that is how a free name is told from a taken one without asking for pids.
"""

from __future__ import annotations

import os
import stat

from daemonize.errors import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

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


class Logs:
    """The two logs of a daemon, `NAME.out` and `NAME.err`. `directory` is None where logs cannot be kept (`problem`)."""

    def __init__(self, name: str, directory: bytes | None, problem: SetupError | None = None) -> None:
        self.name, self.directory, self.problem = name, directory, problem

    def path(self, stream: str) -> bytes:
        """The path of one log (`out` or `err`); /dev/null where logs cannot be kept."""
        if self.directory is None:
            return b"/dev/null"
        return os.path.join(self.directory, os.fsencode(f"{self.name}.{stream}"))

    def in_use(self) -> bool:
        """Whether some process still writes to one of them through a locked descriptor."""
        return any(_is_locked(self.path(stream)) for stream in ("out", "err"))


def _is_locked(path: bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # not a file of ours to write to: take another name
    try:
        return not stat.S_ISREG(os.fstat(fd).st_mode) or not lock(fd, shared=True)
    finally:
        os.close(fd)


def lock(fd: int, *, shared: bool = False) -> bool:
    """Take a flock(2) on the open file behind fd, without waiting; False if somebody else has it."""
    import fcntl

    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def find_logs(command: bytes, environment: Mapping[bytes, bytes]) -> Logs:
    """A free name for the command, numbered if it is taken, and its logs. Never raises: no directory, no logs."""
    name = base_name(command)
    directory = state_dir(environment)
    try:
        ensure_private(directory)
    except SetupError as problem:
        return Logs(name, None, problem)
    for number in range(1, _MOST_NUMBERS):
        logs = Logs(name if number == 1 else f"{name}-{number}", directory)
        if not logs.in_use():
            return logs
    return Logs(name, None)
