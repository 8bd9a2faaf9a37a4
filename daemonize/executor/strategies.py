"""When the next task may start: the strategies of a `ForkExecutor`."""

from __future__ import annotations

import os
from typing import Any, Protocol

from daemonize.errors import UsageError


class Strategy(Protocol):
    """Anything with this method."""

    def may_start(self, running: int) -> bool:
        """Whether one more task may start, while so many run (those that are being ended included).

        Called by the executor's own thread when a task was submitted or has ended; and while tasks wait, again and again,
        after 1 ms and later every 100. It is not to wait. If it raises something, the executor has failed.
        """


class Simple:
    """All at once."""

    def may_start(self, running: int) -> bool:
        """Always."""
        return True


class Throttled:
    """At most `limit` at a time. Raises UsageError."""

    def __init__(self, limit: int) -> None:
        self.limit = checked_number("limit", limit)

    def may_start(self, running: int) -> bool:
        """While fewer than that run."""
        return running < self.limit


class ByCores(Throttled):
    """At most `times` as many at a time as there are cores that this process may use now. Raises UsageError."""

    def __init__(self, times: Any = 1) -> None:
        if not isinstance(times, int | float) or not 0 < times < float("inf"):
            raise UsageError(f"times must be greater than 0, and {times!r} is not")
        super().__init__(max(int(times * cores()), 1))


def cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # type: ignore[unreachable, unused-ignore]


def checked_number(keyword: str, value: Any) -> int:
    """Raises UsageError, which begins as the ValueError of the standard library's executors does."""
    if type(value) is not int or value <= 0:
        raise UsageError(f"{keyword} must be greater than 0, a whole number, and not {value!r}")
    return value


def checked(max_workers: int | None, strategy: Strategy | None) -> Strategy:
    """What of both was given. Raises UsageError."""
    if strategy is None:
        return ByCores() if max_workers is None else Throttled(checked_number("max_workers", max_workers))
    if max_workers is not None:
        raise UsageError(
            "give max_workers or a strategy, not both: max_workers=n is the strategy Throttled(n)"
        )
    if isinstance(strategy, type) or not callable(getattr(strategy, "may_start", None)):
        raise UsageError(f"a strategy has a method may_start(running), and {strategy!r} has none")
    return strategy
