"""A million messages of every kind between two processes, each of them read as what was written."""

from __future__ import annotations

import os
import random

import pytest

from tests.support import messages

pytestmark = pytest.mark.stress

#: Messages (DAEMONIZE_TESTS_MESSAGES).
MESSAGES = int(os.environ.get("DAEMONIZE_TESTS_MESSAGES", "1000000"))


def test_a_million_mixed_messages() -> None:
    """Half of them there, and each of these back; both directions at once, by a thread each."""
    seed = random.randrange(1 << 32)

    assert messages.exchange(seed, MESSAGES // 2) == (0, 0), f"seed {seed}"
