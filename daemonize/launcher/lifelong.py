"""The drain of a server whose logs are rotated or stamped: it writes them for as long as the server runs.

until ready    server ── pipe ──▶ wrapper ── feed ──▶ drain ──▶ log        (`streams`: nothing is fed)
                                     └──▶ caller
afterwards     server ── pipe ───────────────────────▶ drain ──▶ log
`streams`      server ── fifo ($DAEMONIZE_STDOUT) ───▶ drain ──▶ log

It is forked before the server, and holds all read ends from the beginning: a feed comes to its end when the wrapper lets
go, or is killed, and what is then in the pipe is what the wrapper has not taken. So nothing is lost or repeated.

It ends with its input. A fifo has its end when nobody writes to it after the main process has ended: until then the drain
itself holds it open for writing, for many a shell script opens its log anew for every word. SIGTERM does not end it: where
it is sent to everybody, the server has last words.
"""

from __future__ import annotations

import os
from time import time

from daemonize.errors import SetupError
from daemonize.launcher import drain
from daemonize.launcher.files import unlink_fifo
from daemonize.launcher.logwriter import Log, Writer
from daemonize.posix.fds import write_all
from daemonize.posix.identity import Process, wait_for_end
from daemonize.posix.loop import POLLIN, Loop
from daemonize.posix.signals import SIGHUP, SIGINT, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.launcher.files import Files
    from daemonize.launcher.request import Request
    from daemonize.posix.fds import Descriptors

_CHUNK = 65536
#: Seconds that a drain is given to write the last words of a server that failed.
_LAST_WORDS = 1.0
_IGNORED = (SIGHUP, SIGINT, SIGTERM)
_LOOK = 1.0  # seconds, where the kernel does not tell of the end of a process


class _Fifo:
    """A fifo for the server to continue in. read, hold: our ends of it. path: where it is."""

    def __init__(self, read: int, hold: int, path: bytes) -> None:
        self.read, self.hold, self.path = read, hold, path


class _Inputs:
    """What the drain reads, and where it goes. pipes: (feed, pipe) one after the other; told: who the main process is."""

    def __init__(self, told: int) -> None:
        self.told = told
        self.pipes: list[tuple[int, int, Log]] = []
        self.fifos: list[tuple[_Fifo, Log]] = []
        self.logs: list[Log] = []

    @property
    def all(self) -> set[int]:
        """The descriptors."""
        found = {self.told, *(log.fd for log in self.logs)}
        found.update(log.place[0] for log in self.logs if log.place)
        for feed, pipe, _ in self.pipes:
            found |= {feed, pipe}
        for fifo, _ in self.fifos:
            found |= {fifo.read, fifo.hold}
        return found


class LifelongDrain:
    """The wrapper's side. pid: of the drain, when it has been started. fifos: path by stream, for the server.

    Descriptors belong to `owner`: when it closes them, the drain goes on by itself.
    """

    def __init__(self, request: Request, owner: Descriptors, files: Files) -> None:
        self._owner, self.pid = owner, 0
        told, self._tell = owner.pipe()
        self._inputs = _Inputs(told)
        limit, keep = request.log_rotate or (0, 0)
        # Reversed: of one file for both, that of stdout has the place.
        logs = {
            fd: Log(fd, place=files.places.get(stream), limit=limit, keep=keep, stamped=request.timestamps)
            for stream, fd in reversed(files.logs.items())
        }
        self._logs = {stream: logs[fd] for stream, fd in files.logs.items()}
        self._inputs.logs = list(logs.values())
        by_log = {files.logs[stream]: path for stream, (_, path) in files.fifos.items()}
        self.fifos = {stream: by_log[fd] for stream, fd in files.logs.items() if fd in by_log}
        for stream, (read, path) in files.fifos.items():
            hold = owner.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            self._inputs.fifos.append((_Fifo(read, hold, path), self._logs[stream]))

    def take(
        self, stream: str, pipe: int, hear: Callable[[bytes], None] | None, *, fed: bool
    ) -> Callable[[bytes], None] | None:
        """Go on with a pipe of the server's when the launch is over; who is to hear what is relayed from it until then.

        hear: who is to hear it anyway. fed: whether it is for the log, too.
        """
        feed, write = self._owner.pipe()
        self._inputs.pipes.append((feed, pipe, self._logs[stream]))
        if not fed:
            return hear

        def both(data: bytes) -> None:
            self._feed(write, data)
            if hear:
                hear(data)

        return both

    def _feed(self, write: int, data: bytes) -> None:
        try:
            write_all(write, data)
        except OSError:
            pass  # it has been killed: that is seen when the launch is over

    def start(self) -> None:
        """Fork it. Raises SetupError."""
        inputs = self._inputs
        try:
            self.pid = drain.leave(inputs.all, lambda: _Drain(inputs).run(), _IGNORED)
        except OSError as error:
            raise SetupError("start", "the drain", error) from None
        kept = {pipe for _, pipe, _ in inputs.pipes}  # they are relayed from
        self._owner.shut(*(inputs.all - kept))

    def go_on(self, main: tuple[int, int] | None) -> None:
        """The launch is over, and the server stays: its main process is (pid, start time). Raises SetupError."""
        try:
            os.write(self._tell, b"%d %d" % (main or (0, 0)))
        except OSError as error:
            reason = OSError(error.errno, "it has been killed")
            raise SetupError("leave", "the drain", reason) from None

    def wait(self) -> None:
        """The server is gone: wait until its last words are written, but not for a disk that hangs."""
        try:
            if self.pid:
                wait_for_end(self.pid, _LAST_WORDS)
        except ProcessLookupError:
            pass


