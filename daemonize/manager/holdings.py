"""What a manager has: its tasks, what it waits for, and the descriptors of both; and how a forked child lets go of them."""

from __future__ import annotations

import os
from _thread import RLock, get_ident
from os import close
from typing import TYPE_CHECKING, Any, Protocol

from daemonize.errors import InvalidState
from daemonize.manager.bell import Bell
from daemonize.manager.endings import AGAIN, Deadlines, Endings, is_want
from daemonize.offspring import mortal
from daemonize.posix import stop
from daemonize.posix.blocked import Blocked
from daemonize.posix.loop import POLLIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from daemonize.manager.process import Process

#: Seconds between two looks whether a child has ended, where the kernel does not tell.
_LOOK = 0.02


class Keeper(Protocol):
    """Whoever keeps tasks running (workers.py)."""

    def stop(self) -> None:
        """Keep them no longer, and end them."""

    def mend(self) -> None:
        """Before a step: what the handler of a signal has kept from being done is done."""


def foreign(owner: int) -> str:
    """What is said to a process that is not the owner."""
    return f"this manager is that of process {owner}, from which this one was forked: make another one"


class Holdings:
    """Of one manager, from `setup` to `teardown`. Raises OSError.

    processes: its tasks, by number. marked: those of which something has come. blind: those that the kernel does not tell
    of. keepers: who starts tasks that are never to be without; kept: the numbers of those tasks. owner: pid of the process
    whose they are. timers: when calls are due. fds: all descriptors of bell and tasks. dies: what a task calls to die with
    its owner. reaping: of the children (offspring/process.py).
    """

    def __init__(self) -> None:
        self.bell = Bell(self._listen)
        self.loop = self.bell.loop
        self.processes: dict[int, Process] = {}
        self.marked: dict[int, Process] = {}
        self.blind: dict[int, Process] = {}
        self.deadlines, self.endings = Deadlines(), Endings()
        self.keepers: list[Keeper] = []
        self.kept: set[int] = set()
        self.timers, self._later = Deadlines(), dict[int, "Callable[[Any], object]"]()
        self._count = 0
        self.owner, self.reaping = os.getpid(), RLock()
        self.dies = mortal.prepare()
        self.fds = _open[self] = {*self.bell.descriptors}

    def forget(self, process: Process) -> None:
        """It has ended, and that is told: nothing waits for it."""
        self.blind.pop(process.number, None)
        if self.deadlines.heap:
            self.deadlines.forget_all_but(self.processes)

    def _listen(self) -> None:
        """To tasks that have nobody's ear: somebody among them has more to say than the kernel keeps for him."""
        for process in self.processes.values():
            if process.inbox and not process.inbox.heard:
                self.loop.watch(process.inbox.fd, POLLIN, process.mark)
                process.inbox.heard = True

    def end(self, process: Process, number: int, grace: float) -> None:
        """A signal to it and to what is below it, and SIGKILL in so many seconds. Raises InvalidState."""
        if self.owner != os.getpid():
            raise InvalidState(foreign(self.owner))
        with Blocked():
            if process.completion is None:
                self.begin([process], stop.default_plan(grace, number))

    def begin(
        self, processes: Iterable[Process], plan: Sequence[tuple[int, float]], *, tell: bool = True
    ) -> None:
        """To end them by this plan. In `Blocked`. tell: not all have heard its first signal."""
        living = [process for process in processes if not process.child.look()]
        if not living:
            return
        try:
            self.endings.begin(self.loop, [process.pid for process in living], plan)
        except OSError as error:
            if not is_want(error):
                raise
            self._begin_later(living, plan, tell=tell)
        self.bell.ring()

    def _begin_later(
        self, processes: Sequence[Process], plan: Sequence[tuple[int, float]], *, tell: bool
    ) -> None:
        """Nobody can see now who is below them: they alone are told, and then again what their time allows."""
        (number, grace), *rest = plan
        for process in processes if tell else ():
            try:
                process.child.send(number)
            except PermissionError:
                pass  # it has become another user's: in the end it is told of (StillRunning)
        next_plan = rest if rest and grace <= AGAIN else [(number, max(grace - AGAIN, AGAIN)), *rest]

        def again(_: object) -> None:
            with Blocked():
                self.begin(processes, next_plan, tell=next_plan is rest)

        self.call_later(AGAIN, again)

    def call_later(self, seconds: float, function: Callable[[Any], object]) -> int:
        """In a step, with None. Returns what `forget_call` takes."""
        self._count += 1
        self._later[self._count] = function
        self.timers.add(self._count, seconds)
        if self.bell.timer is not None:
            self.set_timer()
        return self._count

    def will_call(self, number: int | None) -> bool:
        """Whether its time is still to come."""
        return number in self._later

    def forget_call(self, number: int) -> None:
        """It is not to be called, if it has not been."""
        self._later.pop(number, None)

    def take_calls(self) -> list[Callable[[Any], object]]:
        """Those whose time has come."""
        numbers = self.timers.late()
        return [self._later.pop(number) for number in numbers if number in self._later]

    @property
    def waits_for_tasks(self) -> bool:
        """Whether there are any, but for those that are kept, or somebody is being ended."""
        return len(self.processes) > len(self.kept) or bool(self.endings.plans)

    def release(self, process: Process) -> None:
        """Give back what there is of a task; it is not watched any longer."""
        inbox, command, fd = process.inbox, process.command, process.child.fd
        if inbox:
            self.fds.discard(inbox.fd)
        if command:
            self.fds.discard(command[1])
        if fd is not None:
            self.fds.discard(fd)
        process.close()

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to do. Raises NotPossible."""
        fd = self.bell.fileno()
        self.fds.update(self.bell.descriptors)
        self.set_timer()
        return fd

    def patience(self, timeout: float | None) -> float | None:
        """Seconds until something is to be done though nobody tells, at most `timeout`."""
        waits = [] if timeout is None else [timeout]
        waits += self.deadlines.left(self.processes)
        waits += self.timers.left(self._later)
        waits += self.endings.timeouts
        if self.blind:
            waits.append(_LOOK)
        return min(waits, default=None)

    def set_timer(self) -> None:
        """For those who watch the descriptor: there is a timer."""
        self.bell.set_timer(self.patience(None))

    def close(self) -> None:
        """Give everything back; in a forked child as well, where nothing is unwatched: it would be so in the owner, too."""
        _open.pop(self, None)
        self.bell.close()
        for process in self.processes.values():
            process.close()
        self.endings.close()


#: Those of this process, with all their descriptors. A task, and whatever it forks itself, has none of them.
_open: dict[Holdings, set[int]] = {}
#: The threads that are forking a task just now, and the descriptor that it keeps.
forkers: dict[int, int] = {}


def _let_go() -> None:
    """In a forked child.

    A task closes by number: what it writes to of its memory is copied. It ends without finalizing anything that would close
    the same numbers again, and so does whatever it forks, as far as these are concerned.
    """
    kept = forkers.get(get_ident())
    if kept is not None:
        for fds in _open.values():
            for fd in fds:
                if fd != kept:
                    close(fd)
        for holdings in _open:
            if holdings.endings.plans:
                holdings.loop.abandon()
                holdings.endings.close()
        _open.clear()
    else:
        for holdings in [*_open]:
            holdings.close()
    forkers.clear()


os.register_at_fork(after_in_child=_let_go)
