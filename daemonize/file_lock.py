"""`FileLock`: a lock between processes, and between the threads of one.

flock(2) on a file that is never removed. The lock belongs to the open file: whoever has a copy of its descriptor holds it,
also when the process has been killed that took it. So a forked child closes its copies, and nothing is inherited through
exec(2).
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from time import monotonic
from typing import Any, Self

from daemonize.errors import AlreadyRunning, InvalidState, UsageError
from daemonize.lock_errors import LockTaken
from daemonize.posix import fds
from daemonize.posix.blocked import Blocked
from daemonize.posix.locks import LockFile
from daemonize.units import seconds_of

#: Files that this process has open, locked, or to be locked.
_open: set[int] = set()
#: Which thread of this process has which file (device, inode), by whatever object.
_holders: dict[tuple[int, int], object] = {}
#: Held while one is opened, and while this process forks: a child knows of all of them.
_opening = threading.RLock()


class _Thread(threading.local):
    """What is this thread's alone. Its number may be that of another one when it has ended."""

    def __init__(self) -> None:
        self.token = object()


_here = _Thread()


class _Known(fds.Descriptors):
    """Descriptors that a forked child closes."""

    def add(self, fd: int) -> int:
        _open.add(fd)
        return super().add(fd)

    def open_in(self, directory: int, name: bytes, flags: int, mode: int = 0o600) -> int:
        with _opening:
            return super().open_in(directory, name, flags, mode)

    def shut(self, *fds: int) -> None:
        for fd in fds:
            with _opening:
                # First: what a child closes by mistake may be another file by then.
                _open.discard(fd)
                super().shut(fd)


#: Where no other timeout is given.
_OWN: Any = object()


def _seconds(timeout: float | str | None) -> float | None:
    """Raises UsageError."""
    return None if timeout is None else seconds_of("timeout", timeout)


class FileLock:
    """A lock that one process has at a time, and one thread of it: a context manager.

    path: of a file, which is made where there is none (0600), never written to and never removed; where others can write to
    its directory, none of another user's is used. timeout: seconds, or text such as "5s", that it is waited for; None: for
    ever. It is free again when it is released, or when the process that has it ends, of whatever; a child that this forks
    has no part in it. It waits in the kernel, or, with a timeout, looks every 10 ms at most; no order among those who wait.

    Raises UsageError.
    """

    def __init__(self, path: str | bytes | os.PathLike[str], *, timeout: float | str | None = None) -> None:
        try:
            self._path = os.path.abspath(os.fsencode(path))
        except (TypeError, UnicodeEncodeError):
            raise UsageError(f"path is that of a file, and not {path!r}") from None
        except FileNotFoundError:
            raise UsageError(f"path is {path!r}, and the current directory has been removed") from None
        if not os.fsencode(path) or b"\0" in self._path:
            raise UsageError(f"path is that of a file, and not {path!r}")
        self.timeout = _seconds(timeout)
        self._held: tuple[int, tuple[int, int], _Known] | None = None

    @property
    def path(self) -> str:
        """Of the file; absolute."""
        return os.fsdecode(self._path)

    @property
    def is_held(self) -> bool:
        """Whether this process has it, by this object."""
        return bool(self._held and self._held[0] == os.getpid())

    def acquire(self, timeout: float | str | None = _OWN) -> bool:
        """Wait for it, and have it: True. timeout: as of the lock, whose own is taken if there is none; 0: do not wait.

        It is free again, with a warning, when nobody has this object any more.
        Handlers of signals are called meanwhile, and what one raises ends it. Raises LockTaken, SetupError; UsageError;
        InvalidState: this thread has it already, by this object, or by any if it would wait for ever.
        """
        seconds = self.timeout if timeout is _OWN else _seconds(timeout)
        if self.is_held or seconds is None:
            self._refuse_twice()
        known = _Known()
        try:
            until = None if seconds is None else monotonic() + seconds
            # A handler may raise while it is waited for, and not between two steps.
            with Blocked() as blocked:
                fd = LockFile(self._path, known, until=until, waits=blocked.lift).fd
                known.shut(*known.all - {fd})
                file = _file_of(fd)
                self._held = (os.getpid(), file, known)
                _holders[file] = _here.token
            return True
        except AlreadyRunning as taken:
            known.close()
            raise LockTaken(self.path, seconds or 0.0, taken.pid, taken.name, taken.uid) from None
        except BaseException:
            if self._held and self._held[2] is known:
                self._held = None
            known.close()
            raise

    def _refuse_twice(self) -> None:
        """Also by another object: it would wait for itself. Raises InvalidState."""
        try:
            file = _file_of(self._path)
        except OSError:
            return  # it is not there yet, or that it cannot be had is about to be told
        if _holders.get(file) is _here.token:
            raise InvalidState(f"this thread has the lock {self.path} already: release it first")

    def release(self) -> None:
        """Let others have it. Raises InvalidState: this process does not have it by this object."""
        held = self._held
        if not held or not self.is_held:
            raise InvalidState(f"the lock {self.path} is not held here: acquire it first")
        with Blocked():
            self._held = None
            _holders.pop(held[1], None)
            # First: what another thread has just forked, and is not executed yet, has a copy of the descriptor.
            for fd in held[2].all:
                fds.unlock(fd)
            held[2].close()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        # Not in a child that was forked within the block.
        if self.is_held:
            self.release()

    def __del__(self) -> None:
        if sys.is_finalizing() or not self.__dict__.get("_held") or not self.is_held:
            return
        warnings.warn(f"{self!r} was not released", ResourceWarning, stacklevel=2, source=self)
        self.release()

    def __repr__(self) -> str:
        return f"<FileLock {self.path}{', held' if self.is_held else ''}>"


def _file_of(path: bytes | int) -> tuple[int, int]:
    """Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _let_go() -> None:
    """In a forked child: they are its parent's. No object closes these numbers again: it is not held there."""
    for fd in _open:
        try:
            os.close(fd)
        except OSError:
            pass  # the program has closed what is not its own
    _open.clear()
    _holders.clear()
    _opening.release()


os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_let_go)
