"""The kernel's tables of sockets: sock_diag(7), which can be asked for a few alone, and the files of /proc/PID/net.

A table is of one network namespace: sock_diag tells of ours, /proc/PID/net of the one that the process is in. Reading
/proc takes time for every connection of the machine, if one reads on after the listeners, which come first.
"""

from __future__ import annotations

import os
import struct
from sys import byteorder

from daemonize.errors import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_REQUEST_DUMP = 0x1, 0x301
_HEADER = struct.Struct("=IHHII")
_UNIX, INET, INET6 = 1, 2, 10
_TCP = 6
_ESTABLISHED, _CLOSE, _LISTEN = 1, 7, 10
#: Of inet_diag_msg: the ports and the source address; uid and inode. Of unix_diag_msg: type, state, inode.
_INET_ID, _INET_FACTS, _INET_SIZE = struct.Struct("!4xHH16s"), struct.Struct("=64xII"), 72
_UNIX_FACTS, _UNIX_SIZE = struct.Struct("=xBBxI"), 16
_SKV6ONLY = 11
_ANY_COOKIE = b"\xff" * 8
_NAME, _VFS, _UID = 0, 1, 7
_SHOW_NAME, _SHOW_VFS, _SHOW_UID = 0x01, 0x02, 0x40
#: Of /proc/net/unix: __SO_ACCEPTCON.
_ACCEPTS = 0x10000
_STREAM, _DATAGRAM, _SEQPACKET = 1, 2, 5
_TABLE = "the kernel's table of sockets"
_MAPPED = bytes(10) + b"\xff\xff"


class Listener:
    """A TCP socket that listens. uid: of who made it.

    address: 4 or 16 bytes (IPv4 on an IPv6 socket: 4). dual: IPv6 that takes IPv4 as well; /proc does not tell, so that
    there every one may.
    """

    __slots__ = ("address", "dual", "inode", "port", "uid")

    def __init__(self, address: bytes, port: int, uid: int, inode: int, *, dual: bool) -> None:
        self.address = address[12:] if address.startswith(_MAPPED) else address
        self.port, self.uid, self.inode = port, uid, inode
        self.dual = dual and len(self.address) == 16

    def covers(self, address: bytes) -> bool:
        """Whether connections to that address come to it."""
        if self.address == address:
            return True
        return not any(self.address) and (len(self.address) == len(address) or self.dual)

    def overlaps(self, address: bytes) -> bool:
        """Whether nobody else can listen at that address, if he does not share."""
        return self.covers(address) or (not any(address) and len(self.address) == len(address))

    def __str__(self) -> str:
        """As shown to people: 127.0.0.1:80, [::1]:80."""
        from _socket import inet_ntop

        if len(self.address) == 4:
            return f"{inet_ntop(INET, self.address)}:{self.port}"
        return f"[{inet_ntop(INET6, self.address)}]:{self.port}"


class Bound:
    """A UNIX socket that takes what is sent to it: one that listens, or a datagram socket with a name.

    name: as it was bound, b"" for none; a NUL before an abstract one. file: inode (32 bits) and device of the file that
    was made for it, None for abstract ones and where the kernel does not tell. uid: of who made it, None likewise.
    """

    __slots__ = ("file", "inode", "name", "uid")

    def __init__(
        self, name: bytes, inode: int, file: tuple[int, int] | None = None, uid: int | None = None
    ) -> None:
        self.name, self.inode, self.file, self.uid = name, inode, file, uid

    def __str__(self) -> str:
        """As shown to people: the path, @NAME for an abstract one."""
        return os.fsdecode(self.name.replace(b"\0", b"@"))


