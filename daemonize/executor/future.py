"""A future whose task is a process: cancelled, that is ended."""

from __future__ import annotations

import logging
from concurrent import futures
from concurrent.futures import _base
from typing import TYPE_CHECKING, Any

from daemonize.errors import DaemonizeError

if TYPE_CHECKING:
    from collections.abc import Callable

#: That of the standard library's executors.
_logger = logging.getLogger("concurrent.futures")


class ExecutorFailed(DaemonizeError, futures.BrokenExecutor):
    """The thread of a `ForkExecutor` failed, its cause says of what; all its tasks have been ended."""

    def __str__(self) -> str:
        """One line."""
        return "the executor has failed, and its tasks were ended: make another one"


class Future(futures.Future[Any]):
    """Of one task. `cancel` also ends one that runs. on_cancel: called then, with this."""

    def __init__(self, on_cancel: Callable[[Future], object]) -> None:
        super().__init__()
        self._on_cancel = on_cancel

    def cancel(self) -> bool:
        """False: it has finished. True: it is cancelled, and whoever waits for it is told, now.

        A task that runs gets SIGTERM, and after the grace SIGKILL, with what is below it; then its place is free.
        """
        with self._condition:
            if self._state in (_base.CANCELLED, _base.CANCELLED_AND_NOTIFIED):
                return True
            if self._state == _base.FINISHED:
                return False
            # Not CANCELLED: those who wait() are told of that only when its turn would have come.
            self._state = _base.CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._on_cancel(self)
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def begin(self) -> bool:
        """For the dispatcher: its task starts; False: it has been cancelled."""
        return self._turn(_base.PENDING, _base.RUNNING)

    def put_back(self) -> bool:
        """For the dispatcher: its task could not start; False: it has been cancelled meanwhile."""
        return self._turn(_base.RUNNING, _base.PENDING)

    def _turn(self, before: str, after: str) -> bool:
        with self._condition:
            if self._state != before:
                return False
            self._state = after
            return True

    def resolve(self, result: Any, error: BaseException | None) -> None:
        """For the dispatcher: its task has ended. Nothing happens if it has been cancelled."""
        try:
            if error is None:
                self.set_result(result)
            else:
                self.set_exception(error)
        except futures.InvalidStateError:
            pass
        except BaseException as raised:  # noqa: BLE001 (a callback's, which harms nobody)
            log_callback(self, raised)


def log_callback(future: Future, error: BaseException) -> None:
    """What a callback raised: as the standard library does."""
    _logger.error("exception calling callback for %r", future, exc_info=error)
