"""A name in the registry, claimed for one launch: nobody else starts a daemon of that name meanwhile.

    launch A   lock .NAME.lock   NAME.json: runs?   ... server starts ...   NAME.json renamed into place   unlock
    launch B                     taken: 75                                                    lock   NAME.json: it runs: 75

The lock is held by the wrapper and by its intermediate parent: were the wrapper killed, the name is free when the server
that it started has been stopped. What decides afterwards whether a daemon runs is the identity in its record.
"""

from __future__ import annotations

import errno
import os
from time import sleep

from daemonize.errors import AlreadyRunning, SetupError, printable
from daemonize.posix.fds import is_locked, try_lock, write_all
from daemonize.posix.identity import Identity, is_this_boot, read_stat
from daemonize.registry.private import (
    RefusedError,
    ensure_private,
    open_new,
    open_own,
    read_own,
    records_dirs,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemonize.posix.fds import Descriptors

_MOST_NUMBERS = 10_000
_TRIES, _PAUSE = 100, 0.001
_LOOKS = 10

#: Characters of a name, and bytes: a file name has 255 with what stands before and after it.
LONGEST_NAME, MOST_BYTES = 100, 230
LONGEST_NUMBER = 6


def base_name(command: bytes) -> str:
    """A name for a daemon that was given none: the command's base name, fit to be a file name, with room for a number."""
    return fit(command, LONGEST_NAME - LONGEST_NUMBER)


def fit(command: bytes, longest: int) -> str:
    """A base name as a name of so many characters at most."""
    name = os.fsdecode(os.path.basename(command.rstrip(b"/"))[:MOST_BYTES])[:longest]
    return "".join(c if c.isprintable() and not c.isspace() else "_" for c in name).lstrip(".-") or "daemon"


def _checked(name: str) -> str:
    from daemonize.registry.names import check_name

    return check_name(name)


def record_path(directory: bytes, name: str) -> bytes:
    """Where the record of a daemon is."""
    return os.path.join(directory, os.fsencode(f"{name}.json"))


def lock_path(directory: bytes, name: str) -> bytes:
    """Where the lock of a name is."""
    return os.path.join(directory, os.fsencode(f".{name}.lock"))


def new_path(directory: bytes, name: str) -> bytes:
    """Where a record is made that is to be renamed."""
    return os.path.join(directory, os.fsencode(f".{name}.new"))


def open_lock(directory: bytes, name: str) -> int | None:
    """The lock of a name, taken, as a descriptor; None if somebody else has it. Raises RefusedError, OSError."""
    path = lock_path(directory, name)
    for _ in range(_TRIES):
        fd = open_own(path)
        try:
            taken = try_lock(fd)
            if taken and os.path.samestat(os.lstat(path), os.fstat(fd)):
                return fd
            if not taken and is_locked(fd):
                os.close(fd)
                return None
        except FileNotFoundError:
            pass  # the name was forgotten in between, with this lock
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        sleep(_PAUSE)  # somebody only looked whether it is taken, which is a lock too, for a moment
    raise OSError(errno.EBUSY, "it is looked at, or made anew, all the time")


class Entry:
    """The name of a launch. `claim` makes it so; before that, and without a registry, it is only a word.

    wanted: the name that was asked for; None: one is made of the command, with a number if need be. problem: why there is
    no record, or None.
    """

    def __init__(self, wanted: str | None, command: bytes, environment: Mapping[bytes, bytes]) -> None:
        self.is_explicit = wanted is not None
        self.problem: SetupError | None = None
        self._base = base_name(command) if wanted is None else _checked(wanted)
        self._number, self._environment = 1, environment
        self._directory: bytes | None = None
        self._owner: Descriptors
        self._fd = self._new = -1
        #: Tokens of earlier daemons of a given name, which have ended by themselves and may have left processes.
        self.former: list[str] = []
        self._reuses = False  # the record of one that has ended, and had the same name by chance

    @property
    def name(self) -> str:
        """The daemon's name."""
        return self._base if self._number == 1 else f"{self._base}-{self._number}"

    @property
    def descriptors(self) -> frozenset[int]:
        """What has to stay open in the intermediate parent, for nobody else to get the name."""
        return frozenset({self._fd} if self._fd >= 0 else ())

    def claim(self, owner: Descriptors) -> None:
        """Nobody else gets the name until `owner` closes what it has. For a given name: raises AlreadyRunning, SetupError.

        A launch without a name goes on to the next number, and without a record where none can be kept.
        """
        self._owner = owner
        try:
            for directory in records_dirs(self._environment):
                ensure_private(directory)
        except (SetupError, OSError) as error:
            self._give_up("find", "the directory of records", error)
            return
        self._directory = directory
        if not self._is_free() and not self.next():
            self._give_up(
                "find", f"a free number for {printable(self._base)}", OSError(errno.EEXIST, "all are taken")
            )

    def next(self) -> bool:
        """Go on to a number that nobody has; False if there is none, as for a name that was given."""
        while not self.is_explicit and self._number < _MOST_NUMBERS:
            self._release()
            self._number += 1
            if self._is_free():
                return True
        return False

    def prepare(self, text: bytes) -> None:
        """Now is the time to hear that a record, about as long as this one, cannot be written.

        Raises SetupError for a given name.
        """
        if self._directory is None:
            return
        try:
            self._new = self._owner.add(open_new(self._new_path))
            write_all(self._new, text)
        except OSError as error:
            self.abandon()
            self._give_up("write", os.fsdecode(self._new_path), error)

    def write(self, text: bytes) -> None:
        """The daemon runs: this is its record. Raises SetupError for a given name.

        From now on that is what keeps others from the name: in the foreground the launch goes on for as long as the server
        runs, and is no launch of that name any more.
        """
        if self._directory is None:
            return
        try:
            if self._reuses:
                # The same file again: to remove one, or to replace it, costs some file systems half a millisecond.
                path = record_path(self._directory, self.name)
                self._new = self._owner.open(path, os.O_WRONLY | os.O_NOFOLLOW)
                os.rename(path, self._new_path)
                self._reuses = False
            elif self._new < 0:
                self._new = self._owner.add(open_new(self._new_path))
            os.lseek(self._new, 0, os.SEEK_SET)
            write_all(self._new, text)
            os.ftruncate(self._new, len(text))
            os.rename(self._new_path, record_path(self._directory, self.name))
        except OSError as error:
            self.abandon()
            self._give_up("write", os.fsdecode(record_path(self._directory, self.name)), error)
        self._owner.shut(self._new)
        self._new = -1
        self._release()

    def abandon(self) -> None:
        """There is no daemon: the record that was there before stays as it is. Never raises."""
        if self._directory is None or self._new < 0:
            return
        try:
            os.unlink(self._new_path)
        except OSError:
            pass  # the next launch removes it

    @property
    def _new_path(self) -> bytes:
        return new_path(self._directory or b"", self.name)

    def _is_free(self) -> bool:
        if self._directory is None:
            return True
        path = lock_path(self._directory, self.name)
        try:
            fd = open_lock(self._directory, self.name)
            if fd is None and self.is_explicit:
                fd = self._ask_again(path)
            if fd is None:
                return False
            self._fd = self._owner.add(fd)
            path = record_path(self._directory, self.name)
            return self._is_unused(path)
        except (RefusedError, OSError) as error:
            return self._refuse(path, error)

    def _is_unused(self, path: bytes) -> bool:
        """Whether nobody has the name, by its record. Raises AlreadyRunning, RefusedError, OSError."""
        text = read_own(path)
        if text is None:
            return True
        from daemonize.registry.content import read_head, read_marks

        head = read_head(text)
        if head is None:
            from daemonize.registry.record import parse_head

            head = parse_head(text)
        runs = head.pid is not None and Identity(head.pid, head.start, head.boot_id).alive
        if not runs and self.is_explicit and is_this_boot(head.boot_id):
            self.former = read_marks(text)
        if runs and self.is_explicit:
            stat = read_stat(head.pid or 0)
            raise AlreadyRunning("name", self.name, head.pid, stat.name if stat else "", proven=True)
        # A name that somebody has given is his, also when its daemon has ended.
        self._reuses = not (runs or self.is_explicit or head.explicit)
        return not runs and (self.is_explicit or not head.explicit)

    def _ask_again(self, path: bytes) -> int:
        """The lock, if whoever had it has let go of it: he only looked, or put down that it was stopped.

        To find him takes longer than that, and a launch takes longer still. Raises AlreadyRunning, RefusedError, OSError.
        """
        from daemonize.posix.holders import NOBODY, holder_of

        holder = NOBODY
        for _ in range(_LOOKS):
            fd = open_own(path)
            try:
                holder = holder_of(fd)
            finally:
                os.close(fd)
            again = open_lock(self._directory or b"", self.name)
            if again is not None:
                return again
            if holder != NOBODY:
                break
            # Of many that wait for it, another got it in between: nobody is told of a launch without its pid for that.
        raise AlreadyRunning("name", self.name, *holder, launching=True)

    def _refuse(self, path: bytes, error: Exception) -> bool:
        """What cannot be used is not touched: a launch without a name takes another one."""
        if not isinstance(error, OSError):
            error = OSError(0, f"{error}; see 'daemonctl forget {printable(self.name)}'")
        if self.is_explicit:
            raise SetupError("use", os.fsdecode(path), error) from None
        if isinstance(error, (PermissionError, FileNotFoundError)) or error.errno in _UNUSABLE:
            self._give_up("use", os.fsdecode(path), error)
            return True
        return False

    def _release(self) -> None:
        self._reuses = False
        if self._fd >= 0:
            self._owner.shut(self._fd)
            self._fd = -1

    def _give_up(self, action: str, what: str, error: SetupError | OSError) -> None:
        problem = error if isinstance(error, SetupError) else SetupError(action, what, error)
        self._directory = None
        self._release()
        if self.is_explicit:
            raise problem from None
        self.problem = problem


#: Errors that the next number would have as well.
_UNUSABLE = (
    errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EDQUOT, errno.EIO, errno.ENOLCK, errno.EOPNOTSUPP,
)  # fmt: skip
