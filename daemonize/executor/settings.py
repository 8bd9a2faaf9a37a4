"""What may be asked for of a task of a `ForkExecutor`, checked before anything is queued."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from daemonize.executor import progress
from daemonize.manager import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from daemonize.channel import MessageChannel
    from daemonize.executor.future import Future


class Settings(NamedTuple):
    """See `ForkExecutor`. name: None: the function's."""

    timeout: float | str | None
    memory: int | str | None
    grace: float | str
    on_progress: Callable[[Future, Any], object] | None
    name: str | None


class Work(NamedTuple):
    """A task that is to be started, and what is resolved when it has ended."""

    future: Future
    task: Callable[..., Any]
    name: str
    settings: Settings


def checked(settings: Settings) -> Settings:
    """Raises UsageError."""
    tasks.checked_name(print, settings.name)
    of_task = tasks.checked_options(settings.timeout, settings.grace, settings.memory)
    tasks.check_callbacks(on_progress=settings.on_progress)
    return settings._replace(timeout=of_task.timeout, memory=of_task.memory, grace=of_task.grace)


def task_of(
    function: Callable[..., Any], arguments: Sequence[Any], keywords: dict[str, Any], *, speaks: bool
) -> Callable[..., Any]:
    """What a manager calls. speaks: whether somebody listens to its progress."""

    def call(channel: MessageChannel | None) -> Any:
        __tracebackhide__ = True
        progress.begin(channel)
        return function(*arguments, **keywords)

    def call_silently() -> Any:
        __tracebackhide__ = True
        return call(None)

    return call if speaks else call_silently


def chunk_of(function: Callable[..., Any]) -> Callable[[Sequence[Sequence[Any]]], list[Any]]:
    """Calls it once for each row of arguments."""

    def chunk(rows: Sequence[Sequence[Any]]) -> list[Any]:
        __tracebackhide__ = True
        found = []
        for row in rows:
            found.append(function(*row))  # noqa: PERF401 (a comprehension would be seen in its traceback)
        return found

    chunk.__qualname__ = tasks.name_of(function)
    return chunk


def chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many at a time."""
    rest = iter(rows)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk


def flat(results: Iterator[list[Any]]) -> Iterator[Any]:
    """Each of each; what has been handed out is not kept."""
    for chunk in results:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
