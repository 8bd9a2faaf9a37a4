"""What a task costs that is forked and waited for: by a `ProcessManager`, bare, by `multiprocessing.Process`."""

from __future__ import annotations

import multiprocessing
import os
import time

from launching import CannotMeasureError

from daemonize import ProcessManager

#: Tasks of one number of a pair, one after the other.
TASKS = 100


def nothing() -> None:
    """The task."""


def by_manager() -> float:
    """Per second."""
    statuses: list[int | None] = []
    with ProcessManager() as manager:
        began = time.perf_counter()
        for _ in range(TASKS):
            manager.create_process(nothing, lambda completion: statuses.append(completion.status))
            while manager.process_count:
                manager.step()
        taken = time.perf_counter() - began
    if statuses != [0] * TASKS:
        raise CannotMeasureError("row 11: a task failed")
    return TASKS / taken


def bare() -> float:
    """Per second: fork and wait, and nothing else."""
    began = time.perf_counter()
    for _ in range(TASKS):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            raise CannotMeasureError("row 11: a child failed")
    return TASKS / (time.perf_counter() - began)


def by_multiprocessing() -> float:
    """Per second: with the start method `fork`."""
    fork, began = multiprocessing.get_context("fork"), time.perf_counter()
    for _ in range(TASKS):
        process = fork.Process(target=nothing)
        process.start()
        process.join()
        if process.exitcode:
            raise CannotMeasureError("row 11: a process failed")
        process.close()
    return TASKS / (time.perf_counter() - began)
