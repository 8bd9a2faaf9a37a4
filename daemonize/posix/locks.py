"""Lock files and pid files: one server at a time, and a pid file that is absent or complete.

A lock is flock(2) on a file that is never removed: it is held as long as any process has the descriptor, and gone with the
last of them, however that ended. A pid file is prepared in a reservation beside it, locked as long as the launch lasts, and
renamed into place when the pid is known:

    launch A   lock .NAME.new   NAME free?   ... server starts ...   rename .NAME.new to NAME   ... ready   unlock
    launch B                                 lock .NAME.new: taken                  NAME: locked, or its pid lives

Nobody replaces or removes a pid file that is there without its lock. Who gets a lock looks whether the path still names what
was locked: it may have been renamed or removed in between.
"""

from __future__ import annotations

import errno
import os
import stat

from daemonize.errors import AlreadyRunning, SetupError, printable
from daemonize.posix.fds import Descriptors, try_lock, write_all
from daemonize.posix.identity import EXITING, GONE, Identity, current_boot_id, read_stat, standing
from daemonize.posix.paths import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from daemonize.posix.holders import Holder

_TRIES = 100
_LONGEST_CONTENT = 64
_LONGEST_NAME = 255
_HIGHEST_PID = 2**31 - 1
#: As long as a pid and a newline can be.
_BLANKS = b" " * 11
#: Extended attribute of a pid file: boot id, pid and start time of the process it was written for.
_ATTRIBUTE = "user.daemonize.identity"


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


def _open_locked(place: Place, *, write: bool) -> int:
    """The file that lies there, made if need be, locked. Raises _TakenError, OSError."""
    for _ in range(_TRIES):
        fd = place.open(write=write)
        if fd is None:
            fd = place.create(write=write)
        if fd is None:
            continue
        if os.fstat(fd).st_nlink > 1:
            raise OSError(errno.EMLINK, "it has a second name (a hard link)")
        _take(fd)
        if place.holds(fd):
            return fd
        place.shut(fd)
    raise OSError(errno.EBUSY, "it is removed and made anew all the time")


def _lock_unwritable(place: Place) -> int:
    """Locked through a descriptor that cannot be written to: the server has it, and must not choose whom root stops."""
    try:
        return _open_locked(place, write=False)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
    return _open_locked(place, write=True)  # flock(2): NFS will have it so


class LockFile:
    """A lock file (-l), locked. Never truncated, never removed. Raises AlreadyRunning, SetupError.

    fd: the lock is held as long as any process has it. path: absolute. trusted: uids, besides root and this one, whose
    file may be used where others can write.
    """

    def __init__(self, path: bytes, owner: Descriptors, trusted: Collection[int] = ()) -> None:
        try:
            self.fd = _lock_unwritable(Place.at(path, owner, trusted))
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
        """Put the pid in place, once; start: of that process, in clock ticks since boot (0: unknown). Raises SetupError."""
        data = b"%d\n" % pid
        try:
            _overwrite(self._fd, data)
            os.ftruncate(self._fd, len(data))
            _make_readable(self._fd)
            _mark(self._fd, pid, start)
            if self._reservation:
                self._put_in_place(self._reservation)
        except OSError as error:
            raise SetupError("write", self._path, error) from None

    def remove(self) -> None:
        """The launch has failed: take away what is ours, written or not, and nothing else. Never raises.

        It does not ask what this process remembers: the one that wrote may have been another, and killed.
        """
        try:
            if not self._reservation:
                os.ftruncate(self._fd, 0)
                return
            for place in (self._reservation, self._place):
                if place.holds(self._fd):
                    place.unlink()
        except OSError:
            pass  # what is left is stale, and the next launch sees that

    def _use_lock_file(self, lock: LockFile) -> None:
        self._refuse_running(lock.fd)
        writable = self._place.open()
        if writable is None or not os.path.sameopenfile(writable, lock.fd):
            raise OSError(errno.EBUSY, "it is removed and made anew all the time")
        self._fd, self._lock = writable, {lock.fd}
        # Now is the time to hear that it cannot be written to. What is there stays until there is a pid.
        _overwrite(self._fd, os.pread(self._fd, _LONGEST_CONTENT, 0) or b"\n")

    def _reserve(self) -> None:
        reservation = self._place.beside(_reservation_name(self._place.name))
        try:
            self._fd = _open_locked(reservation, write=True)
            _read_pid(self._fd)  # a file of somebody's own that has this name is left alone
        except OSError as error:
            old = self._place.open()
            if old is not None:
                self._refuse_running(old)  # who may not write here still hears that it runs
            name = printable(os.fsdecode(reservation.name))
            raise OSError(error.errno, f"{name} beside it: {error.strerror}") from None
        self._reservation = reservation
        try:
            self._claim_old()
            _overwrite(self._fd, _BLANKS)  # now is the time to hear of a full disk
        except BaseException:
            self.remove()
            raise

    def _claim_old(self) -> None:
        """Lock the pid file that is there, if it may be replaced, against a failed launch or a stop that would remove it."""
        old = self._place.open()
        if old is None:
            return
        self._refuse_running(old)
        _take(old)
        directory = os.fstat(self._place.directory)
        may_replace = (0, directory.st_uid, os.fstat(old).st_uid)
        if directory.st_mode & stat.S_ISVTX and os.geteuid() not in may_replace:
            raise OSError(errno.EPERM, "it is another user's, and its directory is sticky")

    def _refuse_running(self, fd: int) -> None:
        """Raises AlreadyRunning if the process lives that the pid file names, OSError if it is no pid file."""
        pid = _read_pid(fd)
        if not pid or standing(pid) in (GONE, EXITING):
            return
        found, boot = read_stat(pid), current_boot_id()
        marked = _marked(fd, pid) if boot else None
        if marked:
            if marked.boot_id != boot or (found and found.start != marked.start):
                return
        elif pid == os.getpid():
            return  # in a container a launch can have the same pid at every start
        name = found.name if found else ""
        raise AlreadyRunning("pid file", self._path, pid, name, proven=bool(marked and found))

    def _put_in_place(self, reservation: Place) -> None:
        if not reservation.holds(self._fd):
            name = printable(os.fsdecode(reservation.name))
            raise OSError(errno.ENOENT, f"{name} beside it has been removed by somebody")
        reservation.move(self._place)


