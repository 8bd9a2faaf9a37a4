"""`--safe`: as root, only programs that nobody else can change (the rule of libslack's daemon).

A program is what its path leads to through every directory and symlink on the way: whoever may write to one of them
decides what root executes. Access control lists need no look of their own: what they grant shows in the bits of the
group (acl(5)). A script is its interpreter, too.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from daemonize.errors import Unsafe, user_name

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_LINKS = 40
_MOST_INTERPRETERS = 5  # as the kernel


def check(paths: Sequence[bytes], root: bytes | None, uid: int) -> bytes:
    """The first of these files that can be executed, or the first of all, so that its error is found.

    root: the server's root directory, where it is not ours. uid: the server's user, who may write to his own program.
    Raises Unsafe.
    """
    existing = [path for path in paths if os.access(_outside(path, root), os.X_OK)]
    if not existing:
        return paths[0]
    script: bytes | None = existing[0]
    for _ in range(_MOST_INTERPRETERS):
        if script is None:
            break
        fault = _fault(script, root, {0, uid})
        if fault:
            raise Unsafe(os.fsdecode(existing[0]), fault)
        script = _interpreter(_outside(script, root))
    return existing[0]


def _outside(path: bytes, root: bytes | None) -> bytes:
    """The path as we see it."""
    return os.path.join(root, path.lstrip(b"/")) if root else path


def _fault(path: bytes, root: bytes | None, trusted: set[int]) -> str | None:
    """Who else may write to something on the way to a file; None: nobody. The way begins at our own root."""
    pending = [part for part in _outside(path, root).split(b"/") if part]
    at, links = b"/", 0
    fault = _fault_of(at, trusted)
    while fault is None and pending:
        part = pending.pop(0)
        step = os.path.dirname(at) if part == b".." else os.path.join(at, part)
        fault = _fault_of(step, trusted)
        if fault is None and os.path.islink(step):
            links += 1
            fault = f"too many symlinks lead to {os.fsdecode(path)}" if links > _MOST_LINKS else None
            target = os.readlink(step)
            pending[:0] = [word for word in target.split(b"/") if word]
            at = (root or b"/") if target.startswith(b"/") else at
        else:
            at = step
    return fault


def _fault_of(path: bytes, trusted: set[int]) -> str | None:
    try:
        status = os.lstat(path)
    except OSError as error:
        return f"{os.fsdecode(path)}: {error.strerror}"
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    what = f"{kind} {os.fsdecode(path)}"
    if status.st_uid not in trusted:
        return f"{what} belongs to {user_name(status.st_uid)}"
    if stat.S_ISLNK(status.st_mode):
        return None  # its bits mean nothing; its directory has been looked at
    if status.st_mode & stat.S_IWOTH:
        return f"{what} can be written to by everybody"
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        return f"{what} can be written to by group {status.st_gid}"
    return None


def _interpreter(path: bytes) -> bytes | None:
    """What a #! line names; None for anything but a script."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        first = os.read(fd, 256)
    finally:
        os.close(fd)
    if not first.startswith(b"#!"):
        return None
    words = first[2:].partition(b"\n")[0].split()
    return words[0] if words and words[0].startswith(b"/") else None
