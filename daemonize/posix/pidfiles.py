"""Pid files: absent, or complete.

One is prepared in a reservation beside it (posix/reservations.py), locked as long as the launch lasts, and renamed into
place when the pid is known:

    launch A   lock .NAME.new   NAME free?   ... server starts ...   rename .NAME.new to NAME   ... ready
    launch B                                 lock .NAME.new: taken                  lock .NAME.new   NAME: its pid lives
    removal                                                                         lock .NAME.new   NAME still mine?
"""

from __future__ import annotations

import errno
import os
import stat

from daemonize.errors import AlreadyRunning, SetupError, printable, user_name
from daemonize.posix.fds import Descriptors, try_lock, write_all
from daemonize.posix.identity import read_stat
from daemonize.posix.locks import TakenError, open_locked, take
from daemonize.posix.paths import Place
from daemonize.posix.pidtext import living, mark, read_pid
from daemonize.posix.reservations import reservation_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from daemonize.posix.locks import LockFile

#: As long as a pid and a newline can be.
_BLANKS = b" " * 11


class PidFile:
    """A pid file (-p), reserved. Raises AlreadyRunning, SetupError.

    lock: where it is the same file, it is rewritten in place and never removed. path, trusted: as of LockFile.
    descriptors: what has to stay open in a forked process for `remove` to work there.
    """

    def __init__(
        self, path: bytes, owner: Descriptors, lock: LockFile | None, trusted: Collection[int] = ()
    ) -> None:
        self._path = os.fsdecode(path)
        self._reservation: Place | None = None
        self._lock: set[int] = set()
        try:
            self._place = Place.at(path, owner, trusted)
            if lock and self._place.holds(lock.fd):
                self._use_lock_file(lock)
            else:
                self._reserve()
        except TakenError as taken:
            raise AlreadyRunning("pid file", self._path, *taken.holder, launching=True) from None
        except OSError as error:
            raise SetupError("use", self._path, error) from None
        self.descriptors = frozenset({self._fd, self._place.directory, *self._lock})

    @property
    def shares_lock(self) -> bool:
        """Whether it is the lock file, which is never removed."""
        return self._reservation is None

    def write(self, pid: int, start: int) -> None:
        """Put the pid in place; start: of that process, in clock ticks since boot (0: unknown). Raises SetupError.

        Another one, of a server in the foreground that has put itself in the background, is written over it.
        """
        data = b"%d\n" % pid
        try:
            if self._reservation and not self._place.holds(self._fd):
                _overwrite(self._fd, data)  # first: the room for it must not be given away
                os.ftruncate(self._fd, len(data))
                mark(self._fd, pid, start)
                self._put_in_place(self._reservation)
            else:
                # First: half of a new pid before half of an old one would be a third one.
                os.ftruncate(self._fd, 0)
                _overwrite(self._fd, data)
                mark(self._fd, pid, start)
                if not self._reservation:
                    self._check_lock_file()
        except OSError as error:
            raise SetupError("write", self._path, error) from None

    def remove(self) -> None:
        """The launch has failed: take away what is ours, written or not, and nothing else. Never raises.

        It does not ask what this process remembers: the one that wrote may have been another, and killed.
        """
        try:
            if not self._reservation:
                os.ftruncate(self._fd, 0)
            elif self._reservation.holds(self._fd):
                self._reservation.unlink()
            else:
                _unlink_alone(self._place, lambda: self._place.holds(self._fd))
        except (OSError, TakenError):
            pass  # what is left is stale, and the next launch sees that

    def _use_lock_file(self, lock: LockFile) -> None:
        self._refuse_running(lock.fd)
        writable = self._place.open_writable()
        if not os.path.sameopenfile(writable, lock.fd):
            raise OSError(errno.EBUSY, "it is removed and made anew all the time")
        uid = os.fstat(writable).st_uid
        if uid not in (0, os.geteuid()):
            raise OSError(
                errno.EPERM, f"it belongs to another user ({user_name(uid)}), who could write another pid"
            )
        self._fd, self._lock = writable, {lock.fd}
        os.ftruncate(self._fd, 0)  # it is stale
        _overwrite(self._fd, b"\n")  # now is the time to hear that it cannot be written to

    def _check_lock_file(self) -> None:
        if not self._place.holds(self._fd):
            raise OSError(errno.ENOENT, "it has been removed by somebody")
        _set_mode(self._fd, 0o600)  # who can read it can lock it

    def _reserve(self) -> None:
        reservation = self._place.beside(reservation_name(self._place.name))
        try:
            self._fd = open_locked(reservation, write=True)
            _refuse_used(self._fd)
        except OSError as error:
            old = self._place.open()
            if old is not None:
                self._refuse_running(old)  # who may not write here still hears that it runs
            name = printable(os.fsdecode(reservation.name))
            raise OSError(error.errno, f"{name} beside it: {error.strerror}") from None
        self._reservation = reservation
        try:
            self._remove_old()
            _overwrite(self._fd, _BLANKS)  # now is the time to hear of a full disk
        except BaseException:
            self.remove()
            raise

    def _remove_old(self) -> None:
        """The pid file that is there must be a stale one; it is removed: whoever has that pid next must not be hit.

        A pid file's lock is not asked for: everybody can read it, and who can read a file can lock it, for ever.
        """
        old = self._place.open()
        if old is None:
            return
        self._refuse_running(old)
        if _is_lock_file(old):
            self._take_lock_file(old)
        directory = os.fstat(self._place.directory)
        may_replace = (0, directory.st_uid, os.fstat(old).st_uid)
        if directory.st_mode & stat.S_ISVTX and os.geteuid() not in may_replace:
            raise OSError(errno.EPERM, "it is another user's, and its directory is sticky")
        self._place.unlink()

    def _take_lock_file(self, fd: int) -> None:
        try:
            take(fd)
        except TakenError as taken:
            raise AlreadyRunning("lock file", self._path, *taken.holder) from None

    def _refuse_running(self, fd: int) -> None:
        """Raises AlreadyRunning if the process lives that the pid file names, OSError if it is no pid file."""
        pid, proven = living(fd)
        if pid:
            found = read_stat(pid)
            raise AlreadyRunning("pid file", self._path, pid, found.name if found else "", proven=proven)

    def _refuse_lock_file(self) -> None:
        """Somebody may have begun to use the name for a lock file since we looked. Raises OSError."""
        try:
            found = self._place.open()
        except OSError:
            return  # it is something else, and to rename will tell
        if found is not None and _is_lock_file(found) and not try_lock(found):
            raise OSError(errno.EEXIST, "it has become a lock file, and somebody holds it")

    def _put_in_place(self, reservation: Place) -> None:
        if not reservation.holds(self._fd):
            name = printable(os.fsdecode(reservation.name))
            raise OSError(errno.ENOENT, f"{name} beside it has been removed by somebody")
        self._refuse_lock_file()
        reservation.move(self._place)
        _set_mode(self._fd, 0o644)  # only now: nobody else can ever lock a reservation


