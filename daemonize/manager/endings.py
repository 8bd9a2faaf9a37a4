"""Tasks that are being ended, and until when others have time."""

from __future__ import annotations

import errno
import heapq
from time import monotonic
from typing import TYPE_CHECKING

from daemonize.errors import StillRunning
from daemonize.posix import stop, tree
from daemonize.posix.identity import read_stat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from daemonize.posix.loop import Loop


#: Seconds after which it is tried again, where /proc could not be read for want of descriptors.
AGAIN = 0.1


def is_want(error: OSError) -> bool:
    """Whether it may be done later: there was no descriptor to be had, or no memory."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Endings:
    """Stop plans under way, in the manager's loop. plans: those; survivors: whom SIGKILL has not ended."""

    def __init__(self) -> None:
        self.plans: list[stop.Stop] = []
        self.survivors: list[tuple[int, str]] = []
        self._hindered = False

    @property
    def timeouts(self) -> list[float]:
        """Seconds until `advance` is to be called though nothing happens, of each."""
        least = AGAIN if self._hindered else 0.0
        return [max(plan.timeout, least) for plan in self.plans]

    def begin(self, loop: Loop, pids: Sequence[int], plan: Sequence[tuple[int, float]]) -> None:
        """End these, and what is below them. One alone may end what is below it in its own way first. Raises OSError."""
        # When one has ended, nothing tells any longer whose children it had.
        below = [below for pid in pids for below in tree.descendants(pid)]
        main = None
        if len(pids) == 1:
            stat = read_stat(pids[0])
            main = pids[0], stat.start if stat else 0
        ending = stop.Stop(loop, tree.Tree({*pids, *below}, known={*pids}), main, plan)
        try:
            ending.begin()
        except OSError:
            ending.close()
            raise
        self.plans.append(ending)

    def hurry(self) -> None:
        """SIGKILL now for all that are being ended."""
        self._each(stop.Stop.hurry)

    def advance(self) -> None:
        """Take the steps whose time has come."""
        self._each(stop.Stop.advance)

    def _each(self, step: Callable[[stop.Stop], None]) -> None:
        self._hindered = False
        for plan in list(self.plans):
            try:
                step(plan)
            except OSError as error:
                if not is_want(error):
                    raise
                self._hindered = True
            if plan.done:
                self.plans.remove(plan)
                self.survivors += plan.survivors

    def failures(self) -> list[StillRunning]:
        """Whom SIGKILL has not ended, told once."""
        survivors, self.survivors = self.survivors, []
        return [StillRunning(survivors)] if survivors else []

    def close(self) -> None:
        """Give up."""
        for plan in self.plans:
            plan.close()
        self.plans = []


class Deadlines:
    """Until when tasks have time, by number. heap: (monotonic time, number); also of some that have ended."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int]] = []

    def add(self, number: int, seconds: float) -> None:
        """From now on."""
        heapq.heappush(self.heap, (monotonic() + seconds, number))

    def left(self, living: Collection[int]) -> list[float]:
        """Seconds until the first of the living is late, if one of them can be."""
        while self.heap and self.heap[0][1] not in living:
            heapq.heappop(self.heap)
        return [max(self.heap[0][0] - monotonic(), 0)] if self.heap else []

    def late(self) -> Iterator[int]:
        """Whose time is over, each once."""
        while self.heap and self.heap[0][0] <= monotonic():
            yield heapq.heappop(self.heap)[1]

    def forget_all_but(self, living: Collection[int]) -> None:
        """When there are many others: it takes as long as there are of them."""
        if len(self.heap) > 2 * len(living) + 64:
            self.heap = [entry for entry in self.heap if entry[1] in living]
            heapq.heapify(self.heap)
