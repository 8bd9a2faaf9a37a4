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
