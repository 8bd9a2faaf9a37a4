"""Reading logs: from their end, from a moment on, and as they grow and are rotated: every line once, and in order."""

from __future__ import annotations

import os
import random
import resource
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from daemonize.errors import UsageError
from daemonize.logs import log as module
from daemonize.logs.ends import first_since, last_lines
from daemonize.logs.files import NotALogError, from_newest, key_of, newer, older, open_plain
from daemonize.logs.log import Log
from daemonize.logs.merged import by_time, in_turn
from daemonize.logs.since import parse_since
from daemonize.logs.stamps import parse, stamp
from daemonize.logs.streams import last_lines as glance
from daemonize.logs.streams import streams_of, why_none
from tests.support.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a log is going to be."""
    return str(tmp_path / "web.out")


@pytest.fixture
def log(path: str) -> Iterator[Log]:
    """It, to be read."""
    log = Log(path)
    yield log
    log.close()


def write(path: str, data: bytes) -> None:
    """Append."""
    with open(path, "ab") as file:
        file.write(data)


def rotate(path: str, kept: int = 5) -> None:
    """As the drain does: oldest first, by renaming alone."""
    for number in range(kept, 1, -1):
        if os.path.exists(f"{path}.{number - 1}"):
            os.replace(f"{path}.{number - 1}", f"{path}.{number}")
    if kept:
        os.replace(path, f"{path}.1")
    else:
        os.unlink(path)


def rest(log: Log) -> bytes:
    """All that can be read now."""
    found = b""
    while data := log.read():
        found += data
    return found


# -- time stamps ------------------------------------------------------------------------------------------------------


def test_a_time_stamp() -> None:
    """In UTC, to the microsecond, before a space."""
    assert parse(b"2026-11-21T18:20:33.123456Z hello\n") == 1795285233.123456
    assert parse(stamp(1795285233.5) + b"\n") == 1795285233.5


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"hello\n", b"2026-11-21T18:20:33.123456Z", b"2026-11-21 18:20:33.123456Z x",
        b"2026-11-21T18:20:33.123Z x", b"2026-13-21T18:20:33.123456Z x", b" 2026-11-21T18:20:33.123456Z x",
    ],
)  # fmt: skip
def test_what_is_no_time_stamp(line: bytes) -> None:
    """Negative control: neither nearly one nor a day that is not in the calendar is one."""
    assert parse(line) is None


# -- places in a file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\n", b"a", b"a\n", b"a\nb", b"a\nb\n", b"\n\n\n", b"a\n\nb\n\n",
        b"x" * 200_000, b"x" * 65536 + b"\n" + b"y" * 65535 + b"\n", b"\n" * 70_000, b"l\n" * 100_000 + b"no end",
    ],
)  # fmt: skip
@pytest.mark.parametrize("wanted", [0, 1, 2, 3, 10, 65536, 1_000_000])
def test_last_lines(path: str, text: bytes, wanted: int) -> None:
    """As many as are wanted, or all, wherever blocks end; an end that is missing ends a line, too."""
    write(path, text)
    lines = text.splitlines(keepends=True)
    fd = os.open(path, os.O_RDONLY)
    place, found = last_lines(fd, len(text), wanted)
    os.close(fd)

    assert text[place:] == b"".join(lines[max(0, len(lines) - wanted) :])
    assert found == min(wanted, len(lines))


def test_first_since_is_what_a_look_at_every_line_finds(path: str) -> None:
    """Over files of all kinds: long lines, lines without a time stamp, blocks of either."""
    chance = random.Random(7)
    for size in (0, 1, 3, 100, 3000):
        when, lines = 1e9, []
        for _ in range(size):
            when += chance.choice((0, 0.25, 1.0))
            lines.append((when, stamp(when) + b"x" * chance.choice((0, 5, 100, 3000)) + b"\n"))
            if chance.random() < 0.1:
                lines.append((when, b"no stamp" * chance.choice((1, 20_000 if size < 200 else 1)) + b"\n"))
        with open(path, "wb") as file:
            file.writelines(line for _, line in lines)
        total = os.stat(path).st_size
        fd = os.open(path, os.O_RDONLY)
        for since in (0.0, 1e9 + size / 3, when, when + 1, *(time for time, _ in lines[:: size // 7 + 1])):
            later = sum(len(line) for time, line in lines if time >= since)
            assert first_since(fd, total, since) == (total - later if lines else None)
        os.close(fd)


def test_first_since_where_nothing_has_a_time_stamp(path: str) -> None:
    """There is no such place; it is not looked for in all of a large file."""
    with open(path, "wb") as file:
        file.write(b"hello\n" * 100_000)
        file.truncate(1 << 34)
    fd = os.open(path, os.O_RDONLY)
    assert first_since(fd, 1 << 34, 0.0) is None
    os.close(fd)


# -- the files of a log -----------------------------------------------------------------------------------------------


def test_from_newest(path: str) -> None:
    """A log, and what it was before; what lies at other names is not of it."""
    for number in ("", ".1", ".2", ".9", ".old", ".1.gz"):
        write(path + number, number.encode() or b"now")
    found = [(os.read(fd, 10), os.close(fd))[0] for fd in from_newest(path)]

    assert found == [b"now", b".1", b".2"]


def test_from_newest_while_they_are_renamed(path: str) -> None:
    """Each file comes once, whatever is renamed between two looks."""
    for text in (b"1", b"2", b"3", b"4"):
        write(path, text)
        rotate(path)
    write(path, b"5")
    found = []
    for fd in from_newest(path):
        found.append(os.read(fd, 10))
        os.close(fd)
        if os.path.exists(path):
            rotate(path, 9)
        write(path, b"new")

    assert found == [b"5", b"4", b"3", b"2", b"1"]


def test_neighbours(path: str) -> None:
    """Of a file that is held open, wherever it has been moved to."""
    write(path, b"1")
    held = open_plain(path)
    assert (newer(path, held), older(path, held)) == (None, None)
    for text in (b"2", b"3"):
        rotate(path)
        write(path, text)
    after, before = newer(path, held), older(path, held)
    os.close(held)

    assert after is not None
    assert os.pread(after, 9, 0) == b"2"
    assert before is None
    os.close(after)


def test_the_neighbour_of_what_has_been_removed(path: str) -> None:
    """What was not written to since it was is older, and not next."""
    write(f"{path}.1", b"old")
    os.utime(f"{path}.1", (1e9, 1e9))
    write(path, b"held")
    held = open_plain(path)
    os.unlink(path)
    assert newer(path, held) is None
    write(path, b"new")
    after = newer(path, held)
    os.close(held)

    assert after is not None
    assert os.pread(after, 9, 0) == b"new"
    os.close(after)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "socket", "device"])
def test_only_plain_files_are_opened(path: str, kind: str) -> None:
    """And nothing is waited for."""
    if kind == "symlink":
        os.symlink("/etc/passwd", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
    else:
        path = "/dev/zero"
    with pytest.raises(NotALogError) as caught:
        open_plain(path)
    assert caught.value.strerror in ("it is a symbolic link", "it is not a plain file")


# -- a log ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 100, None])
def test_seek_last_over_rotated_files(path: str, log: Log, count: int | None) -> None:
    """The lines of all files are one row; a file that does not end with a newline gets one."""
    for text in (b"1\n2\n", b"", b"3\n4", b"5\n6\n"):
        write(path, text)
        rotate(path)
    write(path, b"7\n8")
    found = log.seek_last(count)
    lines = [b"%d\n" % number for number in range(1, 8)] + [b"8"]

    assert rest(log) == b"".join(lines if count is None else lines[max(0, 8 - count) :])
    assert found == (-1 if count is None else min(8, count))


def test_of_a_huge_file_only_the_end_is_read(path: str, log: Log) -> None:
    """The last lines of 64 GB, most of which is one line, take no time and no memory."""
    with open(path, "wb") as file:
        file.truncate(1 << 36)
        file.seek(0, os.SEEK_END)
        file.write(b"\none\ntwo\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log.seek_last(2)

    assert rest(log) == b"one\ntwo\n"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000


def test_seek_last_when_there_is_only_a_rotated_file(path: str, log: Log) -> None:
    """That is a moment of every rotation."""
    write(path, b"1\n")
    rotate(path)

    assert log.seek_last(10) == 1
    assert rest(log) == b"1\n"
    write(path, b"2\n")
    assert rest(log) == b"2\n"


def test_a_file_that_has_both_names(path: str, log: Log) -> None:
    """That is a moment of every rotation by a drain: the log is NAME.1 already, and still NAME. Its lines come once."""
    for text in (b"1\n", b"2\n"):
        write(path, text)
        rotate(path)
    write(path, b"3\n")
    os.rename(f"{path}.2", f"{path}.3")
    os.rename(f"{path}.1", f"{path}.2")
    os.link(path, f"{path}.1")

    assert log.seek_last(10) == 3
    assert rest(log) == b"1\n2\n3\n"
    os.unlink(path)
    write(path, b"4\n")
    assert rest(log) == b"4\n"


def test_since(path: str, log: Log) -> None:
    """What has been written since a moment, in whichever file; not more than so many lines of it."""
    lines = [stamp(1e9 + number) + b"%d\n" % number for number in range(9)]
    for first in (0, 3, 6):
        write(path, b"".join(lines[first : first + 3]))
        if first < 6:
            rotate(path)
    for since in range(-1, 10):
        for count in (None, 0, 1, 4, 100):
            expected = lines[max(0, since) :]
            expected = expected if count is None else expected[max(0, len(expected) - count) :]
            found = log.seek_last(count, 1e9 + since)
            assert rest(log) == b"".join(expected)
            assert found == (-1 if count is None else len(expected))


def test_since_without_time_stamps(path: str, log: Log) -> None:
    """It is not known; but nothing has been written since if the file has not."""
    write(path, b"hello\n")
    os.utime(path, (1e9, 1e9))
    assert log.seek_last(None, 1e9 + 1) == -1
    assert rest(log) == b""
    with pytest.raises(ValueError, match="no time stamps"):
        log.seek_last(None, 1e9 - 1)


def test_what_comes(path: str, log: Log) -> None:
    """Before there is a file, and as it grows, part by part of a line."""
    log.seek_end()
    assert rest(log) == b""
    write(path, b"one")
    assert rest(log) == b"one"
    write(path, b" line\n")
    assert rest(log) == b" line\n"


@pytest.mark.parametrize("times", [1, 2, 5])
def test_over_rotations_between_two_looks(path: str, log: Log, times: int) -> None:
    """The rest of the old file, all that came between, and the new one, each once."""
    write(path, b"before\n")
    log.seek_end()
    expected = b""
    for number in range(times):
        write(path, b"rest %d\n" % number)
        expected += b"rest %d\n" % number
        rotate(path)
    write(path, b"new\n")

    assert rest(log) == expected + b"new\n"


def test_over_more_rotations_than_files_are_kept(path: str, log: Log) -> None:
    """What has been removed is lost, but for what is held open; the rest comes in order."""
    write(path, b"held\n")
    log.seek_last(None)
    for number in range(9):
        rotate(path, 3)
        write(path, b"%d\n" % number)

    assert rest(log) == b"held\n5\n6\n7\n8\n"


def test_a_rotation_that_keeps_nothing(path: str, log: Log) -> None:
    """The rest of what was removed, then the new one."""
    write(path, b"1\n")
    log.seek_end()
    write(path, b"2\n")
    rotate(path, 0)
    write(path, b"3\n")

    assert rest(log) == b"2\n3\n"


def test_a_server_that_goes_on_in_the_old_file(path: str, log: Log) -> None:
    """Until something is in the new one, the old one is followed: logrotate makes the new one before it tells the server."""
    write(path, b"1\n")
    log.seek_end()
    rotate(path)
    write(path, b"")
    write(f"{path}.1", b"2\n")
    assert rest(log) == b"2\n"
    write(f"{path}.1", b"3\n")
    write(path, b"4\n")

    assert rest(log) == b"3\n4\n"


@pytest.mark.parametrize("then", [b"new\n", b"much more than there was before\n" * 100])
def test_truncated(path: str, then: bytes) -> None:
    """From the beginning, and that is told; also if it has grown again meanwhile."""
    told: list[bool] = []
    log = Log(path, lambda: told.append(True))
    write(path, b"before\n" * 10)
    log.seek_end()
    os.truncate(path, 0)
    write(path, then)

    assert rest(log) == then
    assert told == [True]
    log.close()


def test_up_to_a_mark(path: str, log: Log) -> None:
    """Nothing that has come since, also if the file has been renamed since."""
    write(path, b"1\n2\n")
    log.seek_last(1)
    mark = log.mark()
    write(path, b"3\n")
    rotate(path)
    write(path, b"4\n")

    assert (log.read(mark), log.read(mark)) == (b"2\n", b"")
    assert rest(log) == b"3\n4\n"


def test_rotated_at_every_step_of_the_reader(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that counts, and rotates, between any two system calls of the reader: all lines are there, in order."""
    chance = random.Random(1)
    written = 0

    def meddle() -> None:
        nonlocal written
        if chance.random() < 0.3:
            write(path, b"%d\n" % written)
            written += 1
            if chance.random() < 0.5:
                rotate(path, 50)

    def meddling(function: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object) -> object:
            meddle()
            return function(*arguments)

        return run

    write(path, b"")
    log = Log(path)
    log.seek_last(None)
    with monkeypatch.context() as patch:
        for name in ("there", "newer", "open_if_there"):
            patch.setattr(module, name, meddling(getattr(module, name)))
        patch.setattr(os, "pread", meddling(os.pread))
        found = b""
        while written < 300:
            meddle()
            found += log.read()
    found += rest(log)
    log.close()

    assert found.split() == [b"%d" % number for number in range(written)]


