"""A future whose task is a process: cancelled, that is ended."""

from __future__ import annotations

import logging
from concurrent import futures
from concurrent.futures import _base
from typing import TYPE_CHECKING, Any

from daemonize.channel import codec
from daemonize.errors import DaemonizeError, InvalidState

if TYPE_CHECKING:
    from collections.abc import Callable

#: That of the standard library's executors.
_logger = logging.getLogger("concurrent.futures")


class ExecutorFailed(DaemonizeError, futures.BrokenExecutor):
    """The thread of a `ForkExecutor` failed, its cause says of what; all its tasks have been ended."""

    def __str__(self) -> str:
        """One line."""
        why = f" ({codec.type_of(self.__cause__)}: {codec.text_of(self.__cause__)})" if self.__cause__ else ""
        return " ".join(f"the executor has failed{why}, and its tasks were ended: make another one".split())


class Future(futures.Future[Any]):
    """Of one task. `cancel` also ends one that runs. on_cancel: called then, with this.

    is_ours: whether this thread is the one that calls callbacks.
    """

    def __init__(self, on_cancel: Callable[[Future], object], is_ours: Callable[[], bool]) -> None:
        super().__init__()
        self._on_cancel, self._is_ours = on_cancel, is_ours

    def result(self, timeout: float | None = None) -> Any:
        """As ever. Raises InvalidState: in a callback, which would wait for itself."""
        self._refuse_to_wait(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ever. Raises InvalidState: in a callback, which would wait for itself."""
        self._refuse_to_wait(timeout)
        return super().exception(timeout)

    def _refuse_to_wait(self, timeout: float | None) -> None:
        if timeout is None and self._is_ours() and not self.done():
            raise InvalidState(
                "a callback cannot wait for a task of its own executor: give that a callback, too"
            )

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
        self._invoke_callbacks()
        return True

    def _invoke_callbacks(self) -> None:
        """As of the standard library, but that whatever one raises keeps no other from being called."""
        for callback in self._done_callbacks:  # type: ignore[attr-defined]
            try:
                callback(self)
            except BaseException as raised:  # noqa: BLE001 (it harms nobody)
                log_callback(self, raised)

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
