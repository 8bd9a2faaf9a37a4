"""Files where others may write too: no stranger's symlink leads astray, no stranger's file is used."""

from __future__ import annotations

import errno
import os
import stat

from daemonize.errors import printable, user_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from daemonize.posix.fds import Descriptors

#: As many as the kernel follows.
_MOST_LINKS = 40
#: Such a descriptor can be had of a directory that may be searched and not read. 0: the system has none.
O_PATH = getattr(os, "O_PATH", 0)
_FLAGS = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_STANDARD = (b"/dev/stdin", b"/dev/stdout", b"/dev/stderr")
_OWN_DESCRIPTORS = (b"/dev/fd", b"/proc/self/fd")
_MAY_NOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)


def open_parent(path: bytes, owner: Descriptors, trusted: Collection[int]) -> tuple[int, bytes]:
    """The directory of the file that an absolute path leads to, as a descriptor, and the file's name in it.

    Symlinks are followed, a last one too, if root or a uid in `trusted` made them. The file need not exist. Raises OSError.
    """
    walk = _walk(path, trusted)
    return owner.add(walk.at), walk.name


def open_guarded(path: bytes, flags: int, owner: Descriptors, mode: int = 0o600) -> tuple[int, bool]:
    """open(2) for a process with fewer rights, who must not get more by it: the descriptor, and whether the file is new.

    No stranger's symlink is followed, and no file used that has a second name: it could be one that he may not open.
    Raises OSError.
    """
    if _is_own_descriptor(path):
        return owner.open(path, flags, mode), False
    directory, name = open_parent(path, owner, {os.geteuid()})
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        if flags & os.O_CREAT:
            try:
                return owner.add(os.open(name, flags | os.O_EXCL, mode, dir_fd=directory)), True
            except FileExistsError:
                flags &= ~os.O_CREAT
        fd = owner.add(os.open(name, flags, dir_fd=directory))
    finally:
        owner.shut(directory)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        owner.shut(fd)
        raise OSError(errno.EMLINK, "it has a second name (a hard link)")
    return fd, False


def _is_own_descriptor(path: bytes) -> bool:
    """Whether it names what this process has open: nobody else is on the way, and the links of /proc lead to no path."""
    directory, _, name = path.rpartition(b"/")
    return path in _STANDARD or (directory in _OWN_DESCRIPTORS and name.isdigit())


def _walk(path: bytes, trusted: Collection[int]) -> _Walk:
    """To the directory of the file that a path leads to. Raises OSError."""
    walk = _Walk(path, trusted)
    try:
        while walk.step():
            pass
    except BaseException:
        os.close(walk.at)
        raise
    return walk


class _Walk:
    """From the root along a path. at: the directory that was reached; name: the component that was looked at last.

    is_firm: nobody but root can make the path lead to another directory.
    """

    def __init__(self, path: bytes, trusted: Collection[int]) -> None:
        self._left, self._trusted = path.split(b"/")[::-1], trusted
        self._links, self._shown = 0, b""
        self.at, self.name, self.is_firm = _directory(b"/"), b"", True

    def step(self) -> bool:
        """Take the next component; False if it was the last, and is the name of a file."""
        self.name = name = self._left.pop()
        is_name = name not in (b"", b".", b"..")
        target = self._target() if is_name else None
        if target is not None:
            self._follow(target)
        elif self._left:
            if name not in (b"", b"."):
                self._enter(name)
                self._shown += b"/" + name
        elif is_name:
            return False
        else:
            raise _error(errno.EISDIR)
        return True

    def _follow(self, target: bytes) -> None:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise _error(errno.ELOOP)
        self._left += target.split(b"/")[::-1]
        if target.startswith(b"/"):
            self._enter(b"/")
            self._shown = b""

    def _enter(self, name: bytes) -> None:
        self.at, left = _directory(name, self.at), self.at
        os.close(left)

    def _target(self) -> bytes | None:
        """Where the name leads to; None if it is no symlink, or nothing. Raises OSError if it must not be followed."""
        try:
            status = os.stat(self.name, dir_fd=self.at, follow_symlinks=False)
        except FileNotFoundError:
            return None
        is_link = stat.S_ISLNK(status.st_mode)
        if is_link or self._left:
            self.is_firm = self.is_firm and _is_roots(os.fstat(self.at), status)
        if not is_link:
            return None
        uid, target = _read_link(self.name, self.at)
        if uid != 0 and uid not in self._trusted:
            link = printable(os.fsdecode(self._shown + b"/" + self.name))
            raise OSError(errno.ELOOP, f"{link} is a symlink of another user's ({user_name(uid)})")
        return target


