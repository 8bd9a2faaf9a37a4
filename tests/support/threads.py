"""A second thread in the process of a test, and what it does to the first."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def another_thread() -> Iterator[None]:
    """It lives for as long as the block lasts."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def interrupted(moment: Callable[[], object], error: type[BaseException]) -> Iterator[None]:
    """Where a handler of a signal raises the error in this thread, once, when `moment` has returned in another thread.

    The signal comes again and again: Python may be on its way into a system call when it comes, which then waits all the
    same. To this thread, which blocks it at times: one that another thread takes comes even into hooks of fork(2).
    """
    over, raised = threading.Event(), False
    main = threading.get_ident()

    def knock() -> None:
        moment()
        while not over.is_set():
            signal.pthread_kill(main, signal.SIGVTALRM)
            over.wait(0.1)

    def handler(_number: int, _frame: object) -> None:
        nonlocal raised
        if raised:
            return
        raised = True
        raise error

    before = signal.signal(signal.SIGVTALRM, handler)
    thread = threading.Thread(target=knock)
    try:
        thread.start()
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGVTALRM, before)