class Tables:
    """A socket on which the kernel answers, for our network namespace. To make it is half of a look."""

    def __init__(self) -> None:
        self._socket: socket | None = None
        self._turn = 0

    def ask(self, request: bytes) -> Iterator[bytes]:
        """The answers to a dump request, without their headers. Raises OSError."""
        self._send(request, _NLM_F_REQUEST_DUMP)
        while True:
            for kind, answer in self._answers():
                if kind == _NLMSG_DONE:
                    return
                yield answer

    def ask_one(self, request: bytes) -> bytes | None:
        """The answer to a request for one socket; None: there is none. Raises OSError."""
        self._send(request, _NLM_F_REQUEST)
        while True:
            try:
                for _, answer in self._answers():
                    return answer
            except FileNotFoundError:
                return None

    def _send(self, request: bytes, flags: int) -> None:
        asking = self._socket = self._socket or _open()
        # The kernel has answered by the time that sendto(2) returns: there is nothing to wait for.
        self._turn += 1
        size = _HEADER.size + len(request)
        asking.sendto(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, flags, self._turn, 0) + request, (0, 0))

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """Some of those to the last request: kind, and all but the header."""
        data = self._socket.recv(65536) if self._socket else b""
        while data:
            size, kind, _, turn, _ = _HEADER.unpack_from(data)
            answer, data = data[_HEADER.size : size], data[size + 3 & ~3 :]
            if turn != self._turn:
                continue  # to an earlier request, which failed
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", answer)[0]
                raise OSError(code, os.strerror(code))
            yield kind, answer

    def close(self) -> None:
        """Give it back; the next request opens another one."""
        if self._socket:
            self._socket.close()
            self._socket = None


def _open() -> socket:
    from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW, socket

    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, _NETLINK_SOCK_DIAG)


def listeners(port: int = 0, tables: Tables | None = None) -> list[Listener]:
    """The TCP sockets of our network namespace that listen, on one port or (0) on any. Raises SetupError."""
    asked = tables or Tables()
    try:
        return [*_ask_inet(asked, INET, port), *_ask_inet(asked, INET6, port)]
    except OSError:  # not compiled in, or not for us (a filter for system calls)
        try:
            return listeners_near("self", port)
        except OSError as error:
            raise SetupError("read", _TABLE, error) from None
    finally:
        if asked is not tables:
            asked.close()


def listener_at(address: bytes, port: int, tables: Tables) -> Listener | None:
    """Who would take a connection to this address, and port, of our network namespace; None: nobody.

    The kernel need not go through its table for that. Of those that share a port it tells of one. Raises OSError.
    """
    family = INET if len(address) == 4 else INET6
    asked = struct.pack("=BBBBI", family, _TCP, 0, 0, 1 << _LISTEN)
    answer = tables.ask_one(asked + struct.pack("!H2x16s20x", port, address) + _ANY_COOKIE)
    return _listener(family, answer) if answer and answer[1] == _LISTEN else None


def listeners_near(pid: int | str, port: int = 0) -> list[Listener]:
    """Those of the network namespace that a process is in. Raises OSError."""
    found: list[Listener] = []
    if _in_use(f"/proc/{pid}/net/sockstat"):
        found += _read_inet(f"/proc/{pid}/net/tcp")
    if _in_use(f"/proc/{pid}/net/sockstat6"):
        found += _read_inet(f"/proc/{pid}/net/tcp6")
    return [listener for listener in found if port in (0, listener.port)]


def bound(*, connected: bool = True) -> list[Bound]:
    """The UNIX sockets of our network namespace that take what is sent to them. Raises SetupError.

    connected: also datagram sockets that somebody has connected to: the kernel has to go through all connections for that.
    """
    asked = Tables()
    try:
        return list(_ask_unix(asked, connected))
    except OSError:
        try:
            return bound_near("self")
        except OSError as error:
            raise SetupError("read", _TABLE, error) from None
    finally:
        asked.close()


def bound_near(pid: int | str) -> list[Bound]:
    """Those of the network namespace that a process is in. Raises OSError."""
    with open(f"/proc/{pid}/net/unix", "rb") as table:
        return parse_unix(table.read())


# -- sock_diag --------------------------------------------------------------------------------------------------------


