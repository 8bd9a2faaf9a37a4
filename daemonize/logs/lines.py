"""The lines of a daemon's logs, for programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daemonize.errors import SetupError, UsageError
from daemonize.logs.log import Log
from daemonize.logs.merged import by_time, line_by_line
from daemonize.logs.streams import streams_of, why_none

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemonize.logs.streams import Kept


def lines_of(record: Kept, count: int | None, since: float | None = None) -> Iterator[tuple[str, bytes]]:
    """(stream, line with its end) of the last `count` lines of each log, None: all there are; stdout's first.

    stream: `stdout`, `stderr`; `output` where both go to one file. Logs with time stamps are merged by them, and counted
    together. since: only what was written since then (seconds since the epoch). Raises SetupError for a log that cannot be
    read, UsageError where lines have no time stamps to find `since` by.
    """
    paths = streams_of(record)
    logs = {name: Log(path) for name, path in paths.items() if why_none(record, name, path) is None}
    try:
        found = sum(max(0, _seek(log, count, since)) for log in logs.values())
        marks = {stream: log.mark() for stream, log in logs.items()}

        def failed(stream: str, error: OSError) -> None:
            raise SetupError("read", logs[stream].path, error)

        stamped = {log.is_stamped for log in logs.values()} - {None}
        if stamped == {True}:
            yield from by_time(logs, marks, failed, 0 if count is None else max(0, found - count))
        else:
            yield from line_by_line(logs, marks, failed)
    finally:
        for log in logs.values():
            log.close()


def _seek(log: Log, count: int | None, since: float | None) -> int:
    try:
        return log.seek_last(count, since)
    except OSError as error:
        raise SetupError("read", log.path, OSError(error.errno, error.strerror or os.strerror(0))) from None
    except ValueError:
        raise UsageError(f"the lines of {log.path} have no time stamps; start with timestamps") from None
