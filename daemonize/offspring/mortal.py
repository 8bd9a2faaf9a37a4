"""A child that ends with its owner, of whatever that ends. PR_SET_PDEATHSIG: the kernel sends a signal.

It sends it as well when only the thread has ended that forked. Who is forked by a thread that lives as long as the process
(the main thread, one of ours) is killed by it; others handle it, and look. For programs that are executed there are no
handlers: they are forked by a thread of ours (`lastingly`).
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from typing import TYPE_CHECKING, TypeVar

from daemonize.offspring import forking
from daemonize.posix import prctl, signals

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: The kernel sends it to a child that is to look whether its owner has ended; None: this system does not.
OWNER_ENDED: int | None = getattr(signal, "SIGRTMAX", None)
#: Threads of ours that end when there are no children of theirs any more.
lasting: set[int] = set()
#: Whether the hook is there that forgets our thread in a forked child.
_registered: list[bool] = []
#: What lets the kernel kill the process that calls it when its parent ends.
_killed: list[Callable[[], object]] = []


def lasts() -> bool:
    """Whether this thread lives as long as the children that it forks."""
    # The main thread has the number of the process.
    return threading.get_native_id() == os.getpid() or threading.get_ident() in lasting


def prepare() -> Callable[[], object]:
    """What a child just forked calls to be killed when its owner ends, where who forked it lives on.

    Made before the fork: what a child writes to of its memory is copied, page by page.
    """
    if not _killed:
        _killed.append(prctl.dying_with_parent(signals.SIGKILL))
    return _killed[0]


def end_with(owner: int, *, lasts: bool) -> None:
    """In a child just forked: be killed when its owner ends, or now if it has. lasts: whether who forked lives on."""
    if lasts:
        prepare()()
    elif OWNER_ENDED is not None:
        signals.handle(OWNER_ENDED, lambda _number, _frame: _look(owner))
        prctl.die_with_parent(OWNER_ENDED)
    if os.getppid() != owner:
        _look(owner)


def _look(owner: int) -> None:
    # 0: it is outside of this pid namespace.
    if os.getppid() not in (owner, 0):
        os.kill(os.getpid(), signals.SIGKILL)


class _Lasting:
    """A thread that calls what others want to have called by one that lives on. Started when it is first needed."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Callable[[], object], queue.SimpleQueue[object]]]
        self._orders = queue.SimpleQueue()
        self._starting, self.started = threading.Lock(), False

    def call(self, function: Callable[[], T]) -> T:
        """What it returns, or raises."""
        with self._starting:
            if not self.started:
                if not _registered:
                    os.register_at_fork(after_in_child=_forget_thread)
                    _registered.append(True)
                threading.Thread(target=self._run, name="forks programs", daemon=True).start()
                self.started = True
        answer: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._orders.put((function, answer))
        result = answer.get()
        if isinstance(result, _Raised):
            raise result.error
        return result  # type: ignore[return-value]

    def _run(self) -> None:
        me = threading.get_ident()
        forking.harmless.add(me)
        signals.block_all()
        while True:
            function, answer = self._orders.get()
            try:
                answer.put(function())
            except BaseException as error:  # noqa: BLE001 (it is the caller's)
                answer.put(_Raised(error))
            del function, answer


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_thread = _Lasting()


def lastingly(function: Callable[[], T]) -> T:
    """Call it in a thread that lives as long as the children that it forks: this one, or one of ours."""
    return function() if lasts() else _thread.call(function)


def _forget_thread() -> None:
    """In a forked child: it is not there."""
    global _thread  # noqa: PLW0603 (its queue may have been locked)
    _thread = _Lasting()


# Nothing written in Python, where that can be: each line of it that a child executes has memory copied.
os.register_at_fork(after_in_child=lasting.clear)
