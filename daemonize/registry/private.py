"""Directories and files of daemons (design: files): this user's alone, and never followed anywhere.

One module: a launch loads it, and every module takes it as long as three system calls.
"""

from __future__ import annotations

import os
import stat

from daemonize.errors import SetupError
from daemonize.posix.fds import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: More than any record has: what is larger is none.
_MOST = 4 << 20


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
        home = os.path.expanduser(b"~")
        base = os.path.join(home, b".local/state") if os.path.isdir(home) else b""
    if not base.startswith(b"/"):  # no home: an arbitrary uid in a container, /nonexistent, a relative one
        return b"/tmp/daemonize-%d" % os.geteuid()
    return os.path.join(base, b"daemonize")


def records_dirs(environment: Mapping[bytes, bytes]) -> list[bytes]:
    """Where records are kept, after the directories above it that are ours too.

    $DAEMONIZE_RUNTIME_DIR; root: /run/daemonize; else run/HOST in the state directory. Not $XDG_RUNTIME_DIR: that is removed
    when its user logs out (pam_systemd(8)), and not set at all by cron or su, and somebody must know of daemons that run on.
    Homes may be shared by machines, hence the name of the host.
    """
    given = environment.get(b"DAEMONIZE_RUNTIME_DIR")
    if given:
        return [os.path.abspath(given)]
    if os.geteuid() == 0:
        return [b"/run/daemonize"]
    state = state_dir(environment)
    host = os.fsencode(os.uname().nodename).replace(b"/", b"_").lstrip(b".") or b"localhost"
    return [state, os.path.join(state, b"run"), os.path.join(state, b"run", host)]


def settled(environment: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The variables that name these directories, for who goes on from another directory. Raises OSError.

    A relative one would lead somewhere else from there.
    """
    names = (b"DAEMONIZE_RUNTIME_DIR", b"DAEMONIZE_STATE_DIR")
    return {name: os.path.abspath(environment[name]) for name in names if environment.get(name)}


def ensure_private(directory: bytes) -> None:
    """Make the directory (0700) unless it is there; it must be ours and not writable by others. Raises SetupError."""
    if not is_private(directory):
        _refuse_public(directory, _make(directory))


def is_private(directory: bytes) -> bool:
    """Whether it is there; False if nothing is. Raises SetupError if others can write to it, or it cannot be looked at."""
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SetupError("use", os.fsdecode(directory), error) from None
    _refuse_public(directory, status)
    return True


def _refuse_public(directory: bytes, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        reason = OSError(1, "it must be a directory of this user's that nobody else can write to")
        raise SetupError("use", os.fsdecode(directory), reason)


def _make(directory: bytes) -> os.stat_result:
    try:
        _make_parents(os.path.dirname(directory))
        try:
            os.mkdir(directory, 0o700)
            os.chmod(directory, 0o700)  # whatever the umask
        except FileExistsError:
            pass  # another launch was faster
        return os.lstat(directory)
    except OSError as error:
        raise SetupError("make directory", os.fsdecode(directory), error) from None


def _make_parents(directory: bytes) -> None:
    """As makedirs(), but whatever the umask, nobody else can write to what is made: he could put another in its place."""
    if not os.path.isdir(directory):
        _make_parents(os.path.dirname(directory))
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            pass  # another launch was faster; or it is no directory, which the next step says


class RefusedError(Exception):
    """What lies there is not used; the text says why."""


class ExposedError(RefusedError):
    """It is this user's, but others may use it, too."""


def read_own(path: bytes, *, exposed: bool = False) -> bytes | None:
    """The content of a file; None if there is none. Raises OSError, RefusedError for what is not this user's alone.

    exposed: others may use it, too.
    """
    try:
        fd = open_file(path, os.O_RDONLY, exposed=exposed)
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


def open_file(path: bytes, flags: int, *, exposed: bool = False) -> int:
    """open(2) of a regular file that is this user's alone. exposed: as of read_own. Raises RefusedError, OSError."""
    try:
        # Before it is opened: that alone would rewind a tape, start a watchdog, or wake who waits at a fifo.
        _refuse(os.lstat(path))
    except FileNotFoundError:
        pass  # it is to be made; else open(2) says so
    except ExposedError:
        if not exposed:
            raise
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
