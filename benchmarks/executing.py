"""What a task of an executor costs: by a `ForkExecutor`, by pools of processes that are used once, or kept.

Each number is taken by a program of its own (this file, with its name as the argument), which prints it: pools that do not
fork load the caller's program again in each process, and that is not to be the whole of the benchmarks.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 2
#: Tasks of one number of a pair, all submitted at once; of pools that take long, fewer.
TASKS, FEW = 200, 20
#: Bytes that a task looks at, and so many tasks.
LARGE, LOOKS = 100_000_000, 5


def nothing() -> None:
    """The task."""


def look(data: bytes) -> int:
    """A task that needs something large of the caller's."""
    return data[-1] + len(data)


def per_second(executor: Executor, tasks: int, function: Callable[..., Any], *arguments: Any) -> float:
    """Tasks, once the executor has done one."""
    with executor:
        executor.submit(nothing).result()
        began = time.perf_counter()
        futures = [executor.submit(function, *arguments) for _ in range(tasks)]
        wait(futures)
        taken = time.perf_counter() - began
        for future in futures:
            future.result()
    return tasks / taken


def ours() -> Executor:
    """A fork for each task."""
    from daemonize import ForkExecutor

    return ForkExecutor(WORKERS)


def pool(start: str, tasks: int | None = None) -> Executor:
    """start: the start method. tasks: of each process; None: it is kept."""
    return ProcessPoolExecutor(
        WORKERS, mp_context=multiprocessing.get_context(start), max_tasks_per_child=tasks
    )


SIDES: dict[str, Callable[[], float]] = {
    "ours": lambda: per_second(ours(), TASKS, nothing),
    "spawn": lambda: per_second(pool("spawn", 1), FEW, nothing),
    "forkserver": lambda: per_second(pool("forkserver", 1), FEW, nothing),
    "warm": lambda: per_second(pool("fork"), TASKS, nothing),
    "ours, large": lambda: per_second(ours(), LOOKS, look, bytes(LARGE)),
    "warm, large": lambda: per_second(pool("fork"), LOOKS, look, bytes(LARGE)),
}


def tasks_per_second(side: str) -> float:
    """Of one side."""
    words = [sys.executable, os.path.abspath(__file__), side]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        from launching import CannotMeasureError

        raise CannotMeasureError(f"row 12: {side} ended with status {done.returncode}")
    return float(done.stdout)


if __name__ == "__main__":
    print(SIDES[sys.argv[1]]())
