"""Sockets that are bound here, and listen, for a server that is to find them open: TCP, and UNIX with their files."""

from __future__ import annotations

import errno
import os
import stat

from daemonize.errors import AlreadyRunning
from daemonize.posix.identity import has_proc
from daemonize.posix.paths import O_PATH, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from daemonize.posix.fds import Descriptors
    from daemonize.posix.lent import User
    from daemonize.posix.reservations import Change

    Address = tuple[str, int] | tuple[str, int, int, int]

#: Bytes that bind(2) takes of the path of a socket.
LONGEST_PATH = 107
#: The kernel makes of it as much as it permits (net.core.somaxconn).
_BACKLOG = (1 << 31) - 1
#: Seconds that another launch is waited for that makes or removes the same socket file.
_PATIENCE = 1.0
_NOT_HIS = "the user of -u may not make it, and others can say where the path leads; name a directory of his, or of root's"
_CHANGED = "somebody else has changed it meanwhile"
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def find(host: str, port: int) -> Address:
    """What to bind to for a name or a number ([::1]): of a name the first IPv4 address, else the first. Raises OSError."""
    from _socket import AF_INET, SOCK_STREAM, getaddrinfo

    # As bytes: for text the codec of international names would be loaded.
    found = getaddrinfo(host.strip("[]").encode("ascii"), port, 0, SOCK_STREAM)
    return next((address for family, *_, address in found if family == AF_INET), found[0][4])  # type: ignore[return-value]


def listen_at(address: Address | None, port: int, owner: Descriptors) -> int:
    """A TCP socket that listens there (None: on all addresses, of IPv4 and IPv6 alike). Raises OSError."""
    if address is None:
        try:
            return _listen_tcp(("::", port, 0, 0), owner, dual=True)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
        address = ("0.0.0.0", port)  # noqa: S104 (what was asked for)
    return _listen_tcp(address, owner)


def _listen_tcp(address: Address, owner: Descriptors, *, dual: bool = False) -> int:
    from _socket import AF_INET, AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, SO_REUSEADDR, SOL_SOCKET

    made = _stream(AF_INET6 if ":" in address[0] else AF_INET)
    try:
        made.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if dual:
            made.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
        return _listen(made, address, owner)
    finally:
        made.close()


def listen_to(name: bytes, owner: Descriptors) -> int:
    """A UNIX socket that listens by an abstract name (NUL first). Raises OSError."""
    from _socket import AF_UNIX

    made = _stream(AF_UNIX)
    try:
        return _listen(made, name, owner)
    finally:
        made.close()


def _stream(family: int) -> socket:
    from _socket import SOCK_CLOEXEC, SOCK_STREAM, socket

    return socket(family, SOCK_STREAM | SOCK_CLOEXEC)


def _listen(made: socket, address: Address | bytes, owner: Descriptors) -> int:
    made.bind(address)
    made.listen(_BACKLOG)
    return owner.add(made.detach())


def _is_bound(path: bytes) -> bool:
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, socket

    # That a stream socket does not listen, and that there is none, is one error. Of another kind it says that there is one.
    for kind in (SOCK_STREAM, SOCK_DGRAM):
        asking = socket(AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK)
        try:
            if asking.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT):
                return True
        finally:
            asking.close()
    return False


def shown_name(name: bytes) -> str:
    """The name of a UNIX socket, as shown to people: unix:/run/socket, unix:@name."""
    return "unix:" + os.fsdecode(name.replace(b"\0", b"@"))


