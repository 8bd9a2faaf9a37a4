"""Where the server's stdout and stderr go, and how they reach the caller until the server is ready.

with a spec that needs pipes:   server ── pipe ──▶ wrapper ──▶ caller        (afterwards: drain, if still held)
otherwise:                      server ──▶ file ◀── followed by the wrapper ──▶ caller
"""

from __future__ import annotations

import os
import stat
from errno import ENXIO

from daemonize.errors import SetupError
from daemonize.posix.streams import PipeRelay, Sink
from daemonize.registry import LogTakenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.launcher.account import Account
    from daemonize.launcher.request import Request
    from daemonize.posix.fds import Descriptors
    from daemonize.posix.follow import FileRelay
    from daemonize.posix.loop import Loop
    from daemonize.registry import Logs


def _is_same(written: int, target: int | None) -> bool:
    try:
        return target is not None and os.path.sameopenfile(written, target)
    except OSError:
        return False  # the target is not open


def _is_journal(target: int) -> bool:
    """Whether a descriptor is a stream of systemd's journal (systemd.exec(5)): it may be held for ever, as a log may."""
    try:
        status = os.fstat(target)
    except OSError:
        return False
    return os.environb.get(b"JOURNAL_STREAM") == b"%d:%d" % (status.st_dev, status.st_ino)


class Targets:
    """Where the wrapper relays to: descriptors of the caller's, or None for nowhere. keep: bytes to remember of each."""

    def __init__(self, stdout: int | None = 1, stderr: int | None = 2, keep: int = 0) -> None:
        self.stdout, self.stderr, self.keep = stdout, stderr, keep


