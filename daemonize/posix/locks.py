"""Lock files and pid files: one server at a time, and a pid file that is absent or complete.

A lock is flock(2) on a file that is never removed: it is held as long as any process has the descriptor, and gone with the
last of them, however that ended. A pid file is prepared in a reservation beside it, locked as long as the launch lasts, and
renamed into place when the pid is known:

    launch A   lock .NAME.new   NAME free?   ... server starts ...   rename .NAME.new to NAME   ... ready
    launch B                                 lock .NAME.new: taken                  lock .NAME.new   NAME: its pid lives
    removal                                                                         lock .NAME.new   NAME still mine?

Whoever changes NAME has locked .NAME.new, which nobody else can open: a lock on NAME could be kept by any of its readers.
A socket file is changed at once: its reservation is there for a moment only (`Change`).
Who gets a lock looks whether the path still names what was locked: it may have been renamed or removed in between.
"""

from __future__ import annotations

import errno
import os
import stat
from time import monotonic, sleep

from daemonize.errors import AlreadyRunning, SetupError, printable, user_name
from daemonize.posix.fds import Descriptors, lock, try_lock, write_all
from daemonize.posix.identity import read_stat
from daemonize.posix.paths import Place
from daemonize.posix.pidtext import living, mark, read_pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from daemonize.posix.holders import Holder

    Waits = Callable[[Callable[[Any], object], Any], None]

_TRIES = 100
#: Longest pause between two looks at a lock that is waited for, in seconds.
_PAUSE = 0.01
_LONGEST_NAME = 255
#: As long as a pid and a newline can be.
_BLANKS = b" " * 11


class _TakenError(Exception):
    """Somebody else has the lock."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        super().__init__(holder)


def _take(fd: int) -> None:
    """Take the lock. Raises _TakenError, OSError."""
    if try_lock(fd):
        return
    from daemonize.posix.holders import NOBODY, holder_of

    holder = holder_of(fd)
    # Where nobody was found, it may have been let go of while we looked.
    if holder != NOBODY or not try_lock(fd):
        raise _TakenError(holder)


def _at_once(function: Callable[[Any], object], argument: object) -> None:
    function(argument)


def _take_until(fd: int, end: float | None, waits: Waits = _at_once) -> None:
    """Take the lock, and wait for it until then (monotonic time; None: for ever). Raises _TakenError, OSError.

    waits: calls what waits.
    """
    if end is None:
        waits(lock, fd)
        return
    pause = 0.001  # flock(2) knows no timeout
    while monotonic() < end:
        if try_lock(fd):
            return
        waits(sleep, pause)
        pause = min(pause * 1.5, _PAUSE)
    _take(fd)


def _open_locked(place: Place, *, write: bool, until: float | None = 0.0, waits: Waits = _at_once) -> int:
    """The file that lies there, made if need be, locked. Raises _TakenError, OSError."""
    for _ in range(_TRIES):
        fd = place.open(write=write)
        if fd is None:
            fd = place.create(write=write)
        if fd is None:
            continue
        if os.fstat(fd).st_nlink > 1:
            raise OSError(errno.EMLINK, "it has a second name (a hard link)")
        _take_until(fd, until, waits)
        if place.holds(fd):
            return fd
        place.shut(fd)
    raise OSError(errno.EBUSY, "it is removed and made anew all the time")


def _lock_unwritable(place: Place, until: float | None, waits: Waits) -> int:
    """Locked through a descriptor that cannot be written to: the server has it, and must not choose whom root stops."""
    try:
        return _open_locked(place, write=False, until=until, waits=waits)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
    return _open_locked(place, write=True, until=until, waits=waits)  # flock(2): NFS will have it so


class LockFile:
    """A lock file (-l), locked. Never truncated, never removed. Raises AlreadyRunning, SetupError.

    fd: the lock is held as long as any process has it. path: absolute. trusted: uids, besides root and this one, whose
    file may be used where others can write. until: the monotonic time until which it is waited for; None: for ever.
    waits: calls what waits.
    """

    def __init__(
        self,
        path: bytes,
        owner: Descriptors,
        trusted: Collection[int] = (),
        until: float | None = 0.0,
        waits: Waits = _at_once,
    ) -> None:
        try:
            self.fd = _lock_unwritable(Place.at(path, owner, trusted), until, waits)
        except _TakenError as taken:
            raise AlreadyRunning("lock file", os.fsdecode(path), *taken.holder) from None
        except OSError as error:
            raise SetupError("lock", os.fsdecode(path), error) from None


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
        except _TakenError as taken:
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
        except (OSError, _TakenError):
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
        reservation = self._place.beside(_reservation_name(self._place.name))
        try:
            self._fd = _open_locked(reservation, write=True)
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
            _take(fd)
        except _TakenError as taken:
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


class Change:
    """With it, nobody else who asks for it changes what lies at a place. Raises OSError.

    Raises AlreadyRunning, too, if somebody keeps it for `patience` seconds. what, path: how he is told of.
    """

    def __init__(self, place: Place, what: str, path: str, patience: float) -> None:
        self._reservation = place.beside(_reservation_name(place.name))
        name = printable(os.fsdecode(self._reservation.name))
        try:
            self._fd = _open_locked(self._reservation, write=True, until=monotonic() + patience)
        except _TakenError as taken:
            raise AlreadyRunning(what, path, *taken.holder, launching=True) from None
        except OSError as error:
            raise OSError(error.errno, f"{name} beside it: {error.strerror}") from None
        if os.fstat(self._fd).st_size:
            raise OSError(errno.EEXIST, f"{name} beside it: it is there already, and not empty")

    def __enter__(self) -> None:
        """It is had already."""

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        try:
            if self._reservation.holds(self._fd):
                self._reservation.unlink()
        except OSError:
            pass  # what is left is empty, and the next one uses it
        self._reservation.shut(self._fd)


def _is_lock_file(fd: int) -> bool:
    """Whether it cannot be the pid file of a server: there is no pid in it, or nobody else can read it."""
    return not read_pid(fd) or not os.fstat(fd).st_mode & 0o044


def _refuse_used(fd: int) -> None:
    """A file of somebody's own that has the name of a reservation is left alone. Raises OSError."""
    pid, _ = living(fd)
    if pid:
        raise OSError(errno.EEXIST, f"it is the pid file of a process that lives (pid {pid})")


def _unlink_alone(place: Place, is_ours: Callable[[], bool]) -> None:
    """Remove a pid file that is ours; not while a launch is about to replace it. Raises _TakenError, OSError."""
    reservation = place.beside(_reservation_name(place.name))
    fd = _open_locked(reservation, write=True)
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
    except (OSError, _TakenError):
        pass  # it is stale, and the next launch sees that
    finally:
        owner.close()


def _reservation_name(name: bytes) -> bytes:
    if len(b".%s.new" % name) <= _LONGEST_NAME:
        return b".%s.new" % name
    # A number stands for it, the same in every process (that of hash() is not).
    return b".%x.new" % (int.from_bytes(name, "big") % (2**127 - 1))


def _overwrite(fd: int, data: bytes) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    write_all(fd, data)


def _set_mode(fd: int, mode: int) -> None:
    """Whatever the umask."""
    try:
        os.fchmod(fd, mode)
    except PermissionError:
        pass  # a lock file of somebody else's, which we may write to; its mode is his
