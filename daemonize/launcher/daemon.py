"""A daemon that runs, as the program that launched it sees it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Self

from daemonize.errors import StillRunning
from daemonize.posix import stop
from daemonize.posix.identity import Identity, Process, read_stat
from daemonize.posix.locks import remove_pid_file
from daemonize.posix.loop import POLLIN, Loop
from daemonize.posix.tree import Tree

if TYPE_CHECKING:
    from daemonize.launcher.ready import Ready

_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05


class Daemon:
    """A server that was launched and is ready. It is not a child of this process: its exit status is init's to have.

    pid: of its main process, None where /proc could not say who it is. identity: pid, start time and boot id.
    name: the daemon's name. seconds: how long the launch took. stdout, stderr: paths of the files its streams go to, or
    that it was asked to continue in. pid_file: path, or None. drain: pid of the drain, None if there was no need for one.
    found: what made a readiness spec hold, by spec, where that is of interest (`{"port": "127.0.0.1:43210"}`).
    listen: where the sockets listen that it was given, in order: "127.0.0.1:43210", "[::]:8080", "unix:/run/socket".
    """

    def __init__(self, ready: Ready) -> None:
        self.pid = ready.pid
        self.identity = Identity.of(ready.pid, ready.start) if ready.pid else None
        self.name, self.seconds, self.drain = ready.name, ready.seconds, ready.drain
        self.stdout, self.stderr = ready.files
        self.pid_file, self.found, self.listen = ready.pid_file, ready.found, ready.listen
        self._pid_file_is_locked = ready.pid_file_is_locked
        self._session, self._token = ready.session, ready.token

    def __repr__(self) -> str:
        """Name and pid."""
        return f"<Daemon {self.name} pid={self.pid}>"

    @property
    def is_running(self) -> bool:
        """Whether its main process, and no other that got the pid later, runs."""
        return self.identity is not None and self.identity.alive

    def __enter__(self) -> Self:
        """For `with`: it is stopped at the end of the block."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop it."""
        self.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the main process has ended, at most `timeout` seconds (None: for ever). False: it still runs."""
        process = self._hold()
        if process is None:
            return True
        loop, pause = Loop(), _FIRST_WAIT
        deadline = float("inf") if timeout is None else monotonic() + timeout
        try:
            if process.fd is not None:
                loop.watch(process.fd, POLLIN, lambda _events: None)
                pause = deadline
            while not process.ended and (left := deadline - monotonic()) > 0:
                loop.run_once(min(pause, left))
                pause = min(pause * 2, _LONGEST_WAIT) if process.fd is None else left
            return process.ended
        finally:
            process.close()

    def stop(self, timeout: float = 10.0) -> None:
        """End it and everything that belongs to it: SIGTERM, and SIGKILL after `timeout` seconds; returns when all is gone.

        Its pid file goes too. Stopping what is stopped succeeds. Raises StillRunning with the survivors.
        """
        main = (self.identity.pid, self.identity.start) if self.identity and self.is_running else None
        stat = read_stat(main[0]) if main else None
        # The number of the session is only safe while a process that is certainly ours keeps it from being given away.
        session = self._session if stat and stat.session == self._session else None
        tree = Tree({main[0]} if main else (), session, self._token, exclude={self.drain or 0})
        survivors = stop.run(Loop(), tree, main, stop.default_plan(timeout))
        if survivors:
            raise StillRunning(survivors)
        if self.pid_file and self.pid:
            remove_pid_file(self.pid_file, self.pid, empty=self._pid_file_is_locked)

    def _hold(self) -> Process | None:
        if self.identity is None or not self.is_running:
            return None
        try:
            process = Process(self.identity.pid)
        except ProcessLookupError:
            return None
        if process.start != self.identity.start:
            process.close()
            return None
        return process
