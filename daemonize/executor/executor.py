"""`ForkExecutor`, as callers see it."""

from __future__ import annotations

import os
from concurrent import futures
from typing import TYPE_CHECKING, Any

from daemonize.errors import UsageError
from daemonize.executor import settings, strategies
from daemonize.executor.dispatcher import Dispatcher
from daemonize.executor.future import Future
from daemonize.manager import tasks
from daemonize.offspring import forking
from daemonize.posix import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import EllipsisType

    OnProgress = Callable[[Future, Any], object]


class _Submits(futures.Executor):
    """What an executor and its views have in common."""

    def __init__(self, dispatcher: Dispatcher, given: settings.Settings) -> None:
        self._dispatcher, self._settings = dispatcher, settings.checked(given)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Have `fn(*args, **kwargs)` called in a process of its own. Neither is pickled; the result is.

        The future's exception is that of the function, its cause a TaskError with the traceback of the other process;
        ChildDeath, if that ended without a result; TaskTimedOut; SetupError, if it could not be forked though no other task
        ran. Raises InvalidState, ExecutorFailed, SetupError, UsageError.
        """
        return self._submit(fn, args, kwargs, self._settings.name)

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str | None
    ) -> Future:
        if not callable(fn):
            raise UsageError(
                f"a task is a function, and {fn!r} is none: write submit(f, x), and not submit(f(x))"
            )
        tasks.refuse_coroutine(fn)
        self._dispatcher.check_owner()
        name = name or tasks.name_of(fn)
        forking.warn(name, "task")
        future = Future(self._dispatcher.cancelled, self._dispatcher.is_current)
        task = settings.task_of(fn, args, kwargs, speaks=self._settings.on_progress is not None)
        self._dispatcher.add(settings.Work(future, task, name, self._settings))
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """As `concurrent.futures.Executor.map`. chunksize: so many calls in each process.

        Raises what `submit` raises; the iterator also TimeoutError. What has not been asked for yet is cancelled then.
        """
        if type(chunksize) is not int or chunksize < 1:
            raise UsageError(f"chunksize must be a whole number, and >= 1, not {chunksize!r}")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        if not callable(fn):
            raise UsageError(f"a task is a function, and {fn!r} is none")
        tasks.refuse_coroutine(fn)
        chunks = settings.chunks(zip(*iterables, strict=False), chunksize)
        return settings.flat(super().map(settings.chunk_of(fn), chunks, timeout=timeout))

    def options(
        self,
        *,
        timeout: float | str | EllipsisType | None = ...,
        memory: int | str | EllipsisType | None = ...,
        grace: float | str | EllipsisType = ...,
        on_progress: OnProgress | EllipsisType | None = ...,
        name: str | EllipsisType | None = ...,
    ) -> View:
        """The same executor, with other settings for what is submitted by way of it; `...`: as here. See `ForkExecutor`.

        name: of the tasks, for people; None: that of the function. Raises UsageError.
        """
        given = {
            "timeout": timeout,
            "memory": memory,
            "grace": grace,
            "on_progress": on_progress,
            "name": name,
        }
        changed = {keyword: value for keyword, value in given.items() if value is not ...}
        return View(self, self._dispatcher, self._settings._replace(**changed))  # type: ignore[arg-type]

    def proxy(self, obj: object) -> Proxy:
        """An object whose methods are those of `obj`, each of which is submitted, and returns its future.

        A task has a copy of `obj`, as it is when the task starts: what it changes there is not changed here.
        """
        return Proxy(self._submit, obj, self._settings.name)


class ForkExecutor(_Submits):
    """An executor of `concurrent.futures`: every task is a process, forked when it is its turn.

    A task has all that the caller has then: neither its function nor the arguments are pickled. max_workers: so many run at
    a time; None: what the strategy says, which is `ByCores()` if there is none. strategy: `Simple()`, `Throttled(limit)`,
    `ByCores(times)`, or whatever has a method `may_start(running)`. For each task: timeout: seconds, or text such as "5s",
    until it is ended; None: never. memory: bytes of address space (RLIMIT_AS), or text such as "512M". grace: seconds from
    SIGTERM to SIGKILL, for one that is cancelled or late. on_progress: called with the future and a value for each
    `daemonize.progress(value)` of the task, in its order, and before the future is resolved; in a thread of ours, as the
    callbacks of futures are.

    For any thread of the process that has made it. The end of a `with` block waits for all tasks; so does the exit of the
    interpreter. Raises UsageError.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        strategy: strategies.Strategy | None = None,
        timeout: float | str | None = None,
        memory: int | str | None = None,
        grace: float | str = tasks.GRACE,
        on_progress: OnProgress | None = None,
    ) -> None:
        given = settings.Settings(timeout, memory, grace, on_progress, None)
        super().__init__(Dispatcher(strategies.checked(max_workers, strategy)), given)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks. wait: return when none is left, nor its process. cancel_futures: those that do not run yet.

        In a forked child nothing happens. Raises InvalidState: in a callback, which cannot wait for itself.
        """
        if self._dispatcher.owner != os.getpid():
            return
        self._dispatcher.close(cancel=cancel_futures)
        if wait:
            self._dispatcher.join()

    def terminate_workers(self) -> None:
        """Cancel what waits, and end what runs, with what is below it: SIGTERM, the grace, SIGKILL. Returns at once.

        No future is left: those that ran have a ChildDeath, or what they say in time. No more tasks are taken. Raises
        InvalidState: in a forked child.
        """
        self._end(signals.SIGTERM)

    def kill_workers(self) -> None:
        """The same, with SIGKILL at once."""
        self._end(signals.SIGKILL)

    def _end(self, number: int) -> None:
        self._dispatcher.check_owner()
        self._dispatcher.kill(number, self._settings.grace)

    def __del__(self) -> None:
        if "_dispatcher" in self.__dict__:
            self._dispatcher.retire()


class View(_Submits):
    """An executor with other settings (`options`). To shut it down shuts down the executor."""

    def __init__(self, executor: _Submits, dispatcher: Dispatcher, given: settings.Settings) -> None:
        super().__init__(dispatcher, given)
        self._executor = executor  # it lives as long as there is somebody who could submit something

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `ForkExecutor`."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


class Proxy:
    """See `ForkExecutor.proxy`."""

    _of: tuple[Callable[..., Future], object, str | None]

    def __init__(self, submit: Callable[..., Future], obj: object, name: str | None) -> None:
        self.__dict__["_of"] = submit, obj, name

    def __getattr__(self, name: str) -> Callable[..., Future]:
        """A method, which is submitted when it is called. Raises AttributeError, UsageError."""
        if name.startswith("__"):
            raise AttributeError(f"a proxy has no {name}")  # of copy, pickle and the like, which ask for it
        submit, obj, given = self._of
        method = getattr(obj, name)
        if not callable(method):
            raise UsageError(f"a proxy has the methods of its object, and {name} is none")
        shown = given or f"{type(obj).__name__}.{name}"
        return lambda *args, **kwargs: submit(method, args, kwargs, shown)

    def __setattr__(self, name: str, value: object) -> None:
        raise UsageError(f"a proxy calls methods, each in a copy of its object: {name} would be set nowhere")

    def __repr__(self) -> str:
        return f"<proxy of {self._of[1]!r}>"