# -- several streams --------------------------------------------------------------------------------------------------


def both(tmp_path: Path, out: bytes, err: bytes) -> tuple[dict[str, Log], dict[str, module.Mark]]:
    """Two logs with these texts, and their ends."""
    logs = {}
    for stream, text in (("stdout", out), ("stderr", err)):
        write(str(tmp_path / stream), text)
        logs[stream] = Log(str(tmp_path / stream))
        logs[stream].seek_last(None)
    return logs, {stream: log.mark() for stream, log in logs.items()}


def fail(stream: str, error: OSError) -> None:
    """Nothing is to fail here."""
    raise AssertionError(stream) from error


def test_by_time(tmp_path: Path) -> None:
    """In the order of their time stamps; one without goes with the one before it; long ones in parts; some skipped."""
    out = [
        stamp(1) + b"a\n",
        b"goes with a\n",
        stamp(4) + b"x" * 200_000 + b"\n",
        stamp(3) + b"the clock was set back\n",
    ]
    err = [stamp(0) + b"first\n", stamp(2) + b"b\n", stamp(5) + b"last\n"]
    expected = [err[0], out[0], out[1], err[1], out[2], out[3], err[2]]
    for skip in (0, 1, 4, 5, 7, 8):
        logs, marks = both(tmp_path, b"".join(out), b"".join(err))
        found = b"".join(data for _, data in by_time(logs, marks, fail, skip))
        assert found == b"".join(expected[skip:])
        for log in logs.values():
            log.close()
            os.unlink(log.path)


