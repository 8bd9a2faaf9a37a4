"""Paths are followed to the real file, and never through a symlink of another user's."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from daemonize.errors import SetupError
from daemonize.posix import paths
from daemonize.posix.fds import Descriptors
from tests.support.forked import DAEMON, NOBODY, call, common_directory, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["O_PATH", "no O_PATH"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors that only name a directory, and those of systems that have none."""
    if request.param == "no O_PATH":
        monkeypatch.setattr(paths, "O_PATH", 0)


@pytest.fixture
def sticky() -> Iterator[bytes]:
    """A directory like /tmp: everybody can write, nobody can remove another's files."""
    with common_directory(0o1777) as path:
        yield path


@pytest.fixture
def base(sticky: bytes, way: None) -> bytes:
    """The same, in both ways."""
    return sticky


def real(path: bytes, trusted: tuple[int, ...] = ()) -> bytes:
    """The file that a path leads to, as the descriptor and the name say."""
    owner = Descriptors()
    try:
        directory, name = paths.open_parent(path, owner, trusted)
        return os.path.join(os.readlink(b"/proc/self/fd/%d" % directory), name)
    finally:
        owner.close()


def refusal(path: bytes, trusted: tuple[int, ...] = ()) -> OSError:
    """The error that a path leads to."""
    with pytest.raises(OSError) as caught:
        real(path, trusted)
    return caught.value


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        (b"file", b"file"),
        (b"dir/file", b"dir/file"),
        (b"./dir/.//file", b"dir/file"),
        (b"dir/../file", b"file"),
        (b"dir/sub/../../file", b"file"),
        (b"link/file", b"dir/sub/file"),
        (b"link/../file", b"dir/file"),
        (b"absolute/file", b"dir/file"),
        (b"last", b"dir/there"),
        (b"dangling", b"dir/not there"),
        (b"twice", b"dir/there"),
        (b"\xff\xfe/\n", b"\xff\xfe/\n"),
    ],
)
def test_it_leads_to_the_real_file(base: bytes, path: bytes, leads_to: bytes) -> None:
    """Dots, empty components, relative and absolute symlinks, dangling ones; the file need not be there."""
    os.makedirs(base + b"/dir/sub")
    os.mkdir(base + b"/\xff\xfe")
    os.symlink(b"dir/sub", base + b"/link")
    os.symlink(base + b"//dir", base + b"/absolute")
    os.symlink(b"dir/there", base + b"/last")
    os.symlink(b"./last", base + b"/twice")
    os.symlink(b"link/../not there", base + b"/dangling")

    assert real(base + b"/" + path, (os.geteuid(),)) == base + b"/" + leads_to


def test_more_dots_than_directories(base: bytes) -> None:
    """Above the root there is the root."""
    assert real(b"/../../.." + base + b"/file") == base + b"/file"
    assert real(b"//file") == b"/file"


@pytest.mark.parametrize("path", [b"dir/", b"dir/.", b"dir/..", b"to dir/", b"slash", b"/"])
def test_the_name_of_a_directory(base: bytes, path: bytes) -> None:
    """A path that can only be a directory's is none of a file."""
    os.mkdir(base + b"/dir")
    os.symlink(b"dir", base + b"/to dir")
    os.symlink(b"dir/", base + b"/slash")

    assert refusal(os.path.join(base, path), (os.geteuid(),)).errno == errno.EISDIR


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"nothing/file", errno.ENOENT),
        (b"plain/file", errno.ENOTDIR),
        (b"loop", errno.ELOOP),
        (b"loop/file", errno.ELOOP),
        (b"x" * 256, errno.ENAMETOOLONG),
        (b"x" * 256 + b"/file", errno.ENAMETOOLONG),
    ],
)
def test_a_path_that_leads_nowhere(base: bytes, path: bytes, code: int) -> None:
    """The kernel's own reasons; nothing is left open (the guards look)."""
    os.symlink(b"loop", base + b"/loop")
    with open(base + b"/plain", "wb"):
        pass

    assert refusal(base + b"/" + path, (os.geteuid(),)).errno == code


def test_forty_links_are_followed(base: bytes) -> None:
    """As many as the kernel follows, and not one more."""
    for number in range(41):
        os.symlink(b"%d" % (number + 1), base + b"/%d" % number)

    assert real(base + b"/1", (os.geteuid(),)) == base + b"/41"
    assert refusal(base + b"/0", (os.geteuid(),)).errno == errno.ELOOP


