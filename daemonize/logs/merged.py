"""The lines of several logs in one row: by their time stamps, or one log after the other."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from daemonize.logs.stamps import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daemonize.logs.log import Log, Mark

    #: Is called with the stream and the error.
    Failed = Callable[[str, OSError], None]

#: A longer line comes in parts.
_LONGEST = 65536


class _Piece(NamedTuple):
    """A line of one stream's log, or a part of one. when: of its time stamp; else that of the piece before it.

    begins: whether it is the beginning of a line.
    """

    stream: str
    data: bytes
    when: float
    begins: bool


def in_turn(
    logs: Mapping[str, Log], marks: Mapping[str, Mark], failed: Failed
) -> Iterator[tuple[str, bytes]]:
    """What there is up to the marks: (stream, some of it), of one stream after the other.

    failed: is told of a log that cannot be read any further.
    """
    for stream, log in logs.items():
        for data in _chunks(stream, log, marks[stream], failed):
            yield stream, data


def by_time(
    logs: Mapping[str, Log], marks: Mapping[str, Mark], failed: Failed, skip: int = 0
) -> Iterator[tuple[str, bytes]]:
    """As in_turn, but line by line, in the order of time. skip: so many lines are left out at first."""
    skipped = set()
    each = [_lines(name, _chunks(name, log, marks[name], failed)) for name, log in logs.items()]
    for piece in heapq.merge(*each, key=lambda piece: piece.when):
        if piece.begins:
            if skip:
                skip -= 1
                skipped.add(piece.stream)
            else:
                skipped.discard(piece.stream)
        if piece.stream not in skipped:
            yield piece.stream, piece.data


def line_by_line(
    logs: Mapping[str, Log], marks: Mapping[str, Mark], failed: Failed
) -> Iterator[tuple[str, bytes]]:
    """As in_turn, but a line at a time."""
    for stream, log in logs.items():
        for piece in _lines(stream, _chunks(stream, log, marks[stream], failed)):
            yield stream, piece.data


def _chunks(stream: str, log: Log, until: Mark, failed: Failed) -> Iterator[bytes]:
    try:
        while data := log.read(until):
            yield data
    except OSError as error:
        failed(stream, error)


def _lines(stream: str, chunks: Iterator[bytes]) -> Iterator[_Piece]:
    """Of one log; a line that has no end yet comes as it is."""
    rest, when, begins = b"", 0.0, True
    for data in chunks:
        *ended, rest = (rest + data).split(b"\n")
        parts = [line + b"\n" for line in ended]
        if len(rest) > _LONGEST:
            parts.append(rest)
            rest = b""
        for part in parts:
            when = _when(part, begins, when)
            yield _Piece(stream, part, when, begins)
            begins = part.endswith(b"\n")
    if rest:
        yield _Piece(stream, rest, _when(rest, begins, when), begins)


def _when(part: bytes, begins: bool, before: float) -> float:
    """Never earlier than what stands before it, whatever the clock did."""
    own = parse(part) if begins else None
    return before if own is None else max(own, before)
