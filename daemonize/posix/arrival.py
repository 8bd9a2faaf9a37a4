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


def _opened() -> dict[int, tuple[bool, int, int]]:
    """Descriptors above 2: whether they have no FD_CLOEXEC (Python opens everything with that flag), device and inode."""
    found = {}
    for fd in fds.opened(_LOOKED_AT):
        try:
            if fd > 2:
                status = os.fstat(fd)
                found[fd] = (os.get_inheritable(fd), status.st_dev, status.st_ino)
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
_DESCRIPTORS = _opened()


def descriptors() -> set[int]:
    """The descriptors that are still what they were, and would be inherited by a program."""
    return {fd for fd in unchanged() if _DESCRIPTORS[fd][0]}


def unchanged() -> set[int]:
    """All descriptors that are still what they were."""
    return {fd for fd, seen in _opened().items() if _DESCRIPTORS.get(fd) == seen}
