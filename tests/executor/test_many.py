"""Very many tasks: each future is resolved exactly once, after its progress, and nothing is left of any."""

from __future__ import annotations

from typing import Any

from tests.support.executors import Places, Storm


def test_some_hundred(tmp_path: Any) -> None:
    """With random ends, progress and cancels, never more at a time than may be. The guards look for what is left."""
    storm = Storm(200, workers=8, seed=1, places=Places(tmp_path, 8))
    storm.run()

    assert storm.faults == []
    assert storm.ended == 200
    assert storm.cancelled > 10
