"""Lock files and pid files: one winner, honest words for the others, no file touched that is not ours."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from daemonize.errors import AlreadyRunning, SetupError
from daemonize.posix import locks, pidfiles, pidtext
from daemonize.posix.fds import Descriptors
from daemonize.posix.identity import current_boot_id, read_stat
from daemonize.posix.locks import LockFile
from daemonize.posix.paths import Place
from daemonize.posix.pidfiles import PidFile, remove_pid_file
from tests.support import procs
from tests.support.forked import DAEMON, NOBODY, call, common_directory, holding, need_root, together

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

MANY = 30
#: More than any process can have (PID_MAX_LIMIT).
NO_PID = 2**22 + 1
ATTRIBUTE = "user.daemonize.identity"


@pytest.fixture
def other() -> Iterator[Descriptors]:
    """Those of another launch."""
    owner = Descriptors()
    yield owner
    owner.close()


@pytest.fixture(params=["private", "sticky"])
def base(request: pytest.FixtureRequest) -> Iterator[bytes]:
    """A directory that everybody can search; `sticky`: that everybody can write to, as /tmp."""
    with common_directory(0o1777 if request.param == "sticky" else 0o755) as path:
        yield path


@pytest.fixture
def sticky() -> Iterator[bytes]:
    """A directory like /tmp."""
    with common_directory(0o1777) as path:
        yield path


@pytest.fixture
def living() -> Iterator[int]:
    """The pid of a process that lives."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def start_of(pid: int) -> int:
    """Its start time."""
    found = read_stat(pid)
    assert found
    return found.start


def content(path: bytes) -> bytes:
    """Of a file."""
    with open(path, "rb") as file:
        return file.read()


def put(path: bytes, data: bytes = b"") -> None:
    """Make a file."""
    with open(path, "wb") as file:
        file.write(data)


def lock(path: bytes, trusted: Collection[int] = ()) -> None:
    """Take a lock file and keep it."""
    LockFile(path, Descriptors(), trusted)


def reserve(path: bytes, trusted: Collection[int] = ()) -> None:
    """Reserve a pid file and keep it."""
    PidFile(path, Descriptors(), None, trusted)


def launch(path: bytes) -> None:
    """Write a pid file for this process, as a launch does, and let go of it."""
    owner = Descriptors()
    PidFile(path, owner, None).write(os.getpid(), start_of(os.getpid()))
    owner.close()


def refused(function: Callable[[], object], uid: int | None = None) -> SetupError:
    """The error of a function that cannot do what it has to do, said in one line."""
    with pytest.raises(SetupError) as caught:
        call(function, uid)
    assert str(caught.value).isprintable()
    return caught.value


def taken(function: Callable[[], object], uid: int | None = None) -> AlreadyRunning:
    """The error of a function that comes too late."""
    with pytest.raises(AlreadyRunning) as caught:
        call(function, uid)
    return caught.value


# --- many at once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("take", [lock, reserve, launch])
def test_of_many_at_once_one_wins(base: bytes, take: Callable[[bytes], None]) -> None:
    """Thirty processes, one moment: one has the file, the others say that it is taken, and by whom if they could see it."""
    found = together(MANY, lambda: take(base + b"/x"))
    losers = [error for error in found if isinstance(error, AlreadyRunning)]

    assert found.count(None) == 1
    assert len(losers) == MANY - 1
    assert sum(error.pid is not None for error in losers) > 0
    assert {error.name for error in losers if error.pid} == {procs.processes([os.getpid()])[0].name}