def test_in_turn(tmp_path: Path) -> None:
    """All of one, then all of the other."""
    logs, marks = both(tmp_path, b"1\n2\n", b"3")
    assert list(in_turn(logs, marks, fail)) == [("stdout", b"1\n2\n"), ("stderr", b"3")]
    for log in logs.values():
        log.close()


def test_a_log_that_cannot_be_read_does_not_end_the_other(tmp_path: Path) -> None:
    """It is told of."""
    told = []
    logs, marks = both(tmp_path, b"1\n", b"2\n")
    os.mkfifo(tmp_path / "fifo")
    logs = {"output": Log(str(tmp_path / "fifo")), **logs}
    marks["output"] = logs["output"].mark()
    found = list(by_time(logs, marks, lambda stream, _: told.append(stream)))
    for log in logs.values():
        log.close()

    assert found == [("stdout", b"1\n"), ("stderr", b"2\n")]
    assert told == ["output"]


def test_streams_of(tmp_path: Path) -> None:
    """One where both go to one file, by whatever name; /dev/null is none."""
    out, err = str(tmp_path / "out"), str(tmp_path / "err")
    record = Record(stdout=out, stderr=err)
    assert streams_of(record) == {"stdout": out, "stderr": err}
    assert streams_of(record, stderr_only=True) == {"stderr": err}
    assert streams_of(Record(stdout=out, stderr=out)) == {"output": out}
    write(out, b"")
    os.link(out, err)
    assert streams_of(record) == {"output": out}
    assert [why_none(Record(), *item) for item in streams_of(Record()).items()] == [
        "web keeps no log of its stdout (it goes to /dev/null)",
        "web keeps no log of its stderr (it goes to /dev/null)",
    ]


