"""What the drain writes with: whole lines, every byte written or counted, whatever the disk does."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemonize.launcher import logwriter
from daemonize.launcher.logwriter import Log, Writer
from daemonize.logs import stamps
from tests.support.forked import need_root
from tests.support.losses import NOTE, check_counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOMENT = 1_800_000_000.0


class Kept:
    """A log in a directory, as a drain keeps it."""

    def __init__(self, path: Path, limit: int = 0, keep: int = 99, *, stamped: bool = False) -> None:
        self.path = path
        self.directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fd = os.open(path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.log = Log(fd, place=(self.directory, b"log"), limit=limit, keep=keep, stamped=stamped)

    @property
    def files(self) -> list[bytes]:
        """The content of all files, oldest first."""
        numbers = sorted((int(path.suffix[1:]) for path in self.path.glob("log.*")), reverse=True)
        return [(self.path / f"log{(n and f'.{n}') or ''}").read_bytes() for n in (*numbers, 0)]

    @property
    def all(self) -> bytes:
        """All of it in order."""
        return b"".join(self.files)

    def close(self) -> None:
        """Give everything back."""
        os.close(self.log.fd)
        os.close(self.directory)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[Kept]]:
    """Logs to be closed."""
    kept: list[Kept] = []
    yield kept
    for log in kept:
        log.close()


def chunks(data: bytes, seed: int, most: int) -> Iterator[bytes]:
    """The data in pieces that mind no line."""
    random_ = random.Random(seed)
    at = 0
    while at < len(data):
        size = random_.randint(1, most)
        yield data[at : at + size]
        at += size


NUMBERS = b"".join(b"%d\n" % number for number in range(20_000))


@pytest.mark.parametrize("most", [7, 1000, 65536])
def test_every_line_once_in_order(tmp_path: Path, made: list[Kept], most: int) -> None:
    """Over all rotated files; no line is divided, and none grows beyond the limit but for the rest of its last line."""
    made.append(Kept(tmp_path, limit=4096, keep=99))
    for chunk in chunks(NUMBERS, most, most):
        made[0].log.write(chunk, MOMENT)
    files = made[0].files

    assert b"".join(files) == NUMBERS
    assert len(files) > 20
    assert all(file.endswith(b"\n") and len(file) <= 4096 + len(b"19999") for file in files[:-1])
    assert all(len(file) > 4000 for file in files[:-1])


@pytest.mark.parametrize("most", [7, 1000, 65536])
def test_every_line_has_one_stamp(tmp_path: Path, made: list[Kept], most: int) -> None:
    """However it came in pieces, and over rotated files: the time in which its first byte was read."""
    made.append(Kept(tmp_path, limit=40_000, stamped=True))
    for count, chunk in enumerate(chunks(NUMBERS, most, most)):
        made[0].log.write(chunk, MOMENT + count)
    lines = made[0].all.splitlines(keepends=True)

    assert b"".join(line[stamps.LENGTH :] for line in lines) == NUMBERS
    moments = [line[: stamps.LENGTH] for line in lines]
    assert moments == sorted(moments)
    assert moments[0] == stamps.stamp(MOMENT)
    assert all(len(file) <= 40_000 for file in made[0].files)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"\x00", b"\n")), max_size=30),
    st.integers(1, 60),
    st.booleans(),
)
def test_any_output_is_there_again(pieces: list[bytes], limit: int, stamped: bool) -> None:
    """Property: without the stamps it is the very bytes, and only a line longer than the limit is divided."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as path:
        kept = Kept(Path(path), limit=limit, keep=999, stamped=stamped)
        try:
            for piece in pieces:
                kept.log.write(piece, MOMENT)
            data = b"".join(pieces)
            mark = stamps.stamp(MOMENT) if stamped else b""
            expected = b"".join(mark + line for line in data.split(b"\n")[:-1] for line in [line + b"\n"])
            last = data.rpartition(b"\n")[2]
            assert kept.all == expected + (mark + last if last else b"")
            for file in kept.files[:-1]:
                longest = max(len(line) for line in expected.split(b"\n")) + 1
                assert file.endswith(b"\n") or longest > limit or len(mark + last) > limit
        finally:
            kept.close()


