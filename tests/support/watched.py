"""What happens in a directory, as the kernel tells it (inotify(7)): also what is gone again a moment later."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Self

_CREATED = 0x100 | 0x80  # IN_CREATE, IN_MOVED_TO
_HEAD = struct.Struct("iIII")


class Watched:
    """A directory that is watched from now on. Close it, or use it in a `with` block."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(directory), _CREATED) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def created(self) -> list[str]:
        """The names that have come into being there since it was asked last."""
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return []
        names = []
        while data:
            *_, length = _HEAD.unpack_from(data)
            names.append(os.fsdecode(data[_HEAD.size : _HEAD.size + length].rstrip(b"\0")))
            data = data[_HEAD.size + length :]
        return names

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)
