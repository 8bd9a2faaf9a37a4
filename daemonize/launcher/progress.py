"""For people at a terminal: one line that tells what a launch is waiting for. Loaded when they have waited for a moment.

    daemonize: waiting 3 s for port:8080 (reading the index; Ctrl-C stops it)

The cursor stays before it. So whoever else writes there (what is typed is shown by the terminal; the end of a pipeline; the
caller, whose own line may have no end yet) writes over it, and nothing of theirs is erased with it. Before anything of the
server's is shown it is cleared, and drawn again at its next turn, if the server's last line has an end. It is not drawn
where it would be no line of ours (another process group has the terminal), or could not be cleared (TERM), or would have to
wait (Ctrl-S).
"""

from __future__ import annotations

import os

from daemonize.errors import printable
from daemonize.posix.fds import is_writable
from daemonize.posix.streams import Sink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Seconds between two lines, and before the hint.
PERIOD, LONG = 1.0, 5.0
_ERASE = "\x1b[K"
#: Save the cursor, do not go on in the next row; the same back. What is too wide is cut by the terminal.
_BEFORE, _AFTER = "\x1b7\x1b[?7l", _ERASE + "\x1b[?7h\x1b8"
_NEVER = float("inf")


class Progress:
    """The line. program: who says it. hint: a line that is said once, and stays, to those who wait long for `streams`."""

    def __init__(self, began: float, program: str, hint: str, fd: int) -> None:
        self._began, self._program, self._hint, self._fd = began, program, hint, fd
        self._sink = Sink(fd)  # opened anew: what is written never waits
        self._erases = os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = False

    def update(self, now: float, unmet: Sequence[str], told: Mapping[str, str | int], *, free: bool) -> float:
        """Draw what is waited for, and what the server says of itself; returns the monotonic time of the next turn.

        free: whether nothing of the server's stands in the row.
        """
        self.clear()
        waited = now - self._began
        silent = bool(self._hint) and "streams" in unmet
        if free and self._may_write():
            if silent and waited >= LONG:
                self._write(f"{self._program}: {self._hint}\n")
                self._hint, silent = "", False
            if self._erases:
                self._draw(waited, unmet, told)
        return self._began + (int(waited / PERIOD) + 1) * PERIOD if self._erases or silent else _NEVER

    def _draw(self, waited: float, unmet: Sequence[str], told: Mapping[str, str | int]) -> None:
        status = f"{told['status']}; " if told.get("status") else ""
        line = f"{self._program}: waiting {waited:.0f} s for {', '.join(unmet)} ({status}Ctrl-C stops it)"
        self._write(_BEFORE + _cut(printable(line), self._width()) + _AFTER)
        self._drawn = True

    def clear(self) -> None:
        """Take it away: somebody else is going to write."""
        if self._drawn:
            self._drawn = False
            if self._may_write():
                self._write(_ERASE)

    def close(self) -> None:
        """Take it away, for good."""
        self.clear()
        self._sink.close()

    def _may_write(self) -> bool:
        try:
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                return False  # a job in the background is not to write, and may be stopped if it does
        except OSError:
            pass  # not the terminal of this session: nobody is stopped there
        return is_writable(self._sink.fd)

    def _write(self, text: str) -> None:
        data = memoryview(text.encode())
        while data and is_writable(self._sink.fd) and (written := self._sink.write(data)):
            data = data[written:]

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._fd).columns or 80
        except OSError:
            return 80


def _cut(text: str, width: int) -> str:
    """As much as stands in one row: in the last column a terminal may already begin the next."""
    from unicodedata import east_asian_width

    room = width - 1
    for at, character in enumerate(text):
        room -= 2 if east_asian_width(character) in "WF" else 1
        if room < 0:
            return text[:at]
    return text
