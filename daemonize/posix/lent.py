"""What root does with no more than another user's rights to files."""

from __future__ import annotations

import errno
import os

from daemonize.posix.child import answer_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    class User(Protocol):
        """uid, gid, and all supplementary groups."""

        uid: int
        gid: int
        groups: list[int]


def act_as(user: User, action: Callable[[], object]) -> None:
    """Do it in a child that has this user's rights. Raises OSError: what it raises there, without its text.

    Not in this process: for other users' sake the kernel would hide it in /proc from then on, and dump no core of it.
    """
    code = answer_of(lambda report: _act(user, action, report))
    if not code:
        raise OSError(errno.EIO, "the process that was to do it was killed")
    if code[0]:
        raise OSError(code[0], os.strerror(code[0]))


def _act(user: User, action: Callable[[], object], report: int) -> NoReturn:
    code = errno.EINVAL
    try:
        # The real uid stays root's: the user can send it no signals.
        os.setgroups(user.groups)
        os.setegid(user.gid)
        os.seteuid(user.uid)
        action()
        code = 0
    except OSError as error:
        code = error.errno or code
    finally:
        os.write(report, bytes([code]))
        os._exit(0)
