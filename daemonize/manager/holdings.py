"""What a manager has: its tasks, what it waits for, and the descriptors of both; and how a forked child lets go of them."""

from __future__ import annotations

import os
from _thread import get_ident
from os import close
from typing import TYPE_CHECKING

from daemonize.manager.bell import Bell
from daemonize.manager.endings import Deadlines, Endings
from daemonize.posix.loop import POLLIN

if TYPE_CHECKING:
    from daemonize.manager.process import Process

#: Seconds between two looks whether a child has ended, where the kernel does not tell.
_LOOK = 0.02


class Holdings:
    """Of one manager, from `setup` to `teardown`. Raises OSError.

    processes: its tasks, by number. marked: those of which something has come. blind: those that the kernel does not tell
    of. fds: all descriptors of bell and tasks. left: whether this is a task, or below one, that has closed them.
    """

    def __init__(self) -> None:
        self.bell = Bell(self._listen)
        self.loop = self.bell.loop
        self.processes: dict[int, Process] = {}
        self.marked: dict[int, Process] = {}
        self.blind: dict[int, Process] = {}
        self.deadlines, self.endings = Deadlines(), Endings()
        self.fds = {*self.bell.descriptors}
        self.left = False
        _all.add(self)

    def forget(self, process: Process) -> None:
        """It has ended, and that is told."""
        self.processes.pop(process.number, None)
        self.blind.pop(process.number, None)
        if self.deadlines.heap:
            self.deadlines.forget_all_but(self.processes)

    def _listen(self) -> None:
        """To tasks that have nobody's ear: somebody among them has more to say than the kernel keeps for him."""
        for process in self.processes.values():
            if process.inbox and not process.inbox.heard:
                self.loop.watch(process.inbox.fd, POLLIN, process.mark)
                process.inbox.heard = True

    def release(self, process: Process) -> None:
        """Give back what there is of a task; it is not watched any longer."""
        self.fds.difference_update(process.descriptors)
        process.close()

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to do. Raises NotPossible."""
        fd = self.bell.fileno()
        self.fds.update(self.bell.descriptors)
        self.set_timer()
        return fd

    def patience(self, timeout: float | None) -> float | None:
        """Seconds until something is to be done though nobody tells, at most `timeout`."""
        if not (self.deadlines.heap or self.endings.plans or self.blind):
            return timeout
        waits = [] if timeout is None else [timeout]
        waits += self.deadlines.left(self.processes)
        waits += self.endings.timeouts
        if self.blind:
            waits.append(_LOOK)
        return min(waits, default=None)

    def set_timer(self) -> None:
        """For those who watch the descriptor: there is a timer."""
        self.bell.set_timer(self.patience(None))

    def close(self) -> None:
        """Give everything back; in a forked child as well, where nothing is unwatched: it would be so in the owner, too."""
        _all.discard(self)
        self.bell.close()
        for process in self.processes.values():
            process.close()
        self.endings.close()


_all: set[Holdings] = set()
#: The threads that are forking a task just now, and the descriptor that it keeps.
forkers: dict[int, int] = {}


def _let_go() -> None:
    """In a forked child.

    A task closes by number: what it writes to of its memory is copied. It ends without finalizing anything that would close
    the same numbers again, and so does whatever it forks, as far as these are concerned.
    """
    kept = forkers.get(get_ident())
    if kept is not None:
        for holdings in _all:
            if not holdings.left:
                holdings.left = True
                for fd in holdings.fds:
                    if fd != kept:
                        close(fd)
                if holdings.endings.plans:
                    holdings.endings.close()
    else:
        for holdings in [*_all]:
            if not holdings.left:
                holdings.close()
    forkers.clear()


os.register_at_fork(after_in_child=_let_go)
