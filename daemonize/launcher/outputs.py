"""Where the server's stdout and stderr go, and how they reach the caller until the server is ready.

with a spec that needs pipes:   server ── pipe ──▶ wrapper ──▶ caller        (afterwards: drain, if still held)
otherwise:                      server ──▶ file ◀── followed by the wrapper ──▶ caller
with a drain for its whole life: launcher/lifelong.py
"""

from __future__ import annotations

import os
import stat

from daemonize.launcher.files import STREAMS, Files
from daemonize.posix.streams import PipeRelay, Sink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemonize.launcher.account import Account
    from daemonize.launcher.lifelong import LifelongDrain
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


class Targets:
    """Where the wrapper relays to: descriptors of the caller's, or None for nowhere. keep: bytes to remember of each."""

    def __init__(self, stdout: int | None = 1, stderr: int | None = 2, keep: int = 0) -> None:
        self.stdout, self.stderr, self.keep = stdout, stderr, keep


class Outputs:
    """Both streams of one server. Descriptors belong to `owner`.

    program_stdout, program_stderr: what the server gets. protocol: whether both are pipes that it is expected to close.
    lacks_log: a log was wanted, and there is none. screen: who else writes to the caller's terminal, or None.
    lifelong: the drain that writes the logs for as long as the server runs, or None.
    """

    def __init__(
        self, owner: Descriptors, loop: Loop, targets: Targets, account: Account | None = None
    ) -> None:
        self._owner, self._loop = owner, loop
        self._files = Files(owner, account)
        self._targets, self._keep = {"out": targets.stdout, "err": targets.stderr}, targets.keep
        self._sinks: list[Sink] = []
        self._relays: dict[str, PipeRelay | FileRelay] = {}
        self.lifelong: LifelongDrain | None = None
        self.program_stdout = self.program_stderr = -1
        self.protocol = self.lacks_log = False
        self.screen: Screen | None = None
        self._heard: Callable[[str, bytes], None] | None = None

    def use(self, opened: Mapping[str, int]) -> None:
        """These are open already, and have the paths that the request says."""
        for stream, fd in opened.items():
            self._files.give(fd)
            self._files.given[stream] = fd

    def hear(self, said: Callable[[str, bytes], None]) -> None:
        """Tell of everything that is relayed from now on: of what stream (`out`, `err`), and what."""
        self._heard = said

    def _hearing(self, stream: str) -> Callable[[bytes], None] | None:
        said = self._heard
        return None if said is None else lambda data: said(stream, data)

    @property
    def files(self) -> list[bytes]:
        """The path of each stream: where the server writes, or is asked to continue writing."""
        return [self._files.paths[stream] for stream in STREAMS]

    @property
    def ways(self) -> list[bytes]:
        """The paths by which the server continues there: those of the files, or fifos of the drain's."""
        fifos = self.lifelong.fifos if self.lifelong else {}
        return [fifos.get(stream, path) for stream, path in zip(STREAMS, self.files, strict=True)]

    @property
    def relays(self) -> list[PipeRelay | FileRelay]:
        """In the order stdout, stderr."""
        return [self._relays[stream] for stream in STREAMS if stream in self._relays]

    def open_pipes(self, request: Request, logs: Logs, on_closed: Callable[[], None]) -> None:
        """Two pipes to the wrapper. `on_closed` is called when no process holds either any more. Raises SetupError."""

        def hung_up() -> None:
            if self.closed:
                on_closed()

        self.protocol = True
        self._files.take(request, logs)
        if request.has_drain:
            # In another root the names mean nothing.
            self._files.claim(with_fifos=request.moves_streams and not request.chroot)
            if self._files.logs:
                self._begin_lifelong(request)
        else:
            logs.skip_taken()
            self._files.prepare()
        self._files.name()
        self.program_stdout, self.program_stderr = (self._open_pipe(stream, hung_up) for stream in STREAMS)

    def open_files(self, request: Request, logs: Logs) -> None:
        """Two files, in append mode; in the foreground pipes for those that were not named. Raises SetupError."""
        files = self._files
        files.take(request, logs)
        wanted = files.wanted
        if request.foreground:
            # Their reader stays. A log beside him would say everything twice, and grow for as long as the server runs.
            logs.give_up()
            made = [self._open_pipe(stream) for stream in wanted]
        else:
            made = files.claim() or [self._open_without_log(stream) for stream in wanted]
        files.name()
        opened = {**files.given, **dict(zip(wanted, made, strict=True))}
        if request.has_drain and files.logs:
            self._begin_lifelong(request)
            opened.update(self._open_fed())
        self.program_stdout, self.program_stderr = (opened[stream] for stream in STREAMS)
        if not self._wants(request):
            return
        self._follow("out", self.program_stdout)
        if not os.path.sameopenfile(self.program_stdout, self.program_stderr):
            self._follow("err", self.program_stderr)

    def _wants(self, request: Request) -> bool:
        """Whether anybody wants to know what is written to files."""
        relayed = any(target is not None for target in self._targets.values())
        return relayed or self._keep > 0 or self._heard is not None or request.strict

    def unfollow(self) -> None:
        """What is written to files from now on is of no interest."""
        for stream, relay in list(self._relays.items()):
            if not isinstance(relay, PipeRelay):
                relay.stop()
                del self._relays[stream]

    def _begin_lifelong(self, request: Request) -> None:
        from daemonize.launcher.lifelong import LifelongDrain

        self.lifelong = LifelongDrain(request, self._owner, self._files)

    def _open_fed(self) -> dict[str, int]:
        """Pipes for the streams whose files are the drain's: one for both if they have one file, where order matters."""
        pipes: dict[int, int] = {}
        for stream, log in self._files.logs.items():
            if log not in pipes:
                pipes[log] = self._open_pipe(stream, fed=True)
        return {stream: pipes[log] for stream, log in self._files.logs.items()}

    def _open_pipe(
        self, stream: str, on_hang_up: Callable[[], None] = lambda: None, *, fed: bool = False
    ) -> int:
        """The server's end of a pipe that is relayed. fed: what it says until it is ready is for its log, too."""
        read, write = self._owner.pipe()
        # /dev/stderr is opened by name in many a configuration, and a pipe is its owner's to open again.
        self._files.give(write)
        hear = self._hearing(stream)
        if self.lifelong and stream in self._files.logs:
            hear = self.lifelong.take(stream, read, hear, fed=fed)
        self._relays[stream] = PipeRelay(
            self._loop,
            read,
            self._sink(stream),
            keep=self._keep,
            hear=hear,
            on_hang_up=on_hang_up,
        )
        return write

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

    def _follow(self, stream: str, written: int) -> None:
        """Follow a regular file; a fifo, a terminal or /dev/null cannot be read back.

        Nor is a file that is the caller's stdout or stderr as well: what we relay would be followed, and relayed again.
        """
        relayed = not any(_is_same(written, target) for target in self._targets.values())
        if not stat.S_ISREG(os.fstat(written).st_mode) or not (relayed or self._heard):
            return
        from daemonize.posix.follow import FileRelay

        try:
            source = self._reopen(written, self._files.paths[stream])
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
        given = self._files.given
        return [
            (relay.source, given[stream] if stream in given else self._open_for_drain(stream))
            for stream, relay in self._pipes
            if not relay.hung_up and stream not in self._files.logs
        ]

    def _open_for_drain(self, stream: str) -> int:
        log = self._files.open_shared(stream)
        if log is not None:
            return log
        self.lacks_log = True
        journal = self._journal(stream)
        return self._owner.open(b"/dev/null", os.O_WRONLY) if journal is None else journal

    @property
    def needs_drain(self) -> bool:
        """Whether there may still be something for the lifelong drain: it ends by itself where there is nothing."""
        held = any(stream in self._files.logs and not relay.hung_up for stream, relay in self._pipes)
        return self.lifelong is not None and (held or bool(self.lifelong.fifos))

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
        streams = (
            [] if self.protocol else [s for s in reversed(STREAMS) if self._files.paths[s] != b"/dev/null"]
        )
        written = [stream for stream in streams if self._wrote(stream)]
        named = [os.fsdecode(self._files.paths[stream]) for stream in [*written, *streams]]
        return (named[0], not written) if named else (None, False)

    def _wrote(self, stream: str) -> bool:
        """Whether the server has written to its file, which may have words of an earlier launch."""
        relay = self._relays.get(stream)
        if relay is None and self._files.paths["out"] == self._files.paths["err"]:
            relay = self._relays.get("out")
        if relay is not None:
            return relay.total > 0
        path = self._files.paths[stream]
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
        """Relay no more; what no drain has been started for is removed."""
        if self.lifelong and not self.lifelong.pid:
            self._files.remove_fifos()
        for relay in self.relays:
            relay.stop()
        for sink in self._sinks:
            sink.close()