class Open:
    """A descriptor that somebody else has opened, as far as it is a socket.

    address: IP address, or the name of a UNIX socket (a NUL before an abstract one); None: it is neither. port: of TCP and
    UDP, else None. accepts: it listens. dual: it takes IPv4 as well as IPv6.
    """

    def __init__(self, fd: int) -> None:
        from _socket import (
            AF_INET,
            AF_INET6,
            AF_UNIX,
            IPPROTO_IPV6,
            IPV6_V6ONLY,
            SO_ACCEPTCONN,
            SOL_SOCKET,
            socket,
        )

        self.fd, self.accepts, self.dual = fd, False, False
        self.address: bytes | str | None = None
        self.port: int | None = None
        try:
            held = socket(fileno=fd)
        except OSError:
            return  # a fifo, say
        try:
            name = held.getsockname()
            self.accepts = bool(held.getsockopt(SOL_SOCKET, SO_ACCEPTCONN))
            if held.family in (AF_INET, AF_INET6):
                self.address, self.port = name[:2]
                self.dual = held.family == AF_INET6 and not held.getsockopt(IPPROTO_IPV6, IPV6_V6ONLY)
            elif held.family == AF_UNIX:
                self.address = name if isinstance(name, bytes) else os.fsencode(name)
        except OSError:
            pass  # of a kind that Python does not know
        finally:
            held.detach()

    def __str__(self) -> str:
        """127.0.0.1:80, [::1]:80, unix:/run/socket, unix:@name; fd:3 for what is something else."""
        if isinstance(self.address, bytes):
            return shown_name(self.address)
        if self.address is None:
            return f"fd:{self.fd}"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class SocketFile:
    """The file of a UNIX socket, at an absolute path whose last name is taken as it stands. Raises OSError.

    heir: whose it is to be, None: ours.
    """

    def __init__(self, path: bytes, owner: Descriptors, heir: User | None = None) -> None:
        if os.path.islink(path):
            raise OSError(errno.EEXIST, "it is there already, and no socket")
        self._path, self._owner = path, owner
        self._heir = heir
        self._place = Place.at(path, owner, ())
        self._made: os.stat_result | None = None
        self._pin = -1

    def listen(self, umask: int | None, refuse_live: Callable[[], object]) -> int:
        """The socket; a stale file is replaced. umask: for the file (None: as it is).

        refuse_live: raises if somebody listens there. Raises OSError, and AlreadyRunning if another launch is about to make
        the file.
        """
        try:
            change = self._change()
        except OSError:
            self._is_stale(refuse_live)  # who may not write here still hears that it is in use
            raise
        with change:
            if self._is_stale(refuse_live):
                self._place.unlink()
            return self._make(umask)

    def _make(self, umask: int | None) -> int:
        from _socket import AF_UNIX

        made = _stream(AF_UNIX)
        try:
            before = None if umask is None else os.umask(umask)
            try:
                maker = self._bind(made)
            finally:
                if before is not None:
                    os.umask(before)
            try:
                self._hold(maker)
                self._give()
                made.listen(_BACKLOG)
            except OSError:
                self._take_away()
                self._made = None
                raise
            return self._owner.add(made.detach())
        finally:
            made.close()

    def _bind(self, made: socket) -> int:
        """Make the file; the uid of who made it. Raises OSError.

        bind(2) walks the path anew, and somebody on the way may have changed where it leads. For another user root makes
        nothing that he could not make himself, but where nobody else has a say in it.
        """
        if self._heir and self._heir.uid != os.geteuid():
            from daemonize.posix.lent import act_as

            try:
                act_as(self._heir, lambda: made.bind(self._path))
                return self._heir.uid
            except PermissionError:
                if not self._place.is_firm:
                    raise OSError(errno.EACCES, _NOT_HIS) from None
        made.bind(self._path)
        return os.geteuid()

    def _give(self) -> None:
        """Make it the heir's. Raises OSError."""
        if not self._heir:
            return
        # By the descriptor: at the name may be another's file by now.
        if O_PATH:
            os.chown(f"/proc/self/fd/{self._pin}", self._heir.uid, self._heir.gid)
        else:
            place = self._place
            os.chown(
                place.name, self._heir.uid, self._heir.gid, dir_fd=place.directory, follow_symlinks=False
            )

    @property
    def descriptors(self) -> frozenset[int]:
        """What has to stay open in a forked process for `remove` to work there."""
        return frozenset({self._place.directory, self._pin} - {-1})

    def remove(self) -> None:
        """The launch has failed: take the file away, if it is still there. Never raises."""
        if not self._is_there():
            return
        try:
            with self._change():
                self._take_away()
        except AlreadyRunning:
            pass  # what is left is stale, and whoever is busy with it sees that
        except OSError:
            # It cannot be had: no descriptor is left, or no space. Then nobody else is likely to make a file, either.
            self._take_away()

    def _change(self) -> Change:
        """A lock on the directory would not do: whoever may read it can hold that, for ever."""
        from daemonize.posix.reservations import Change

        return Change(self._place, "socket", os.fsdecode(self._path), _PATIENCE)

    def _is_there(self) -> bool:
        """Whether the file that was made here still is."""
        try:
            return self._made is not None and os.path.samestat(self._made, self._place.status())
        except OSError:
            return False

    def _take_away(self) -> None:
        try:
            if self._is_there():
                self._place.unlink()
        except OSError:
            pass  # what is left is stale, and the next launch sees that

    def _is_stale(self, refuse_live: Callable[[], object]) -> bool:
        """Whether there is a file to be replaced. Raises OSError if it is no socket, and what refuse_live raises."""
        try:
            status = self._place.status()
        except FileNotFoundError:
            return False
        if not stat.S_ISSOCK(status.st_mode):
            raise OSError(errno.EEXIST, "it is there already, and no socket")
        refuse_live()
        # The kernel's table is of our network namespace, and of those that listen.
        if self._is_bound():
            raise AlreadyRunning("socket", os.fsdecode(self._path), uid=status.st_uid)
        return True

    def _is_bound(self) -> bool:
        """Whether there is a socket to the file, in whatever network namespace; also if we may not ask."""
        if not O_PATH or not has_proc():
            return _is_bound(self._path)
        try:
            fd = self._place.pin()
        except FileNotFoundError:
            return False
        try:
            # Not by the path: it may lead elsewhere by now, to a server that is nobody's business.
            return _is_bound(b"/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)

    def _hold(self, maker: int) -> None:
        """Keep hold of the file itself: its number would be given to another when it is gone."""
        status = self._place.status()
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != maker or status.st_nlink != 1:
            raise OSError(errno.EBUSY, _CHANGED)
        self._made = status  # before it is held: for that a descriptor may be wanting
        if O_PATH:
            self._pin = self._owner.add(self._place.pin())
            if not os.path.samestat(status, os.fstat(self._pin)):
                raise OSError(errno.EBUSY, _CHANGED)
