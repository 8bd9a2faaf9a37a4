"""Quantities as people write them."""

from __future__ import annotations

from daemonize.errors import UsageError, printable

_SECONDS = {
    "": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hr": 3600.0, "d": 86400.0,
}  # fmt: skip
_DIGITS = "0123456789."
_MULTIPLES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_duration(text: str) -> float:
    """Seconds in a duration as systemd.time(7) writes it: `500ms`, `90s`, `2min`, `1min 30s`, `infinity`; bare: seconds.

    Raises UsageError for anything else.
    """
    if text == "infinity":
        return float("inf")
    rest, total = text.strip(), 0.0
    while rest:
        number = rest[: len(rest) - len(rest.lstrip(_DIGITS))]
        rest = rest[len(number) :].lstrip()
        unit = rest[: len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyz"))]
        rest = rest[len(unit) :].lstrip()
        if number.count(".") > 1 or not number.strip(".") or unit not in _SECONDS:
            break
        total += float(number) * _SECONDS[unit]
    else:
        if text.strip() and total < 1e12:
            return total
    raise UsageError(f"'{printable(text)}' is not a duration; write 500ms, 90s, 2min, 1h or infinity")


def parse_timeout(text: str) -> float:
    """A duration that is longer than nothing. Raises UsageError."""
    seconds = parse_duration(text)
    if seconds <= 0:
        raise UsageError(
            f"'{printable(text)}' leaves no time; write a longer duration, or infinity to wait for ever"
        )
    return seconds


def seconds_of(keyword: str, duration: object, *, above: bool = False) -> float:
    """The value of an argument: a number of seconds, or text. above: 0 is not enough. Raises UsageError."""
    seconds = parse_duration(duration) if isinstance(duration, str) else duration
    if not isinstance(seconds, (int, float)) or not (seconds > 0 or (seconds == 0 and not above)):
        least = "more than 0" if above else "0 or more"
        raise UsageError(f"{keyword} must be {least} seconds, or text such as '5s', not {duration!r}")
    try:
        return float(seconds)
    except OverflowError:
        raise UsageError(f"{keyword} is more seconds than can be counted: write 'infinity'") from None


#: What an amount is that has no end.
UNLIMITED = -1


def parse_amount(text: str) -> int:
    """A number, with K, M, G or T for powers of 1024; UNLIMITED for `unlimited` (or `infinity`). Raises UsageError."""
    if text in ("unlimited", "infinity"):
        return UNLIMITED
    number = text.rstrip("KMGT")
    multiple = _MULTIPLES.get(text[len(number) :])
    if multiple is None or not (number.isascii() and number.isdecimal()) or int(number) * multiple >= 1 << 63:
        raise UsageError(f"'{printable(text)}' is not an amount; write 1024, 64K, 512M, 2G or unlimited")
    return int(number) * multiple


#: Old logs that are kept where nobody says how many, and the most that can be kept.
KEPT_LOGS, MOST_KEPT_LOGS = 5, 999


def parse_rotation(text: str) -> tuple[int, int]:
    """SIZE[:KEEP]: bytes after which a log is rotated, and how many old ones are kept. Raises UsageError."""
    size, colon, keep = text.partition(":")
    try:
        amount = parse_amount(size)
    except UsageError:
        amount = 0
    kept = (int(keep) if keep.isascii() and keep.isdecimal() else -1) if colon else KEPT_LOGS
    if amount <= 0 or not 0 <= kept <= MOST_KEPT_LOGS:
        raise UsageError(
            f"'{printable(text)}' is not a size to rotate a log at; write SIZE or SIZE:KEEP, as in 10M or 512K:3"
        )
    return amount, kept
