"""Where the files of daemons are (design: files): directories of this user's that nobody else can write to."""

from __future__ import annotations

import os
import stat

from daemonize.errors import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


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
