"""The thread of an executor: it forks what is queued, steps, and resolves futures.

It is started with the first task, and ends when there will be no more: the executor has been shut down, or collected, or the
interpreter exits, and all that was queued is done. It is a daemon thread, for which we wait ourselves at exit: Python
would wait for another one before `atexit`, and that for ever.

Forks are its alone: what it has forked the kernel ends with it (mortal.lasting). Other threads put work and orders down, and
wake it up.
"""

from __future__ import annotations

import atexit
import errno
import os
import pickle
import threading
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from daemonize.errors import InvalidState, SetupError, StillRunning
from daemonize.executor.future import ExecutorFailed, Future, log_callback
from daemonize.executor.strategies import Throttled
from daemonize.manager import ProcessManager
from daemonize.offspring import forking, mortal
from daemonize.posix import signals, stop
from daemonize.posix.blocked import Blocked

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.executor.settings import Settings, Work
    from daemonize.executor.strategies import Strategy
    from daemonize.manager.process import Completion, Process

#: Seconds between two questions to a strategy that lets nothing start though nothing runs: the first, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1


class Dispatcher:
    """For the process that has made it. strategy: when a task may start.

    retired: nobody is left who could submit something. Set without a lock: by a collector, which may come at any time.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.owner, self.retired = os.getpid(), False
        self._strategy = strategy
        self._manager = ProcessManager()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._closed, self._killed = "", False
        self._failure: BaseException | None = None
        self._queue: deque[Work] = deque()
        self._orders: deque[Callable[[], object]] = deque()
        self._unresolved: set[Future] = set()
        # The thread's own:
        self._running: dict[Future, Process] = {}
        self._starved = 0
        self._pause = _FIRST_PAUSE
        _all.add(self)

    # -- for all threads --------------------------------------------------------------------------------------------------

    def check_owner(self) -> None:
        """Raises InvalidState."""
        if self.owner != os.getpid():
            raise InvalidState(
                f"this executor is that of process {self.owner}, from which this one was forked: make another one"
            )

    def add(self, work: Work) -> None:
        """Raises InvalidState, ExecutorFailed, SetupError; nothing is queued then."""
        self.check_owner()
        with self._lock:
            if self._failure:
                raise ExecutorFailed from self._failure
            if self._closed or _exiting:
                raise InvalidState(
                    f"cannot schedule new futures after {self._closed or 'interpreter shutdown'}"
                )
            if self._thread is None:
                self._begin()
            self._unresolved.add(work.future)
            self._queue.append(work)
        self._manager.wakeup()

    def _begin(self) -> None:
        # What a handler raises would leave a manager without a thread, which blocks all signals for good.
        with Blocked():
            self._manager.setup()
            thread = threading.Thread(target=self._run, name="executor", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._manager.teardown()
                error = OSError(errno.EAGAIN, "no thread can be started")
                raise SetupError("start", "the thread of an executor", error) from None
            # Here: whoever submits something now is not to be warned of a thread that has not said yet whose it is.
            forking.dispatching.add(thread.ident or 0)
            self._thread = thread

    def close(self, *, cancel: bool = False, why: str = "shutdown") -> None:
        """Nothing is taken any more. cancel: what waits then for its turn, which has not come by now, is cancelled."""
        with self._lock:
            self._closed = self._closed or why
        if cancel:
            # By the thread, which first starts what may be: that was submitted before.
            self._order(self._cancel_queued)
        self._manager.wakeup()

    def _cancel_queued(self) -> None:
        for work in list(self._queue):
            try:
                work.future.cancel()
            except BaseException as error:  # noqa: BLE001 (a callback's)
                log_callback(work.future, error)

    def is_current(self) -> bool:
        """Whether it calls: this is in a callback."""
        return self._thread is threading.current_thread()

    def join(self) -> None:
        """Wait until all is done. Raises InvalidState: in a callback of its own."""
        if self.is_current():
            raise InvalidState("a callback cannot wait for its own executor: call shutdown(wait=False)")
        if self._thread:
            self._thread.join()

    def retire(self) -> None:
        """For the destructor of its executor: see there."""
        self.retired = True
        self._manager.wakeup()

    def cancelled(self, future: Future) -> None:
        """It is to be ended, if it has been started."""
        self._unresolved.discard(future)
        self._order(partial(self._stop, future))

    def kill(self, number: int, grace: float | str) -> None:
        """Nothing is taken any more, nor started; and all that run are ended."""
        self._killed = True
        self.close(cancel=True)
        self._order(lambda: self._manager.kill_processes(number, grace=grace))

    def _order(self, order: Callable[[], object]) -> None:
        self._orders.append(order)
        self._manager.wakeup()

    # -- the thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        forking.dispatching.add(threading.get_ident())
        signals.block_all()
        try:
            self._dispatch()
        except BaseException as error:  # noqa: BLE001 (every future gets it)
            self._fail(error)
        finally:
            # After who has started it has said so, too: both ways to here lead through the lock.
            forking.dispatching.discard(threading.get_ident())

    def _dispatch(self) -> None:
        while True:
            pause = self._start_some()
            while self._orders:
                self._orders.popleft()()
            if self._is_over():
                break
            try:
                self._manager.step(pause)
            except StillRunning as error:
                self._give_up(error)
        try:
            self._manager.teardown()
        except StillRunning:
            pass  # whom a task has left, which was cancelled, and not we can end

    def _is_over(self) -> bool:
        with self._lock:
            if self._first() or self._manager.is_busy or not (self._closed or self.retired):
                return False
            self._closed = self._closed or "shutdown"
            return True

    def _start_some(self) -> float | None:
        """As many as may. Seconds until it is to be asked again though nothing happens; None: never."""
        while (work := self._first()) and not self._killed:
            running = self._manager.process_count
            if running and running >= self._starved > 0:
                return None  # what was wanting then has not been given back
            if not self._strategy.may_start(running):
                by_number = running and isinstance(self._strategy, Throttled)
                return None if by_number else self._longer()
            self._starved, self._pause = 0, _FIRST_PAUSE
            self._queue.popleft()
            self._start(work)
        return None

    def _first(self) -> Work | None:
        # Others only add to its end.
        while self._queue and self._queue[0].future.cancelled():
            self._queue.popleft()
        return self._queue[0] if self._queue else None

    def _longer(self) -> float:
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return self._pause / 2

    def _start(self, work: Work) -> None:
        future = work.future
        if not future.begin():
            return
        try:
            self._running[future] = self._fork(work)
        except SetupError as error:
            # Whom the kernel could not watch has begun: it is not to begin twice.
            self._starved = self._manager.process_count if error.action == "start" else 0
            if not self._starved:
                self._resolve(future, None, error)
            elif future.put_back():
                self._queue.appendleft(work)
        except Exception as error:  # noqa: BLE001 (no memory, say)
            self._resolve(future, None, error)

    def _fork(self, work: Work) -> Process:
        """Raises what create_process raises."""
        me, future, settings = threading.get_ident(), work.future, work.settings
        # No longer: what a callback forks in this thread is not to end with it.
        mortal.lasting.add(me)
        try:
            return self._manager.create_process(
                work.task,
                partial(self._complete, future),
                on_message=partial(_tell, future, settings),
                name=work.name,
                timeout=settings.timeout,
                grace=settings.grace,
                memory=settings.memory,
            )
        finally:
            mortal.lasting.discard(me)

    def _complete(self, future: Future, completion: Completion) -> None:
        self._running.pop(future, None)
        self._resolve(future, completion.result, completion.exception)

    def _resolve(self, future: Future, result: Any, error: BaseException | None) -> None:
        self._unresolved.discard(future)
        future.resolve(result, error)

    def _stop(self, future: Future) -> None:
        process = self._running.get(future)
        if process is None:
            return
        try:
            process.stop()
        except OSError:  # there are no descriptors to look for what is below it
            process.send_signal(signals.SIGKILL)

    def _give_up(self, error: StillRunning) -> None:
        """SIGKILL did not end some: they have their places, and nobody waits for their results."""
        survivors = {pid for pid, _ in error.survivors}
        for future, process in list(self._running.items()):
            if process.pid in survivors:
                self._resolve(future, None, error)

    # -- its failure ------------------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = error
            self._queue.clear()
            left = list(self._unresolved)
        for future in left:
            failure = ExecutorFailed()
            failure.__cause__ = error
            self._resolve(future, None, failure)
        try:
            self._manager.kill_processes(signals.SIGKILL)
            while self._manager.process_count:
                self._manager.step()
            self._manager.teardown()
        except BaseException:  # noqa: BLE001 (it may be the manager that fails)
            self._kill()

    def _kill(self) -> None:
        for process in self._manager.processes:
            process.send_signal(signals.SIGKILL)
            process.child.wait(stop.KILL_GRACE)
        self._manager._close()  # noqa: SLF001 (what is left of it)


def _tell(future: Future, settings: Settings, message: Any) -> None:
    if settings.on_progress is None or future.done():
        return
    try:
        settings.on_progress(future, pickle.loads(message))  # noqa: S301 (our own child)
    except BaseException as error:  # noqa: BLE001 (it harms nobody)
        log_callback(future, error)


_all: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
_exiting = False


def _exit() -> None:
    """What is queued is done first, as by the standard library's executors."""
    global _exiting  # noqa: PLW0603 (of this process)
    _exiting = True
    for dispatcher in list(_all):
        dispatcher.close(why="interpreter shutdown")
    for dispatcher in list(_all):
        dispatcher.join()


def _forget() -> None:
    """In a forked child: they are not there, and it may have executors of its own."""
    global _all, _exiting
    _all, _exiting = weakref.WeakSet(), False


atexit.register(_exit)
os.register_at_fork(after_in_child=_forget)
