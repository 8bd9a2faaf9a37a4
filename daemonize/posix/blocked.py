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
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from daemonize.posix import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]


class _Note:
    """Stands for a handler while that is held: puts down in `came` that it is to be called; None: calls it.

    Who has asked for the handler meanwhile, to call it from another one, has this.
    """

    def __init__(self, number: int, handler: Handler, came: list[int]) -> None:
        self.number, self.handler = number, handler
        self.came: list[int] | None = came

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.came is None:
            self.handler(number, frame)
        else:
            self.came.append(number)


#: Those that hold handlers just now, in the main thread.
_holding: list[Blocked] = []


class Blocked:
    """A context in which every signal with a handler is blocked in this thread: what is done in here is done, or not begun.

    What a handler raises that was called for then is raised at the end. Signals without one end the process, or do nothing,
    at any time. To block all would take longer: the kernel's answer is a set of all of them.
    """

    #: Those that are held, and of what has come meanwhile.
    _notes: Sequence[_Note] = ()
    _came: Sequence[int] = ()

    def __enter__(self) -> Self:
        # Between two forks each function that is called has memory copied: there is one, where nothing is to be held.
        self._mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        blocked: list[int] = []
        try:
            # A handler that has just been called may have installed others.
            while (handled := signals.handled()) != blocked:
                _signal.pthread_sigmask(_signal.SIG_BLOCK, handled)
                blocked = handled
            if _thread._count():  # noqa: SLF001 (as threading does)
                self._hold()
        except BaseException:
            # The call that blocks calls the handler of a signal that had come before, which may raise.
            self._end()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._notes:
            self._end()
        else:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)

    def lift(self, function: Callable[[Any], object], argument: object) -> None:
        """Call it with signals, and their handlers, as they were before."""
        self._end()
        try:
            function(argument)
        finally:
            # What was called may have installed handlers.
            signals.block_all()
            self._hold()

    def _end(self) -> None:
        handlers = {note.number: note.handler for note in self._notes}
        try:
            try:
                self._let_go()
            finally:
                came, self._came = self._came, ()
                _call([(number, handlers[number]) for number in came])
        finally:
            signals.restore_mask(self._mask)

    def _hold(self) -> None:
        """The handlers, beside other threads: Python calls them in the main thread alone."""
        if not _thread._count() or _thread.get_native_id() != os.getpid():  # noqa: SLF001 (as threading does)
            return
        _restore_in_children()
        notes: list[_Note] = []
        self._notes = notes
        came: list[int] = []
        self._came = came
        _holding.append(self)
        for number in signals.handled():
            handler = _signal.getsignal(number)
            if callable(handler):
                notes.append(_Note(number, handler, came))
                _signal.signal(number, notes[-1])

    def _let_go(self) -> None:
        """All of them, whatever one that has been let go of raises meanwhile.

        What was called within may have installed others: these stay.
        """
        failure: BaseException | None = None
        while self._notes:
            note = self._notes[-1]
            try:
                note.came = None
                if _signal.getsignal(note.number) is note:
                    _signal.signal(note.number, note.handler)
                self._notes = self._notes[:-1]
            except BaseException as error:  # noqa: BLE001 (a handler's)
                failure = failure or error
        if self in _holding:
            _holding.remove(self)
        if failure:
            raise failure


def _let_go_in_child() -> None:
    """Forked by another thread meanwhile: the handlers are its own, and nobody calls them for it later."""
    for blocked in [*_holding]:
        blocked._let_go()  # noqa: SLF001 (of the same module)
        blocked._came = ()  # noqa: SLF001


@cache
def _restore_in_children() -> None:
    """Where there are threads: without any, a hook would only have memory copied in each child."""
    os.register_at_fork(after_in_child=_let_go_in_child)


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
