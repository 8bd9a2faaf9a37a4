"""Tasks for the tests of executors: some that wait to be let go, and many that end in any way there is."""

from __future__ import annotations

import fcntl
import os
import random
import signal
from typing import TYPE_CHECKING, Any

from daemonize import ForkExecutor, progress
from tests.support import procs
from tests.support.tasks import WAYS, hang, leave

if TYPE_CHECKING:
    from concurrent.futures import Future

    from daemonize.posix.fds import Descriptors


class Gate:
    """Tasks say that they are there, and wait until they are let go."""

    def __init__(self, owner: Descriptors) -> None:
        self._here, self._say = owner.pipe()
        self._hold, self._free = owner.pipe()

    def wait(self) -> int:
        """In a task. Its pid."""
        os.write(self._say, os.getpid().to_bytes(8, "big"))
        os.read(self._hold, 1)
        return os.getpid()

    def wait_stubbornly(self) -> int:
        """In a task which SIGTERM does not end."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self.wait()

    def arrived(self, count: int = 1) -> list[int]:
        """Wait until so many are there; their pids."""
        pids = []
        for _ in range(count):
            assert procs.readable(self._here), "nobody comes"
            pids.append(int.from_bytes(os.read(self._here, 8), "big"))
        return pids

    @property
    def empty(self) -> bool:
        """Whether nobody else has come."""
        return not procs.readable(self._here, 0)

    def let_go(self, count: int = 1) -> None:
        """As many, whether they have come or will."""
        os.write(self._free, b"." * count)


class Places:
    """So many processes at a time may have one of them, until they have ended: locks, which the kernel gives back."""

    def __init__(self, directory: Any, count: int) -> None:
        self._paths = [os.path.join(directory, f"place-{number}") for number in range(count)]

    def taken(self) -> bool:
        """In a task: it has one, to its end. False: there is none."""
        for path in self._paths:
            file = os.open(path, os.O_CREAT | os.O_RDWR)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
            else:
                return True
        return False


class Storm:
    """Tasks with random ends and progress; some are cancelled. Everything that is told of them is put down."""

    def __init__(self, count: int, workers: int, seed: int, places: Places) -> None:
        self._random, self._count, self._workers = random.Random(seed), count, workers
        self._places = places
        self.faults: list[str] = []
        self.ended = self.cancelled = 0

    def run(self) -> None:
        """Return when each future is resolved, and no process is left."""
        with ForkExecutor(self._workers, grace=0.2) as executor:
            for number in range(self._count):
                self._submit(executor, number)

    def _submit(self, executor: ForkExecutor, number: int) -> None:
        values = self._random.randrange(4)
        way = self._random.choice((*WAYS, "cancelled"))
        heard: list[Any] = []

        def task() -> Any:
            if not self._places.taken():
                return "too many"
            for turn in range(values):
                progress((number, turn))
            return hang() if way == "cancelled" else leave(way, number)

        def listen(future: Future[Any], value: Any) -> None:
            heard.append(value)
            if way == "cancelled" and len(heard) == values:
                future.cancel()

        def done(future: Future[Any]) -> None:
            self.ended += 1
            self.cancelled += future.cancelled()
            if heard != [(number, turn) for turn in range(values)]:
                self.faults.append(f"{number} said {heard} of {values}")
            if not _is_right(future, way, number):
                self.faults.append(f"{number} was to be {way}: {future!r}")

        future = executor.options(on_progress=listen).submit(task)
        future.add_done_callback(done)
        if way == "cancelled" and not values:
            future.cancel()


def _is_right(future: Future[Any], way: str, number: int) -> bool:
    if way == "cancelled" or future.cancelled():
        return way == "cancelled" and future.cancelled()
    if way in ("return", "large"):
        return not future.exception() and future.result() == (number if way == "return" else bytes(300_000))
    return type(future.exception()).__name__ == ("LookupError" if way == "raise" else "ChildDeath")
