"""`daemonctl logs`: what a daemon has written, on our stdout; what is to be said about that, on stderr."""

from __future__ import annotations

import os
import select
from functools import partial
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING

from daemonize.errors import DaemonizeError, UsageError, printable
from daemonize.launcher import words
from daemonize.logs.changes import Changes
from daemonize.logs.log import Log
from daemonize.logs.merged import by_time, in_turn
from daemonize.logs.streams import streams_of, why_none
from daemonize.posix import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemonize.logs.streams import Kept

#: Seconds after which the record is read again.
_AGAIN = 2.0
_CHUNK = 65536


def show_logs(
    find: Callable[[], Kept], *, lines: int | None, follow: bool, stderr_only: bool, since: float | None
) -> int:
    """Print the logs of a daemon; returns the exit status: 1 if one could not be read, or there is none.

    find: its record, and again its record while its logs are followed. lines: the last so many of each log, of both together
    where they have time stamps; None: all. since: only what was written since then (seconds since the epoch). follow: go on
    until a signal ends this process, or the reader of its stdout has gone, who then has seen enough: status 0.

    Raises UsageError where the lines of a log have no time stamps to find `since` by, and what `find` raises at first.
    """
    signals.end_on_interrupt()
    shown = _Shown(find, stderr_only=stderr_only)
    try:
        shown.open(lines, since)
        return shown.follow() if follow else shown.show()
    except _ReaderGoneError:
        return 0  # he has seen enough
    except _UnwritableError as error:
        _complain(f"cannot write the log: {error}")
        return 1
    finally:
        shown.close()


class _ReaderGoneError(Exception):
    """Nobody reads our stdout any more."""


class _UnwritableError(Exception):
    """Our stdout takes no more."""


class _Shown:
    """The logs that are shown, by stream."""

    def __init__(self, find: Callable[[], Kept], *, stderr_only: bool) -> None:
        self._find, self._stderr_only = find, stderr_only
        self._record = find()
        self._out = _Out()
        self._logs: dict[str, Log] = {}
        self._paths: dict[str, str] = {}
        self._skip = 0
        self._stamped = False
        self._status = 0
        self._again = monotonic() + _AGAIN

    # -- which ones ---------------------------------------------------------------------------------------------------

    def open(self, lines: int | None, since: float | None) -> None:
        """Find them, and where to begin. Raises UsageError."""
        found = 0
        for stream, log in self._add(self._streams()):
            try:
                found += max(0, log.seek_last(lines, since))
            except OSError as error:
                self._fail(stream, error)
            except ValueError:
                raise UsageError(_unstamped(self._record.name, log.path)) from None
        stamped = {log.is_stamped for log in self._logs.values()} - {None}
        self._stamped = stamped == {True} or (not stamped and bool(self._record.settings.get("timestamps")))
        if self._stamped and lines is not None:
            self._skip = max(0, found - lines)
        if not self._logs:
            self._status = 1

    def _streams(self) -> dict[str, str]:
        return streams_of(self._record, stderr_only=self._stderr_only)

    def _add(self, streams: Mapping[str, str]) -> list[tuple[str, Log]]:
        """Those of these streams that have logs, which are shown from now on."""
        added = []
        for stream, path in streams.items():
            self._paths[stream] = path
            if none := why_none(self._record, stream, path):
                _complain(none)
            elif _is_our_stdout(path):
                _complain(f"the log {printable(path)} would be written to itself")
                self._status = 1
            else:
                log = self._logs[stream] = Log(path, partial(_complain, f"{printable(path)}: file truncated"))
                added.append((stream, log))
        return added

    def _fail(self, stream: str, error: OSError) -> None:
        _complain(f"cannot read the log {printable(self._logs[stream].path)}: {error.strerror}")
        self._status = 1
        self._drop(stream)

    def _drop(self, stream: str) -> None:
        if log := self._logs.pop(stream, None):
            log.close()

    def close(self) -> None:
        """Show nothing more."""
        for stream in list(self._logs):
            self._drop(stream)

    # -- what is in them ----------------------------------------------------------------------------------------------

    def show(self) -> int:
        """What there is; the exit status."""
        missing = [printable(log.path) for log in self._logs.values() if log.place == (None, None)]
        self._begin()
        if not self._round() and missing:
            _complain(
                f"no log: there is no {' and no '.join(missing)}; nothing was written to it, or it has been removed"
            )
            self._status = 1
        return self._status

    def follow(self) -> int:
        """What there is, and what comes; the exit status when there is no log left to follow."""
        changes = Changes(_say_gone)
        try:
            self._begin()
            while self._logs:
                places = self._places()
                changes.cover(chain.from_iterable(log.watched for log in self._logs.values()))
                busy = self._round()
                self._look_for_others()
                if self._places() == places:
                    changes.wait(busy=busy)
        finally:
            changes.close()
        return 1

    def _begin(self) -> None:
        """With a heading, if there is something to be told from each other."""
        self._out.heads = sum(log.has_more for log in self._logs.values()) > 1

    def _places(self) -> list[object]:
        return [log.place for log in self._logs.values()]

    def _round(self) -> bool:
        """Print what there is by now; whether there was anything."""
        logs = dict(self._logs)
        marks = {stream: log.mark() for stream, log in logs.items()}
        before = self._out.count
        if self._stamped:
            pieces = by_time(logs, marks, self._fail, self._skip)
            self._skip = 0
        else:
            pieces = in_turn(logs, marks, self._fail)
        for stream, data in pieces:
            self._out.put(stream, data, None if self._stamped else self._heading(stream, logs[stream]))
        self._out.flush()
        return self._out.count > before

    def _heading(self, stream: str, log: Log) -> str:
        return f"==> {printable(self._record.name)} {stream} ({printable(log.path)}) <=="

    def _look_for_others(self) -> None:
        """Started anew, it may write elsewhere: to the end of what it has written, and on there."""
        if monotonic() < self._again:
            return
        self._again = monotonic() + _AGAIN
        try:
            self._record = self._find()
        except (DaemonizeError, OSError):
            return  # it has been stopped, and may be started again
        streams = self._streams()
        if streams == self._paths:
            return
        self._round()
        for stream in [stream for stream, path in self._paths.items() if streams.get(stream) != path]:
            del self._paths[stream]
            self._drop(stream)
        for stream, log in self._add({name: streams[name] for name in streams if name not in self._paths}):
            if self._record.settings.get("append"):
                try:
                    log.seek_end()
                except OSError as error:
                    self._fail(stream, error)


