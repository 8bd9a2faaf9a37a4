"""Sockets that are bound for a server: whoever else wants the same file, and systems that have less than this one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

from daemonize.errors import AlreadyRunning, SetupError
from daemonize.launcher import api
from daemonize.launcher.account import find
from daemonize.posix import binding, paths, reservations, sockdiag
from daemonize.posix.lent import act_as
from tests.support import listening, ports, users
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemonize.posix.fds import Descriptors
    from tests.support.family import Family

READY = program("repoints", "ready")


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    """A stale socket file."""
    name = os.fsencode(os.path.realpath(tmp_path)) + b"/socket"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(name)
    return name


def refuse_if_live(path: bytes) -> None:
    """By connecting, as the last resort does."""
    with socket.socket(socket.AF_UNIX) as asking:
        if asking.connect_ex(path) == 0:
            raise AlreadyRunning("socket", os.fsdecode(path))


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """So many can be opened here, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(count + 1)]
    for fd in free:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("way", ["O_PATH", "without"])
def test_a_file_is_made_and_removed(
    way: str, path: bytes, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; another that lies there by then is left alone. Also where a file cannot be held without being opened."""
    if way == "without":
        monkeypatch.setattr(binding, "O_PATH", 0)
        monkeypatch.setattr(paths, "O_PATH", 0)
    file = binding.SocketFile(path, owner, find(str(os.getuid())))
    fd = file.listen(0o077, lambda: None)
    mode = os.stat(path).st_mode & 0o777
    with pytest.raises(AlreadyRunning):
        refuse_if_live(path)
    file.remove()
    gone = not os.path.exists(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        file.remove()
        left = os.path.exists(path)

    assert (mode, gone, left) == (0o700, True, True)
    assert binding.Open(fd).accepts


def test_who_comes_second_waits_until_the_first_is_done(path: bytes, owner: Descriptors) -> None:
    """Else he would take the file of the first one, who has just found it stale and made it anew, for stale too."""
    looked = threading.Event()
    refused: list[BaseException] = []

    def look() -> None:
        looked.set()
        refuse_if_live(path)

    def second() -> None:
        try:
            binding.SocketFile(path, owner).listen(None, look)
        except AlreadyRunning as error:
            refused.append(error)

    other = threading.Thread(target=second)

    def first_looks() -> None:
        other.start()
        assert not looked.wait(0.2)

    binding.SocketFile(path, owner).listen(None, first_looks)
    other.join()

    assert looked.is_set()
    assert len(refused) == 1


def test_whoever_is_busy_with_the_file_is_waited_for_only_so_long(
    path: bytes, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch that has been stopped, say. Then it is in use; and nothing is left of having waited."""
    monkeypatch.setattr(binding, "_PATIENCE", 0.05)
    with reservations.Change(paths.Place.at(path, owner, ()), "socket", "", 0):
        before = os.stat(path)
        with pytest.raises(AlreadyRunning) as caught:
            binding.SocketFile(path, owner).listen(None, lambda: None)
        after = os.stat(path)
    fd = binding.SocketFile(path, owner).listen(None, lambda: None)

    assert os.path.samestat(before, after)
    assert str(caught.value).startswith(f"another launch is using the socket {os.fsdecode(path)} (")
    assert f"pid {os.getpid()})" in str(caught.value)
    assert binding.Open(fd).accepts
    assert os.listdir(os.path.dirname(path)) == [b"socket"]


def test_a_stranger_who_locks_the_directory_is_in_nobodys_way(
    path: bytes, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody who can read it can do that; two launches still exclude each other."""
    monkeypatch.setattr(binding, "_PATIENCE", 0.05)
    fcntl.flock(owner.open(os.path.dirname(path), os.O_RDONLY), fcntl.LOCK_EX)
    refused: list[BaseException] = []

    def second() -> None:
        try:
            binding.SocketFile(path, owner).listen(None, lambda: None)
        except AlreadyRunning as error:
            refused.append(error)

    binding.SocketFile(path, owner).listen(None, second)

    assert len(refused) == 1


def test_a_file_is_not_removed_while_another_launch_replaces_it(
    path: bytes, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it looked at may be another's when it is removed. When he is done, ours is removed if it is still there."""
    monkeypatch.setattr(binding, "_PATIENCE", 0.05)
    file = binding.SocketFile(path, owner)
    file.listen(None, lambda: None)
    with reservations.Change(paths.Place.at(path, owner, ()), "socket", "", 0):
        file.remove()
        stays = os.path.exists(path)
    file.remove()

    assert (stays, os.path.exists(path)) == (True, False)


def test_without_a_descriptor_for_the_lock_a_file_is_removed_all_the_same(
    path: bytes, owner: Descriptors
) -> None:
    """A launch may fail because it has none left."""
    file = binding.SocketFile(path, owner)
    file.listen(None, lambda: None)
    with descriptors_left(0):
        file.remove()

    assert not os.path.exists(path)


@pytest.mark.parametrize("left", range(4))
def test_where_descriptors_run_out_no_file_is_left(left: int, path: bytes, owner: Descriptors) -> None:
    """One for the lock, one for the socket, and one to hold the file: without the last one it is there already."""
    file = binding.SocketFile(path, owner)
    os.unlink(path)
    reservations.Change(file._place, "socket", "", 0).__exit__()  # what it needs is loaded
    with descriptors_left(left):
        made = None
        with contextlib.suppress(OSError):
            made = file.listen(None, lambda: None)
    there = os.path.exists(path)
    file.remove()

    assert there == (made is not None) == (left == 3)


@pytest.mark.parametrize("whose", ["its user's, and not empty", "a stranger's"])
def test_a_file_that_has_the_name_of_the_lock_is_left_alone(
    whose: str, path: bytes, owner: Descriptors
) -> None:
    """Who may write there can keep us from it; he cannot be made to lose something."""
    lock = os.path.join(os.path.dirname(path), b".socket.new")
    with open(lock, "wb") as file:
        file.write(b"" if whose == "a stranger's" else b"text")
    if whose == "a stranger's":
        users.become(users.NOBODY)  # skips
        os.chown(lock, users.NOBODY.uid, -1)
    with pytest.raises(OSError, match=r"^\[Errno [0-9]+\] \.socket\.new beside it: it "):
        binding.SocketFile(path, owner).listen(None, lambda: None)

    assert os.path.exists(lock)


def test_a_file_that_is_replaced_at_once_is_refused(
    path: bytes, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root must not give away what a stranger has put in its place."""
    bind = binding.SocketFile._bind

    def robbed(file: binding.SocketFile, made: Any) -> int:
        maker = bind(file, made)
        os.unlink(path)
        os.mkfifo(path)
        return maker

    monkeypatch.setattr(binding.SocketFile, "_bind", robbed)
    file = binding.SocketFile(path, owner)
    with pytest.raises(OSError, match="somebody else has changed it meanwhile"):
        file.listen(None, lambda: None)
    file.remove()

    assert os.path.exists(path)


@pytest.fixture
def nobodys() -> Iterator[bytes]:
    """The path of a socket that nobody has made yet, two directories of nobody's on the way to it."""
    users.become(users.NOBODY)  # skips
    with users.open_directory() as top:
        for directory in (f"{top}/a", f"{top}/a/b"):
            os.mkdir(directory)
            os.chown(directory, users.NOBODY.uid, users.NOBODY.gid)
        yield os.fsencode(f"{top}/a/b/socket")


@pytest.mark.parametrize("account", ["nobody", None])
def test_a_way_that_leads_elsewhere_by_now_does_not_lead_root(
    account: str | None, nobodys: bytes, tmp_path: Path, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For another user nothing is made where he could not make it. Control: bind(2) of root's own follows his symlink."""
    bind = binding.SocketFile._bind

    def led_astray(file: binding.SocketFile, made: Any) -> int:
        way = os.path.dirname(nobodys)
        os.rename(way, way + b"-away")
        os.symlink(tmp_path, way)
        return bind(file, made)

    monkeypatch.setattr(binding.SocketFile, "_bind", led_astray)
    os.chmod(tmp_path, 0o700)
    file = binding.SocketFile(nobodys, owner, find(account) if account else None)
    with pytest.raises(OSError, match="may not make it" if account else "No such file"):
        file.listen(None, lambda: None)

    assert os.listdir(tmp_path) == ([] if account else ["socket"])


@pytest.mark.parametrize("whose", ["the user's", "root's"])
def test_it_is_the_users_whoever_makes_it(
    whose: str, nobodys: bytes, tmp_path: Path, owner: Descriptors
) -> None:
    """Himself in his own directory; root where he may not, and nobody but root can change the way. Its name is the path."""
    path = nobodys if whose == "the user's" else os.fsencode(tmp_path / "socket")
    file = binding.SocketFile(path, owner, find("nobody"))
    fd = file.listen(0o022, lambda: None)
    status = os.stat(path)
    file.remove()

    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (*users.NOBODY[1:3], 0o755)
    assert binding.Open(fd).address == path
    assert os.listdir(os.path.dirname(path)) == []


def test_in_a_strangers_directory_root_makes_it_for_nobody_else(nobodys: bytes, owner: Descriptors) -> None:
    """Where the user may not, and another one can change the way."""
    os.mkdir(directory := os.path.join(os.path.dirname(nobodys), b"roots"))
    with pytest.raises(OSError, match="others can say where the path leads"):
        binding.SocketFile(directory + b"/socket", owner, find("nobody")).listen(None, lambda: None)

    assert os.listdir(directory) == []


@pytest.mark.parametrize("ignored", [False, True], ids=["reaped", "SIGCHLD ignored"])
def test_what_is_done_as_another_user(ignored: bool, nobodys: bytes) -> None:
    """His rights; what goes wrong is told, also that the process was killed; and this process stays as it is."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        act_as(find("nobody"), lambda: os.mkdir(nobodys))
        with pytest.raises(FileExistsError):
            act_as(find("nobody"), lambda: os.mkdir(nobodys))
        with pytest.raises(OSError, match="was killed"):
            act_as(find("nobody"), lambda: os.kill(os.getpid(), signal.SIGKILL))
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert (os.stat(nobodys).st_uid, os.stat(nobodys).st_gid) == users.NOBODY[1:3]
    assert (os.geteuid(), os.getegid()) == (os.getuid(), os.getgid())


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_without_ipv6_it_is_all_addresses_of_ipv4(
    code: int, owner: Descriptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that has none says so in either way."""
    stream = binding._stream

    def without(family: int) -> Any:
        if family == socket.AF_INET6:
            raise OSError(code, os.strerror(code))
        return stream(family)

    monkeypatch.setattr(binding, "_stream", without)

    assert binding.Open(binding.listen_at(None, 0, owner)).address == "0.0.0.0"


def test_another_error_is_none_of_the_kind(owner: Descriptors) -> None:
    """A port that is taken on one of the two is taken."""
    with ports.taken() as port, pytest.raises(OSError, match="Address already in use"):
        binding.listen_at(None, port, owner)


def test_the_queue_is_as_long_as_the_system_permits(owner: Descriptors) -> None:
    """A crowd may come before the server does."""
    fd = binding.listen_at(("127.0.0.1", 0), 0, owner)
    with open("/proc/sys/net/core/somaxconn") as file:
        most = int(file.read())
    with socket.socket(fileno=os.dup(fd)) as listener:
        # Of a socket that listens: how many wait to be accepted, and how many may (tcpi_unacked, tcpi_sacked).
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)

    assert struct.unpack_from("=II", info, 24) == (0, most)


@pytest.fixture
def no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that tells nothing of its sockets."""

    def hidden(*_: object, **__: object) -> Any:
        raise SetupError("read", "the kernel's table of sockets", OSError(2, "No such file or directory"))

    monkeypatch.setattr(sockdiag, "listeners", hidden)
    monkeypatch.setattr(sockdiag, "bound", hidden)


@pytest.mark.usefixtures("no_tables")
def test_where_the_kernel_does_not_tell_connecting_does(path: bytes, servers: Family) -> None:
    """A live socket and a port that is taken are refused, by nobody's name; a stale one is replaced."""
    text, port = os.fsdecode(path), ports.free_port()
    with listening.stranger(f"bind({text!r} + '2').listen(); listen('127.0.0.1', {port})"):
        with pytest.raises(AlreadyRunning) as socket_taken:
            api.launch(READY, listen=f"unix:{text}2")
        with pytest.raises(AlreadyRunning) as port_taken:
            api.launch(READY, listen=f"127.0.0.1:{port}")
    daemon = api.launch(READY, listen=f"unix:{text}")

    assert str(socket_taken.value) == f"socket {text}2 is already in use"
    assert str(port_taken.value) == f"port {port} is already in use"
    assert daemon.listen == [f"unix:{text}"]


def test_a_socket_that_is_made_at_the_last_moment(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a program that asks nobody: it is in use, by whom is said."""
    text = os.fsdecode(path) + "2"

    with listening.stranger(f"bind({text!r}).listen()") as pid:
        monkeypatch.setattr(binding.SocketFile, "_is_stale", lambda *_: False)
        with pytest.raises(AlreadyRunning) as caught:
            api.launch(READY, listen=f"unix:{text}")

    assert (caught.value.what, caught.value.path, caught.value.pid) == ("socket", text, pid)


@pytest.mark.parametrize(
    ("family", "name", "shown"),
    [
        (socket.AF_INET, ("127.0.0.1", 0), "127.0.0.1:"),
        (socket.AF_INET6, ("::1", 0), "[::1]:"),
        (socket.AF_UNIX, "\0a b", "unix:@a b"),
        (socket.AF_UNIX, "", "unix:"),
    ],
    ids=str,
)
def test_what_somebody_else_has_opened(family: int, name: Any, shown: str) -> None:
    """It is told as an address; a socket that does not listen is known as such."""
    with socket.socket(family) as made:
        if name:
            made.bind(name)
        before = binding.Open(made.fileno())
        if name:
            made.listen()
            assert binding.Open(made.fileno()).accepts

    assert str(before).startswith(shown)
    assert not before.accepts


def test_what_is_no_socket() -> None:
    """Only its number can be told."""
    end, other = os.pipe()
    shown = str(binding.Open(end))
    os.close(end)
    os.close(other)

    assert shown == f"fd:{end}"