def test_a_glance(tmp_path: Path) -> None:
    """The last of each stream; of both together where they have time stamps; cut where they are long; nothing is raised."""
    out, err = str(tmp_path / "out"), str(tmp_path / "err")
    record = Record(stdout=out, stderr=err)
    assert glance(record, 3) == []
    write(out, b"1\n2\n")
    rotate(out)
    write(out, b"3\n4")
    write(err, b"x" * 100_000)
    assert glance(record, 3) == [
        ("stdout", b"2"),
        ("stdout", b"3"),
        ("stdout", b"4"),
        ("stderr", b"x" * 4096),
    ]
    os.unlink(err)
    os.mkdir(err)
    assert glance(record, 1) == [("stdout", b"4")]
    lines = [stamp(number) + b"%d" % number for number in range(4)]
    stamped = [str(tmp_path / "stamped.out"), str(tmp_path / "stamped.err")]
    for number, line in enumerate(lines):
        write(stamped[number % 2], line + b"\n")
    found = glance(Record(stdout=stamped[0], stderr=stamped[1]), 3)
    assert found == [("stderr", lines[1]), ("stdout", lines[2]), ("stderr", lines[3])]


# -- moments ----------------------------------------------------------------------------------------------------------


def test_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time ago, or one of a calendar, here or elsewhere."""
    import time

    monkeypatch.setenv("TZ", "XYZ-2")
    time.tzset()
    try:
        noon = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
        assert parse_since("10min", noon) == noon - 600
        assert parse_since("2h", noon) == noon - 7200
        assert parse_since("infinity", noon) == 0.0
        assert parse_since("2026-11-21", noon) == noon - 14 * 3600
        assert parse_since("2026-11-21 14:00", noon) == noon
        assert parse_since("2026-11-21T14:00:00.5", noon) == noon + 0.5
        assert parse_since("2026-11-21T12:00:00Z", noon) == noon
        assert parse_since("2026-11-21T13:00+01:00", noon) == noon
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "10 minutes ago", "\x1b[m", "2026-11-21T25:00"]
)
def test_what_is_no_moment(text: str) -> None:
    """One line that says what would be."""
    with pytest.raises(UsageError, match="is not a moment; write 10min") as caught:
        parse_since(text, 0.0)
    assert "\x1b" not in str(caught.value)


def test_keys_are_of_files(path: str) -> None:
    """Negative control for all that goes by them: two files are two, one by two names is one."""
    write(path, b"")
    write(f"{path}.1", b"")
    os.link(path, f"{path}.2")
    first, second, third = (key_of(os.stat(path + end)) for end in ("", ".1", ".2"))
    assert first == third != second
