"""`unix:PATH`: the server takes what is sent to the UNIX socket PATH, or (@NAME) to that abstract one.

A stream or seqpacket socket must listen; a datagram socket (as of a system log) has nothing more to do when it is bound.
PATH is the caller's: relative to his directory, and outside a new root of the server's. However the server has called it
(another path, a relative one, one in its root), it is the same file that counts. A file that a dead server has left is
nobody's.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from daemonize.errors import UsageError, printable
from daemonize.posix import sockdiag
from daemonize.posix.sockets import elsewhere
from daemonize.readiness.listening import Listening

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemonize.posix.sockdiag import Bound, Listener
    from daemonize.readiness import Launch

#: Every so many looks all sockets are looked at: only those that are not connected cost little.
_ALL = 8
#: Bytes of sun_path that an abstract name may fill, after the NUL before it.
_LONGEST = 107


class Unix(Listening):
    """Waits for a socket of the server's tree."""

    what = "socket"

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        try:
            self._path = os.fsencode(argument)
        except UnicodeEncodeError:
            raise UsageError("it cannot be the name of a file") from None
        if not self._path.removeprefix(b"@") or b"\0" in self._path:
            raise UsageError("it names no socket")
        self._name = b"\0" + self._path[1:] if self._path.startswith(b"@") else b""
        if len(self._name) > 1 + _LONGEST:
            raise UsageError(f"an abstract name has at most {_LONGEST} bytes")
        self.shown = argument
        self.nothing = "nobody listens there"
        self._looks = 0

    def prepare(self, launch: Launch) -> None:
        """Nobody may listen there."""
        if not self._name:
            self._path = os.path.join(launch.directory, self._path)
        super().prepare(launch)

    def met_by(self, sockets: Sequence[Listener | Bound]) -> bool:
        """See Probe."""
        bound = [socket.name for socket in sockets if isinstance(socket, sockdiag.Bound)]
        return any(self._name == name or self._is_path(name) for name in bound)

    def _is_path(self, name: bytes) -> bool:
        paths = (self._path, name)
        return not (self._name or name.startswith(b"\0")) and len({*map(os.path.realpath, paths)}) == 1

    def there(self, members: Sequence[int], *, wide: bool = False) -> list[Bound]:
        """See Listening. Raises OSError, too, if PATH cannot be looked at."""
        if self._name:
            # Many a program passes the whole of sun_path, NULs at the end included.
            return [socket for socket in self._bound(members) if socket.name.rstrip(b"\0") == self._name]
        try:
            status = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            self.nothing = "there is no such socket"
            return []
        if not stat.S_ISSOCK(status.st_mode):
            self.nothing = "it is no socket"
            return []
        self.nothing = "nobody listens there"
        found = [socket for socket in self._bound(members) if self._is(socket, status, members)]
        for socket in found:
            socket.uid = status.st_uid if socket.uid is None else socket.uid
        return found

    def _bound(self, members: Sequence[int]) -> list[Bound]:
        """All sockets, those in network namespaces of the members' included. Raises SetupError."""
        found = sockdiag.bound(connected=self._looks % _ALL == 0)
        self._looks += 1
        for pid in elsewhere(members):
            try:
                found += sockdiag.bound_near(pid)
            except OSError:
                pass  # it has ended
        return found

    def _is(self, socket: Bound, status: os.stat_result, members: Sequence[int]) -> bool:
        """Whether the file was made for the socket."""
        same_name = os.path.basename(socket.name) == os.path.basename(os.path.realpath(self._path))
        if socket.file:
            inode, device = socket.file
            if inode != status.st_ino & 0xFFFFFFFF:
                return False
            # The kernel's own number of a device (12 bits and 20 bits); btrfs and overlayfs tell another one in stat(2).
            if os.makedev(device >> 20, device & 0xFFFFF) == status.st_dev:
                return True
        # Only names that may be it are followed: another's file system may not answer.
        if not same_name:
            return False
        files = _files(socket.name, members)
        # One that leads nowhere by now (a relative name, and another directory since): then the inode must do.
        return any(os.path.samestat(other, status) for other in files) or not (files or socket.file is None)

    def answers(self) -> str:
        """See Listening."""
        from _socket import (
            AF_UNIX,
            SOCK_CLOEXEC,
            SOCK_DGRAM,
            SOCK_NONBLOCK,
            SOCK_SEQPACKET,
            SOCK_STREAM,
            socket,
        )

        for kind in (SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM):
            asking = socket(AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK)
            try:
                asking.connect(self._name or self._path)
            except BlockingIOError:
                pass  # so many are waiting to be accepted
            except OSError:
                continue
            finally:
                asking.close()
            return printable(self.shown)
        return ""


def _files(name: bytes, members: Sequence[int]) -> list[os.stat_result]:
    """What a name that was given to bind(2) is for the members: the same path may be another file in their mounts.

    Where it is nothing to them (they have another root or directory since, or hide it), what it is for us.
    """
    base = "root" if name.startswith(b"/") else "cwd"
    places = [b"/proc/%d/%s/" % (pid, base.encode()) for pid in members]
    return _there([place + name for place in places]) or _there([name])


def _there(paths: Iterable[bytes]) -> list[os.stat_result]:
    found = []
    for path in paths:
        try:
            found.append(os.stat(path))
        except OSError:
            pass  # not there
    return found
