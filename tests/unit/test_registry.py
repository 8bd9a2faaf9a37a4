"""Names of daemons, and the directories their logs may be kept in."""

from __future__ import annotations

import fcntl
import os
import pwd
from typing import TYPE_CHECKING

import pytest

from daemonize.errors import SetupError
from daemonize.posix.fds import Descriptors
from daemonize.registry import entry
from daemonize.registry import logs as registry
from daemonize.registry.entry import Entry, base_name
from daemonize.registry.logs import find_logs
from daemonize.registry.private import ensure_private, state_dir

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534


@pytest.fixture
def state(tmp_path: Path) -> bytes:
    """A state directory that is still to be made."""
    return os.fsencode(tmp_path / "state")


def given(directory: bytes) -> dict[bytes, bytes]:
    """An environment that names it, and where there can be no records."""
    return {b"DAEMONIZE_STATE_DIR": directory, b"DAEMONIZE_RUNTIME_DIR": b"/dev/null"}


def logs_of(command: bytes, directory: bytes) -> registry.Logs:
    """The logs of a daemon that is named after its command."""
    entry = Entry(None, command, given(directory))
    entry.claim(Descriptors())
    return find_logs(entry, given(directory))


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (b"/usr/sbin/nginx", "nginx"),
        (b"nginx", "nginx"),
        (b"./run.sh", "run.sh"),
        (b"/opt/server/", "server"),
        (b"/opt/my server", "my_server"),
        (b"a\nb\tc\x1b[m", "a_b_c_[m"),
        (b"..", "daemon"),
        (b".hidden", "hidden"),
        (b"--help", "help"),
        (b"/", "daemon"),
        (b"", "daemon"),
        ("sërver".encode(), "sërver"),
        (b"bad\xffbytes", "bad_bytes"),
        (b"x" * 250, "x" * 94),
    ],
)
def test_a_command_gives_a_name_fit_for_a_file(command: bytes, name: str) -> None:
    """No slash, no leading dot or dash, nothing unprintable, never empty, never too long."""
    assert base_name(command) == name


def test_a_name_of_multi_byte_letters_fits_a_file_name(state: bytes) -> None:
    """A file name has 255 bytes, not characters: a log of the longest name can be made."""
    logs = logs_of("漢".encode() * 120, state)
    path = logs.path("out")
    with open(path, "wb"):
        pass

    assert os.path.exists(path)


# -- where ------------------------------------------------------------------------------------------------------------


def test_the_state_directory_of_root() -> None:
    """/var/log/daemonize, whatever XDG says."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    assert state_dir({b"XDG_STATE_HOME": b"/elsewhere"}) == b"/var/log/daemonize"


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({b"DAEMONIZE_STATE_DIR": b"/given", b"XDG_STATE_HOME": b"/xdg"}, b"/given"),
        ({b"XDG_STATE_HOME": b"/xdg"}, b"/xdg/daemonize"),
        ({b"XDG_STATE_HOME": b"relative"}, b"HOME/.local/state/daemonize"),
        ({b"XDG_STATE_HOME": b""}, b"HOME/.local/state/daemonize"),
        ({b"DAEMONIZE_STATE_DIR": b""}, b"HOME/.local/state/daemonize"),
        ({}, b"HOME/.local/state/daemonize"),
    ],
)
def test_the_state_directory_of_a_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[bytes, bytes], directory: bytes
) -> None:
    """Ours, then XDG's if it is absolute, then the usual place."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert state_dir(environment) == directory.replace(b"HOME", os.fsencode(tmp_path))


def test_a_home_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """/nonexistent, as of nobody: a directory of his own in /tmp."""
    monkeypatch.setattr(os, "geteuid", lambda: 123456)
    monkeypatch.setenv("HOME", "/nonexistent")

    assert state_dir({}) == b"/tmp/daemonize-123456"


def test_a_relative_state_directory_is_made_absolute() -> None:
    """The server changes its directory; its log path must still hold."""
    assert state_dir(given(b"logs")) == os.path.join(os.getcwdb(), b"logs")


