"""What this process was given by whoever executed it, as far as it is still there when `daemonize` is first imported.

A program that goes on as a server (posix/continuation.py) must tell what it inherited, which a server is not to have, from
what it has done itself, which it is to keep; and a program that is started anew must be started as it was. Neither can be
told any more when it matters: a signal that the caller ignored looks like one that the program ignores.
"""

from __future__ import annotations

import os

from daemonize.posix import fds, signals

#: Callers hand over few descriptors, and low ones.
_LOOKED_AT = 1024


def _inherited() -> dict[int, tuple[int, int]]:
    """Descriptors above 2 without FD_CLOEXEC, with device and inode. Python opens everything with that flag."""
    found = {}
    for fd in fds.opened(_LOOKED_AT):
        try:
            if fd > 2 and os.get_inheritable(fd):
                status = os.fstat(fd)
                found[fd] = (status.st_dev, status.st_ino)
        except OSError:
            pass  # the descriptor of the listing itself, closed already
    return found


def _directory() -> bytes | None:
    try:
        return os.getcwdb()
    except OSError:
        return None


#: Signals that were ignored; signals that were blocked.
IGNORED, BLOCKED = signals.ignored(), signals.block(())
#: The current directory, None where it has been deleted; the environment.
DIRECTORY, ENVIRONMENT = _directory(), dict(os.environb)
_DESCRIPTORS = _inherited()


def descriptors() -> set[int]:
    """The inherited descriptors that are still what they were, and would still be inherited by a program."""
    return {fd for fd, seen in _inherited().items() if _DESCRIPTORS.get(fd) == seen}
