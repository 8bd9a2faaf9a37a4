"""Tasks of a manager, by the ten thousand."""

from __future__ import annotations

import pytest

from tests.support.tasks import Storm

pytestmark = pytest.mark.stress


@pytest.mark.parametrize("at_once", [1, 64])
def test_ten_thousand(at_once: int) -> None:
    """With random exits, signals and messages: each completes exactly once, after its messages. The guards look."""
    storm = Storm(10_000, at_once=at_once, seed=at_once)
    storm.run()

    assert storm.faults == []
    assert storm.ended == 10_000
