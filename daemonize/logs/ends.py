"""Places in one file of lines: before its last lines, before its first line of a moment or later.

Nothing here keeps more than a block of it, however long the file and its lines are.
"""

from __future__ import annotations

import os

from daemonize.logs.stamps import LENGTH, parse

_BLOCK = 65536
#: Below so many bytes looking at every line costs less than halving.
_ENOUGH = 1 << 16


def last_lines(fd: int, size: int, wanted: int) -> tuple[int, int]:
    """Where the last `wanted` lines of the first `size` bytes begin, and how many they are: fewer if there are no more."""
    if not size or not wanted:
        return size, 0
    found, end = 0, size - 1  # the newline at the very end, if there is one, is that of the last line
    while end > 0:
        begin = max(0, end - _BLOCK)
        block = os.pread(fd, end - begin, begin)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == wanted:
                return begin + at + 1, found
        end = begin
    return 0, found + 1


def first_since(fd: int, size: int, since: float) -> int | None:
    """Where the first line begins that has a time stamp of this moment or later; `size`: all are earlier.

    Lines without one belong to the line before them. None: no line has one, neither near its beginning nor near its end.
    """
    if (
        _stamped_at(fd, 0, min(size, _BLOCK)) is None
        and _next_stamped(fd, max(0, size - _BLOCK), size) is None
    ):
        return None
    low, high = 0, size
    earlier = False
    while high - low > _ENOUGH:
        middle = low + (high - low) // 2
        found = _next_stamped(fd, middle, high)
        if found and found[1] < since:
            low, earlier = found[0], True
        else:
            high = middle
    return _scan(fd, low, size, since, earlier=earlier)


def _scan(fd: int, begin: int, size: int, since: float, *, earlier: bool) -> int | None:
    found = _stamped_at(fd, begin, size)
    while found and found[1] < since:
        earlier = True
        found = _next_stamped(fd, found[0] + LENGTH, size)
    if found:
        return found[0]
    return size if earlier else None


def _stamped_at(fd: int, begin: int, size: int) -> tuple[int, float] | None:
    """The first time stamp from the beginning of a line on: where, and which moment."""
    when = parse(os.pread(fd, min(LENGTH, size - begin), begin))
    return _next_stamped(fd, begin, size) if when is None else (begin, when)


def _next_stamped(fd: int, begin: int, end: int) -> tuple[int, float] | None:
    """The first time stamp that begins a line after a place, which may be in the middle of a line."""
    while begin < end:
        block = os.pread(fd, min(_BLOCK, end - begin) + LENGTH, begin)
        at = -1
        while 0 <= (at := block.find(b"\n", at + 1)) < _BLOCK:
            when = parse(block[at + 1 : at + 1 + LENGTH])
            if when is not None and begin + at + 1 < end:
                return begin + at + 1, when
        begin += _BLOCK
    return None
