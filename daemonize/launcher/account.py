"""Whom a server runs as: a user, a group, and the supplementary groups, found while the files of this root are in reach."""

from __future__ import annotations

import errno
import os

from daemonize.errors import SetupError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pwd import struct_passwd


class Account:
    """uid, gid: numbers. groups: all supplementary groups. name, home: of the user, or empty where it has no entry."""

    def __init__(self, uid: int, gid: int, groups: list[int], name: str, home: str) -> None:
        self.uid, self.gid, self.groups, self.name, self.home = uid, gid, groups, name, home

    @property
    def login(self) -> str:
        """The name, or the number of a user without an entry."""
        return self.name or str(self.uid)

    @property
    def shown(self) -> str:
        """The user, as shown to people."""
        return printable(self.login)

    @property
    def is_ours(self) -> bool:
        """Whether this process runs as that user and group already."""
        return (self.uid, self.gid) == (os.getuid(), os.getgid())

    @property
    def variables(self) -> dict[bytes, bytes]:
        """What a login of that user would find in its environment: USER, LOGNAME, HOME."""
        if not self.name:
            return {}
        name = os.fsencode(self.name)
        return {b"USER": name, b"LOGNAME": name, b"HOME": os.fsencode(self.home)}


def find(spec: str) -> Account:
    """The account that USER[:GROUP] names; either may be a number. Raises SetupError.

    Without a group (also `USER:`) it is the user's own. A name goes before a number, as in chown(1).
    """
    user, _, group = spec.partition(":")
    entry = _user(user)
    if entry is None and not (_is_number(user) and group):
        hint = (
            "no such user, and without an entry it needs a group: USER:GROUP"
            if _is_number(user)
            else "no such user"
        )
        raise SetupError("run as", spec, OSError(errno.ENOENT, hint))
    gid = _group(group, spec) if group else entry.pw_gid if entry else -1
    if entry is None:
        account = Account(int(user), gid, [gid], "", "")
    else:
        groups = os.getgrouplist(entry.pw_name, gid)
        account = Account(entry.pw_uid, gid, groups, entry.pw_name, entry.pw_dir)
    if os.geteuid() and not account.is_ours:
        raise SetupError(
            "run as",
            spec,
            PermissionError(errno.EPERM, "only root can run a server as another user or group"),
        )
    return account


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) < (1 << 32) - 1  # the last one means "no change"


def _user(text: str) -> struct_passwd | None:
    import pwd

    try:
        return pwd.getpwnam(text)
    except KeyError:
        pass
    try:
        return pwd.getpwuid(int(text)) if _is_number(text) else None
    except KeyError:
        return None


def _group(text: str, spec: str) -> int:
    import grp

    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        if _is_number(text):
            return int(text)
        raise SetupError("run as", spec, OSError(errno.ENOENT, "no such group")) from None