@pytest.mark.parametrize("take", [lock, reserve])
def test_without_the_lock_many_win(
    base: bytes, take: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: it is flock(2) that does it."""
    monkeypatch.setattr(locks, "try_lock", lambda _fd: True)

    assert together(MANY, lambda: take(base + b"/x")).count(None) > 1


def test_one_pid_file_is_left_by_many(base: bytes) -> None:
    """After the race there is the winner's pid file, and nothing else in the directory."""
    together(MANY, lambda: launch(base + b"/x"))

    assert re.fullmatch(rb"\d+\n", content(base + b"/x"))
    assert os.listdir(base) == [b"x"]


def test_a_launch_that_opened_the_reservation_before_it_was_renamed(
    base: bytes, owner: Descriptors, other: Descriptors, living: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock it gets is that of the pid file by now: it looks again, and finds the server."""
    first = PidFile(base + b"/x", owner, None)

    def late(fd: int) -> bool:
        monkeypatch.undo()
        first.write(living, start_of(living))
        owner.close()
        return locks.try_lock(fd)

    monkeypatch.setattr(locks, "try_lock", late)
    with pytest.raises(AlreadyRunning, match=f"sleep .pid {living}., says"):
        PidFile(base + b"/x", other, None)

    assert os.listdir(base) == [b"x"]


def test_a_lock_file_that_is_removed_and_made_anew(
    base: bytes, owner: Descriptors, other: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who locked a file that the path no longer names does not have the lock, whoever has the new one does."""
    put(base + b"/x")

    def late(fd: int) -> bool:
        monkeypatch.undo()
        os.unlink(base + b"/x")
        LockFile(base + b"/x", other)
        return locks.try_lock(fd)

    monkeypatch.setattr(locks, "try_lock", late)
    with pytest.raises(AlreadyRunning, match="holds the lock file"):
        LockFile(base + b"/x", owner)


def test_a_lock_file_that_is_removed(
    base: bytes, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made anew, and the lock is that of the file that is there."""
    put(base + b"/x")

    def late(fd: int) -> bool:
        monkeypatch.undo()
        os.unlink(base + b"/x")
        return locks.try_lock(fd)

    monkeypatch.setattr(locks, "try_lock", late)
    held = LockFile(base + b"/x", owner)

    assert os.path.samestat(os.fstat(held.fd), os.stat(base + b"/x"))


def test_without_the_second_look_a_removed_file_is_locked(
    base: bytes, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: it is the look after the lock that does it."""
    put(base + b"/x")
    try_lock = locks.try_lock

    def late(fd: int) -> bool:
        os.unlink(base + b"/x")
        return try_lock(fd)

    monkeypatch.setattr(locks, "try_lock", late)
    monkeypatch.setattr(Place, "holds", lambda *_: True)
    LockFile(base + b"/x", owner)

    assert not os.path.exists(base + b"/x")


def test_a_lock_file_that_is_always_removed(
    base: bytes, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying comes to an end, and leaves no descriptor."""
    monkeypatch.setattr(Place, "holds", lambda *_: False)
    with pytest.raises(SetupError, match="removed and made anew"):
        LockFile(base + b"/x", owner)


def mix(base: bytes, rounds: int) -> None:
    """Launches of every kind of luck, each with its end, again and again. Raises OSError when two go on at once."""
    chance, path, me = random.Random(os.getpid()), base + b"/x", os.getpid()
    for _ in range(rounds):
        owner = Descriptors()
        try:
            file = PidFile(path, owner, None)
        except AlreadyRunning:
            owner.close()
            continue
        os.mkdir(base + b"/busy")
        pid = chance.choice((None, NO_PID, NO_PID, me, me))
        if pid != me:
            os.rmdir(base + b"/busy")  # with the pid of a dead process in place the next launch may begin
        if pid is not None:
            file.write(pid, start_of(me) if pid == me else 0)
        if pid == me:
            owner.close()  # ready: from now on it is the pid that keeps others away
            assert content(path) == b"%d\n" % me
            os.rmdir(base + b"/busy")
        if pid != me and chance.randrange(2):
            file.remove()
        owner.close()
        if pid is not None:
            remove_pid_file(os.fsdecode(path), pid)


def test_never_two_at_once(base: bytes) -> None:
    """Launches that crash, fail, become ready and are stopped, all at once: one at a time, and no file is lost."""
    assert together(6, lambda: mix(base, 100)) == [None] * 6


@pytest.mark.stress
def test_never_two_at_once_for_long(base: bytes) -> None:
    """The same, many times as often."""
    rounds = 10 * int(os.environ.get("DAEMONIZE_TESTS_RACES", "200"))
    assert together(8, lambda: mix(base, rounds)) == [None] * 8


def test_two_at_once_are_seen(base: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the locks."""
    monkeypatch.setattr(locks, "try_lock", lambda _fd: True)

    assert together(6, lambda: mix(base, 100)) != [None] * 6


def unlink_ours(place: Place, is_ours: Callable[[], bool]) -> None:
    """What is left of `_unlink_alone` without the reservation."""
    if is_ours():
        place.unlink()


@pytest.mark.parametrize("claimed", [True, False])
def test_a_launch_between_the_look_and_the_removal(
    base: bytes, claimed: bool, owner: Descriptors, living: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed launch never removes the pid file of the next: that one is refused (control: without the reservation)."""
    if not claimed:
        monkeypatch.setattr(pidfiles, "_unlink_alone", unlink_ours)
    file = PidFile(base + b"/x", owner, None)
    file.write(NO_PID, 0)
    refusals: list[bool] = []

    with monkeypatch.context() as patch:

        def late(place: Place) -> None:
            patch.undo()
            try:
                written(base, living, start_of(living))
            except AlreadyRunning as error:
                refusals.append(error.launching)
            place.unlink()

        patch.setattr(Place, "unlink", late)
        file.remove()

    # Without the reservation the next launch believes that it has written its file, and the file is gone.
    assert refusals == ([True] if claimed else [])
    assert os.listdir(base) == []


def watch(path: bytes, until: int) -> list[bytes]:
    """What a reader sees that is no whole pid file, until `until` ends; at least one look is taken after that."""
    bad, ended = [], False
    while True:
        with contextlib.suppress(FileNotFoundError):
            found = content(path)
            if not re.fullmatch(rb"\d+\n", found):
                bad.append(found)
        if ended:
            return bad
        ended = procs.readable(until, 0)


def watched(path: bytes, work: Callable[[], None]) -> list[bytes]:
    """What a reader in another process sees that is no whole pid file, while this one works."""
    until, end = os.pipe()
    answer, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        os.write(say, b".")
        bad = watch(path, until)
        os.write(say, b"%d" % len(bad) + b"".join(bad)[:100])
        os._exit(0)
    os.close(until)
    os.close(say)
    with open(answer, "rb", buffering=0) as file:
        assert file.read(1) == b"."
        work()
        os.close(end)
        found = file.read(1000)
    os.waitpid(pid, 0)
    return [found] if found != b"0" else []


def test_a_reader_sees_no_pid_file_or_a_whole_one(base: bytes) -> None:
    """During 200 launches, over nothing and over old files, nothing empty, blank or partial is ever seen."""

    def launches() -> None:
        for number in range(200):
            owner = Descriptors()
            file = PidFile(base + b"/x", owner, None)
            file.write(NO_PID + number * 10 ** number.bit_length() % 10**9, 0)
            if number % 3 == 0:
                file.remove()
            owner.close()

    assert watched(base + b"/x", launches) == []


def test_a_reader_sees_a_partial_file(base: bytes) -> None:
    """Negative control."""
    assert watched(base + b"/x", lambda: put(base + b"/x", b"12")) != []


# --- who holds it --------------------------------------------------------------------------------------------------


def test_the_holder_is_named(base: bytes) -> None:
    """The process that has the lock, by name and pid."""
    with holding(lambda: lock(base + b"/x")) as (pid, _):
        error = taken(lambda: lock(base + b"/x"))

    assert (error.pid, error.name) == (pid, procs.processes([os.getpid()])[0].name)
    assert (
        str(error) == f"already running: {error.name} (pid {pid}) holds the lock file {os.fsdecode(base)}/x"
    )


def test_a_holder_that_inherited_the_lock_is_named(base: bytes, owner: Descriptors) -> None:
    """The server has the lock when the process that took it is long gone; a stranger that only reads the file has not."""
    fd = LockFile(base + b"/x", owner).fd
    with (
        open(base + b"/x", "rb"),
        subprocess.Popen(["sleep", "60"], pass_fds=[fd]) as server,
    ):
        owner.close()
        error = taken(lambda: lock(base + b"/x"))
        server.kill()

    assert (error.pid, error.name) == (server.pid, "sleep")


def test_the_oldest_of_many_holders_is_named(base: bytes, owner: Descriptors) -> None:
    """A server, and not one of its workers."""
    fd = LockFile(base + b"/x", owner).fd
    with subprocess.Popen(["sleep", "60"], pass_fds=[fd]) as worker:
        assert taken(lambda: lock(base + b"/x")).pid == os.getpid()
        worker.kill()


def test_an_ordinary_user_is_told_of_his_own(base: bytes) -> None:
    """He may look into his own processes, and that is enough."""
    need_root()
    put(base + b"/x")
    os.chmod(base + b"/x", 0o666)
    with holding(lambda: lock(base + b"/x"), NOBODY) as (pid, _):
        assert taken(lambda: lock(base + b"/x"), NOBODY).pid == pid


def test_the_holder_of_another_user(base: bytes) -> None:
    """What the kernel hides is not guessed: the user is known as long as the process that took the lock lives."""
    need_root()
    put(base + b"/x")
    os.chmod(base + b"/x", 0o666)
    with holding(lambda: lock(base + b"/x"), DAEMON):
        error = taken(lambda: lock(base + b"/x"), NOBODY)

    assert (error.pid, error.name, error.uid) == (None, "", DAEMON)
    assert str(error).startswith("already running: somebody of user daemon holds the lock file")


def test_a_hidden_holder_that_inherited_the_lock(base: bytes) -> None:
    """When the process that took the lock is gone, nothing is known: so it is said."""
    need_root()
    put(base + b"/x")
    os.chmod(base + b"/x", 0o666)

    def inherit() -> None:
        fd = os.open(base + b"/x", os.O_RDWR)
        pid = os.fork()
        if pid == 0:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os._exit(0)
        os.waitpid(pid, 0)

    with holding(inherit, DAEMON) as (pid, _):
        error = taken(lambda: lock(base + b"/x"), NOBODY)
        # Negative control: who may look finds it.
        assert taken(lambda: lock(base + b"/x")).pid == pid

    assert (error.pid, error.name, error.uid) == (None, "", None)
    assert str(error).endswith("/x is held (by whom, the kernel does not tell this user)")


def test_a_lock_that_is_let_go_of_while_we_look(
    base: bytes, owner: Descriptors, other: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody is found to hold it, perhaps nobody does: it is tried again."""
    from daemonize.posix import holders

    LockFile(base + b"/x", other)

    def gone(_fd: int) -> holders.Holder:
        other.close()
        return holders.NOBODY

    monkeypatch.setattr(holders, "holder_of", gone)

    assert LockFile(base + b"/x", owner).fd


def test_without_proc_nobody_is_named(base: bytes, owner: Descriptors, other: Descriptors,
                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Where /proc does not tell, the lock is taken all the same."""
    from daemonize.posix import holders

    LockFile(base + b"/x", other)
    monkeypatch.setattr(holders, "has_proc", lambda: False)
    with pytest.raises(AlreadyRunning, match="does not tell"):
        LockFile(base + b"/x", owner)


# --- what lies there -----------------------------------------------------------------------------------------------


def fifo(path: bytes) -> None:
    """A fifo without a reader or a writer."""
    os.mkfifo(path)


def directory(path: bytes) -> None:
    """A directory."""
    os.mkdir(path)


def unix_socket(path: bytes) -> None:
    """A socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


def device(path: bytes) -> None:
    """/dev/zero."""
    need_root()
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


@pytest.mark.parametrize("place", [b"x", b".x.new"])
@pytest.mark.parametrize("take", [lock, reserve])
@pytest.mark.parametrize("kind", [fifo, directory, unix_socket, device])
def test_what_is_no_file(
    base: bytes, kind: Callable[[bytes], None], take: Callable[[bytes], None], place: bytes
) -> None:
    """It is refused at once and stays what it is, for the pid file and for its reservation."""
    if take is lock and place != b"x":
        place = b"x"
    kind(base + b"/" + place)
    before = os.lstat(base + b"/" + place)
    error = refused(lambda: take(base + b"/x"))

    assert error.reason.endswith("it is not a regular file")
    assert os.lstat(base + b"/" + place)[:8] == before[:8]
    assert os.listdir(base) == [place]


@pytest.mark.parametrize("take", [lock, reserve])
def test_a_strangers_symlink(sticky: bytes, take: Callable[[bytes], None]) -> None:
    """It is not followed, neither the last nor one on the way, and what it points at is not touched."""
    need_root()
    put(sticky + b"/precious", b"precious")
    os.mkdir(sticky + b"/dir")
    call(lambda: os.symlink(b"precious", sticky + b"/x"), NOBODY)
    call(lambda: os.symlink(b"dir", sticky + b"/to"), NOBODY)
    call(lambda: os.symlink(b"not there", sticky + b"/dangling"), NOBODY)
    for path in (b"/x", b"/to/x", b"/dangling"):
        said = str(refused(lambda path=path: take(sticky + path)))  # type: ignore[misc]
        assert said.endswith("is a symlink of another user's (nobody)")

    assert content(sticky + b"/precious") == b"precious"
    assert os.listdir(sticky + b"/dir") == []
    # Nor if the server is to run as him: he would choose where root makes a file.
    refused(lambda: take(sticky + b"/to/x", (NOBODY,)))  # type: ignore[call-arg]
    # Negative control: he may follow it himself.
    os.chmod(sticky + b"/dir", 0o777)
    call(lambda: take(sticky + b"/to/x"), NOBODY)


@pytest.mark.parametrize("take", [lock, reserve])
def test_our_own_dangling_symlink(base: bytes, take: Callable[[bytes], None]) -> None:
    """The file is made where it points."""
    os.mkdir(base + b"/dir")
    os.symlink(b"dir/real", base + b"/x")
    call(lambda: take(base + b"/x"))

    assert os.listdir(base + b"/dir") == [b"real" if take is lock else b".real.new"]
    assert os.path.islink(base + b"/x")


@pytest.mark.parametrize("take", [lock, reserve])
def test_a_symlink_that_comes_too_late_to_be_seen(base: bytes, take: Callable[[bytes], None],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """One that appears after the path was followed is not opened through."""
    path = base + (b"/x" if take is lock else b"/.x.new")
    put(base + b"/precious", b"precious")
    put(path)
    status = Place.status

    def exchanged(place: Place) -> os.stat_result:
        found = status(place)
        monkeypatch.undo()
        os.unlink(path)
        os.symlink(b"precious", path)
        return found

    monkeypatch.setattr(Place, "status", exchanged)
    error = refused(lambda: take(base + b"/x"))

    assert error.errno == errno.ELOOP
    assert content(base + b"/precious") == b"precious"


@pytest.mark.parametrize("name", [b"x", b".x.new"])
def test_a_hard_link(base: bytes, name: bytes) -> None:
    """A file with a second name is not locked and not written."""
    put(base + b"/precious")
    os.link(base + b"/precious", base + b"/" + name)
    error = refused(lambda: (lock if name == b"x" else reserve)(base + b"/x"))

    assert "hard link" in str(error)
    assert os.stat(base + b"/precious").st_size == 0


@pytest.mark.parametrize("take", [lock, reserve])
def test_a_file_of_another_user(sticky: bytes, take: Callable[[bytes], None]) -> None:
    """Where everybody can write, a file of a stranger's is not used, and it is said whose it is."""
    need_root()
    call(lambda: put(sticky + b"/x"), NOBODY)
    error = refused(lambda: take(sticky + b"/x"))
    assert str(error).endswith("/x: it belongs to another user (nobody)")

    # Negative controls: somebody trusted; and a directory where only we can write.
    call(lambda: take(sticky + b"/x", (NOBODY,)))  # type: ignore[call-arg]
    os.chmod(sticky, 0o755)
    call(lambda: take(sticky + b"/x"))


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_reservation_of_another_user(sticky: bytes, mode: int) -> None:
    """It would become a pid file that he can write to: it is not used in any directory, and is named."""
    need_root()
    call(lambda: put(sticky + b"/.x.new"), NOBODY)
    os.chmod(sticky, mode)

    assert str(refused(lambda: reserve(sticky + b"/x", (NOBODY,)))) == (
        f"cannot use {os.fsdecode(sticky)}/x: .x.new beside it: it belongs to another user (nobody)"
    )


def test_a_pid_file_that_only_another_may_replace(sticky: bytes) -> None:
    """Root's stale pid file in /tmp: that it cannot be replaced is heard before anything is started."""
    need_root()
    put(sticky + b"/x", b"%d\n" % NO_PID)

    assert "sticky" in str(refused(lambda: reserve(sticky + b"/x"), NOBODY))
    assert os.listdir(sticky) == [b"x"]
    # Negative control: his own.
    os.chown(sticky + b"/x", NOBODY, NOBODY)
    call(lambda: reserve(sticky + b"/x"), NOBODY)


def test_a_lock_file_that_may_only_be_read(base: bytes) -> None:
    """Permission to read is enough for a lock."""
    need_root()
    put(base + b"/x")
    with holding(lambda: lock(base + b"/x"), NOBODY) as (pid, _):
        assert taken(lambda: lock(base + b"/x")).pid == pid


def test_a_lock_file_that_may_not_be_read(base: bytes) -> None:
    """The kernel's reason is given."""
    need_root()
    put(base + b"/x")
    os.chmod(base + b"/x", 0o600)

    assert refused(lambda: lock(base + b"/x"), NOBODY).errno == errno.EACCES


@pytest.mark.parametrize("take", [lock, reserve])
def test_a_directory_that_may_not_be_written(tmp_path_factory: pytest.TempPathFactory, take: Callable[[bytes], None],
                                             base: bytes) -> None:  # fmt: skip
    """Nothing can be made there: said before anything is started."""
    need_root()
    os.chmod(base, 0o755)

    assert refused(lambda: take(base + b"/x"), NOBODY).errno == errno.EACCES


def test_who_may_not_write_hears_that_it_runs(base: bytes, living: int) -> None:
    """A pid file of root's: an ordinary user is told that the server runs, not that he has no permission."""
    need_root()
    os.chmod(base, 0o755)
    put(base + b"/x", b"%d\n" % living)

    assert taken(lambda: reserve(base + b"/x"), NOBODY).pid == living


def test_a_lock_file_is_never_changed(base: bytes) -> None:
    """Its content, its mode and itself stay."""
    put(base + b"/x", b"precious")
    before = os.stat(base + b"/x")
    call(lambda: lock(base + b"/x"))
    after = os.stat(base + b"/x")

    assert (before.st_ino, before.st_mode, before.st_mtime_ns) == (
        after.st_ino,
        after.st_mode,
        after.st_mtime_ns,
    )


def test_a_lock_is_held_by_whoever_has_the_descriptor(base: bytes, owner: Descriptors) -> None:
    """It is a server's for as long as it lives, and no longer; the file is private, and not inherited unasked."""
    held = LockFile(base + b"/x", owner)

    assert stat.S_IMODE(os.fstat(held.fd).st_mode) == 0o600
    assert not os.get_inheritable(held.fd)
    with subprocess.Popen(["sleep", "60"], pass_fds=[held.fd]) as server:
        owner.close()
        assert taken(lambda: lock(base + b"/x")).pid == server.pid
        server.kill()
    call(lambda: lock(base + b"/x"))


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"x" * 250, b"x" * 251, b"x" * 255, b"\xff\xfe\x80", b".", b" \n\x1b"])
def test_names(base: bytes, name: bytes, owner: Descriptors, other: Descriptors) -> None:
    """As long as names can be, and whatever is in them; the reservation has a name of its own."""
    name = b".hidden" if name == b"." else name
    first = PidFile(base + b"/" + name, owner, None)
    PidFile(base + b"/" + name[:-1] + b"y", other, None)
    assert str(taken(lambda: reserve(base + b"/" + name))).isprintable()
    first.write(NO_PID, 0)

    assert content(base + b"/" + name) == b"%d\n" % NO_PID


@pytest.mark.parametrize("take", [lock, reserve])
def test_a_name_that_is_too_long(base: bytes, take: Callable[[bytes], None]) -> None:
    """The kernel's reason is given."""
    assert refused(lambda: take(base + b"/" + b"x" * 256)).errno == errno.ENAMETOOLONG


# --- the pid file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_a_pid_file(base: bytes, umask: int) -> None:
    """Pid and newline, readable by everybody and writable by us, whatever the umask; only the pid file is left."""

    def write() -> None:
        os.umask(umask)
        launch(base + b"/x")

    with holding(write) as (pid, _):
        assert content(base + b"/x") == b"%d\n" % pid
        assert stat.S_IMODE(os.stat(base + b"/x").st_mode) == 0o644
        assert os.listdir(base) == [b"x"]


def test_an_ordinary_user(sticky: bytes) -> None:
    """The whole of it without any privilege, where everybody can write."""
    need_root()
    with holding(lambda: launch(sticky + b"/x"), NOBODY) as (pid, _):
        assert taken(lambda: reserve(sticky + b"/x"), NOBODY).pid == pid
        assert str(refused(lambda: reserve(sticky + b"/x"), DAEMON)).endswith(
            "it belongs to another user (nobody)"
        )
    call(lambda: launch(sticky + b"/x"), NOBODY)


def test_nothing_is_seen_before_it_is_written(base: bytes, owner: Descriptors) -> None:
    """While the server starts there is no pid file; a stale one is gone, so that nobody is sent to a stranger."""
    file = PidFile(base + b"/x", owner, None)
    assert not os.path.exists(base + b"/x")
    file.remove()
    put(base + b"/x", b"%d\n" % NO_PID)
    owner.close()
    PidFile(base + b"/x", owner, None)

    assert not os.path.exists(base + b"/x")


def test_another_launch_is_named(base: bytes) -> None:
    """While a launch goes on, the next one says which."""
    with holding(lambda: reserve(base + b"/x")) as (pid, _):
        error = taken(lambda: reserve(base + b"/x"))

    assert (error.pid, error.launching) == (pid, True)
    assert str(error).startswith(
        f"another launch is using the pid file {os.fsdecode(base)}/x ({error.name}, pid"
    )


@pytest.mark.parametrize("left", [b"", b" " * 11, b"123\n", b"123\n" + b" " * 7])
def test_what_a_crash_left(base: bytes, left: bytes) -> None:
    """The reservation of a launch that was killed is taken over, whatever it had come to."""
    put(base + b"/.x.new", left)
    os.chmod(base + b"/.x.new", 0o644)
    with holding(lambda: launch(base + b"/x")) as (pid, _):
        assert content(base + b"/x") == b"%d\n" % pid
        assert os.listdir(base) == [b"x"]


def test_a_launch_that_is_killed(base: bytes) -> None:
    """SIGKILL at any moment holds nobody up afterwards."""
    with holding(lambda: reserve(base + b"/x")) as (pid, _):
        procs.stop(pid, signal.SIGKILL)
        call(lambda: reserve(base + b"/x"))
        call(lambda: launch(base + b"/x"))


def test_a_file_that_only_looks_like_a_reservation(base: bytes) -> None:
    """A file of the user's own that has that name is left alone, and named."""
    put(base + b"/.x.new", b"precious")

    assert ".x.new beside it: it does not look like a pid file" in str(refused(lambda: reserve(base + b"/x")))
    assert content(base + b"/.x.new") == b"precious"


@pytest.mark.parametrize(
    "garbage", [b"127.0.0.1 localhost\n", b"12 13\n", b"-1\n", b"0x10", b"1.5\n", "١٢".encode(), b"1" * 65]
)
@pytest.mark.parametrize("same", [False, True])
def test_what_is_no_pid_file_is_never_overwritten(base: bytes, garbage: bytes, same: bool) -> None:
    """-p /etc/hosts is a slip of the pen, and does no harm; also where it is the lock file as well."""
    put(base + b"/x", garbage)

    def both() -> None:
        owner = Descriptors()
        PidFile(base + b"/x", owner, LockFile(base + b"/x", owner))

    assert "does not look like a pid file" in str(refused(both if same else lambda: reserve(base + b"/x")))
    assert content(base + b"/x") == garbage
    assert os.listdir(base) == [b"x"]


@pytest.mark.parametrize(
    "old", [b"", b"\n", b" 4194305 \r\n", b"4194305", b"0\n", b"99999999999\n", b"\0" * 8]
)
def test_a_pid_file_of_no_process(base: bytes, old: bytes, owner: Descriptors) -> None:
    """One that is empty, stale, or holds what no process can have is replaced."""
    put(base + b"/x", old)
    PidFile(base + b"/x", owner, None).write(NO_PID, 0)

    assert content(base + b"/x") == b"%d\n" % NO_PID


def test_a_zombie_does_not_run(base: bytes) -> None:
    """Nor does a process that waits to be reaped."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert procs.wait_ended(pid)
    put(base + b"/x", b"%d\n" % pid)
    call(lambda: reserve(base + b"/x"))
    os.waitpid(pid, 0)


def test_the_pid_of_this_launch(base: bytes) -> None:
    """In a container the launch has the same pid at every start: it is not the server."""

    def start() -> None:
        put(base + b"/x", b"%d\n" % os.getpid())
        reserve(base + b"/x")

    call(start)


def test_a_living_pid_without_proof(base: bytes, living: int) -> None:
    """A file of somebody else's making names a process: it is believed, and there is a word on what to do."""
    put(base + b"/x", b"%d" % living)
    error = taken(lambda: reserve(base + b"/x"))

    assert (error.pid, error.name, error.proven) == (living, "sleep", False)
    assert str(error) == (
        f"already running: sleep (pid {living}), says the pid file {os.fsdecode(base)}/x; "
        "if that is something else, remove the file"
    )
    assert os.listdir(base) == [b"x"]


def written(base: bytes, pid: int, start: int) -> bytes:
    """The path of a pid file that was written for this process."""
    owner = Descriptors()
    try:
        PidFile(base + b"/x", owner, None).write(pid, start)
    finally:
        owner.close()
    return base + b"/x"


def need_attributes(base: bytes) -> None:
    """Skip where files cannot have attributes."""
    put(base + b"/.probe")
    try:
        os.setxattr(base + b"/.probe", ATTRIBUTE, b"")
    except OSError:
        pytest.skip("no extended attributes here")
    finally:
        os.unlink(base + b"/.probe")


def test_a_living_pid_with_proof(base: bytes, living: int) -> None:
    """The very process the file was written for: no doubt, and no word of it."""
    need_attributes(base)
    path = written(base, living, start_of(living))
    error = taken(lambda: reserve(path))

    assert error.proven
    assert str(error).endswith(f"says the pid file {os.fsdecode(path)}")


@pytest.mark.parametrize("what", ["start", "boot"])
def test_a_pid_that_is_anothers_now(base: bytes, living: int, what: str, owner: Descriptors) -> None:
    """Proof that the pid was given away, or that the machine was started anew: the file is stale."""
    need_attributes(base)
    path = written(base, living, start_of(living) - (what == "start"))
    if what == "boot":
        os.setxattr(path, ATTRIBUTE, b"another-boot %d %d" % (living, start_of(living)))
    PidFile(path, owner, None)

    # Negative control: it is the attribute that proves it.
    owner.close()
    written(base, living, start_of(living) - 1)
    os.removexattr(path, ATTRIBUTE)
    assert taken(lambda: reserve(path)).pid == living


@pytest.mark.parametrize("mark", [b"", b"x", b"a b c", b"\xff \xff \xff", b"1 2 3 4"])
def test_an_attribute_that_means_nothing(base: bytes, living: int, mark: bytes) -> None:
    """It proves nothing."""
    need_attributes(base)
    path = written(base, living, start_of(living))
    os.setxattr(path, ATTRIBUTE, mark)

    assert not taken(lambda: reserve(path)).proven


def test_a_server_that_writes_its_own_pid(base: bytes, living: int) -> None:
    """It writes into our file: what we wrote down about another pid is no proof that this one is not the server."""
    need_attributes(base)
    path = written(base, NO_PID, 1)
    put(path, b"%d\n" % living)
    error = taken(lambda: reserve(path))

    assert (error.pid, error.proven) == (living, False)


def test_where_files_have_no_attributes(
    base: bytes, living: int, monkeypatch: pytest.MonkeyPatch, owner: Descriptors
) -> None:
    """Nor the system: it goes without, and without proof."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    for name in ("setxattr", "getxattr", "removexattr"):
        monkeypatch.setattr(os, name, unsupported)
    path = written(base, living, start_of(living))
    assert not taken(lambda: reserve(path)).proven
    for name in ("setxattr", "getxattr", "removexattr"):
        monkeypatch.delattr(os, name)
    os.unlink(path)
    written(base, living, start_of(living))

    assert not taken(lambda: reserve(path)).proven


def test_a_process_that_proc_hides(base: bytes, living: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc shows only one's own processes, another's that lives is believed to be the server, without a name."""
    path = written(base, living, start_of(living))
    monkeypatch.setattr(pidfiles, "read_stat", lambda _pid: None)
    monkeypatch.setattr(pidtext, "read_stat", lambda _pid: None)
    monkeypatch.setattr(pidtext, "standing", lambda _pid: "unknown")
    error = taken(lambda: reserve(path))

    assert (error.pid, error.name, error.proven) == (living, "", False)


def test_who_is_meant_is_written_down(base: bytes, living: int) -> None:
    """Boot, pid and start time; of a process whose start is not known, nothing, also over an old attribute."""
    need_attributes(base)
    put(base + b"/.x.new")
    os.setxattr(base + b"/.x.new", ATTRIBUTE, b"old")
    written(base, NO_PID, 0)
    assert ATTRIBUTE not in os.listxattr(base + b"/x")
    written(base, living, 77)

    assert os.getxattr(base + b"/x", ATTRIBUTE).decode() == f"{current_boot_id()} {living} 77"


# --- a launch that fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [None, b"%d\n" % NO_PID])
@pytest.mark.parametrize("is_written", [False, True])
def test_a_failed_launch_takes_its_own_away(
    base: bytes, old: bytes | None, is_written: bool, owner: Descriptors
) -> None:
    """Written or not; the stale one that was there is gone, too; the next launch is not held up."""
    if old is not None:
        put(base + b"/x", old)
    file = PidFile(base + b"/x", owner, None)
    if is_written:
        file.write(NO_PID + 1, 0)
    file.remove()
    file.remove()

    assert os.listdir(base) == []
    owner.close()
    call(lambda: reserve(base + b"/x"))


@pytest.mark.parametrize("is_written", [False, True])
def test_a_forked_process_can_take_it_away(base: bytes, is_written: bool, owner: Descriptors) -> None:
    """The intermediate parent, that keeps only those descriptors, in another directory; whatever happened since the fork."""
    hold, release = os.pipe()
    file = PidFile(base + b"/x", owner, None)
    pid = os.fork()
    if pid == 0:
        os.chdir("/")
        os.umask(0o777)
        keep = {hold, *file.descriptors}
        for fd in range(3, 100):
            if fd not in keep:
                with contextlib.suppress(OSError):
                    os.close(fd)
        os.read(hold, 1)
        file.remove()
        os._exit(0)
    if is_written:
        file.write(NO_PID, 0)
    owner.close()
    if not is_written:
        assert taken(lambda: reserve(base + b"/x")).pid == pid
    os.close(hold)
    os.close(release)
    os.waitpid(pid, 0)

    assert os.listdir(base) == []


def test_a_file_that_is_not_ours_any_more_is_left(base: bytes, owner: Descriptors) -> None:
    """One that somebody has put there since stays: pid file and reservation."""
    file = PidFile(base + b"/x", owner, None)
    file.write(NO_PID, 0)
    os.unlink(base + b"/x")
    put(base + b"/x", b"new")
    put(base + b"/.x.new", b"also new")
    file.remove()

    assert (content(base + b"/x"), content(base + b"/.x.new")) == (b"new", b"also new")


def test_a_reservation_that_is_not_ours_any_more(base: bytes, owner: Descriptors) -> None:
    """What somebody has put in its place does not become the pid file."""
    file = PidFile(base + b"/x", owner, None)
    os.unlink(base + b"/.x.new")
    put(base + b"/.x.new", b"theirs")
    with pytest.raises(SetupError, match=r"cannot write .*/x: .x.new beside it has been removed by somebody"):
        file.write(NO_PID, 0)
    file.remove()

    assert os.listdir(base) == [b".x.new"]


def test_a_pid_file_while_the_next_launch_goes_on(base: bytes, owner: Descriptors, living: int) -> None:
    """The first server has died, its launch still wants to take the file away: it is the next launch's by now."""
    first = PidFile(base + b"/x", owner, None)
    first.write(NO_PID, 0)
    other = Descriptors()
    second = PidFile(base + b"/x", other, None)
    first.remove()
    remove_pid_file(os.fsdecode(base + b"/x"), NO_PID)
    second.write(living, start_of(living))
    first.remove()
    remove_pid_file(os.fsdecode(base + b"/x"), NO_PID)
    other.close()

    assert os.listdir(base) == [b"x"]
    assert content(base + b"/x") == b"%d\n" % living


def test_a_reader_cannot_hold_a_launch_up(base: bytes) -> None:
    """Everybody can read a pid file, and lock what he can read: that is in nobody's way, nor in that of a stop."""
    need_root()
    path = written(base, NO_PID, 0)

    def lock_shared() -> None:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)

    with holding(lock_shared, NOBODY):
        remove_pid_file(os.fsdecode(path), NO_PID)
        assert os.listdir(base) == []
        written(base, NO_PID, 0)
    with holding(lock_shared, NOBODY), holding(lambda: launch(path)) as (pid, _):
        assert content(path) == b"%d\n" % pid


@pytest.mark.parametrize("take", [lock, reserve])
def test_a_directory_of_another_users(base: bytes, take: Callable[[bytes], None]) -> None:
    """He can make and replace what he likes in it, though nobody else can: his files are not used."""
    need_root()
    put(base + b"/x", b"1\n")
    os.chown(base + b"/x", NOBODY, -1)
    os.chown(base, NOBODY, -1)
    os.chmod(base, 0o755)

    assert str(refused(lambda: take(base + b"/x"))).endswith("it belongs to another user (nobody)")


def test_a_reservation_of_a_pid_that_is_anothers_now(base: bytes, living: int, owner: Descriptors) -> None:
    """A crash left it, and what was written down proves that the process is another: it is taken over."""
    need_attributes(base)
    put(base + b"/.x.new", b"%d\n" % living)
    os.setxattr(base + b"/.x.new", ATTRIBUTE, b"another-boot %d %d" % (living, start_of(living)))

    PidFile(base + b"/x", owner, None)


def test_a_caller_whose_umask_forbids_everything(base: bytes) -> None:
    """The next launch, by an ordinary user too, can read what is there, and say who runs."""
    os.chmod(base, 0o777)

    def masked() -> None:
        os.umask(0o777)
        owner = Descriptors()
        lock_file = LockFile(base + b"/lock", owner)
        PidFile(base + b"/x", owner, None)
        assert lock_file.fd

    with holding(masked, NOBODY) as (pid, _):
        assert taken(lambda: lock(base + b"/lock"), NOBODY).pid == pid
        assert taken(lambda: reserve(base + b"/x"), NOBODY).pid == pid


def test_threads_that_come_and_go(base: bytes) -> None:
    """Every thread of a living server may be ending at one look: it is not dead for that, and keeps its pid file."""
    program = (
        "import os, threading, ctypes\n"
        "def hop(): threading.Thread(target=hop).start()\n"
        "hop(); print('hopping', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdout.readline() == b"hopping\n"
        try:
            path = written(base, server.pid, start_of(server.pid))
            found = [taken(lambda: reserve(path)).pid for _ in range(100)]
        finally:
            server.kill()

    assert set(found) == {server.pid}


def test_a_reservation_that_is_a_pid_file(base: bytes, living: int) -> None:
    """Somebody calls his pid file `.x.new`: it is not in our way as long as its process is dead, and not ours otherwise."""
    put(base + b"/.x.new", b"%d\n" % living)

    assert f"the pid file of a process that lives (pid {living})" in str(
        refused(lambda: reserve(base + b"/x"))
    )
    assert content(base + b"/.x.new") == b"%d\n" % living


def test_remove_never_raises(base: bytes, owner: Descriptors) -> None:
    """Not even when everything is gone."""
    file = PidFile(base + b"/x", owner, None)
    shutil.rmtree(base)
    file.remove()
    owner.close()
    file.remove()
    os.mkdir(base)


# --- no space ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 5])
def test_a_file_that_may_not_grow(base: bytes, limit: int) -> None:
    """Heard of before anything is started, also if only a part can be written; nothing is left."""

    def limited() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            reserve(base + b"/x")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    assert refused(limited).errno == errno.EFBIG
    assert os.listdir(base) == []


FULL = """
import os, sys
from daemonize.posix.fds import Descriptors
from daemonize.posix.locks import LockFile
from daemonize.posix.pidfiles import PidFile
base, size = os.fsencode(sys.argv[1]), int(sys.argv[2])
with open(base + b"/filler", "wb", buffering=0) as filler:
    try:
        while size:
            size -= filler.write(b"x" * min(size, 4096))
    except OSError:
        pass
owner = Descriptors()
for lock in (None, LockFile(base + b"/lock", owner)):
    try:
        PidFile(base + (b"/lock" if lock else b"/x"), owner, lock)
        print("reserved")
    except Exception as error:
        print(error)
owner.close()
print(sorted(os.listdir(sys.argv[1])))
"""


@pytest.mark.parametrize("full", [True, False])
def test_a_full_disk(base: bytes, full: bool) -> None:
    """No space left: heard of before anything is started, for both kinds of pid file; nothing is left."""
    need_root()
    if not shutil.which("unshare"):
        pytest.skip("needs unshare(1)")
    path = os.fsdecode(base)
    mount = f'mount -t tmpfs -o size=64k tmpfs "{path}" && exec "$@"'
    words = [sys.executable, "-c", FULL, path, str(10**6 if full else 4096)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *words], capture_output=True, text=True, check=False
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip("no such namespace here")

    said = [f"cannot use {path}/{name}: No space left on device" for name in ("x", "lock")]
    left = "['.x.new', 'filler', 'lock']" if not full else "['filler', 'lock']"
    assert done.stderr == ""
    assert done.stdout.splitlines() == [*(said if full else ["reserved"] * 2), left]


# --- a lock file that is the pid file too --------------------------------------------------------------------------


@pytest.mark.parametrize("path", [b"x", b"./x", b"link"])
@pytest.mark.parametrize("old", [None, b"", b"99999999\n"])
def test_one_file_for_both(
    base: bytes, path: bytes, old: bytes | None, owner: Descriptors, living: int
) -> None:
    """It is rewritten in place, by whatever name, when there is a pid; the lock is not lost."""
    os.symlink(b"x", base + b"/link")
    if old is not None:
        put(base + b"/x", old)
    held = LockFile(base + b"/x", owner)
    file = PidFile(base + b"/" + path, owner, held)
    assert content(base + b"/x") == b"\n"
    assert held.fd in file.descriptors
    assert fcntl.fcntl(held.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY  # a server cannot change the pid
    file.write(living, start_of(living))

    assert content(base + b"/x") == b"%d\n" % living
    assert os.path.samestat(os.stat(base + b"/x"), os.fstat(held.fd))
    assert stat.S_IMODE(os.fstat(held.fd).st_mode) == 0o600  # who can read it can lock it
    assert taken(lambda: lock(base + b"/x")).what == "lock file"
    assert sorted(os.listdir(base)) == [b"link", b"x"]


@pytest.mark.parametrize("is_written", [False, True])
def test_one_file_for_both_is_never_removed(base: bytes, is_written: bool, owner: Descriptors) -> None:
    """A failed launch leaves it empty."""
    put(base + b"/x", b"99999999\n")
    file = PidFile(base + b"/x", owner, LockFile(base + b"/x", owner))
    if is_written:
        file.write(NO_PID, 0)
    file.remove()

    assert content(base + b"/x") == b""
    assert os.listdir(base) == [b"x"]


def test_one_file_for_both_of_a_server_that_lost_the_lock(base: bytes, living: int) -> None:
    """It has closed every descriptor and runs: its pid still says so."""
    put(base + b"/x", b"%d\n" % living)

    def both() -> None:
        owner = Descriptors()
        PidFile(base + b"/x", owner, LockFile(base + b"/x", owner))

    assert taken(both).pid == living
    assert content(base + b"/x") == b"%d\n" % living


def test_one_file_for_both_that_may_only_be_read(base: bytes) -> None:
    """It can be locked, and no pid can be written: heard of before anything is started."""
    need_root()
    put(base + b"/x")

    def both() -> None:
        owner = Descriptors()
        PidFile(base + b"/x", owner, LockFile(base + b"/x", owner))

    assert refused(both, NOBODY).errno == errno.EACCES


def test_one_file_for_both_of_another_user(base: bytes, owner: Descriptors) -> None:
    """One that we may write to, and whose mode is not ours to change, will do."""
    need_root()
    put(base + b"/x")
    os.chmod(base + b"/x", 0o666)

    def both() -> None:
        owner = Descriptors()
        PidFile(base + b"/x", owner, LockFile(base + b"/x", owner)).write(NO_PID, 0)

    call(both, NOBODY)
    assert content(base + b"/x") == b"%d\n" % NO_PID


@pytest.mark.parametrize("content_of_lock", [b"", b"\n", b"%d\n" % NO_PID])
def test_a_lock_file_is_no_stale_pid_file(base: bytes, content_of_lock: bytes) -> None:
    """Somebody holds the lock on it: -p of the same name neither removes nor replaces it."""
    put(base + b"/x", content_of_lock)
    os.chmod(base + b"/x", 0o600)
    with holding(lambda: lock(base + b"/x")) as (pid, _):
        error = taken(lambda: reserve(base + b"/x"))
        assert (error.what, error.pid) == ("lock file", pid)
        assert os.listdir(base) == [b"x"]
    # Negative control: nobody holds it.
    call(lambda: reserve(base + b"/x"))
    assert os.listdir(base) == [b".x.new"]


def test_a_lock_file_that_is_new_is_not_replaced(base: bytes, owner: Descriptors) -> None:
    """It was made and locked while the server started."""
    file = PidFile(base + b"/x", owner, None)
    with holding(lambda: lock(base + b"/x")):
        with pytest.raises(SetupError, match="it has become a lock file"):
            file.write(NO_PID, 0)
        file.remove()
        assert os.listdir(base) == [b"x"]
        assert content(base + b"/x") == b""


def test_one_file_for_both_that_is_removed(base: bytes, owner: Descriptors) -> None:
    """A pid file that nobody would find is not written."""
    file = PidFile(base + b"/x", owner, LockFile(base + b"/x", owner))
    os.unlink(base + b"/x")

    with pytest.raises(SetupError, match="it has been removed by somebody"):
        file.write(NO_PID, 0)


def test_one_file_for_both_of_the_user_of_the_server(base: bytes, owner: Descriptors) -> None:
    """He may lock it, but a pid in it would be his to change."""
    need_root()
    put(base + b"/x")
    os.chown(base + b"/x", NOBODY, -1)
    held = LockFile(base + b"/x", owner, (NOBODY,))

    with pytest.raises(SetupError, match="who could write another pid"):
        PidFile(base + b"/x", owner, held, (NOBODY,))


def test_two_files(base: bytes, owner: Descriptors) -> None:
    """A lock file that is another file has nothing to do with the pid file."""
    held = LockFile(base + b"/lock", owner)
    PidFile(base + b"/x", owner, held).write(NO_PID, 0)

    assert content(base + b"/lock") == b""
    assert content(base + b"/x") == b"%d\n" % NO_PID


# --- stopping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "empty", "left"),
    [
        (b"4194305\n", False, None),
        (b"4194305", False, None),
        (b"4194306\n", False, b"4194306\n"),
        (b"", False, b""),
        (b"garbage", False, b"garbage"),
        (b"4194305\n", True, b""),
        (b"4194306\n", True, b"4194306\n"),
    ],
)
def test_removing_a_pid_file(base: bytes, found: bytes, empty: bool, left: bytes | None) -> None:
    """It goes if it still names that process, or is emptied; any other stays."""
    put(base + b"/x", found)
    remove_pid_file(os.fsdecode(base) + "/x", NO_PID, empty=empty)

    assert (content(base + b"/x") if os.path.exists(base + b"/x") else None) == left


def test_removing_what_is_not_there(base: bytes) -> None:
    """Nor is a directory, a fifo or a stranger's symlink any reason for an error."""
    os.mkfifo(base + b"/fifo")
    for name in ("x", "nowhere/x", "fifo", "", "."):
        remove_pid_file(f"{os.fsdecode(base)}/{name}", NO_PID)

    assert os.listdir(base) == [b"fifo"]


def test_removing_does_not_remove_what_has_taken_its_place(
    base: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch that has replaced the file in the last moment keeps its own."""
    put(base + b"/x", b"%d\n" % NO_PID)

    def late(fd: int) -> bool:
        monkeypatch.undo()
        put(base + b"/new", b"%d\n" % NO_PID)
        os.rename(base + b"/new", base + b"/x")
        return locks.try_lock(fd)

    monkeypatch.setattr(locks, "try_lock", late)
    remove_pid_file(os.fsdecode(base) + "/x", NO_PID)

    assert content(base + b"/x") == b"%d\n" % NO_PID


def test_a_lock_where_there_are_no_locks(
    base: bytes, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without locks: the kernel's reason is given, nobody is said to hold it."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(SetupError, match=r"cannot lock .*: No locks available"):
        LockFile(base + b"/x", owner)