class Outputs:
    """Both streams of one server. Descriptors belong to `owner`.

    program_stdout, program_stderr: what the server gets. files: the path of each (where it writes, or is asked to
    continue writing), None where there is none. relays: in the order stdout, stderr.
    """

    def __init__(
        self, owner: Descriptors, loop: Loop, targets: Targets, account: Account | None = None
    ) -> None:
        self._owner, self._loop, self._targets, self._account = owner, loop, targets, account
        self._sinks: list[Sink] = []
        self.relays: list[PipeRelay | FileRelay] = []
        self.files: list[bytes] = []
        self.program_stdout = self.program_stderr = -1
        self._logs: Logs | None = None
        self._given: dict[bytes, int] = {}
        self._stderr_relay: PipeRelay | FileRelay | None = None

    def open_pipes(self, request: Request, logs: Logs, on_closed: Callable[[], None]) -> None:
        """Two pipes to the wrapper. `on_closed` is called when no process holds either any more."""

        def hung_up() -> None:
            if self.closed:
                on_closed()

        logs.skip_taken()
        self._logs = logs
        self.files = [request.stdout or logs.path("out"), request.stderr or logs.path("err")]
        self._prepare_logs(
            logs, [s for s, given in (("out", request.stdout), ("err", request.stderr)) if not given]
        )
        # Files that the user names are opened now: he wants to hear now that they cannot be.
        for given in {path for path in (request.stdout, request.stderr) if path}:
            self._given[given] = self._open_given(given, append=request.append)
        ends = []
        for target in (self._targets.stdout, self._targets.stderr):
            read, write = self._owner.pipe()
            if self._account:
                # /dev/stderr is opened by name in many a configuration, and a pipe is its owner's to open again.
                os.fchown(write, self._account.uid, self._account.gid)
            sink = self._sink(target)
            self.relays.append(PipeRelay(self._loop, read, sink, keep=self._targets.keep, on_hang_up=hung_up))
            ends.append(write)
        self.program_stdout, self.program_stderr = ends
        self._stderr_relay = self.relays[1]

    def _prepare_logs(self, logs: Logs, streams: list[str]) -> None:
        """A server that runs as somebody else cannot make its logs, to continue in, in a directory of ours."""
        try:
            for stream in streams if self._account else ():
                self._owner.shut(self._open_own(logs, stream))
        except (LogTakenError, OSError):
            pass  # then it cannot continue there, as it will find

    def _open_own(self, logs: Logs, stream: str, *, share: bool = False) -> int:
        """Open a log of the daemon's own, for whoever the server runs as. Raises LogTakenError, OSError.

        Where no log can be kept, and the caller's stream is the journal's (sd-journald's JOURNAL_STREAM), it is that.
        """
        target = self._targets.stdout if stream == "out" else self._targets.stderr
        if logs.directory is None and target is not None and _is_journal(target):
            return self._owner.add(os.dup(target))
        fd = logs.open(stream, self._owner, share=share)
        if self._account and logs.directory is not None:
            os.fchown(fd, self._account.uid, self._account.gid)
        return fd

    def open_files(self, request: Request, logs: Logs) -> None:
        """Two files, in append mode. Raises SetupError."""
        paths = (request.stdout, request.stderr)
        given = [self._open_given(path, append=request.append) if path else None for path in paths]
        own = self._claim(logs, [stream for stream, fd in zip(("out", "err"), given) if fd is None])  # noqa: B905
        self.program_stdout, self.program_stderr = (own.pop(0) if fd is None else fd for fd in given)
        self.files = [request.stdout or logs.path("out"), request.stderr or logs.path("err")]
        self._follow(self.files[0], self.program_stdout, self._targets.stdout)
        if not os.path.sameopenfile(self.program_stdout, self.program_stderr):
            self._stderr_relay = self._follow(self.files[1], self.program_stderr, self._targets.stderr)

    def _claim(self, logs: Logs, streams: list[str]) -> list[int]:
        """Open the daemon's own logs for these streams, under the first name that is free. Raises SetupError."""
        while True:
            opened: list[int] = []
            try:
                opened.extend(self._open_own(logs, stream) for stream in streams)
            except LogTakenError:
                self._owner.shut(*opened)
                logs.next()
            except OSError as error:
                self._owner.shut(*opened)
                if logs.directory is None:
                    raise SetupError("open", "/dev/null", error) from None
                logs.give_up(SetupError("write to", os.fsdecode(logs.directory), error))
            else:
                return opened

    def _open_given(self, path: bytes, *, append: bool) -> int:
        """Open a file that the user named. A fifo that nobody reads is an error: it could be waited for for ever."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK
        try:
            fd = self._open_for_heir(path, flags) if self._account else self._owner.open(path, flags, 0o666)
            if not append and stat.S_ISREG(os.fstat(fd).st_mode):
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
        if new and self._account:
            os.fchown(fd, self._account.uid, self._account.gid)
        return fd

    def _follow(self, path: bytes, written: int, target: int | None) -> FileRelay | None:
        """Follow a regular file; a fifo, a terminal or /dev/null cannot be read back.

        Nor is a file that is the caller's stdout as well: what we relay would be followed, and relayed again.
        """
        if not stat.S_ISREG(os.fstat(written).st_mode) or _is_same(written, target):
            return None
        from daemonize.posix.follow import FileRelay

        try:
            source = self._owner.open(path, os.O_RDONLY)
        except OSError:
            return None  # write-only for us: nothing to relay
        relay = FileRelay(self._loop, source, self._sink(target), keep=self._targets.keep)
        self.relays.append(relay)
        return relay

    def _sink(self, target: int | None) -> Sink:
        sink = Sink(target)
        self._sinks.append(sink)
        return sink

    def forked(self) -> None:
        """The server has its own copies: close ours, or end of file would never come."""
        self._owner.shut(self.program_stdout, self.program_stderr)

    def held(self) -> list[tuple[int, int]]:
        """For a drain: (read end, log) of every pipe that somebody still holds. /dev/null where no log can be kept."""
        pairs = []
        for (relay, path), stream in zip(self.pipes, ("out", "err")):  # noqa: B905
            if not relay.hung_up:
                log = self._given.get(path)
                pairs.append((relay.source, self._open_log(stream) if log is None else log))
        return pairs

    def _open_log(self, stream: str) -> int:
        """The daemon's own log, for the drain."""
        try:
            if self._logs:
                return self._open_own(self._logs, stream, share=True)
        except (LogTakenError, OSError):
            pass
        return self._owner.open(b"/dev/null", os.O_WRONLY)

    @property
    def pipes(self) -> list[tuple[PipeRelay, bytes]]:
        """The pipes, each with the file to continue in."""
        return [(relay, path) for relay, path in zip(self.relays, self.files) if isinstance(relay, PipeRelay)]  # noqa: B905

    @property
    def closed(self) -> bool:
        """Whether both pipes are closed by everybody. Never true of files."""
        return len(self.pipes) == 2 and all(relay.hung_up for relay, _ in self.pipes)

    @property
    def blocks_server(self) -> bool:
        """Whether the server would wait for our reader."""
        return any(relay.full for relay in self.relays)

    @property
    def still_open(self) -> list[str]:
        """Which of the server's streams are pipes that somebody holds."""
        return [name for (relay, _), name in zip(self.pipes, ("stdout", "stderr")) if not relay.hung_up]  # noqa: B905

    @property
    def spoke_on_stderr(self) -> bool:
        """Whether the server wrote to stderr (known only where it has a stream of its own)."""
        return self._stderr_relay is not None and self._stderr_relay.total > 0

    @property
    def next_look(self) -> float | None:
        """Seconds until `look` wants to be called."""
        waits = [relay.next_look for relay in self.relays if not isinstance(relay, PipeRelay)]
        return min((wait for wait in waits if wait is not None), default=None)

    def look(self) -> None:
        """Look at files that the kernel tells nothing about."""
        for relay in self.relays:
            if not isinstance(relay, PipeRelay) and relay.next_look is not None:
                relay.look()

    def mark(self) -> None:
        """What is there now belongs to the launch: `caught_up` tells when all of it is with the caller."""
        for relay in self.relays:
            relay.mark()

    @property
    def caught_up(self) -> bool:
        """Whether everything up to `mark` has been handed on."""
        return all(relay.caught_up for relay in self.relays)

    @property
    def tail(self) -> bytes:
        """The last of what the server said, stdout before stderr."""
        return b"".join(relay.tail for relay in self.relays)

    @property
    def log(self) -> tuple[str | None, bool]:
        """The file to look into, and whether it is empty.

        That of stderr, unless only that of stdout has something in it. None: there is none.
        """
        paths = [] if self.pipes else [path for path in reversed(self.files) if path != b"/dev/null"]
        written = [path for path in paths if os.path.exists(path) and os.stat(path).st_size]
        return next(((os.fsdecode(path), not written) for path in [*written, *paths]), (None, False))

    @property
    def errors(self) -> list[OSError]:
        """Why relaying to the caller ended early, other than by a reader that left."""
        return [
            s.error
            for s in self._sinks
            if s.error and not isinstance(s.error, (BrokenPipeError, ConnectionError))
        ]

    def stop(self) -> None:
        """Relay no more."""
        for relay in self.relays:
            relay.stop()
        for sink in self._sinks:
            sink.close()
