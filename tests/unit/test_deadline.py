"""The start timeout counts the time that the server really had."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonize.launcher.deadline import Deadline


def test_waiting_spends() -> None:
    """What was waited is gone; at nothing the deadline has passed."""
    deadline = Deadline(1.5)
    deadline.spend(1.0, 1.0)
    assert not deadline.passed
    assert deadline.left == 0.5
    deadline.spend(0.5, 0.5)

    assert deadline.passed
    assert deadline.slice() == 0.0


def test_a_stopped_wrapper_loses_no_time() -> None:
    """A wait that took longer than asked for (SIGSTOP, suspended machine) costs what was asked for."""
    deadline = Deadline(90.0)
    asked = deadline.slice()
    assert asked is not None
    deadline.spend(3600.0, asked)

    assert deadline.left == pytest.approx(90.0 - asked)
    assert asked <= 1.0


def test_a_wait_that_ends_early_costs_only_itself() -> None:
    """Events do not eat the timeout."""
    deadline = Deadline(10.0)
    for _ in range(1000):
        deadline.spend(0.001, 1.0)

    assert deadline.left == pytest.approx(9.0)


def test_infinity_never_passes() -> None:
    """No slices either: nothing has to be looked at."""
    deadline = Deadline(math.inf)
    deadline.spend(1e9, deadline.slice())

    assert deadline.slice() is None
    assert not deadline.passed


@given(st.floats(0.001, 1e6), st.lists(st.floats(0, 100), max_size=50))
def test_never_more_is_spent_than_was_asked_for(seconds: float, waits: list[float]) -> None:
    """Whatever the clock says, no wait costs more than a slice, or than was asked for."""
    deadline, asked_for = Deadline(seconds), 0.0
    for waited in waits:
        asked = deadline.slice()
        assert asked is not None
        assert 0 <= asked <= 1.0
        deadline.spend(waited, asked)
        asked_for += max(asked, 0.25)

        assert deadline.left >= seconds - asked_for - 1e-6
