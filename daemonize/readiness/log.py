r"""`log:REGEX`: a line of the server's output matches.

Each of its streams by itself, complete lines only: what stands there before the end of the line may go on ("ready" as
"ready in 40 s"). REGEX is looked for anywhere in the line (`re.search`); `^` and `$` are its ends. What is not UTF-8 is
replaced by U+FFFD.
"""

from __future__ import annotations

import codecs
import re
import warnings

from daemonize.errors import UsageError, printable
from daemonize.posix.signals import TimeLimit
from daemonize.readiness import Probe

#: Characters of a line that are kept. Of a longer one as many stay as may be the beginning of what matches.
_LONGEST, _KEPT = 65536, 4096
#: Characters of the line that are shown.
_SHOWN = 200
_LIMIT = 1.0  # seconds of CPU time for what is written at once: some expressions take years for a line


class Line:
    """The line that a stream is at. A long one is searched in parts, each from _KEPT characters before its beginning."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._start = (
            0  # of a search: after one character that stands for what was cut off, so that `^` is not here
        )
        self._found: str | None = None

    def search(self, data: bytes) -> str | None:
        """Take what has been written. The line that matches, of a long one a part of it; None: none does."""
        *lines, rest = (self._text + self._decoder.decode(data)).split("\n")
        for line in lines:
            found = self._found or self._matching(line.removesuffix("\r"))
            if found is not None:
                return found
            self._start = 0
        self._text = rest
        if len(rest) > _LONGEST:
            self._shorten()
        return None

    def _matching(self, line: str) -> str | None:
        return line[self._start :] if self._pattern.search(line, self._start) else None

    def _shorten(self) -> None:
        found = self._pattern.search(self._text, self._start)
        # A match at the end may be one of `$`, which is not there yet.
        if found and found.end() < len(self._text) and self._found is None:
            self._found = self._text[found.start() :][:_SHOWN]
        self._text, self._start = self._text[-_KEPT:], 1


class Log(Probe):
    """Hears what is relayed, or followed in the files that the server writes to."""

    needs_launch = hears_output = True

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        if not argument:
            raise UsageError("it would match any line; alive:0.1s says that something runs")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what may mean something else one day
                pattern = re.compile(argument)
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(f"it is not a regular expression: {printable(str(error))}") from None
        self._lines = {"out": Line(pattern), "err": Line(pattern)}
        self.problem = "it has written no line (or keeps it in a buffer: python3 -u, stdbuf -oL)"

    def said(self, stream: str, data: bytes) -> None:
        """Look for a line that matches."""
        if not self.hears_output:
            return
        try:
            with TimeLimit(_LIMIT):
                line = self._lines[stream].search(data)
        except TimeoutError:
            # It would hold up the launch, its timeout and whoever interrupts it, line after line.
            self.hears_output = False
            self.problem = f"to look for it in what was written took longer than {_LIMIT:g} s: simplify REGEX"
            return
        if line is not None:
            self.held, self.problem, self.found = True, "", printable(line)[:_SHOWN]
        elif b"\n" in data:
            self.problem = "no line matches"
