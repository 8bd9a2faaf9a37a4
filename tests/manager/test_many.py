"""Very many tasks: every one completes exactly once, after its messages, and nothing is left of any."""

from __future__ import annotations

from tests.support.tasks import Storm


def test_a_thousand() -> None:
    """With random exits, signals and messages. The guards look for descriptors and children."""
    storm = Storm(1000, at_once=16, seed=1)
    storm.run()

    assert storm.faults == []
    assert storm.ended == 1000
