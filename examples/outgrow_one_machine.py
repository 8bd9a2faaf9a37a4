#!/usr/bin/env python3
"""One workload, on the cores of this machine and on a Dask cluster: the same code, the same answers.

    outgrow_one_machine.py [tcp://SCHEDULER:8786]

Without an address, the cluster is two processes of this machine. Needs `pip install 'daemonize-ready[dask]'`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from concurrent.futures import Executor, as_completed
from typing import TYPE_CHECKING

from daemonize import ForkExecutor, progress

try:
    from distributed import Client, LocalCluster
except ImportError:
    sys.exit("outgrow_one_machine.py: Dask is not installed: pip install 'daemonize-ready[dask]'")

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 5000


def primes(first: int) -> list[int]:
    """Those of a part of the numbers. What it says of its progress is heard on this machine, and harms on no other."""
    progress(first)
    return [n for n in range(first, first + SIZE) if n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))]


def root(number: int) -> float:
    """Not of every number."""
    if number < 0:
        raise ValueError(f"{number} has no root")
    return float(number**0.5)


def workload(executor: Executor) -> dict[str, object]:
    """It knows nothing of where it runs."""
    parts = [executor.submit(primes, first) for first in range(0, 10 * SIZE, SIZE)]
    count = sum(len(part.result()) for part in as_completed(parts))
    roots = sum(executor.map(root, range(100), chunksize=25))
    error = executor.submit(root, -1).exception()
    return {
        "primes": count,
        "largest": parts[-1].result()[-1],
        "roots": round(roots, 9),
        "error": repr(error),
    }


def main() -> None:
    """Do it on both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scheduler", nargs="?", help="of a Dask cluster: tcp://HOST:PORT")
    scheduler = parser.parse_args().scheduler
    heard: list[int] = []
    with ForkExecutor(on_progress=lambda _, first: heard.append(first)) as executor:
        here = workload(executor)
    print(f"here: {here}; progress was heard {len(heard)} times")
    with cluster(scheduler) as executor:
        there = workload(executor)
    print(f"on the cluster: {there}")
    print(f"the same answers: {here == there}")
    sys.exit(here != there)


@contextlib.contextmanager
def cluster(scheduler: str | None) -> Iterator[Executor]:
    """An executor on this one, or on one for the moment."""
    with contextlib.ExitStack() as stack:
        where = scheduler or stack.enter_context(two_processes())
        yield stack.enter_context(stack.enter_context(Client(where)).get_executor())


def two_processes() -> LocalCluster:
    """A cluster of this machine. It would log what tasks raise."""
    return LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )


if __name__ == "__main__":
    main()
