"""Tasks of an executor: by the ten thousand; very large ones, of many workers; and CPython's own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from daemonize import ForkExecutor
from tests.support import cpython
from tests.support.executors import Places, Storm

pytestmark = pytest.mark.stress


@pytest.mark.parametrize("workers", [1, 64])
def test_ten_thousand(workers: int, tmp_path: Any) -> None:
    """With random ends, progress and cancels: each resolved exactly once, after its progress. The guards look."""
    storm = Storm(10_000, workers=workers, seed=workers, places=Places(tmp_path, workers))
    storm.run()

    assert storm.faults == []
    assert storm.ended == 10_000


def test_large_results_of_64_workers(tmp_path: Any) -> None:
    """50 MB each, of which the owner has a few at a time; never more workers than may be."""
    places, size = Places(tmp_path, 64), 50_000_000

    def task(number: int) -> bytes:
        return bytes([number]) * size if places.taken() else b""

    with ForkExecutor(64) as executor:
        for number, found in enumerate(executor.map(task, range(96))):
            assert (len(found), found[:1], found[-1:]) == (size, bytes([number]), bytes([number]))


def test_cpythons_own() -> None:
    """Those that apply (tests/support/cpython.py). Skipped where this Python comes without its tests."""
    try:
        cpython.mixins()
    except ImportError as error:
        pytest.skip(f"this Python has not its own tests: {error}")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, "-W", "error", cpython.__file__],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nOK" in done.stdout
