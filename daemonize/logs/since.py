"""Moments as people write them."""

from __future__ import annotations

from datetime import datetime

from daemonize.errors import UsageError, printable
from daemonize.units import parse_duration


def parse_since(text: str, now: float) -> float:
    """The moment in `10min` (ago), `2026-11-21`, `2026-11-21 18:20` or `2026-11-21T18:20:33+01:00`.

    In seconds since the epoch. Without a time zone it is the local one's. Raises UsageError.
    """
    try:
        return max(0.0, now - parse_duration(text))
    except UsageError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"'{printable(text)}' is not a moment; write 10min or 2h (ago), 2026-11-21, or '2026-11-21 18:20'"
        ) from None