class _Drain:
    """The drain's side."""

    def __init__(self, inputs: _Inputs) -> None:
        self._inputs, self._loop = inputs, Loop()
        self._writers = {log: Writer(log) for log in inputs.logs}
        self._open: set[int] = set()
        self._main: Process | None = None

    def run(self) -> None:
        """Copy everything to its end."""
        os.chdir(b"/")  # the caller's directory may want to be unmounted one day
        for feed, pipe, log in self._inputs.pipes:
            self._watch(feed, log, lambda pipe=pipe, log=log: self._watch(pipe, log))  # type: ignore[misc]
        for fifo, log in self._inputs.fifos:
            self._watch(fifo.read, log)
        self._loop.watch(self._inputs.told, POLLIN, lambda _events: self._told())
        while self._open:
            blind = self._main is not None and self._main.fd is None
            self._loop.run_once(_LOOK if blind else None)
            if blind and self._main and self._main.ended:
                self._let_go()
        for fifo, _ in self._inputs.fifos:
            unlink_fifo(fifo.read, fifo.path)
        for writer in self._writers.values():
            writer.close(time())

    def _watch(self, source: int, log: Log, then: Callable[[], None] = lambda: None) -> None:
        self._open.add(source)
        self._loop.watch(source, POLLIN, lambda _events: self._copy(source, self._writers[log], then))

    def _copy(self, source: int, writer: Writer, then: Callable[[], None]) -> None:
        try:
            data = os.read(source, _CHUNK)
        except BlockingIOError:
            return
        if data:
            writer.put(data, time())
            return
        self._loop.forget(source)
        self._open.discard(source)
        if all(fifo.read != source for fifo, _ in self._inputs.fifos):  # they are claimed to the end
            os.close(source)
        then()

    def _told(self) -> None:
        """Who the main process is; end of file: nobody, for there is no server any more, or will not be for long."""
        self._loop.forget(self._inputs.told)
        pid, _, start = os.read(self._inputs.told, 64).partition(b" ")
        os.close(self._inputs.told)
        if not self._inputs.fifos:
            return
        try:
            self._main = Process(int(pid)) if int(pid or 0) else None
        except ProcessLookupError:
            self._main = None
        if self._main is None or self._main.start != int(start):
            self._let_go()
        elif self._main.fd is not None:
            self._loop.watch(self._main.fd, POLLIN, lambda _events: self._let_go())

    def _let_go(self) -> None:
        """The main process has ended: from now on a fifo that nobody writes to is at its end."""
        if self._main and self._main.fd is not None:
            self._loop.forget(self._main.fd)
        if self._main:
            self._main.close()
        self._main = None
        for fifo, _ in self._inputs.fifos:
            os.close(fifo.hold)
