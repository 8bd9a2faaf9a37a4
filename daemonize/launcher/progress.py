"""For people at a terminal: one line, always the same, that tells what a launch is waiting for. Only loaded for them.

    daemonize: waiting 3 s for port:8080 (reading the index)

It stands below what the server says: before any of that is shown it is cleared, and it is drawn again at its next turn, if
the server's last line has an end. It is not drawn where it would be no line of ours (another process group has the
terminal), or could not be cleared (TERM), or would have to wait (Ctrl-S).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daemonize.errors import printable
from daemonize.posix.streams import is_writable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Seconds before the first line, between two of them, and before the hint.
MOMENT, PERIOD, LONG = 1.0, 1.0, 5.0
_CLEAR = "\r\x1b[K"
_NARROW = 20


class Progress:
    """The line. program: who says it. hint: a line that is said once, and stays, to those who wait long for `streams`.

    due: monotonic time of the next turn.
    """

    def __init__(self, began: float, program: str, hint: str, fd: int = 2) -> None:
        self.due = began + MOMENT
        self._began, self._program, self._hint, self._fd = began, program, hint, fd
        self._erases = os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = False
        self._at_start = True  # of a line: nothing of the server's stands before the cursor

    def update(self, now: float, unmet: Sequence[str], told: Mapping[str, str | int]) -> None:
        """It is time: draw what is waited for, and what the server says of itself."""
        self.due = now + PERIOD
        if not self._may_draw():
            return
        self.clear()
        if self._hint and "streams" in unmet and now - self._began >= LONG:
            self._write(f"{self._program}: {self._hint}\n")
            self._hint = ""
        if self._erases:
            status = f" ({told['status']})" if told.get("status") else ""
            waited = f"waiting {now - self._began:.0f} s for {', '.join(unmet)}{status}"
            self._write(_cut(f"{self._program}: {printable(waited)}", self._width()))
            self._drawn = True

    def clear(self) -> None:
        """Take it away: somebody else is going to write."""
        if self._drawn:
            self._drawn = False
            self._write(_CLEAR)

    def wrote(self, last: int) -> None:
        """Somebody has written; the last byte of it."""
        self._at_start = last == ord("\n")

    def _may_draw(self) -> bool:
        try:
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                return False  # a job in the background is not to write
        except OSError:
            pass  # not the terminal of this session: nobody is stopped there
        return self._at_start and is_writable(self._fd)

    def _write(self, text: str) -> None:
        try:
            os.write(self._fd, text.encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # the terminal has gone

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._fd).columns or 80
        except OSError:
            return 80


def _cut(text: str, width: int) -> str:
    """As much as stands in one line: in the last column a terminal may already begin the next."""
    from unicodedata import east_asian_width

    room = max(width, _NARROW) - 1
    for at, character in enumerate(text):
        room -= 2 if east_asian_width(character) in "WF" else 1
        if room < 0:
            return text[:at]
    return text
