"""The files that a server's streams lead to, or are continued in: opened, claimed, and given to whom the server runs as."""

from __future__ import annotations

import os
import stat
from errno import EBUSY, ENXIO
from time import monotonic, sleep

from daemonize.errors import SetupError, UsageError, printable
from daemonize.posix.fds import try_lock
from daemonize.registry.logs import LogTakenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize.launcher.account import Account
    from daemonize.launcher.request import Request
    from daemonize.posix.fds import Descriptors
    from daemonize.registry.logs import Logs

STREAMS = ("out", "err")
_NULL = b"/dev/null"
#: Seconds that a drain is given to write what a server has said at last; seconds between two looks.
_LAST_WORDS, _FIRST_WAIT, _LONGEST_WAIT = 1.0, 0.001, 0.02


class Files:
    """Both files of one server, by stream (`out`, `err`). Descriptors belong to `owner`.

    paths: of each. given: descriptors of those that the user named. For a drain that writes them for the server's whole
    life: logs: descriptors of those that it can write. places: (directory, name) of those that it rotates. fifos: (read end,
    path) by which the server reaches it.
    """

    def __init__(self, owner: Descriptors, account: Account | None) -> None:
        self._owner, self._account = owner, account
        self._request: Request
        self._logs: Logs
        self.paths: dict[str, bytes] = {}
        self.given: dict[str, int] = {}
        self.logs: dict[str, int] = {}
        self.places: dict[str, tuple[int, bytes]] = {}
        self.fifos: dict[str, tuple[int, bytes]] = {}

    @property
    def wanted(self) -> list[str]:
        """The streams that the user named no file for."""
        return [stream for stream in STREAMS if stream not in self.given]

    def take(self, request: Request, logs: Logs) -> None:
        """Files that the user names are opened now: he wants to hear now that they cannot be. Raises SetupError."""
        self._request, self._logs = request, logs
        self.name()
        for stream, path in (("out", request.stdout), ("err", request.stderr)):
            if path and stream not in self.given:
                self.given[stream] = self._open_given(stream, path)

    def name(self) -> None:
        """The paths, with the number that the logs have by now."""
        self.paths["out"] = self._request.stdout or self._logs.path("out")
        self.paths["err"] = self._request.stderr or self._logs.path("err")

    def prepare(self) -> None:
        """A server that runs as somebody else cannot make its logs, to continue in, in a directory of ours."""
        try:
            for stream in self.wanted if self._account and self._logs.directory is not None else ():
                self._owner.shut(self._open_own(stream))
        except (LogTakenError, OSError):
            pass  # then it cannot continue there, as it will find

    def open_shared(self, stream: str) -> int | None:
        """A log of the daemon's own, which the server may have claimed; None: there is none to be had."""
        try:
            return self._open_own(stream, share=True) if self._logs.directory is not None else None
        except (LogTakenError, OSError):
            return None

    def _open_own(self, stream: str, *, share: bool = False) -> int:
        """Open a log of the daemon's own, for whoever the server runs as. Raises LogTakenError, OSError."""
        fd = self._logs.open(stream, self._owner, share=share)
        self.give(fd)
        return fd

    def give(self, fd: int) -> None:
        """To whom the server runs as. If he cannot be given anything (a user namespace), he cannot be become, either."""
        try:
            if self._account:
                os.fchown(fd, self._account.uid, self._account.gid)
        except OSError:
            pass

    def claim(self, *, with_fifos: bool = False) -> list[int]:
        """Open the daemon's own logs for the streams without a file, under the first name that is free.

        None of them, where logs cannot be kept. with_fifos: and a fifo for every log that a drain writes. Raises SetupError.
        """
        opened: list[int] = []
        while self._logs.directory is not None:
            try:
                self._claim_all(opened, with_fifos=with_fifos)
            except LogTakenError:
                self._shut(opened)
                self._logs.next()
            except OSError as error:
                self._shut(opened)
                self._logs.give_up(SetupError("write to", os.fsdecode(self._logs.directory), error))
            else:
                break
        if with_fifos and self.logs and not self.fifos:
            raise self._logs.problem or SetupError("make", "a fifo", OSError(EBUSY, "every name is taken"))
        return opened

    def _claim_all(self, opened: list[int], *, with_fifos: bool) -> None:
        for stream in self.wanted:
            opened.append(self._open_own(stream))
            if self._request.has_drain:
                self._keep(stream, opened[-1])
        for stream in self.logs if with_fifos else ():
            if self.logs[stream] not in [self.logs[other] for other in self.fifos]:
                fd, path = self._logs.open_fifo(stream, self._owner)
                self.give(fd)
                self.fifos[stream] = fd, path

    def _keep(self, stream: str, log: int) -> None:
        self.logs[stream] = log
        directory = self._logs.directory
        if self._request.log_rotate and directory is not None:
            at = self._owner.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            self.places[stream] = at, os.path.basename(self._logs.path(stream))

    def _shut(self, opened: list[int]) -> None:
        """Let go of what was claimed under a name that cannot be had."""
        for stream in self.wanted:
            self.logs.pop(stream, None)
            directory, _ = self.places.pop(stream, (-1, b""))
            self._owner.shut(directory)
        self.remove_fifos()
        self._owner.shut(*opened)
        opened.clear()

    def remove_fifos(self) -> None:
        """There will be nobody who reads them."""
        for fd, path in self.fifos.values():
            unlink_fifo(fd, path)
            self._owner.shut(fd)
        self.fifos.clear()

    def _open_given(self, stream: str, path: bytes) -> int:
        """Open a file that the user named. A fifo that nobody reads is an error: it could be waited for for ever."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK
        try:
            fd = self._open_for_heir(path, flags) if self._account else self._owner.open(path, flags, 0o666)
            if self._request.has_drain and path != _NULL:
                fd = self._take_log(stream, path, fd)
            if not self._request.append and stat.S_ISREG(os.fstat(fd).st_mode):
                os.ftruncate(fd, 0)
        except OSError as error:
            reason = OSError(ENXIO, "nobody reads this fifo") if error.errno == ENXIO else error
            raise SetupError("open", os.fsdecode(path), reason) from None
        os.set_blocking(fd, True)
        return fd

    def _open_for_heir(self, path: bytes, flags: int) -> int:
        """A file that is made for a server of another user is his; he must not get at one that he could not have."""
        from daemonize.posix.paths import open_guarded

        fd, new = open_guarded(path, flags, self._owner, 0o666)
        if new:
            self.give(fd)
        return fd

    def _take_log(self, stream: str, path: bytes, fd: int) -> int:
        """A file that a drain is to write: claimed, as it would be renamed under another's hands. Raises OSError."""
        other = self.given.get("out")
        if other is not None and os.path.sameopenfile(fd, other):
            self._owner.shut(fd)
            self.logs[stream] = other
            return other
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(
                f"{printable(os.fsdecode(path))} is no plain file: what is written there cannot be rotated or stamped"
            )
        if self._request.log_rotate:
            self.places[stream] = self._place(path, fd)
        if not _lock_soon(fd):
            raise OSError(EBUSY, "another daemon writes to it")
        self.logs[stream] = fd
        return fd

    def _place(self, path: bytes, fd: int) -> tuple[int, bytes]:
        """Where a file lies, whatever symlinks lead there. Raises OSError."""
        from daemonize.posix.paths import open_parent

        place = open_parent(path, self._owner, {os.geteuid()})
        if not _lies_at(place, fd):
            raise UsageError(f"{printable(os.fsdecode(path))} cannot be rotated: name the file itself")
        return place


def _lies_at(place: tuple[int, bytes], fd: int) -> bool:
    try:
        status = os.stat(place[1], dir_fd=place[0], follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(status, os.fstat(fd))


def _lock_soon(fd: int) -> bool:
    """Lock a log. The drain of a server that was stopped just now may have its last words to write."""
    wait, until = _FIRST_WAIT, monotonic() + _LAST_WORDS
    try:
        while not try_lock(fd):
            if monotonic() > until:
                return False
            sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
    except OSError:
        pass  # a file system without locks
    return True


def unlink_fifo(fd: int, path: bytes) -> None:
    """Remove a fifo, if it still is the one that is open."""
    try:
        if os.path.samestat(os.lstat(path), os.fstat(fd)):
            os.unlink(path)
    except OSError:
        pass