def test_a_line_without_end_is_divided(tmp_path: Path, made: list[Kept]) -> None:
    """The disk is not for one line alone; in parts, with one stamp at its beginning."""
    made.append(Kept(tmp_path, limit=1000, keep=5, stamped=True))
    for _ in range(100):
        made[0].log.write(b"x" * 500, MOMENT)
    files = made[0].files

    assert len(files) == 6
    assert all(1000 <= len(file) <= 3000 for file in files[:-1])
    assert made[0].all.count(stamps.stamp(MOMENT)) == 0  # it was in the first, which is gone
    assert set(made[0].all) == {ord("x")}


def test_an_old_log_is_gone_on_in_and_counts(tmp_path: Path, made: list[Kept]) -> None:
    """What is there already is part of the size."""
    (tmp_path / "log").write_bytes(b"old\n" * 20)
    made.append(Kept(tmp_path, limit=100))
    made[0].log.write(b"y" * 30 + b"\n", MOMENT)

    assert made[0].files == [b"old\n" * 20, b"y" * 30 + b"\n"]


@pytest.mark.parametrize("stamped", [False, True])
def test_a_half_line_of_an_earlier_server(tmp_path: Path, made: list[Kept], stamped: bool) -> None:
    """It is ended where a time stamp is to follow, which would else be in the middle of a line."""
    (tmp_path / "log").write_bytes(b"old\nhalf")
    made.append(Kept(tmp_path, stamped=stamped))
    made[0].log.write(b"new\n", MOMENT)

    assert made[0].files == [
        b"old\nhalf\n" + stamps.stamp(MOMENT) + b"new\n" if stamped else b"old\nhalfnew\n"
    ]


def test_where_it_cannot_be_renamed_it_is_gone_on_in(tmp_path: Path, made: list[Kept]) -> None:
    """Nothing is lost, and it is tried again when it has doubled."""
    (tmp_path / "log.1").mkdir()
    made.append(Kept(tmp_path, limit=1000))
    for chunk in chunks(NUMBERS[:5000], 1, 100):
        made[0].log.write(chunk, MOMENT)
    assert (tmp_path / "log").read_bytes() == NUMBERS[:5000]
    (tmp_path / "log.1").rmdir()
    for chunk in chunks(NUMBERS[5000:9000], 1, 100):
        made[0].log.write(chunk, MOMENT)

    assert made[0].all == NUMBERS[:9000]
    assert len(made[0].files) > 2


def test_a_log_that_somebody_has_emptied(tmp_path: Path, made: list[Kept]) -> None:
    """copytruncate: the size is that of the file, and not of all that was ever written."""
    made.append(Kept(tmp_path, limit=1000))
    made[0].log.write(b"a" * 899 + b"\n", MOMENT)
    os.truncate(tmp_path / "log", 0)
    made[0].log.write(b"b" * 499 + b"\n", MOMENT)

    assert made[0].files == [b"b" * 499 + b"\n"]


# --- what cannot be written ------------------------------------------------------------------------------------------