def _ask_inet(tables: Tables, family: int, port: int) -> Iterator[Listener]:
    asked = struct.pack("=BBBBI", family, _TCP, 0, 0, 1 << _LISTEN) + struct.pack("!H46x", port)
    for answer in tables.ask(asked):
        yield _listener(family, answer)


def _listener(family: int, answer: bytes) -> Listener:
    sport, _, source = _INET_ID.unpack_from(answer)
    uid, inode = _INET_FACTS.unpack_from(answer)
    only = _attributes(answer[_INET_SIZE:]).get(_SKV6ONLY, b"\0") != b"\0"
    return Listener(source[:4] if family == INET else source, sport, uid, inode, dual=not only)


def _ask_unix(tables: Tables, connected: bool) -> Iterator[Bound]:
    # To connect to a datagram socket makes it "established" itself.
    states = 1 << _LISTEN | 1 << _CLOSE | connected << _ESTABLISHED
    asked = struct.pack("=BBHIII8x", _UNIX, 0, 0, states, 0, _SHOW_NAME | _SHOW_VFS | _SHOW_UID)
    for answer in tables.ask(asked):
        kind, state, inode = _UNIX_FACTS.unpack_from(answer)
        if state != _LISTEN and kind != _DATAGRAM:
            continue
        more = _attributes(answer[_UNIX_SIZE:])
        name = more.get(_NAME, b"")
        if state == _LISTEN or name:
            file = struct.unpack("=II", more[_VFS]) if _VFS in more else None
            uid = int.from_bytes(more[_UID], byteorder) if _UID in more else None
            # A path may come with the NUL that ends it.
            yield Bound(name if name.startswith(b"\0") else name.rstrip(b"\0"), inode, file, uid)


def _attributes(data: bytes) -> dict[int, bytes]:
    """The attributes after a message (netlink(7), rtattr)."""
    found = {}
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:size]
        data = data[max(size, 4) + 3 & ~3 :]
    return found


# -- /proc ------------------------------------------------------------------------------------------------------------


def _in_use(path: str) -> bool:
    """Whether there is any TCP socket that listens or is connected; none with IPv6 where the kernel has none.

    To find the end of an empty table the kernel goes through all of its hash table, which takes milliseconds.
    """
    try:
        with open(path, "rb") as counts:
            return any(line.startswith(b"TCP") and line.split()[2] != b"0" for line in counts)
    except FileNotFoundError:
        if path.endswith("6"):
            return False
        raise


def _read_inet(path: str) -> list[Listener]:
    """The listeners of a table. Not one byte more is read than holds them: connections come after them."""
    with open(path, "rb", buffering=4096) as table:
        next(table, None)
        found = []
        for line in table:
            listener = parse_inet(line)
            if listener is None:
                break
            found.append(listener)
        return found


def parse_inet(line: bytes) -> Listener | None:
    """A line of /proc/net/tcp or tcp6, if it is about a listener."""
    words = line.split()
    if int(words[3], 16) != _LISTEN:
        return None
    address, _, port = words[1].partition(b":")
    # Each 32 bits of the address stand there as a number of this machine's.
    parts = [int(address[at : at + 8], 16).to_bytes(4, byteorder) for at in range(0, len(address), 8)]
    return Listener(b"".join(parts), int(port, 16), int(words[7]), int(words[9]), dual=True)


def parse_unix(table: bytes) -> list[Bound]:
    """/proc/net/unix. A name may hold anything but a NUL, newlines included: then its line is cut there."""
    found = []
    for line in table.split(b"\n")[1:]:
        words = line.split(maxsplit=7)
        try:
            flags, kind, inode = int(words[3], 16), int(words[4], 16), int(words[6])
        except (IndexError, ValueError):
            continue  # the rest of such a name
        name = words[7] if len(words) > 7 else b""
        if flags & _ACCEPTS or (kind == _DATAGRAM and name):
            found.append(Bound(b"\0" + name[1:] if name.startswith(b"@") else name, inode))
    return found