@pytest.mark.parametrize("path", [b"last", b"to dir/file"])
def test_a_strangers_symlink(base: bytes, path: bytes) -> None:
    """Neither a last symlink nor one on the way is followed if another user made it, and it is said who."""
    need_root()
    os.mkdir(base + b"/dir")
    target = {b"last": b"dir/file", b"to dir/file": b"dir"}[path]
    link = base + b"/" + path.partition(b"/")[0]
    call(lambda: os.symlink(target, link), NOBODY)
    error = SetupError("use", "/x.pid", refusal(base + b"/" + path, (DAEMON,)))

    assert str(error) == f"cannot use /x.pid: {os.fsdecode(link)} is a symlink of another user's (nobody)"
    # Negative control: the same link, of somebody trusted.
    assert real(base + b"/" + path, (NOBODY,)) == base + b"/dir/file"


def test_a_strangers_symlink_behind_a_good_one(base: bytes) -> None:
    """The end of a chain is looked at like its beginning; a name that could harm a terminal is escaped."""
    need_root()
    os.symlink(b"bad\x1b[2J", base + b"/good")
    call(lambda: os.symlink(b"/etc/passwd", base + b"/bad\x1b[2J"), 3999999999)

    error = refusal(base + b"/good")

    assert (error.strerror or "").endswith(r"/bad\x1b[2J is a symlink of another user's (3999999999)")


def test_an_ordinary_user_follows_roots_symlinks(base: bytes) -> None:
    """The system's own symlinks (/var/run) are everybody's."""
    need_root()
    os.mkdir(base + b"/dir")
    os.symlink(b"dir", base + b"/link")

    assert call(lambda: real(base + b"/link/file"), NOBODY) == base + b"/dir/file"


def test_a_directory_that_cannot_be_read(base: bytes) -> None:
    """One that may be searched is enough, where the system knows such descriptors."""
    need_root()
    os.makedirs(base + b"/dir/sub")
    os.chmod(base + b"/dir", 0o711)

    if paths.O_PATH:
        assert call(lambda: real(base + b"/dir/sub/file"), NOBODY) == base + b"/dir/sub/file"
    else:
        with pytest.raises(PermissionError):
            call(lambda: real(base + b"/dir/sub/file"), NOBODY)


def test_a_directory_that_cannot_be_searched(base: bytes) -> None:
    """The negative control of the one above."""
    need_root()
    os.makedirs(base + b"/dir/sub")
    os.chmod(base + b"/dir", 0o644)

    with pytest.raises(PermissionError):
        call(lambda: real(base + b"/dir/sub/file"), NOBODY)


def test_a_symlink_that_is_exchanged_between_two_looks(
    sticky: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owner and target are those of one and the same link."""
    need_root()
    os.mkdir(sticky + b"/dir")
    os.symlink(b"dir/good", sticky + b"/link")
    readlink = os.readlink

    def exchanged(*args: bytes, **kwargs: int) -> bytes:
        os.unlink(sticky + b"/link")
        call(lambda: os.symlink(b"/etc/passwd", sticky + b"/link"), NOBODY)
        monkeypatch.setattr(os, "readlink", readlink)
        return readlink(*args, **kwargs)

    monkeypatch.setattr(os, "readlink", exchanged)

    assert real(sticky + b"/link") == sticky + b"/dir/good"


@pytest.mark.parametrize(
    ("owner", "mode", "entry", "path", "firm"),
    [
        (0, 0o755, 0, b"entry/file", True),
        (0, 0o755, DAEMON, b"entry/file", True),
        (0, 0o1777, 0, b"entry/file", True),
        (0, 0o1777, DAEMON, b"entry/file", False),  # he can rename what is his
        (0, 0o777, 0, b"entry/file", False),
        (0, 0o775, 0, b"entry/file", False),
        (DAEMON, 0o755, 0, b"entry/file", False),
        (DAEMON, 0o555, 0, b"entry/file", False),
        (DAEMON, 0o1755, 0, b"entry/file", False),
        (0, 0o755, 0, b"link/file", True),
        (DAEMON, 0o755, 0, b"link/file", False),
        (DAEMON, 0o755, 0, b"file", True),  # whose directory it is in the end does not matter
    ],
)
def test_who_can_change_where_it_leads(
    owner: int, mode: int, entry: int, path: bytes, firm: bool, base: bytes
) -> None:
    """Whoever can put something else in the place of a directory, or of a symlink, on the way."""
    need_root()
    os.makedirs(top := base + b"/roots/top")
    os.mkdir(top + b"/entry")
    os.symlink(b"entry", top + b"/link")
    os.chown(top + b"/entry", entry, -1)
    os.chown(top, owner, -1)
    os.chmod(top, mode)
    found = Descriptors()
    is_firm = paths.Place.at(top + b"/" + path, found, ()).is_firm
    found.close()
    os.chmod(top, 0o700)

    assert is_firm is firm
