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
from daemonize.registry.logs import LogTakenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.launcher.account import Account
    from daemonize.launcher.request import Request
    from daemonize.posix.fds import Descriptors
    from daemonize.posix.follow import FileRelay
    from daemonize.posix.loop import Loop
    from daemonize.posix.streams import Screen
    from daemonize.registry.logs import Logs


def _is_same(written: int, target: int | None) -> bool:
    try:
        return target is not None and os.path.sameopenfile(written, target)
    except OSError:
        return False  # the target is not open


def _is_journal(target: int) -> bool:
    """Whether a descriptor is a stream of systemd's journal (systemd.exec(5))."""
    try:
        status = os.fstat(target)
    except OSError:
        return False
    return os.environb.get(b"JOURNAL_STREAM") == b"%d:%d" % (status.st_dev, status.st_ino)


_STREAMS = ("out", "err")


class Targets:
    """Where the wrapper relays to: descriptors of the caller's, or None for nowhere. keep: bytes to remember of each."""

    def __init__(self, stdout: int | None = 1, stderr: int | None = 2, keep: int = 0) -> None:
        self.stdout, self.stderr, self.keep = stdout, stderr, keep


class Outputs:
    """Both streams of one server. Descriptors belong to `owner`.

    program_stdout, program_stderr: what the server gets. protocol: whether both are pipes that it is expected to close.
    lacks_log: a log was wanted, and there is none. screen: who else writes to the caller's terminal, or None.
    """

    def __init__(
        self, owner: Descriptors, loop: Loop, targets: Targets, account: Account | None = None
    ) -> None:
        self._owner, self._loop, self._account = owner, loop, account
        self._targets, self._keep = {"out": targets.stdout, "err": targets.stderr}, targets.keep
        self._sinks: list[Sink] = []
        self._relays: dict[str, PipeRelay | FileRelay] = {}
        self._paths: dict[str, bytes] = {}
        self._given: dict[str, int] = {}
        self._logs: Logs
        self.program_stdout = self.program_stderr = -1
        self.protocol = self.lacks_log = False
        self.screen: Screen | None = None
        self._heard: Callable[[str, bytes], None] | None = None

    def hear(self, said: Callable[[str, bytes], None]) -> None:
        """Tell of everything that is relayed from now on: of what stream (`out`, `err`), and what."""
        self._heard = said

    def _hearing(self, stream: str) -> Callable[[bytes], None] | None:
        said = self._heard
        return None if said is None else lambda data: said(stream, data)

    @property
    def files(self) -> list[bytes]:
        """The path of each stream: where the server writes, or is asked to continue writing."""
        return [self._paths[stream] for stream in _STREAMS]

    @property
    def relays(self) -> list[PipeRelay | FileRelay]:
        """In the order stdout, stderr."""
        return [self._relays[stream] for stream in _STREAMS if stream in self._relays]

    def open_pipes(self, request: Request, logs: Logs, on_closed: Callable[[], None]) -> None:
        """Two pipes to the wrapper. `on_closed` is called when no process holds either any more. Raises SetupError."""

        def hung_up() -> None:
            if self.closed:
                on_closed()

        self.protocol = True
        logs.skip_taken()
        self._take(request, logs)
        self._prepare_logs()
        self.program_stdout, self.program_stderr = (self._open_pipe(stream, hung_up) for stream in _STREAMS)

    def open_files(self, request: Request, logs: Logs) -> None:
        """Two files, in append mode; in the foreground pipes for those that were not named. Raises SetupError."""
        self._take(request, logs)
        wanted = [stream for stream in _STREAMS if stream not in self._given]
        if request.foreground:
            # Their reader stays. A log beside him would say everything twice, and grow for as long as the server runs.
            logs.give_up()
            made = [self._open_pipe(stream) for stream in wanted]
        else:
            made = self._claim(wanted)
        opened = {**self._given, **dict(zip(wanted, made, strict=True))}
        self._name_files(request)
        self.program_stdout, self.program_stderr = (opened[stream] for stream in _STREAMS)
        self._follow("out", self.program_stdout)
        if not os.path.sameopenfile(self.program_stdout, self.program_stderr):
            self._follow("err", self.program_stderr)

    def _take(self, request: Request, logs: Logs) -> None:
        """Files that the user names are opened now: he wants to hear now that they cannot be."""
        self._logs = logs
        self._name_files(request)
        for stream, path in (("out", request.stdout), ("err", request.stderr)):
            if path:
                self._given[stream] = self._open_given(path, append=request.append)

    def _name_files(self, request: Request) -> None:
        self._paths["out"] = request.stdout or self._logs.path("out")
        self._paths["err"] = request.stderr or self._logs.path("err")

    def _open_pipe(self, stream: str, on_hang_up: Callable[[], None] = lambda: None) -> int:
        """The server's end of a pipe that is relayed."""
        read, write = self._owner.pipe()
        # /dev/stderr is opened by name in many a configuration, and a pipe is its owner's to open again.
        self._give(write)
        self._relays[stream] = PipeRelay(
            self._loop,
            read,
            self._sink(stream),
            keep=self._keep,
            hear=self._hearing(stream),
            on_hang_up=on_hang_up,
        )
        return write

    def _prepare_logs(self) -> None:
        """A server that runs as somebody else cannot make its logs, to continue in, in a directory of ours."""
        wanted = [stream for stream in _STREAMS if stream not in self._given] if self._account else []
        try:
            for stream in wanted if self._logs.directory is not None else ():
                self._owner.shut(self._open_own(stream))
        except (LogTakenError, OSError):
            pass  # then it cannot continue there, as it will find

    def _open_own(self, stream: str, *, share: bool = False) -> int:
        """Open a log of the daemon's own, for whoever the server runs as. Raises LogTakenError, OSError."""
        fd = self._logs.open(stream, self._owner, share=share)
        self._give(fd)
        return fd

    def _give(self, fd: int) -> None:
        """To whom the server runs as. If he cannot be given anything (a user namespace), he cannot be become, either."""
        try:
            if self._account:
                os.fchown(fd, self._account.uid, self._account.gid)
        except OSError:
            pass

    def _claim(self, streams: list[str]) -> list[int]:
        """Open the daemon's own logs for these streams, under the first name that is free. Raises OSError."""
        while self._logs.directory is not None:
            opened: list[int] = []
            try:
                opened.extend(self._open_own(stream) for stream in streams)
            except LogTakenError:
                self._owner.shut(*opened)
                self._logs.next()
            except OSError as error:
                self._owner.shut(*opened)
                self._logs.give_up(SetupError("write to", os.fsdecode(self._logs.directory), error))
            else:
                return opened
        return [self._open_without_log(stream) for stream in streams]

    def _open_without_log(self, stream: str) -> int:
        """For a stream whose log cannot be kept: what is said before the server is ready must arrive all the same."""
        self.lacks_log = True
        journal = self._journal(stream)
        return self._open_pipe(stream) if journal is None else journal

    def _journal(self, stream: str) -> int | None:
        """A copy of the caller's stream if it leads to systemd's journal: it may be held for ever, as a log may."""
        target = self._targets[stream]
        if target is None or self._heard or not _is_journal(target):
            return None
        return self._owner.add(os.dup(target))

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
        if new:
            self._give(fd)
        return fd

    def _follow(self, stream: str, written: int) -> None:
        """Follow a regular file; a fifo, a terminal or /dev/null cannot be read back.

        Nor is a file that is the caller's stdout or stderr as well: what we relay would be followed, and relayed again.
        """
        relayed = not any(_is_same(written, target) for target in self._targets.values())
        if not stat.S_ISREG(os.fstat(written).st_mode) or not (relayed or self._heard):
            return
        from daemonize.posix.follow import FileRelay

        try:
            source = self._reopen(written, self._paths[stream])
        except OSError:
            return  # write-only for us: nothing to relay
        sink = self._sink(stream) if relayed else Sink(None)
        self._relays[stream] = FileRelay(
            self._loop, source, sink, keep=self._keep, hear=self._hearing(stream)
        )

    def _reopen(self, written: int, path: bytes) -> int:
        """The very file that is written to, and not what its name may lead to by now. Raises OSError."""
        try:
            return self._owner.open(f"/proc/self/fd/{written}", os.O_RDONLY)
        except FileNotFoundError:
            pass  # no /proc
        source = self._owner.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        if not os.path.sameopenfile(source, written):
            self._owner.shut(source)
            raise FileNotFoundError(path)
        return source

    def _sink(self, stream: str) -> Sink:
        sink = Sink(self._targets[stream])
        if sink.may_show:
            sink.screen = self.screen
        self._sinks.append(sink)
        return sink

    def forked(self) -> None:
        """The server has its own copies: close ours, or end of file would never come."""
        self._owner.shut(self.program_stdout, self.program_stderr)

    def held(self) -> list[tuple[int, int]]:
        """For a drain: (read end, log) of every pipe that somebody still holds. /dev/null where no log can be kept."""
        return [
            (relay.source, self._given[stream] if stream in self._given else self._open_for_drain(stream))
            for stream, relay in self._pipes
            if not relay.hung_up
        ]

    def _open_for_drain(self, stream: str) -> int:
        try:
            if self._logs.directory is not None:
                return self._open_own(stream, share=True)
        except (LogTakenError, OSError):
            pass
        self.lacks_log = True
        journal = self._journal(stream)
        return self._owner.open(b"/dev/null", os.O_WRONLY) if journal is None else journal

    @property
    def _pipes(self) -> list[tuple[str, PipeRelay]]:
        return [(stream, relay) for stream, relay in self._relays.items() if isinstance(relay, PipeRelay)]

    @property
    def closed(self) -> bool:
        """Whether both pipes are closed by everybody. Never true of files."""
        return self.protocol and len(self._pipes) == 2 and all(relay.hung_up for _, relay in self._pipes)

    @property
    def blocks_server(self) -> bool:
        """Whether the server would wait for our reader."""
        return any(relay.full for relay in self.relays)

    @property
    def still_open(self) -> list[str]:
        """Which of the server's streams are pipes that somebody holds."""
        return [f"std{stream}" for stream, relay in self._pipes if not relay.hung_up]

    @property
    def spoke_on_stderr(self) -> bool:
        """Whether the server wrote to stderr (known only where it has a stream of its own)."""
        return "err" in self._relays and self._relays["err"].total > 0

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

    def unmark(self) -> None:
        """The launch goes on: so does the relaying."""
        for relay in self.relays:
            relay.unmark()

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
        streams = [] if self.protocol else [s for s in reversed(_STREAMS) if self._paths[s] != b"/dev/null"]
        written = [stream for stream in streams if self._wrote(stream)]
        named = [os.fsdecode(self._paths[stream]) for stream in [*written, *streams]]
        return (named[0], not written) if named else (None, False)

    def _wrote(self, stream: str) -> bool:
        """Whether the server has written to its file, which may have words of an earlier launch."""
        relay = self._relays.get(stream)
        if relay is None and self._paths["out"] == self._paths["err"]:
            relay = self._relays.get("out")
        if relay is not None:
            return relay.total > 0
        path = self._paths[stream]
        return os.path.exists(path) and os.stat(path).st_size > 0

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