def _is_roots(directory: os.stat_result, entry: os.stat_result) -> bool:
    """Whether nobody but root can put something else in an entry's place."""
    if directory.st_uid or not directory.st_mode & 0o022:
        return directory.st_uid == 0
    return bool(directory.st_mode & stat.S_ISVTX) and entry.st_uid == 0


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _directory(name: bytes, at: int | None = None) -> int:
    return os.open(name, O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)


def _read_link(name: bytes, at: int) -> tuple[int, bytes]:
    """Whose symlink it is, and its target."""
    if not O_PATH:
        return os.stat(name, dir_fd=at, follow_symlinks=False).st_uid, os.readlink(name, dir_fd=at)
    # Both from one descriptor: by the time of a second look the name may be another link's.
    fd = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        return os.fstat(fd).st_uid, os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)


class Place:
    """A name in a directory that is held open. Its methods raise OSError, with a reason for people where they refuse.

    Where others can write to the directory, its owner too, only files of this user's, root's or `trusted` uids' are used.
    is_firm: nobody but root can make the path lead to another directory.
    """

    is_firm = False

    def __init__(
        self, parent: tuple[int, bytes], owner: Descriptors, trusted: Collection[int], *, shared: bool
    ) -> None:
        self.directory, self.name = parent
        self._owner, self._trusted, self._shared = owner, trusted, shared

    @classmethod
    def at(cls, path: bytes, owner: Descriptors, trusted: Collection[int]) -> Place:
        """Where an absolute path leads to."""
        ours = {0, os.geteuid()}
        # Not by the symlinks of `trusted`: he would choose where root makes a file.
        walk = _walk(path, ours)
        directory = os.fstat(owner.add(walk.at))
        shared = bool(directory.st_mode & 0o022) or directory.st_uid not in ours
        place = cls((walk.at, walk.name), owner, {*ours, *trusted}, shared=shared)
        place.is_firm = walk.is_firm
        return place

    def beside(self, name: bytes) -> Place:
        """Another name in the same directory, where only this user's own file is used, whoever can write there."""
        return Place((self.directory, name), self._owner, {os.geteuid()}, shared=True)

    def status(self) -> os.stat_result:
        """What lies there."""
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def pin(self) -> int:
        """A descriptor of what lies there, which is not opened by that: O_PATH, which the system must have."""
        return os.open(self.name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)

    def holds(self, fd: int) -> bool:
        """Whether this very file lies there."""
        try:
            return os.path.samestat(self.status(), os.fstat(fd))
        except FileNotFoundError:
            return False

    def open(self, *, write: bool = True) -> int | None:
        """The file that lies there, for reading and, if that is wanted and permitted, for writing; None if there is none."""
        try:
            self._check(self.status())  # before it is opened: to open a device can have consequences
            fd = self._open_existing() if write else self._open(os.O_RDONLY)
        except FileNotFoundError:
            return None
        self._check(os.fstat(fd))
        return fd

    def open_writable(self) -> int:
        """The file that lies there, for reading and writing."""
        self._check(self.status())
        return self._open(os.O_RDWR)

    def create(self, *, write: bool = True) -> int | None:
        """A new file (0600), for reading and, if that is wanted, for writing; None if there is one."""
        try:
            fd = self._open((os.O_RDWR if write else os.O_RDONLY) | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return None
        os.fchmod(fd, 0o600)  # whatever the umask
        return fd

    def shut(self, fd: int) -> None:
        """Close a file that was opened here."""
        self._owner.shut(fd)

    def unlink(self) -> None:
        """Remove it."""
        os.unlink(self.name, dir_fd=self.directory)

    def move(self, place: Place) -> None:
        """Give it the name of another place in the same directory; what lies there is replaced."""
        os.rename(self.name, place.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)

    def _open(self, flags: int) -> int:
        return self._owner.open_in(self.directory, self.name, flags | _FLAGS)

    def _open_existing(self) -> int:
        try:
            return self._open(os.O_RDWR)
        except OSError as error:
            if error.errno not in _MAY_NOT_WRITE:
                raise
        return self._open(os.O_RDONLY)

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if self._shared and status.st_uid not in self._trusted:
            raise OSError(errno.EPERM, f"it belongs to another user ({user_name(status.st_uid)})")