class _Out:
    """Our stdout. heads: the first piece has a heading, too. count: of the pieces that were written."""

    def __init__(self) -> None:
        self.heads = False
        self.count = 0
        self._stream = ""
        self._row_is_free = True
        self._waiting = bytearray()

    def put(self, stream: str, data: bytes, heading: str | None) -> None:
        """Write what is of one stream; before it, where it is another than before, the heading."""
        if stream != self._stream:
            lead = "" if self._row_is_free else "\n"
            if heading and (self._stream or self.heads):
                lead += "\n" * bool(self._stream) + heading + "\n"
            data = lead.encode("utf-8", "backslashreplace") + data
            self._stream = stream
        self.count += 1
        self._row_is_free = data.endswith(b"\n")
        self._waiting += data
        if len(self._waiting) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write what waits to be written: a write for each line would cost more than to find it."""
        _write(self._waiting)
        self._waiting.clear()


def _is_our_stdout(path: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(1))
    except OSError:
        return False


def _write(data: bytes | bytearray) -> None:
    done = 0
    while done < len(data):
        try:
            done += os.write(1, data[done:] if done else data)
        except BlockingIOError:  # somebody has made it so for all who have it
            poll = select.poll()
            poll.register(1, select.POLLOUT)
            poll.poll()
        except BrokenPipeError:
            raise _ReaderGoneError from None
        except OSError as error:
            raise _UnwritableError(error.strerror) from None


def _say_gone() -> None:
    raise _ReaderGoneError


def _complain(text: str) -> None:
    words.complain(text, "daemonctl")


def _unstamped(name: str, path: str) -> str:
    return (
        f"the lines of {printable(path)} have no time stamps to find a moment by: "
        f"start {printable(name)} with --timestamps, or use -n"
    )
