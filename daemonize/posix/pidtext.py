"""What stands in a pid file, and whether the process that it names lives and is the one that was meant."""

from __future__ import annotations

import errno
import os

from daemonize.posix.identity import (
    EXITING,
    GONE,
    Identity,
    current_boot_id,
    read_stat,
    standing,
    wait_for_end,
)

_LONGEST_CONTENT = 64
#: Seconds that a process which is ending gets to do so.
_LONGEST_EXIT = 1.0
_HIGHEST_PID = 2**31 - 1
#: Extended attribute of a pid file: boot id, pid and start time of the process it was written for.
_ATTRIBUTE = "user.daemonize.identity"


def read_pid(fd: int) -> int:
    """The pid in a pid file; 0 if there is none, or one that no process can have. Raises OSError if it is no pid file."""
    data = os.pread(fd, _LONGEST_CONTENT + 1, 0)
    text = data.strip(b" \t\r\n\0")  # a crash of the machine can leave zeros
    if len(data) > _LONGEST_CONTENT or (text and not text.isdigit()):
        raise OSError(errno.EINVAL, "it does not look like a pid file; if it is one, remove it")
    pid = int(text or b"0")
    return pid if pid <= _HIGHEST_PID else 0


def living(fd: int) -> tuple[int, bool]:
    """The pid in a pid file if its process lives, else 0; and whether that is certainly the one that was meant.

    Raises OSError if it is no pid file.
    """
    pid = read_pid(fd)
    if not pid or _has_ended(pid):
        return 0, False
    found, boot = read_stat(pid), current_boot_id()
    marked = _marked(fd, pid) if boot else None
    if marked:
        is_another = marked.boot_id != boot or (found is not None and found.start != marked.start)
    else:
        is_another = pid == os.getpid()  # in a container a launch can have the same pid at every start
    return (0, False) if is_another else (pid, bool(marked and found))


def _has_ended(pid: int) -> bool:
    """All threads of it may be ending at one look, and one of them have started another: only its end is the end."""
    state = standing(pid)
    try:
        return state == GONE or (state == EXITING and wait_for_end(pid, _LONGEST_EXIT))
    except ProcessLookupError:
        return True


def mark(fd: int, pid: int, start: int) -> None:
    """Write down who is meant; where that cannot be, see that nothing is there that could be taken for it."""
    boot = current_boot_id()
    try:
        if boot and start:
            os.setxattr(fd, _ATTRIBUTE, b"%s %d %d" % (boot.encode(), pid, start))
            return
    except (OSError, AttributeError):
        pass
    try:
        os.removexattr(fd, _ATTRIBUTE)
    except (OSError, AttributeError):
        pass


def _marked(fd: int, pid: int) -> Identity | None:
    """Who is meant by the pid; None if that was not written down, or is about another pid (a server wrote its own)."""
    try:
        boot, written, start = os.getxattr(fd, _ATTRIBUTE).decode("ascii").split()
        return Identity(pid, int(start), boot) if int(written) == pid else None
    except (OSError, AttributeError, ValueError):
        return None
