"""The form of the time before a line of a log."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from daemonize.logs.stamps import LENGTH, stamp

SHOWN = "%Y-%m-%dT%H:%M:%S.%fZ "


def test_it_looks_as_documented() -> None:
    """UTC, microseconds, one space."""
    moment = dt.datetime(2026, 11, 21, 18, 20, 33, 123456, tzinfo=dt.UTC)

    assert stamp(moment.timestamp()) == b"2026-11-21T18:20:33.123456Z "


@given(st.floats(0, 4e9))
def test_it_says_the_moment(moment: float) -> None:
    """To the microsecond, in always as many bytes: a whole second is no shorter, and never a 1000000th microsecond."""
    text = stamp(moment)
    shown = dt.datetime.strptime(text.decode(), SHOWN).replace(tzinfo=dt.UTC)

    assert len(text) == LENGTH
    assert abs(shown.timestamp() - moment) <= 2e-6


def test_the_end_of_a_second_is_rounded_into_the_next() -> None:
    """Never `.1000000`."""
    assert stamp(59.9999999) == b"1970-01-01T00:01:00.000000Z "
