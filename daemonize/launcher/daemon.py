"""A daemon, as the program that launched it sees it, and any other that knows its name."""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from daemonize.daemon_errors import BadRecord, NoSuchDaemon, NotPossible
from daemonize.errors import AlreadyRunning, LaunchError, SetupError
from daemonize.launcher import stopping
from daemonize.outcomes import Exited
from daemonize.posix.identity import Process
from daemonize.posix.loop import POLLIN, Loop
from daemonize.posix.signals import SIGTERM
from daemonize.registry import content
from daemonize.registry.changes import forget
from daemonize.registry.record import Record, Registry, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemonize.posix.identity import Identity

_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05

#: States of a daemon. RUNNING: its main process, and no other that got the pid later, runs. STARTING: it does not, and a
#: launch of that name is under way. STOPPED: it was stopped on purpose. DEAD: it ended otherwise, or the machine did.
RUNNING, STARTING, STOPPED, DEAD = "running", "starting", "stopped", "dead"


class Daemon:
    """A server that was launched. It is not a child of this process: its exit status is init's to have.

    pid: of its main process, None where /proc could not say who it is. identity: pid, start time and boot id.
    name: the daemon's name. seconds: how long the launch took. stdout, stderr: paths of the files its streams go to, or
    that it was asked to continue in. pid_file: path, or None. drain: pid of the drain, None if there was no need for one.
    found: what made a readiness spec hold, by spec, where that is of interest (`{"port": "127.0.0.1:43210"}`).
    listen: where the sockets listen that it was given, in order: "127.0.0.1:43210", "[::]:8080", "unix:/run/socket".
    record: all that is kept of it.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.pid, self.name = record.pid, record.name
        self.seconds, self.drain = record.seconds, record.drain
        self.stdout, self.stderr = record.stdout, record.stderr
        self.pid_file, self.found, self.listen = record.pid_file, record.found, record.listen

    @classmethod
    def find(cls, name: str) -> Self:
        """The daemon of that name of this user's. Raises NoSuchDaemon, BadRecord, SetupError."""
        return cls(Registry().read(name))

    @classmethod
    def wait_until_ready(cls, name: str, timeout: float = 90.0) -> Self:
        """The daemon of that name when it is ready: now, if it is, or when the launch that is under way is over.

        timeout: seconds. Raises NotYet when they have passed, NotPossible if it does not run and nobody is starting it,
        NoSuchDaemon, BadRecord, SetupError.
        """
        from daemonize.launcher.awaiting import wait_until_ready

        return cls(wait_until_ready(name, timeout))

    def __repr__(self) -> str:
        """Name and pid."""
        return f"<Daemon {self.name} pid={self.pid}>"

    @property
    def identity(self) -> Identity | None:
        """Who its main process is, None where /proc could not say it."""
        return self.record.identity

    @property
    def is_running(self) -> bool:
        """Whether its main process, and no other that got the pid later, runs."""
        return self.identity is not None and self.identity.alive

    @property
    def state(self) -> str:
        """`running`, `starting`, `stopped` or `dead`."""
        if self.is_running:
            return RUNNING
        if Registry().launcher(self.name):
            return STARTING
        return DEAD if self.record.stopped is None else STOPPED

    def __enter__(self) -> Self:
        """For `with`: it is stopped at the end of the block."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop it."""
        self.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the main process has ended, at most `timeout` seconds (None: for ever). False: it still runs."""
        with self._held() as process:
            if process is None:
                return True
            loop, pause = Loop(), _FIRST_WAIT
            deadline = float("inf") if timeout is None else monotonic() + timeout
            if process.fd is not None:
                loop.watch(process.fd, POLLIN, lambda _events: None)
                pause = deadline
            while not process.ended and (left := deadline - monotonic()) > 0:
                loop.run_once(min(pause, left))
                pause = min(pause * 2, _LONGEST_WAIT) if process.fd is None else left
            return process.ended

    def stop(self, timeout: float | None = None, signal: int = SIGTERM) -> None:
        """End it and everything that belongs to it; returns when all is gone.

        timeout: seconds (None: those that it was started with, 10) between `signal`, which its main process gets first,
        and SIGKILL. Its pid file goes too. Stopping what is stopped succeeds. Raises StillRunning with the survivors.
        """
        failure = stopping.stop_all([self.record], timeout, signal)[self.name]
        if failure:
            raise failure

    def start(self) -> Daemon:
        """Launch it again, as it was launched, and return when it is ready; its output is relayed to descriptors 1 and 2.

        Raises as `daemonize.launch`, and AlreadyRunning if it runs; NotPossible if only its starter can start it, BadRecord.
        """
        from daemonize.launcher import owner, relaunch
        from daemonize.launcher.outputs import Targets

        if self.record.by_option:
            return self._start_by_option()
        request = relaunch.request_of(self.record)
        outcome = owner.run(request, Targets(), self.record.directory)
        if isinstance(outcome, LaunchError):
            raise outcome
        return Daemon(parse(content.write(outcome.record)))

    def restart(self, timeout: float | None = None) -> Daemon:
        """Stop it, and launch it again. timeout: as of `stop`. Raises as `stop` and `start`."""
        from daemonize.launcher import relaunch

        relaunch.refuse_unrepeatable(self.record)
        relaunch.refuse_lost(self.record)
        self.stop(timeout)
        return self.start()

    def signal(self, number: int) -> None:
        """Send a signal to its main process. Raises NotPossible if it does not run, or is another user's."""
        with self._held() as process:
            try:
                if process is None or not process.send(number):
                    raise NotPossible(self.name, f"is not running; to start it: daemonctl start {self.name}")
            except PermissionError:
                raise NotPossible(
                    self.name, "may not be signalled by this user: its main process has become another's"
                ) from None

    def reload(self, timeout: float = 90.0) -> bool:
        """Let it read its configuration again: SIGHUP to its main process. Whether it has said that it has.

        A server that was started with `notify` can say so (RELOADING=1, then READY=1), and is waited for, at most `timeout`
        seconds; of others nobody knows. Raises NotPossible if it does not run, NotReloaded if it did not come to the end.
        """
        from daemonize.launcher.reloading import reload

        with self._held() as process:
            if process is None:
                raise NotPossible(self.name, f"is not running; to start it: daemonctl start {self.name}")
            return reload(self.record, process, timeout)

    def logs(self, lines: int | None = 10, since: float | None = None) -> Iterator[tuple[str, bytes]]:
        """(stream, line) of what it has written: the last `lines` of `stdout` and of `stderr`, or all (None).

        `output` is the stream where both go to one file. Logs with time stamps are merged by them. since: nothing older, in
        seconds since the epoch. Raises SetupError, and UsageError where there are no time stamps to find `since` by.
        """
        from daemonize.logs.lines import lines_of

        return lines_of(self.record, lines, since)

    def show(self) -> dict[str, Any]:
        """All that is known of it, as `daemonctl show --json` prints it: its record, its processes, what they use."""
        from daemonize.launcher.details import details

        return {"state": self.state, **details(self.record)}

    def export(self, command: str = "daemonize") -> str:
        """The systemd unit that starts it as it was started. command: the path of `daemonize`. Raises NotPossible."""
        from daemonize.launcher.export import systemd_unit

        return systemd_unit(self.record, command)

    def forget(self) -> None:
        """Remove its record; its logs stay. Raises NotPossible if it runs or is being started, SetupError."""
        forget(self.name)

    def _start_by_option(self) -> Daemon:
        import subprocess

        from daemonize.launcher import relaunch

        relaunch.refuse_unrepeatable(self.record)
        if self.is_running:
            raise AlreadyRunning("name", self.name, self.pid, self.record.process, proven=True)
        program, command, environment = relaunch.own_command_line(self.record)
        directory = self.record.directory
        try:
            done = subprocess.run(command, executable=program, cwd=directory, env=environment, check=False)
        except OSError as error:
            raise SetupError("execute", program, error) from None
        if done.returncode:
            failure = Exited(-done.returncode if done.returncode < 0 else done.returncode << 8)
            failure.command = command
            raise failure
        return Daemon.find(self.name)

    @contextmanager
    def _held(self) -> Iterator[Process | None]:
        """A hold on its main process; None if it has ended."""
        process = self._hold()
        try:
            yield process
        finally:
            if process:
                process.close()

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


def daemons() -> list[Daemon]:
    """All daemons of this user's that there is a record of, by name, running or not. Raises SetupError.

    Records that cannot be used are left out; `Daemon.find` says what is wrong with one.
    """
    registry, found = Registry(), []
    for name in registry.names:
        try:
            found.append(Daemon(registry.read(name)))
        except (NoSuchDaemon, BadRecord):
            pass  # it was forgotten in between; it is of no use
    return found