FULL = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from tests.process.test_logwriter import full_disk
full_disk(Path(sys.argv[1]), stamped=sys.argv[2] == "True", most=int(sys.argv[3]))
print("counted")
"""


def full_disk(path: Path, *, stamped: bool, most: int) -> None:
    """On a file system of 64 KiB: fill it, make room, go on; every byte must have been written or counted."""
    kept = Kept(path, stamped=stamped)
    filler = path / "filler"
    filler.write_bytes(b"f" * 49152)
    sent = b""
    for round_ in range(4):
        block = b"".join(b"round %d line %d\n" % (round_, number) for number in range(2000))
        for chunk in chunks(block, round_, most):
            kept.log.write(chunk, MOMENT)
        sent += block
        os.truncate(filler, 49152 - 12288 * (round_ + 1))
    kept.log.write(b"and now it goes on\n", MOMENT)
    kept.log.finish(MOMENT)
    check_counted(kept.all, sent + b"and now it goes on\n", stamps.LENGTH if stamped else 0)
    assert kept.all.endswith(b"and now it goes on\n")


@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize("most", [50, 3000, 65536])
def test_a_full_disk(tmp_path: Path, stamped: bool, most: int) -> None:
    """A real one: whole lines, notes where some are missing, and the log goes on when there is room again."""
    need_root()
    if not shutil.which("unshare"):
        pytest.skip("needs unshare(1)")
    mount = f'mount -t tmpfs -o size=64k tmpfs "{tmp_path}" && exec "$@"'
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    words = [sys.executable, "-c", FULL.format(root=root), str(tmp_path), str(stamped), str(most)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout == "counted\n"


class Limited:
    """write(2) that takes so many bytes altogether, and then what is given to it from time to time."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._write = os.write

    def write(self, fd: int, data: bytes) -> int:
        """A short write, as the kernel's on a disk that becomes full."""
        if not self.room:
            raise OSError(28, "No space left on device")
        done = self._write(fd, data[: self.room])
        self.room -= done
        return done


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([b"a", b"bb\n", b"\n", b"c" * 40, b"ddddddd\n"]), min_size=1).map(
                b"".join
            ),
            st.one_of(st.just(None), st.integers(0, 200)),
        ),
        max_size=20,
    ),
    st.booleans(),
    st.sampled_from([0, 100]),
)
def test_every_byte_is_written_or_counted(
    rounds: list[tuple[bytes, int | None]], stamped: bool, limit: int
) -> None:
    """Property: wherever a disk becomes full, what is there and what the notes say is all there was."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as path, pytest.MonkeyPatch.context() as patch:
        kept = Kept(Path(path), limit=limit, keep=999, stamped=stamped)
        try:
            for data, room in rounds:
                with patch.context() as now:
                    if room is not None:
                        now.setattr(logwriter.os, "write", Limited(room).write)
                    kept.log.write(data, MOMENT)
            kept.log.finish(MOMENT)
            text = kept.all.replace(stamps.stamp(MOMENT), b"") if stamped else kept.all
            lost = sum(int(match[1]) for match in NOTE.finditer(text))
            rest = NOTE.sub(b"", text)
            sent = b"".join(data for data, _ in rounds)
            ended = text.count(b"\n") - len(NOTE.findall(text)) - rest.count(b"\n")
            assert ended == 0
            # A line that was cut off is ended before a note: so many line ends are the log's own.
            own = lost + len(rest) - len(sent)
            assert 0 <= own <= len(NOTE.findall(text))
            if not lost:
                assert rest == sent
        finally:
            kept.close()


# --- a disk that does not answer -------------------------------------------------------------------------------------


def test_a_disk_that_hangs_costs_words_and_not_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full pipe as log: after the patience, once, nobody waits; when it goes on again the count is noted."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    writer = Writer(Log(write))
    line = b"x" * 999 + b"\n"
    chunk, sent = line * 64, 0
    took = []
    for _ in range(100):
        began = time.monotonic()
        writer.put(chunk, MOMENT)
        took.append(time.monotonic() - began)
        sent += len(chunk)
    assert max(took) < logwriter.PATIENCE + 0.5
    assert sum(second > logwriter.PATIENCE / 2 for second in took) == 1

    got: list[bytes] = []

    def read_all() -> None:
        while data := os.read(read, 65536):
            got.append(data)

    import threading

    reader = threading.Thread(target=read_all)
    reader.start()
    writer.close(MOMENT)
    os.close(write)
    reader.join()
    os.close(read)
    text = b"".join(got)
    lost = [int(match[1]) for match in NOTE.finditer(text)]
    assert {match[2] for match in NOTE.finditer(text)} == {logwriter.HANGS.encode()}
    assert len(lost) == 1
    assert lost[0] + len(NOTE.sub(b"", text)) == sent
    assert set(NOTE.sub(b"", text).split(b"\n")) == {line[:-1], b""}


def test_who_writes_faster_than_a_slow_disk_waits_and_loses_nothing() -> None:
    """A disk that takes something now and then is not one that hangs."""
    read, write = os.pipe()
    writer = Writer(Log(write))
    total = 4 << 20
    got = 0

    import threading

    def read_slowly() -> None:
        nonlocal got
        while data := os.read(read, 16384):
            got += len(data)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    for _ in range(total // 65536):
        writer.put(b"y" * 65535 + b"\n", MOMENT)
    writer.close(MOMENT)
    os.close(write)
    reader.join()
    os.close(read)
    assert got == total
