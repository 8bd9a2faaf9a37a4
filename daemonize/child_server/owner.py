"""The owner, as its server sees it: whose end is the server's, also where no end of file tells of it.

That does not come as long as another process has the owner's end of the socket, such as a child that it forked. What tells:

    the main loop waits            a pidfd of the owner, beside the socket
    a handler works                PR_SET_PDEATHSIG: a signal, whose handler looks whether the owner has really ended. The
                                   kernel sends it, too, when only the thread has ended that forked

A handler that works at that moment has as long as `stop` would give it: an owner that wrote its last message and left in
peace loses nothing. Then it is left by an exception, so that `finalize_server` runs; SIGTERM and SIGKILL follow.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from daemonize.offspring.mortal import OWNER_ENDED
from daemonize.posix import prctl, signals

if TYPE_CHECKING:
    from collections.abc import Iterator


class OwnerEndedError(BaseException):
    """The owner has ended, and its server takes too long: raised in a handler's midst."""


class Owner:
    """The process that has forked this one. pid, fd: of it, a pidfd or None. grace: seconds for each step.

    For the main thread of the server, which is the one that was forked.
    """

    def __init__(self, pid: int, fd: int | None, grace: float) -> None:
        self.fd = fd
        self._pid, self._grace = pid, grace
        self._may_raise = self._ending = False
        #: Its time is over, whatever it does.
        self.overdue = False

    @property
    def ended(self) -> bool:
        """Whether it has."""
        # getppid(2) is 0 for a parent outside of this pid namespace; and when the signal comes, the pidfd is not readable
        # yet.
        if os.getppid() not in (self._pid, 0):
            return True
        if self.fd is None:
            return False
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def watch(self) -> None:
        """From now on; once more, when this process may have become another user's: the kernel forgets it then."""
        if OWNER_ENDED is None:
            return
        signals.handle(OWNER_ENDED, self._look)
        prctl.die_with_parent(OWNER_ENDED)
        if self.ended:
            self._end()

    def _look(self, _number: int, _frame: object) -> None:
        if self.overdue and self._may_raise:
            self._may_raise = False
            raise OwnerEndedError
        if self.ended:
            self._end()

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            # Not threading.Thread: this interrupts whatever is there, also the start of one, which holds locks.
            _thread.start_new_thread(self._steps, (threading.get_ident(),))

    def _steps(self, main: int) -> None:
        never = threading.Event()
        never.wait(min(self._grace, threading.TIMEOUT_MAX))
        self.overdue = True
        if OWNER_ENDED is not None:
            signal.pthread_kill(main, OWNER_ENDED)
        never.wait(min(self._grace, threading.TIMEOUT_MAX))
        os.kill(os.getpid(), signal.SIGTERM)
        never.wait(min(self._grace, threading.TIMEOUT_MAX))
        os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """What is in here is left by OwnerEndedError when its time is over."""
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False
