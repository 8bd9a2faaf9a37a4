"""What a launch claims for itself alone: a lock file, a pid file, the files of its sockets."""

from __future__ import annotations

import os
from errno import ESRCH

from daemonize.errors import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from daemonize.launcher.request import Request
    from daemonize.posix.binding import SocketFile
    from daemonize.posix.fds import Descriptors
    from daemonize.posix.locks import LockFile
    from daemonize.posix.pidfiles import PidFile


class Claims:
    """The files of a launch, as far as they were asked for; nothing where they were not.

    inherited: descriptors that the server must inherit. kept: those that the intermediate parent needs for `remove`.
    """

    inherited: tuple[int, ...] = ()
    kept: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self._lock: LockFile | None = None
        self._pid_file: PidFile | None = None
        self._path = ""
        self._socket_files: list[SocketFile] = []

    def claim(self, request: Request, owner: Descriptors, trusted: Collection[int]) -> None:
        """Take them, before anything else is touched. Raises AlreadyRunning, SetupError.

        trusted: users, besides root and ourselves, whose files may lie there.
        """
        if request.lock_file:
            from daemonize.posix.locks import LockFile

            self._lock = LockFile(request.lock_file, owner, trusted)
            self.inherited = (self._lock.fd,)
        if request.pid_file:
            from daemonize.posix.pidfiles import PidFile

            self._path = os.fsdecode(request.pid_file)
            self._pid_file = PidFile(request.pid_file, owner, self._lock, trusted)
            self.kept = self._pid_file.descriptors

    def add(self, file: SocketFile) -> None:
        """A socket has been made, or has not, with a file of its own."""
        self._socket_files.append(file)
        self.kept |= file.descriptors

    @property
    def shares(self) -> bool:
        """Whether the pid file is the lock file."""
        return self._pid_file is not None and self._pid_file.shares_lock

    def write(self, pid: int | None, start: int) -> None:
        """The main process stays: complete the pid file. Raises SetupError, also where nobody can say who it is (None)."""
        if self._pid_file:
            if pid is None:
                raise SetupError(
                    "write", self._path, OSError(ESRCH, "this system does not tell which process it is")
                )
            self._pid_file.write(pid, start)

    def remove(self) -> None:
        """The launch has failed, or the server has ended: nothing is running."""
        for file in self._socket_files:
            file.remove()
        if self._pid_file:
            self._pid_file.remove()
