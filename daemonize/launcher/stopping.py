"""Stop daemons that nobody of this process is parent of, all at the same time."""

from __future__ import annotations

from time import monotonic

from daemonize.errors import StillRunning
from daemonize.launcher.members import main_of, tree_of
from daemonize.launcher.request import STOP_TIMEOUT
from daemonize.posix.identity import Process
from daemonize.posix.loop import POLLIN, Loop
from daemonize.posix.signals import SIGTERM
from daemonize.posix.stop import Stop, default_plan
from daemonize.registry.changes import StopMark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemonize.registry.record import Record

#: Seconds that a drain is given to write the last words of a server that has ended.
_LAST_WORDS = 1.0


def _grace(record: Record, timeout: float | None) -> float:
    asked = record.settings.get("stop_timeout", STOP_TIMEOUT) if timeout is None else timeout
    return asked if isinstance(asked, (int, float)) else float("inf")


class _Stopping:
    """One daemon that is being stopped. survivors: (pid, name) of what is left, when done."""

    def __init__(self, loop: Loop, record: Record) -> None:
        self.record = record
        self._loop = loop
        self.survivors: list[tuple[int, str]] = []
        self._drain = self._find_drain()
        self._drain_until = 0.0
        self._finished = False
        self._stop: Stop | None = None
        self._mark: StopMark | None = None

    def begin(self, plan: Sequence[tuple[int, float]]) -> None:
        """Tell it to end, and put that down."""
        if self.record.pid_file:
            from daemonize.posix import pidfiles  # noqa: F401 (now, and not when somebody waits for us)
        # One that had ended before has not been stopped.
        main = main_of(self.record)
        self._mark = StopMark(self.record) if main else None
        self._stop = self._begin(main, plan)
        if self._mark:
            self._mark.put_down()

    def _begin(self, main: tuple[int, int] | None, plan: Sequence[tuple[int, float]]) -> Stop | None:
        tree = tree_of(self.record, main, {self._drain.pid} if self._drain else ())
        if tree is None:
            return None
        stop = Stop(self._loop, tree, main, plan)
        stop.begin()
        return stop

    def _find_drain(self) -> Process | None:
        if not self.record.drain:
            return None
        try:
            process = Process(self.record.drain)
        except ProcessLookupError:
            return None
        if process.start != self.record.drain_start or process.fd is None:
            process.close()
            return None
        return process

    def advance(self) -> None:
        """After each round of the loop."""
        if self._stop and not self._stop.done:
            self._stop.advance()
        if not self._finished and (self._stop is None or self._stop.done):
            self._finish()

    def _finish(self) -> None:
        self._finished = True
        self.survivors = (self._stop.survivors if self._stop else []) or self._hidden
        if self._drain and self._drain.fd is not None:
            self._drain_until = monotonic() + _LAST_WORDS
            self._loop.watch(self._drain.fd, POLLIN, lambda _events: self._forget_drain())
        if self.survivors:
            self._take_mark_back()
            return
        record = self.record
        if record.pid_file and record.pid:
            from daemonize.posix.pidfiles import remove_pid_file

            remove_pid_file(record.pid_file, record.pid, empty=record.pid_file_is_locked)

    def _take_mark_back(self) -> None:
        if self._mark:
            self._mark.take_back()
        self._mark = None

    @property
    def _hidden(self) -> list[tuple[int, str]]:
        """The main process, if it runs and may not be looked at (hidepid): it may be another's, and was not signalled."""
        if self._stop and self._stop.had_main:
            return []
        main = main_of(self.record)
        return [(main[0], self.record.process)] if main else []

    def _forget_drain(self) -> None:
        if self._drain and self._drain.fd is not None:
            self._loop.forget(self._drain.fd)
            self._drain.close()
        self._drain = None

    @property
    def timeout(self) -> float | None:
        """Seconds until `advance` wants to be called even if nothing happens; None: it is done."""
        if not self._finished:
            return self._stop.timeout if self._stop else 0.0
        left = self._drain_until - monotonic()
        return left if self._drain and left > 0 else None

    def close(self) -> None:
        """Nothing more is signalled or watched."""
        if not self._finished:
            self._take_mark_back()
        if self._stop:
            self._stop.close()
        self._forget_drain()


def stop_all(
    records: Iterable[Record], timeout: float | None = None, signal: int = SIGTERM
) -> dict[str, StillRunning | None]:
    """End daemons and all that belongs to them: None by name for each that is gone, else an error with its survivors.

    signal: goes to each main process first; timeout: seconds until SIGKILL, None: those that it was started with. Returns
    when all is gone that can be.
    """
    loop = Loop()
    under_way = [_Stopping(loop, record) for record in records]
    try:
        for one in under_way:
            one.begin(default_plan(_grace(one.record, timeout), signal))
        while True:
            for one in under_way:
                one.advance()
            waits = [one.timeout for one in under_way]
            pending = [wait for wait in waits if wait is not None]
            if not pending:
                break
            loop.run_once(min(pending))
    finally:
        for one in under_way:
            one.close()
    return {one.record.name: StillRunning(one.survivors) if one.survivors else None for one in under_way}
