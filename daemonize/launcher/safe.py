"""`--safe`: as root, only programs that nobody else can change (the rule of libslack's daemon).

A program is what its path leads to through every directory and symlink on the way: whoever may write to one of them
decides what root executes. Access control lists need no look of their own: what they grant shows in the bits of the
group (acl(5)). A script is its interpreter, too.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from daemonize.errors import user_name
from daemonize.outcomes import Unsafe

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_LINKS = 40
_LONGEST_CHAIN = 6  # five scripts, each the interpreter of the one before, and a program: as the kernel


def check(paths: Sequence[bytes], root: bytes | None, uid: int) -> bytes:
    """The first of these files that can be executed; the first of all, if none can, so that its error is found.

    root: the server's root directory, where it is not ours. uid: the server's user, who may write to his own program.
    Raises Unsafe.
    """
    for path in paths:
        way = _way(path, root)
        if way and os.path.isfile(way[-1]) and os.access(way[-1], os.X_OK):
            _check_way(path, way, root, {0, uid})
            return path
    return paths[0]


def _check_way(path: bytes, way: list[bytes], root: bytes | None, trusted: set[int]) -> None:
    """Raises Unsafe if somebody else may change what is on the way to a program, or to its interpreters."""
    for _ in range(_LONGEST_CHAIN):
        for step in way:
            fault = _fault(step, trusted)
            if fault:
                raise Unsafe(os.fsdecode(path), fault)
        interpreter = _interpreter(way[-1])
        if interpreter and not interpreter.startswith(b"/"):
            name = os.fsdecode(interpreter)
            raise Unsafe(
                os.fsdecode(path), f"its interpreter {name} is looked for in the directory that it runs in"
            )
        way = _way(interpreter, root) if interpreter else []
        if not way:
            break


def _way(path: bytes, root: bytes | None) -> list[bytes]:
    """Every directory and symlink on the way to a file, and the file, as paths of our own root; empty if there is none."""
    top = root or b"/"
    way, at, links = _way(root, None) if root else [b"/"], top, 0
    pending = path.split(b"/")
    try:
        while pending:
            part = pending.pop(0)
            if part in (b"", b"."):
                continue
            step = (at if at == top else os.path.dirname(at)) if part == b".." else os.path.join(at, part)
            way.append(step)
            if not stat.S_ISLNK(os.lstat(step).st_mode):
                at = step
                continue
            links += 1
            target = os.readlink(step)
            at = top if target.startswith(b"/") else at
            pending[:0] = target.split(b"/")
            if links > _MOST_LINKS:
                return []
    except OSError:
        return []
    return [*way, at]


def _fault(path: bytes, trusted: set[int]) -> str | None:
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
    return words[0] if words else None
