"""Very many tasks: every one completes exactly once, after its messages, and nothing is left of any."""

from __future__ import annotations

from tests.support.tasks import Storm


def test_three_hundred() -> None:
    """With random exits, signals and messages. The guards look for descriptors and children."""
    storm = Storm(300, at_once=16, seed=1)
    storm.run()

    assert storm.faults == []
    assert storm.ended == 300
