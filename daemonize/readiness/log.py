r"""`log:REGEX`: a line of the server's output matches.

Each of its streams by itself, complete lines only: what stands there before the end of the line may go on. REGEX is looked
for anywhere in the line (`re.search`); `^` and `$` are its ends. What is not UTF-8 is replaced by U+FFFD.
"""

from __future__ import annotations

import codecs
import re

from daemonize.errors import UsageError, printable
from daemonize.readiness.probe import Probe

#: Characters of a line that are kept. Of a longer one as many stay as may be the beginning of what matches.
_LONGEST, _KEPT = 65536, 4096
#: Characters of the line that are shown.
_SHOWN = 200


class Line:
    """The line that a stream is at. start: where a search begins: after a character that stands for what was cut off."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text, self._start = "", 0

    def search(self, pattern: re.Pattern[str], data: bytes) -> str | None:
        """Take what has been written. A line that matches, of a long one what is left of it; None: none does."""
        *lines, rest = (self._text + self._decoder.decode(data)).split("\n")
        for line in lines:
            start, self._start = self._start, 0
            found = pattern.search(line.removesuffix("\r"), start)
            if found:
                return line[start:]
        self._text = rest
        return self._search_long(pattern) if len(rest) > _LONGEST else None

    def _search_long(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.search(self._text, self._start)
        if found and found.end() < len(
            self._text
        ):  # a match at the end may be one of `$`, which is not there yet
            return self._text[found.start() :]
        self._text, self._start = self._text[-_KEPT:], 1
        return None


class Log(Probe):
    """Hears what is relayed, or followed in the files that the server writes to."""

    needs_launch = hears_output = True

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        if not argument:
            raise UsageError("it would match any line; alive:0.1s says that something runs")
        try:
            self._pattern = re.compile(argument)
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(f"it is not a regular expression: {printable(str(error))}") from None
        self._lines = {"out": Line(), "err": Line()}
        self.problem = "no line matches"

    def said(self, stream: str, data: bytes) -> None:
        """Look for a line that matches."""
        line = self._lines[stream].search(self._pattern, data)
        if line is not None:
            self.held, self.problem, self.found = True, "", printable(line[:_SHOWN])
