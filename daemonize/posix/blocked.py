"""Steps that no handler of a signal comes between.

To block signals is not enough beside other threads: the kernel gives the signal to one of them, and Python calls the handler
in the main thread all the same, between any two of its steps. So the handlers wait as well: what came is put down, and they
are called at the end.
"""

from __future__ import annotations

import _signal
import _thread
import os
import sys
from typing import TYPE_CHECKING, Any, Self

from daemonize.posix import signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]


class Blocked:
    """A context in which every signal is blocked in this thread: what is done in here is done, or not begun.

    What a handler raises that was called for then is raised at the end.
    """

    def __enter__(self) -> Self:
        self._mask = signals.block(())
        self._handlers: list[tuple[int, Handler]] = []
        self._came: list[int] = []
        try:
            self._begin()
        except BaseException:
            # The call that blocks calls the handler of a signal that had come before, which may raise.
            self._end()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end()

    def lift(self, function: Callable[[Any], object], argument: object) -> None:
        """Call it with signals, and their handlers, as they were before."""
        self._end()
        try:
            function(argument)
        finally:
            self._begin()

    def _begin(self) -> None:
        signals.block_all()
        if _thread._count() and _thread.get_native_id() == os.getpid():  # noqa: SLF001 (as threading does)
            self._hold()

    def _end(self) -> None:
        handlers = dict(self._handlers)
        try:
            self._let_go()
            came, self._came = self._came, []
            _call([(number, handlers[number]) for number in came])
        finally:
            signals.restore_mask(self._mask)

    def _hold(self) -> None:
        for number in signals.handled():
            handler = _signal.getsignal(number)
            if callable(handler):
                self._handlers.append((number, handler))
                _signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self._came.append(number)

    def _let_go(self) -> None:
        """All of them, whatever one that has been let go of raises meanwhile."""
        failure: BaseException | None = None
        while self._handlers:
            try:
                _signal.signal(*self._handlers[-1])
                self._handlers.pop()
            except BaseException as error:  # noqa: BLE001 (a handler's)
                failure = failure or error
        if failure:
            raise failure


def _call(due: list[tuple[int, Handler]]) -> None:
    """Handlers, each, whatever another raises. Not by a signal: who has a wakeup descriptor has been told of that."""
    failure: BaseException | None = None
    for number, handler in due:
        try:
            handler(number, sys._getframe(2))  # noqa: SLF001 (where the program is)
        except BaseException as error:  # noqa: BLE001 (the handler's)
            failure = failure or error
    if failure:
        raise failure
