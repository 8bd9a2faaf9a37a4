"""Whose sockets they are: a process has a socket open if /proc/PID/fd shows its inode."""

from __future__ import annotations

import os

from daemonize.posix.holders import NOBODY, Holder, oldest_of
from daemonize.posix.identity import read_stat
from daemonize.posix.sockdiag import listeners

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Iterable

    from daemonize.posix.sockdiag import Listener


def listeners_of(pids: Iterable[int]) -> list[Listener]:
    """The TCP sockets of our network namespace on which these processes listen, as far as they may be looked into.

    Raises SetupError where the kernel's tables cannot be read.
    """
    there = {listener.inode: listener for listener in listeners()}
    own: set[int] = set()
    for pid in pids:
        try:
            own |= open_of(pid, there)
        except OSError:
            pass  # it has ended, or is hidden
    return [there[inode] for inode in own]


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Pid and uid of who was at the other end of a UNIX socket when they were connected (SO_PEERCRED, unix(7)). Linux."""
    import struct
    from _socket import SO_PEERCRED, SOL_SOCKET

    pid, uid, _ = struct.unpack("3i", sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))
    return pid, uid


def resolve(host: str) -> list[str]:
    """The addresses of a name, or of a number ([::1]). Raises OSError."""
    from _socket import SOCK_STREAM, getaddrinfo

    # As bytes: for text the codec of international names would be loaded.
    found = getaddrinfo(host.strip("[]").encode("ascii"), None, 0, SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def pack(address: str) -> bytes:
    """A numeric address as 4 or 16 bytes (IPv4 in IPv6: 4); what comes after % is left out. Raises OSError."""
    from _socket import AF_INET, AF_INET6, inet_pton

    address = address.partition("%")[0]
    if ":" not in address:
        return inet_pton(AF_INET, address)
    packed = inet_pton(AF_INET6, address)
    return packed[12:] if packed.startswith(bytes(10) + b"\xff\xff") else packed


def is_local(address: str) -> bool:
    """Whether it is an address of this machine: only to one of those a socket can be bound."""
    from _socket import AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_DGRAM, socket

    try:
        probing = socket(AF_INET6 if ":" in address else AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
    except OSError:
        return False
    try:
        probing.bind((address, 0))
    except OSError:
        return False
    finally:
        probing.close()
    return True


def open_of(pid: int, inodes: Collection[int]) -> set[int]:
    """Which of these sockets a process has open. Raises PermissionError if it may not be looked into.

    Another OSError: it has ended.
    """
    found = set()
    directory = os.open(_descriptors(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in os.listdir(directory):
            try:
                target = os.readlink(number, dir_fd=directory)
            except FileNotFoundError:
                continue  # closed in between
            if target.startswith("socket:[") and int(target[8:-1]) in inodes:
                found.add(int(target[8:-1]))
    finally:
        os.close(directory)
    return found


def _descriptors(pid: int) -> str:
    """Where /proc shows them: with another thread, if the first one has left, and those that stay share them."""
    stat = read_stat(pid)
    if stat and stat.exiting:
        for task in os.listdir(f"/proc/{pid}/task"):
            other = read_stat(pid, int(task))
            if other and not other.exiting:
                return f"/proc/{pid}/task/{task}/fd"
    return f"/proc/{pid}/fd"


def open_here(fds: Iterable[int]) -> set[int]:
    """The inodes of sockets among descriptors of this process."""
    from stat import S_ISSOCK

    found = set()
    for fd in fds:
        status = os.fstat(fd)
        if S_ISSOCK(status.st_mode):
            found.add(status.st_ino)
    return found


def holder_of(inode: int, uid: int | None) -> Holder:
    """Who has a socket: the oldest process that has it open. Where the kernel hides that: uid, of who made it."""
    oldest, _ = oldest_of(lambda pid: inode in open_of(pid, {inode}))
    return (None, "", uid) if oldest is NOBODY else oldest


def elsewhere(pids: Iterable[int]) -> list[int]:
    """One of these processes for each network namespace that is not ours. One that hides its own is in ours."""
    found = {_namespace("self"): 0}
    for pid in pids:
        found.setdefault(_namespace(str(pid)) or _namespace("self"), pid)
    return [pid for pid in found.values() if pid]


def _namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""