def _is_lock_file(fd: int) -> bool:
    """Whether it cannot be the pid file of a server: there is no pid in it, or nobody else can read it."""
    return not read_pid(fd) or not os.fstat(fd).st_mode & 0o044


def _refuse_used(fd: int) -> None:
    """A file of somebody's own that has the name of a reservation is left alone. Raises OSError."""
    pid, _ = living(fd)
    if pid:
        raise OSError(errno.EEXIST, f"it is the pid file of a process that lives (pid {pid})")


def _unlink_alone(place: Place, is_ours: Callable[[], bool]) -> None:
    """Remove a pid file that is ours; not while a launch is about to replace it. Raises TakenError, OSError."""
    reservation = place.beside(reservation_name(place.name))
    fd = open_locked(reservation, write=True)
    _refuse_used(fd)
    try:
        if is_ours():
            place.unlink()
    finally:
        reservation.unlink()
        reservation.shut(fd)


def remove_pid_file(path: str, pid: int, *, empty: bool = False) -> None:
    """Remove a pid file that still names this pid; `empty`: it is a lock file too, and is only emptied. Never raises."""
    owner = Descriptors()
    try:
        place = Place.at(os.fsencode(path), owner, ())
        fd = place.open()
        if fd is None or read_pid(fd) != pid:
            return
        if not empty:
            _unlink_alone(place, lambda: place.holds(fd))
        elif try_lock(fd) and place.holds(fd) and read_pid(fd) == pid:
            os.ftruncate(fd, 0)
    except (OSError, TakenError):
        pass  # it is stale, and the next launch sees that
    finally:
        owner.close()


def _overwrite(fd: int, data: bytes) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    write_all(fd, data)


def _set_mode(fd: int, mode: int) -> None:
    """Whatever the umask."""
    try:
        os.fchmod(fd, mode)
    except PermissionError:
        pass  # a lock file of somebody else's, which we may write to; its mode is his