@pytest.mark.parametrize("home", [None, "relative/home"])
def test_the_state_directory_is_always_absolute(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    """A user without a home (any uid in a container), or with a relative one, gets no directory called `~`."""

    def nobody(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr(os, "geteuid", lambda: 123456)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)

    directory = state_dir({})

    assert directory.startswith(b"/")
    assert b"~" not in directory


# -- whose ------------------------------------------------------------------------------------------------------------


def test_the_directory_is_private(state: bytes) -> None:
    """0700, whatever the umask; parents are made; twice is fine."""
    before = os.umask(0)
    try:
        ensure_private(os.path.join(state, b"a", b"b"))
        ensure_private(os.path.join(state, b"a", b"b"))
    finally:
        os.umask(before)

    assert os.stat(os.path.join(state, b"a", b"b")).st_mode & 0o777 == 0o700


def symlink(state: bytes) -> None:
    """Somebody else decides where the logs go."""
    os.mkdir(state + b"-target", 0o700)
    os.symlink(state + b"-target", state)


def dangling(state: bytes) -> None:
    """A link to nowhere."""
    os.symlink(state + b"-target", state)


def plain_file(state: bytes) -> None:
    """No directory at all."""
    with open(state, "wb"):
        pass


def writable_by_group(state: bytes) -> None:
    """Others of the group can put links into it."""
    os.mkdir(state)
    os.chmod(state, 0o770)


def writable_by_all(state: bytes) -> None:
    """Everybody can, sticky or not."""
    os.mkdir(state)
    os.chmod(state, 0o1777)


def somebody_elses(state: bytes) -> None:
    """Another user owns it."""
    os.mkdir(state, 0o700)
    os.chown(state, NOBODY, NOBODY)


def below_a_file(state: bytes) -> None:
    """A parent is no directory."""
    plain_file(os.path.dirname(state) + b"/in-the-way")


HOSTILE = [symlink, dangling, plain_file, writable_by_group, writable_by_all, somebody_elses]


@pytest.mark.parametrize("prepare", HOSTILE)
def test_a_directory_that_is_not_ours_alone_is_not_used(state: bytes, prepare: object) -> None:
    """The launch goes on without logs, and there is a word for the user why."""
    if prepare is somebody_elses and os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    prepare(state)  # type: ignore[operator]
    with pytest.raises(SetupError):
        ensure_private(state)

    logs = logs_of(b"server", state)

    assert logs.directory is None
    assert (logs.path("out"), logs.path("err")) == (b"/dev/null", b"/dev/null")
    assert os.fsdecode(state) in str(logs.problem)
    assert logs.name == "server"


def test_a_directory_that_cannot_be_made_is_not_used(state: bytes) -> None:
    """A file where a parent should be; a path too long."""
    below_a_file(state)
    for path in (os.path.dirname(state) + b"/in-the-way/state", state + b"/" + b"x" * 300):
        assert logs_of(b"server", path).problem is not None


def test_a_good_directory_is_used(state: bytes) -> None:
    """The negative control of the hostile ones."""
    logs = logs_of(b"/opt/server", state)

    assert logs.problem is None
    assert logs.path("out") == state + b"/server.out"
    assert logs.path("err") == state + b"/server.err"


# -- taken ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def held(state: bytes) -> Iterator[list[int]]:
    """Descriptors to close after the test."""
    ensure_private(state)
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


def free_name(command: bytes, state: bytes) -> str:
    """The name that a daemon of this command would get now."""
    logs = logs_of(command, state)
    logs.skip_taken()
    return logs.name


def claimed(logs: registry.Logs, held: list[int]) -> str:
    """The name under which a log can be claimed, as a launch into files does it; it stays claimed."""
    owner = Descriptors()
    while True:
        try:
            held.append(logs.open("out", owner))
        except registry.LogTakenError:
            logs.next()
        else:
            return logs.name


def take(state: bytes, name: bytes, held: list[int]) -> None:
    """Write to a log, as a server does that runs."""
    held.append(os.open(state + b"/" + name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
    fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("log", [b"server.out", b"server.err"])
def test_a_name_in_use_is_numbered(state: bytes, held: list[int], log: bytes) -> None:
    """While some process writes to either log, the next daemon of that name is NAME-2, then NAME-3."""
    take(state, log, held)
    assert free_name(b"server", state) == "server-2"
    take(state, b"server-2.out", held)
    assert free_name(b"server", state) == "server-3"
    os.close(held.pop(0))

    assert free_name(b"server", state) == "server"
    assert free_name(b"other", state) == "other"


def test_a_log_that_nobody_writes_is_free(state: bytes, held: list[int]) -> None:
    """A log that is left from an earlier run does not take the name: the lock does, not the file."""
    take(state, b"server.out", held)
    os.close(held.pop())

    assert free_name(b"server", state) == "server"


def test_looking_does_not_take(state: bytes, held: list[int]) -> None:
    """The look leaves no lock behind."""
    take(state, b"server.out", held)
    free_name(b"server", state)
    os.close(held.pop())
    free_name(b"server", state)

    take(state, b"server.out", held)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_a_log_that_is_no_file_of_ours_is_never_written(state: bytes, held: list[int], kind: str) -> None:
    """Whatever lies at the log's path, it is not followed and not opened for ever."""
    ensure_private(state)
    path = state + b"/server.out"
    if kind == "symlink":
        os.symlink(b"/etc/passwd", path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.mkdir(path)

    assert free_name(b"server", state) == "server-2"
    assert claimed(logs_of(b"server", state), held) == "server-2"


def test_a_claim_is_exclusive(state: bytes, held: list[int]) -> None:
    """Whoever opens a log has it for itself: the next one gets the next number."""
    assert [claimed(logs_of(b"server", state), held) for _ in range(3)] == [
        "server",
        "server-2",
        "server-3",
    ]


def test_when_every_number_is_taken_there_are_no_logs(monkeypatch: pytest.MonkeyPatch, state: bytes) -> None:
    """The search ends."""
    monkeypatch.setattr(entry, "_MOST_NUMBERS", 3)
    monkeypatch.setattr(registry.Logs, "_free_size", lambda _self, _stream: None)

    logs = logs_of(b"server", state)
    logs.skip_taken()
    assert logs.path("out") == b"/dev/null"


# -- rotation at launch -----------------------------------------------------------------------------------------------


def test_a_large_log_is_rotated_when_it_is_claimed(state: bytes, held: list[int]) -> None:
    """Beyond the limit; the new one is claimed in its place, and the old one is nobody's."""
    logs = logs_of(b"server", state)
    logs.rotation = (10, 2)
    path = logs.path("out")
    with open(path, "wb") as file:
        file.write(b"0123456789")
    held.append(logs.open("out", Descriptors()))
    os.write(held[0], b"new")

    assert os.stat(path).st_size == 3
    assert os.stat(path + b".1").st_size == 10
    assert claimed(logs_of(b"server", state), held) == "server-2"
    assert len([fd for fd in os.listdir("/proc/self/fd") if b"server.out" in _target(fd)]) == 1


def _target(fd: str) -> bytes:
    try:
        return os.fsencode(os.readlink(f"/proc/self/fd/{fd}"))
    except FileNotFoundError:
        return b""


def test_a_log_that_is_shared_is_not_rotated(state: bytes, held: list[int]) -> None:
    """A drain comes when the server writes already."""
    logs = logs_of(b"server", state)
    logs.rotation = (1, 2)
    held.append(logs.open("out", Descriptors()))
    os.write(held[0], b"new")
    held.append(logs.open("out", Descriptors(), share=True))

    assert os.path.sameopenfile(*held)


def test_only_a_free_name_is_rotated(state: bytes, held: list[int]) -> None:
    """Looking for a free name changes nothing that somebody has, not even the other log of his."""
    logs = logs_of(b"server", state)
    logs.rotation = (1, 2)
    for stream in ("out", "err"):
        with open(logs.path(stream), "wb") as file:
            file.write(b"old")
    take(state, b"server.err", held)
    logs.skip_taken()
    assert logs.name == "server-2"
    assert not os.path.exists(state + b"/server.out.1")
    os.close(held.pop())
    logs = logs_of(b"server", state)
    logs.rotation = (1, 2)
    logs.skip_taken()

    assert logs.name == "server"
    assert sorted(os.listdir(state)) == [b"server.err", b"server.err.1", b"server.out", b"server.out.1"]


def test_a_log_that_is_rotated_between_open_and_claim(
    state: bytes, held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened is an old log by then: it is opened again."""
    logs = logs_of(b"server", state)
    path, lock, owner = logs.path("out"), registry._lock, Descriptors()

    def rotated_before(fd: int) -> bool:
        monkeypatch.setattr(registry, "_lock", lock)
        os.rename(path, path + b".1")
        return lock(fd)

    monkeypatch.setattr(registry, "_lock", rotated_before)
    held.append(logs.open("out", owner))

    assert os.path.samestat(os.fstat(held[0]), os.stat(path))
    assert owner.all == {held[0]}


# -- fifos ------------------------------------------------------------------------------------------------------------


def test_a_fifo_is_claimed_as_a_log_is(state: bytes, held: list[int]) -> None:
    """Ours alone; the next daemon of the name gets another name; one that is left is replaced."""
    owner = Descriptors()
    logs = logs_of(b"server", state)
    fd, path = logs.open_fifo("out", owner)
    held.append(fd)
    first = os.fstat(fd)
    assert path == state + b"/server.out.fifo"
    assert first.st_mode == 0o010600
    with pytest.raises(registry.LogTakenError):
        logs.open_fifo("out", owner)
    os.close(held.pop())  # killed: nobody has removed it
    fd, again = logs.open_fifo("out", owner)
    held.append(fd)

    assert again == path
    assert not os.path.samestat(first, os.fstat(fd)) or first.st_ctime_ns != os.fstat(fd).st_ctime_ns


@pytest.mark.parametrize("kind", ["symlink", "directory", "file", "taken"])
def test_what_is_no_fifo_of_ours_is_not_touched(state: bytes, held: list[int], kind: str) -> None:
    """Nor followed."""
    path = state + b"/server.out.fifo"
    if kind == "symlink":
        os.symlink(b"/etc/passwd", path)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "file":
        open(path, "wb").close()
    else:
        os.mkfifo(path)
        held.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        fcntl.flock(held[0], fcntl.LOCK_EX)
    before = os.lstat(path)
    with pytest.raises(registry.LogTakenError):
        logs_of(b"server", state).open_fifo("out", Descriptors())

    assert os.path.samestat(before, os.lstat(path))