def remove_pid_file(path: str, pid: int, *, empty: bool = False) -> None:
    """Remove a pid file that still names this pid; `empty`: it is a lock file too, and is only emptied. Never raises."""
    owner = Descriptors()
    try:
        place = Place.at(os.fsencode(path), owner, ())
        fd = place.open()
        # Where it is locked, a launch is about to replace it.
        if fd is None or not try_lock(fd) or not place.holds(fd) or _read_pid(fd) != pid:
            return
        if empty:
            os.ftruncate(fd, 0)
        else:
            place.unlink()
    except OSError:
        pass  # it is stale, and the next launch sees that
    finally:
        owner.close()


def _reservation_name(name: bytes) -> bytes:
    if len(b".%s.new" % name) <= _LONGEST_NAME:
        return b".%s.new" % name
    # A number stands for it, the same in every process (that of hash() is not).
    return b".%x.new" % (int.from_bytes(name, "big") % (2**127 - 1))


def _read_pid(fd: int) -> int:
    """The pid in a pid file; 0 if there is none, or one that no process can have. Raises OSError if it is no pid file."""
    data = os.pread(fd, _LONGEST_CONTENT + 1, 0)
    text = data.strip(b" \t\r\n\0")  # a crash of the machine can leave zeros
    if len(data) > _LONGEST_CONTENT or (text and not text.isdigit()):
        raise OSError(errno.EINVAL, "it does not look like a pid file; if it is one, remove it")
    pid = int(text or b"0")
    return pid if pid <= _HIGHEST_PID else 0


def _overwrite(fd: int, data: bytes) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    write_all(fd, data)


def _make_readable(fd: int) -> None:
    """Everybody may read a pid file, whatever the umask."""
    try:
        os.fchmod(fd, 0o644)
    except PermissionError:
        pass  # a lock file of another user's that we may write to: its mode is his affair


def _mark(fd: int, pid: int, start: int) -> None:
    """Write down who is meant; where that cannot be, see that nothing is there that could be taken for it."""
    boot = current_boot_id()
    try:
        if boot and start:
            os.setxattr(fd, _ATTRIBUTE, b"%s %d %d" % (boot.encode(), pid, start))
            return
    except (OSError, AttributeError):
        pass
    try:
        os.removexattr(fd, _ATTRIBUTE)
    except (OSError, AttributeError):
        pass


def _marked(fd: int, pid: int) -> Identity | None:
    """Who is meant by the pid; None if that was not written down, or is about another pid (a server wrote its own)."""
    try:
        boot, written, start = os.getxattr(fd, _ATTRIBUTE).decode("ascii").split()
        return Identity(pid, int(start), boot) if int(written) == pid else None
    except (OSError, AttributeError, ValueError):
        return None
