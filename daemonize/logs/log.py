"""One log, from some place in it to its end, and on from there as it grows: as tail -F, and nothing lost or repeated.

- Renamed, and begun anew (rotation): the rest of the old file, then the files that came between, then the new one. The old
  one is left only when something is in the next: until then a server may still be writing to it.
- Truncated: from its beginning. That is seen also if it has grown again since the last look, for then it does not have what
  was last seen there.
- Not there yet: from its beginning, once it is.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from daemonize.logs.ends import first_since, last_lines
from daemonize.logs.files import from_newest, key_of, newer, open_if_there, there
from daemonize.logs.stamps import LENGTH, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.logs.files import Key

_CHUNK = 65536
#: Bytes before the position that are looked at again: are they others now, the file is another.
_KNOWN = 1024


class Mark(NamedTuple):
    """The end of a log at some moment: which file was its newest, and how long that was."""

    key: Key | None
    size: int


class Log:
    """A log. It is read from its beginning, that of its oldest file, or from where `seek_*` goes.

    truncated: is called when it has been. Whatever looks at the files raises OSError where they cannot be read
    (NotALogError: where there are none to be). Close it when done.
    """

    def __init__(self, path: str, truncated: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.position = 0
        self._truncated = truncated
        self._held: int | None = None
        self._next: int | None = None
        self._last = b""

    # -- places -------------------------------------------------------------------------------------------------------

    def seek_end(self) -> None:
        """Before what is still to come."""
        self.close()
        self._begin(None)

    def seek_last(self, count: int | None, since: float | None = None) -> int:
        """Before the last `count` lines (None: all there are), of those since a moment; returns how many they are.

        That is not counted for None: -1. Lines since a moment are found by their time stamps. Raises ValueError where
        lines were written since that have none.
        """
        self.close()
        left = count
        with closing(from_newest(self.path)) as files:
            for fd in files:
                try:
                    size = os.fstat(fd).st_size
                    begin = 0 if since is None else _begin_since(fd, size, since)
                except ValueError:
                    os.close(fd)
                    raise
                if left is not None:
                    begin, left = self._take(fd, size, begin, left)
                if begin < size or self._held is None:
                    self._hold(fd, begin)
                else:  # nothing in it is wanted
                    os.close(fd)
                if begin or left == 0:
                    break
        return -1 if count is None or left is None else count - left

    @staticmethod
    def _take(fd: int, size: int, begin: int, wanted: int) -> tuple[int, int]:
        """Where the lines of a file begin that are wanted, none of them before `begin`, and how many more are wanted."""
        at, found = last_lines(fd, size, wanted)
        if at >= begin:
            return at, wanted - found
        return begin, wanted - _count(fd, begin, size)

    def _hold(self, fd: int, position: int | None) -> None:
        """Go on in this file, at this position; None: at its end."""
        if self._held is not None:
            os.close(self._held)
        self._held = fd
        self.position = os.fstat(fd).st_size if position is None else position
        known = min(self.position, _KNOWN)
        self._last = os.pread(fd, known, self.position - known)

    # -- reading ------------------------------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """The end as it is now; where it cannot be looked at, that of no file."""
        try:
            status = there(self.path)
        except OSError:
            status = None
        return Mark(key_of(status), status.st_size) if status else Mark(None, 0)

    def read(self, until: Mark | None = None) -> bytes:
        """The next of it, at most a chunk; b"" at the end, as of now or as of a mark.

        The last line of a file gets the newline that it lacks when there is a next one.
        """
        while self._held is not None or self._begin():
            data = self._read_held(until)
            if data:
                return data
            if self._is_at(until):
                break
            if self._next is not None:
                ended = self._last[-1:] in (b"", b"\n")
                self._hold(self._next, 0)
                self._next = None
                if not ended:
                    return b"\n"
            elif not self._find_next():
                break
        return b""

    def _begin(self, position: int | None = 0) -> bool:
        fd = open_if_there(self.path)
        if fd is None:
            return False
        self._hold(fd, position)
        return True

    def _read_held(self, until: Mark | None) -> bytes:
        assert self._held is not None
        known = len(self._last)
        wanted = _CHUNK
        if until and until.key == key_of(os.fstat(self._held)):
            wanted = min(max(until.size - self.position, 0), _CHUNK)
        data = os.pread(self._held, known + wanted, self.position - known)
        if data[:known] != self._last:
            self._truncated()
            self.position, self._last = 0, b""
            return self._read_held(until)
        if len(data) > known:
            self.position += len(data) - known
            self._last = data[-_KNOWN:]
        return data[known:]

    def _is_at(self, until: Mark | None) -> bool:
        return bool(until and self._held is not None and until.key == key_of(os.fstat(self._held)))

    def _find_next(self) -> bool:
        """Whether there is a file to go on in. What came to the old one before it was left is still to be read then."""
        assert self._held is not None
        status = there(self.path)
        if status and key_of(status) == key_of(os.fstat(self._held)):
            return False
        self._next = newer(self.path, self._held)
        if self._next is not None:
            found = os.fstat(self._next)
            newest = there(self.path)
            if not found.st_size and (newest is None or key_of(newest) == key_of(found)):
                os.close(self._next)
                self._next = None
        return self._next is not None

    @property
    def place(self) -> tuple[Key | None, Key | None]:
        """The file that it is in, and the newest there is: what is to be watched."""
        return None if self._held is None else key_of(os.fstat(self._held)), self.mark().key

    @property
    def has_more(self) -> bool:
        """Whether there is something to be read now."""
        end, (held, _) = self.mark(), self.place
        return bool(end.key) and (held != end.key or end.size > self.position)

    @property
    def watched(self) -> list[str]:
        """Paths of what changes when there is more: the file that it is in, the newest, their directory."""
        held = [] if self._held is None else [f"/proc/self/fd/{self._held}"]
        return [*held, self.path, os.path.dirname(self.path) or "."]

    @property
    def is_stamped(self) -> bool | None:
        """Whether the next line begins with a time stamp; None where there is no next line."""
        if self._held is None:
            return None
        line = os.pread(self._held, LENGTH, self.position)
        return parse(line) is not None if line else None

    def close(self) -> None:
        """Give back what is open."""
        for fd in (self._held, self._next):
            if fd is not None:
                os.close(fd)
        self._held = self._next = None
        self.position, self._last = 0, b""


def _begin_since(fd: int, size: int, since: float) -> int:
    """Where the lines of a moment and later begin. Raises ValueError."""
    if os.fstat(fd).st_mtime < since:
        return size
    begin = first_since(fd, size, since)
    if begin is None:
        if size:
            raise ValueError("no time stamps")
        return 0
    return begin


def _count(fd: int, begin: int, end: int) -> int:
    """Lines between the beginning of one and the end of one."""
    found, last = 0, b"\n"
    while begin < end:
        block = os.pread(fd, min(_CHUNK, end - begin), begin)
        if not block:
            break
        found, last, begin = found + block.count(b"\n"), block[-1:], begin + len(block)
    return found + (last != b"\n")
