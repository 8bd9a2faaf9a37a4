"""Durations: what people write, and nothing else."""

from __future__ import annotations

import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonize.errors import UsageError
from daemonize.units import _SECONDS, parse_duration, parse_rotation, parse_timeout


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("90s", 90.0),
        ("90sec", 90.0),
        ("2m", 120.0),
        ("2min", 120.0),
        ("1h", 3600.0),
        ("1hr", 3600.0),
        ("1d", 86400.0),
        ("1min 30s", 90.0),
        ("1min30s", 90.0),
        ("1h 1min 1s 1ms", 3661.001),
        (" 2 min ", 120.0),
        ("infinity", math.inf),
    ],
)
def test_a_duration_is_read_as_systemd_writes_it(text: str, seconds: float) -> None:
    """Every unit, fractions, sums, and infinity."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "s", "ms", ".", ".s", "1.2.3", "1,5", "-1", "-1s", "+1", "1x", "1 week", "1S", "1MIN", "0x10",
        "1e3", "1_000", "inf", "nan", "Infinity", "infinity s", "1 infinity", "٣", "1s;", "\0", "9" * 400,
        "1e400", "99999999999999",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    """The error repeats the text and shows what could have been written."""
    with pytest.raises(UsageError) as caught:
        parse_duration(text)

    assert "500ms" in str(caught.value)
    assert "infinity" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@given(st.text(alphabet=string.printable + "٣½µ\0\x1b", max_size=20))
def test_no_text_gets_past_as_anything_but_seconds(text: str) -> None:
    """Whatever is given: a number of seconds that is not negative and not NaN, or a usage error of one line."""
    try:
        seconds = parse_duration(text)
    except UsageError as error:
        seconds = 0.0
        line = str(error)
    else:
        line = "read"

    assert seconds >= 0
    assert line.isprintable()


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(sorted(_SECONDS)))
def test_number_and_unit_multiply(whole: int, thousandths: int, unit: str) -> None:
    """A number with a unit is that many of the unit, with and without white space between."""
    number = f"{whole}.{thousandths:03}"
    expected = pytest.approx(float(number) * _SECONDS[unit])

    if float(number) * _SECONDS[unit] < 1e12:
        assert parse_duration(f"{number}{unit}") == expected
        assert parse_duration(f" {number} {unit} ") == expected


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.sampled_from(["us", "ms", "s", "min", "h", "d"])),
        min_size=1,
        max_size=6,
    )
)
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    """A sum of parts is the sum of the durations."""
    text = " ".join(f"{number}{unit}" for number, unit in parts)

    assert parse_duration(text) == pytest.approx(sum(parse_duration(f"{n}{u}") for n, u in parts))


@pytest.mark.parametrize("text", ["0", "0s", "0.000ms", "0d 0h"])
def test_a_timeout_leaves_some_time(text: str) -> None:
    """Nothing at all is a duration, but no timeout."""
    assert parse_duration(text) == 0
    with pytest.raises(UsageError, match="leaves no time"):
        parse_timeout(text)


@pytest.mark.parametrize(("text", "seconds"), [("1ms", 0.001), ("infinity", math.inf)])
def test_a_timeout_may_be_short_or_endless(text: str, seconds: float) -> None:
    """The shortest and the longest."""
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize(
    ("text", "rotation"),
    [
        ("10M", (10 << 20, 5)),
        ("512K:3", (512 << 10, 3)),
        ("1G:0", (1 << 30, 0)),
        ("1", (1, 5)),
        ("4096:999", (4096, 999)),
    ],
)
def test_a_size_to_rotate_at(text: str, rotation: tuple[int, int]) -> None:
    """Bytes or a multiple of them, and how many old logs are kept: five, where nobody says."""
    assert parse_rotation(text) == rotation


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0:5",
        "-1",
        "10M:",
        ":5",
        "10M:-1",
        "10M:1000",
        "10M:x",
        "10 M",
        "10m",
        "1.5M",
        "unlimited",
        "10M:5:1",
        "²",
    ],
)
def test_what_is_no_size_to_rotate_at(text: str) -> None:
    """One line that shows what can be written."""
    with pytest.raises(
        UsageError, match=r"is not a size to rotate a log at; write SIZE or SIZE:KEEP, as in 10M"
    ):
        parse_rotation(text)
