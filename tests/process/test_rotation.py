"""Rotation of a log: what becomes of every file in the directory, whoever is killed in between."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

import pytest

from daemonize.posix import rotation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = b"web.out"
NOBODY = 65534


class Place:
    """A directory with a log that is open, as a drain has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.log = self.open()
        self.opened = [self.log]

    def open(self) -> int:
        """A log of one's own."""
        fd = os.open(self.path / "web.out", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise
        return fd

    def say(self, text: bytes) -> None:
        """Write to it."""
        os.write(self.log, text)

    def rotate(self, keep: int = 5) -> None:
        """Once; then it is the new log that is open."""
        new = rotation.rotate(self.directory, NAME, self.log, keep)
        self.opened.append(new)
        os.close(self.opened.pop(0))
        self.log = new

    @property
    def content(self) -> dict[str, bytes]:
        """Of every plain file."""
        return {path.name: path.read_bytes() for path in sorted(self.path.iterdir()) if path.is_file()}

    def close(self) -> None:
        """Give everything back."""
        for fd in (*self.opened, self.directory):
            os.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """With an empty log."""
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_so_many_old_ones_are_kept(place: Place, keep: int) -> None:
    """The newest is .1; what is older than the last that is kept goes; nothing else is made."""
    for number in range(8):
        place.say(b"%d" % number)
        place.rotate(keep)

    kept = {f"web.out.{place_}": b"%d" % (8 - place_) for place_ in range(1, keep + 1)}
    assert place.content == {"web.out": b"", **kept}


def test_none_is_kept(place: Place) -> None:
    """Then the old one is gone."""
    place.say(b"old")
    place.rotate(0)

    assert place.content == {"web.out": b""}


def test_the_new_log_is_as_the_old_one(place: Place) -> None:
    """Mode and owner, claimed, in append mode, and it does not block."""
    os.fchmod(place.log, 0o640)
    if os.geteuid() == 0:
        os.fchown(place.log, NOBODY, NOBODY)
    before = os.fstat(place.log)
    place.rotate()
    after = os.fstat(place.log)
    flags = fcntl.fcntl(place.log, fcntl.F_GETFL)

    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert flags & os.O_APPEND
    assert not flags & os.O_NONBLOCK
    assert not os.get_inheritable(place.log)
    with pytest.raises(BlockingIOError):
        place.open()


def test_only_numbers_up_to_a_gap_move(place: Place) -> None:
    """Who was killed in the middle has left a gap: it is filled, and what lies beyond it stays where it is."""
    for number in (1, 2, 4):
        (place.path / f"web.out.{number}").write_bytes(b"old %d" % number)
    place.say(b"now")
    place.rotate()

    assert place.content == {
        "web.out": b"",
        "web.out.1": b"now",
        "web.out.2": b"old 1",
        "web.out.3": b"old 2",
        "web.out.4": b"old 4",
    }


class Killed(BaseException):
    """Whoever rotates ends here."""


@pytest.mark.parametrize("step", range(12))
def test_killed_at_any_step(place: Place, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any system call that changes the directory: there is a log, nothing is lost, and the next one mends it."""
    for number in (2, 1):
        place.say(b"old %d" % number)
        place.rotate()
    place.say(b"now")
    calls = 0

    def cut(call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls > step:
                raise Killed
            return call(*args, **kwargs)

        return counted

    with monkeypatch.context() as patch:
        for name in ("rename", "link", "unlink"):
            patch.setattr(os, name, cut(getattr(os, name)))
        try:
            place.rotate()
        except Killed:
            new = os.open(place.path / "web.out", os.O_WRONLY | os.O_APPEND)
            killed = True
            os.close(new)
        else:
            killed = False
    words = sorted({text for text in place.content.values() if text})
    assert words == [b"now", b"old 1", b"old 2"]
    assert killed == (step < 4)  # two moves, the second name, the new log
    place.say(b" and then")
    place.rotate()

    there = place.content
    assert there.pop("web.out") == b""
    assert sorted(there.values()) == sorted(
        [b"now and then", b"old 1", b"old 2"] if killed else [b" and then", b"now", b"old 1", b"old 2"]
    )
    assert all(os.stat(place.path / name).st_nlink == 1 for name in place.content)


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo", "stranger"])
@pytest.mark.parametrize("where", ["web.out.1", "web.out.2", "web.out.rotating"])
def test_what_is_no_file_of_ours_is_not_touched(place: Place, where: str, kind: str) -> None:
    """Then there is no rotation, and the log is as it was."""
    path = place.path / where
    if where == "web.out.2":
        (place.path / "web.out.1").write_bytes(b"old")
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    elif os.geteuid() == 0:
        path.write_bytes(b"")
        os.chown(path, NOBODY, NOBODY)
    else:
        pytest.skip("needs root to give a file away")
    before = os.lstat(path)
    place.say(b"now")
    with pytest.raises(OSError):
        place.rotate(2)

    after = os.lstat(path)
    assert (after.st_ino, stat.S_IFMT(after.st_mode), after.st_uid) == (
        before.st_ino,
        stat.S_IFMT(before.st_mode),
        before.st_uid,
    )
    assert (place.path / "web.out").read_bytes() == b"now"


def test_a_file_with_content_at_the_place_of_the_next_one(place: Place) -> None:
    """It is nobody's leftover."""
    (place.path / "web.out.rotating").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        place.rotate()

    assert (place.path / "web.out.rotating").read_bytes() == b"precious"


@pytest.mark.parametrize("what", ["moved", "replaced"])
def test_a_log_that_was_moved_away(place: Place, what: str) -> None:
    """By logrotate(8), or a person: that is not touched; the log that is there now, or a new one, is gone on in."""
    place.say(b"before")
    os.rename(place.path / "web.out", place.path / "elsewhere")
    if what == "replaced":
        (place.path / "web.out").write_bytes(b"new ")
    place.rotate()
    place.say(b"after")

    there = b"new after" if what == "replaced" else b"after"
    assert place.content == {"elsewhere": b"before", "web.out": there}


def test_a_log_that_is_anothers_by_now(place: Place) -> None:
    """Somebody else has claimed what lies there: it is his."""
    os.rename(place.path / "web.out", place.path / "elsewhere")
    other = place.open()
    try:
        with pytest.raises(BlockingIOError):
            place.rotate()
    finally:
        os.close(other)
    assert place.content == {"elsewhere": b"", "web.out": b""}


@pytest.mark.parametrize("number", rotation._NO_LINKS)
def test_without_links(place: Place, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vfat has none, and others' files get none: renamed, with a moment in which there is no log."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    place.say(b"old")
    place.rotate()

    assert place.content == {"web.out": b"", "web.out.1": b"old"}


def test_there_is_a_claimed_log_at_every_moment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks before or after any step finds a log that somebody has: its name is never free."""
    looks = 0

    def watched(name: str) -> Callable[..., object]:
        call = getattr(os, name)

        def looked_at(*args: object, **kwargs: object) -> object:
            nonlocal looks
            result = call(*args, **kwargs)
            looks += 1
            fd = os.open(place.path / "web.out", os.O_RDONLY)  # an error if there is none
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(fd)
            return result

        return looked_at

    for name in ("rename", "link", "unlink"):
        monkeypatch.setattr(os, name, watched(name))
    place.rotate()
    place.rotate()

    assert looks == 5  # a second name and the new log, twice; and .1 becomes .2


def test_a_directory_that_may_not_be_written(place: Place) -> None:
    """An error, and nothing has changed."""
    directory = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as caught:
            rotation.rotate(directory, NAME, place.log, 5)
    finally:
        os.close(directory)
    assert caught.value.errno in (errno.ENOENT, errno.EACCES, errno.EROFS)
