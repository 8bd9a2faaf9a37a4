"""When tasks start; and what is refused."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import ByCores, ForkExecutor, Simple, Throttled, UsageError
from tests.support.executors import Places

if TYPE_CHECKING:
    from tests.support.executors import Gate

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"max_workers": 3}, 3),
        ({"strategy": Throttled(1)}, 1),
        ({"strategy": ByCores()}, CORES),
        ({"strategy": ByCores(1.5)}, int(1.5 * CORES)),
        ({"strategy": ByCores(0.01)}, 1),
        ({}, CORES),
    ],
)
def test_throttle_holds(options: Any, limit: int, gate: Gate) -> None:
    """So many are there, and nobody else comes before one has gone."""
    with ForkExecutor(**options) as executor:
        found = [executor.submit(gate.wait) for _ in range(limit + 1)]
        gate.arrived(limit)
        assert sum(future.running() for future in found) == limit
        assert gate.empty
        gate.let_go(limit + 1)
        gate.arrived()


def test_all_at_once(gate: Gate) -> None:
    """More than any other strategy here would let."""
    with ForkExecutor(strategy=Simple()) as executor:
        count = 4 * CORES + 8
        for _ in range(count):
            executor.submit(gate.wait)
        gate.arrived(count)
        gate.let_go(count)


@pytest.mark.parametrize(("options", "holds"), [({"max_workers": 4}, True), ({"strategy": Simple()}, False)])
def test_max_workers_is_never_exceeded(options: Any, holds: bool, tmp_path: Any, gate: Gate) -> None:
    """Not even by one that is on its way out. Negative control: without a limit, it is seen."""
    places = Places(tmp_path, 4)

    def task() -> bool:
        found = places.taken()
        if not holds:
            gate.wait()
        return found

    with ForkExecutor(**options) as executor:
        count = 60 if holds else 6
        found = [executor.submit(task) for _ in range(count)]
        if not holds:
            gate.arrived(count)
            gate.let_go(count)

    assert all(future.result(0) for future in found) == holds


def test_a_strategy_of_ones_own(gate: Gate) -> None:
    """Is asked with how many run; again and again, while none does."""
    asked: list[int] = []
    seen = threading.Event()

    class Reluctant:
        def may_start(self, running: int) -> bool:
            asked.append(running)
            if running:
                seen.set()
            return running < 1 and len(asked) > 5

    with ForkExecutor(strategy=Reluctant()) as executor:
        one = executor.submit(gate.wait)
        gate.arrived()
        other = executor.submit(int)
        assert seen.wait(30)
        gate.let_go()
        assert other.result(30) == 0
        assert one.done()

    assert asked[:6] == [0] * 6
    assert set(asked) == {0, 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_workers": 0}, "^max_workers must be greater than 0, a whole number, and not 0$"),
        ({"max_workers": -1}, "^max_workers must be greater than 0"),
        ({"max_workers": "4"}, "^max_workers must be .* and not '4'$"),
        ({"max_workers": True}, "^max_workers must be"),
        ({"max_workers": 2, "strategy": Simple()}, "^give max_workers or a strategy, not both"),
        ({"strategy": print}, r"^a strategy has a method may_start\(running\)"),
        ({"strategy": Simple}, r"^a strategy has a method may_start\(running\)"),
        ({"timeout": 0}, "^timeout must be more than 0"),
        ({"timeout": "soon"}, "^'soon' is not a duration"),
        ({"grace": -1}, "^grace must be"),
        ({"memory": 1.5}, "^memory is a number of bytes"),
        ({"on_progress": 1}, "^on_progress is called, and 1 cannot be$"),
    ],
)
def test_wrong_arguments(options: Any, words: str) -> None:
    """Are refused before anything begins, by `options`, too."""
    with pytest.raises(UsageError, match=words):
        ForkExecutor(**options)
    if options.keys() <= {"timeout", "grace", "memory", "on_progress"}:
        with pytest.raises(UsageError, match=words):
            ForkExecutor().options(**options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Throttled(0), "^limit must be"),
        (lambda: ByCores(0), "^times must be greater than 0"),
        (lambda: ByCores("2"), "^times must be greater than 0"),  # type: ignore[arg-type]
        (lambda: ForkExecutor().submit(3), r"^a task is a function, and 3 is none: write submit\(f, x\)"),  # type: ignore[arg-type]
        (lambda: ForkExecutor().map(3, [1], chunksize=2), "^a task is a function"),  # type: ignore[arg-type]
        (
            lambda: ForkExecutor().submit(asyncio.sleep, 1),
            "^a task is a function, and sleep is a coroutine function",
        ),
        (lambda: ForkExecutor().map(asyncio.sleep, [1], chunksize=2), "^a task is a function, and sleep is"),
        (lambda: ForkExecutor().map(abs, [1], chunksize=0), "^chunksize must be a whole number, and >= 1"),
        (lambda: ForkExecutor().options(name=1), "^the name of a task is text"),  # type: ignore[arg-type]
    ],
)
def test_wrong_calls(call: Any, words: str) -> None:
    """Likewise."""
    with pytest.raises(UsageError, match=words):
        call()
    assert "executor" not in [thread.name for thread in threading.enumerate()]


def test_a_strategy_is_asked_again_while_tasks_run(gate: Gate) -> None:
    """It may go by something else than their number: the second starts though the first has not ended."""
    may = threading.Event()

    class Quiet:
        def may_start(self, running: int) -> bool:
            return running == 0 or may.is_set()

    with ForkExecutor(strategy=Quiet()) as executor:
        found = [executor.submit(gate.wait) for _ in range(2)]
        gate.arrived()
        may.set()
        gate.arrived()
        gate.let_go(2)
        assert all(future.result(30) for future in found)
