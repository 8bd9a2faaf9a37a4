"""To wait until there may be more in a log: told by inotify(7), and by a timer where the kernel does not tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daemonize.posix import prctl
from daemonize.posix.loop import POLLIN, Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_IN_MODIFY = 0x2
_IN_MOVED_TO, _IN_CREATE, _IN_ONLYDIR = 0x80, 0x100, 0x1000000
#: Seconds between two looks. Where the kernel tells: it does not tell of what is written from other machines, nor of what
#: happens in a directory that may only be passed through.
_TOLD_WAIT = 2.0
_FIRST_WAIT, _LONGEST_WAIT = 0.01, 0.25


class Changes:
    """What wakes whoever follows logs. gone: is called when the reader of our stdout has gone. Close it when done."""

    def __init__(self, gone: Callable[[], None], stdout: int = 1) -> None:
        self._loop = Loop()
        self._loop.watch(stdout, 0, lambda _events: gone())
        self._events: int | None = None
        self._told = False
        self._wait = _FIRST_WAIT

    def cover(self, paths: Iterable[str]) -> None:
        """From now on be woken by these files, and by new ones in these directories. They may have been covered before."""
        done = [self._watch(os.fsencode(path)) for path in dict.fromkeys(paths)]
        self._told = any(done)

    def _watch(self, path: bytes) -> bool:
        mask = _IN_CREATE | _IN_MOVED_TO | _IN_ONLYDIR if os.path.isdir(path) else _IN_MODIFY
        if self._events is not None:
            return prctl.watch_also(self._events, path, mask)
        self._events = prctl.inotify(path, mask)
        if self._events is not None:
            self._loop.watch(self._events, POLLIN, self._read)
        return self._events is not None

    def _read(self, _events: int) -> None:
        assert self._events is not None
        try:
            while os.read(self._events, 65536):
                pass
        except BlockingIOError:
            pass

    def wait(self, *, busy: bool) -> None:
        """Until there may be more. busy: there was more at the last look."""
        self._wait = _FIRST_WAIT if busy else min(self._wait * 2, _LONGEST_WAIT)
        self._loop.run_once(_TOLD_WAIT if self._told else self._wait)

    def close(self) -> None:
        """Watch no more."""
        if self._events is not None:
            self._loop.forget(self._events)
            os.close(self._events)
            self._events = None
