"""Relay what a server says to descriptors of the caller's: unchanged, unbuffered, and never blocked by the reader.

    server ── pipe ──▶ PipeRelay ──▶ Sink ──▶ the caller's stdout or stderr

The caller's descriptors are shared with other processes, so O_NONBLOCK is never set on them: a pipe or a terminal is
opened anew, and a socket is written with MSG_DONTWAIT.
A reader that has gone (EPIPE) or cannot take more (ENOSPC) ends the relaying, not the server: the rest is read and
thrown away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from daemonize.posix.fds import is_writable
from daemonize.posix.loop import POLLHUP, POLLIN, POLLOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Protocol

    from daemonize.posix.loop import Loop

    class Screen(Protocol):
        """Somebody who has something on a terminal that is also written to by others."""

        def clear(self) -> None:
            """Take it away."""

        def wrote(self, last: int) -> None:
            """Somebody has written; the last byte of it."""


_CHUNK = 65536
_SPLICE_CHUNK = 1 << 20
_ROUNDS = 16  # at most so many chunks before the loop looks at everything else again
_BULK = 1 << 18  # after so many bytes the pipe is made larger: most servers say a few lines
_BULK_PIPE = 1 << 20
_SMALL_CHUNK = 64  # what a terminal or pipe that poll(2) calls writable takes without waiting, tabs expanded

_splice: Callable[..., int] | None = getattr(os, "splice", None)
_SPLICE_FLAGS = 1 | 2  # SPLICE_F_MOVE, SPLICE_F_NONBLOCK (splice(2); Python names them from 3.14 on)


class Sink:
    """A descriptor of the caller's that is written to without ever waiting for its reader. None: nowhere.

    error: what ended it, or None; from then on everything is thrown away. fd: what to poll for POLLOUT. may_show: whether
    it is a terminal, or a pipe, which may lead to one. screen: who else writes to that terminal, to be told of every write.
    Raises OSError when there is no descriptor to be had.
    """

    def __init__(self, fd: int | None) -> None:
        self.fd = -1
        self.error: OSError | None = None
        self.discards = fd is None
        self.splices = self.may_show = False
        self.screen: Screen | None = None
        self._socket: socket | None = None
        self._limit = _CHUNK
        self._write: Callable[[memoryview], int] = self._write_descriptor
        if fd is not None:
            self._open(fd)

    def _open(self, fd: int) -> None:
        try:
            mode = os.fstat(fd).st_mode
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        except OSError as error:  # not open
            self.fail(error)
            return
        # A duplicate: two sinks may be given one descriptor, and each is polled for itself.
        self.fd = os.dup(fd)
        if stat.S_ISSOCK(mode):
            self._open_socket()
            return
        terminal = os.isatty(fd)
        self.may_show = terminal or stat.S_ISFIFO(mode)
        if self.may_show:
            self._open_anew(fd)
        self.splices = _splice is not None and not terminal and not flags & os.O_APPEND

    def _open_anew(self, fd: int) -> None:
        """An open file description of our own, so that O_NONBLOCK does not show in the caller's."""
        try:
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # no /proc, or another user's (su): small portions, each after a poll
            self._limit = _SMALL_CHUNK
        else:
            os.close(self.fd)
            self.fd = own

    def _open_socket(self) -> None:
        from _socket import MSG_DONTWAIT, socket

        connection = self._socket = socket(fileno=self.fd)
        self._write = lambda data: connection.send(data, MSG_DONTWAIT)

    def _write_descriptor(self, data: memoryview) -> int:
        return os.write(self.fd, data[: self._limit])

    def write(self, data: memoryview) -> int:
        """Write some of data; returns how much, 0 when the reader is not ready. Poll for POLLOUT before it."""
        if self.discards:
            return len(data)
        if self.screen:
            self.screen.clear()
        try:
            written = self._write(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.fail(error)
            return len(data)
        if self.screen and written:
            self.screen.wrote(data[written - 1])
        return written

    def fail(self, error: OSError) -> None:
        """From now on throw everything away."""
        self.error, self.discards, self.splices = error, True, False

    def close(self) -> None:
        """Give back what was opened here; the caller's descriptor stays as it was."""
        if self.fd >= 0:
            if self._socket:
                self._socket.detach()
            os.close(self.fd)
            self.fd = -1


class Relay:
    """What the relays of a pipe and of a file have in common: a buffer of at most one chunk, and a reader to wait for.

    total: bytes taken from the server. tail: the last `keep` bytes of them (0: none are kept). hear: is given all of them,
    before the reader is.
    """

    def __init__(self, loop: Loop, sink: Sink, keep: int, hear: Callable[[bytes], None] | None) -> None:
        self.loop, self.sink, self.keep, self.hear = loop, sink, keep, hear
        self.total = 0
        self.tail = b""
        self._pending = memoryview(b"")
        self._waiting = False

    @property
    def stalled(self) -> bool:
        """Whether we wait for the reader on the caller's side."""
        return self._waiting

    def _take(self, data: bytes) -> None:
        self.total += len(data)
        if self.keep:
            self.tail = (self.tail + data)[-self.keep :]
        if self.hear:
            self.hear(data)
        self._pending = memoryview(data)

    def _flush(self) -> bool:
        """Write what is pending; False, and a watch for the reader, if it does not take it all now."""
        while self._pending:
            if not self._writable():
                return self._wait_for_reader()
            written = self.sink.write(self._pending)
            if not written:
                return self._wait_for_reader()
            self._pending = self._pending[written:]
        return True

    def _writable(self) -> bool:
        """Ask before every write: on a descriptor we cannot make non-blocking, a second write could wait."""
        return self.sink.discards or is_writable(self.sink.fd)

    def _wait_for_reader(self) -> bool:
        if not self._waiting:
            self._waiting = True
            self._pause()
            self.loop.watch(self.sink.fd, POLLOUT, self._reader_is_back)
        return False

    def _reader_is_back(self, _events: int) -> None:
        self._stop_waiting()
        self._resume()

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            self.loop.forget(self.sink.fd)

    def _pause(self) -> None:
        """Take nothing from the server for now."""

    def _resume(self) -> None:
        """Go on."""


class PipeRelay(Relay):
    """From the read end of a pipe (owned by the caller of this class) to a sink, with splice(2) where that works.

    hung_up: no process holds the write end any more. It is seen at once, also while the reader on our side is slow.
    finished: nothing more will come. `on_hang_up` is called once.
    """

    def __init__(
        self,
        loop: Loop,
        source: int,
        sink: Sink,
        *,
        keep: int = 0,
        hear: Callable[[bytes], None] | None = None,
        on_hang_up: Callable[[], None],
    ) -> None:
        super().__init__(loop, sink, keep, hear)
        self.source = source
        self.hung_up = self.finished = False
        self._on_hang_up = on_hang_up
        self._pipe_size = 0
        self._goal: int | None = None
        os.set_blocking(source, False)
        loop.watch(source, POLLIN, self._readable)

    def _readable(self, events: int) -> None:
        if events & POLLHUP and not self.hung_up:
            self.hung_up = True
            self._on_hang_up()
        if self._waiting:
            # Level-triggered: a hang-up would wake us again and again until the reader has taken the rest.
            self.loop.forget(self.source)
        else:
            self._move()

    def _pause(self) -> None:
        if self.hung_up:
            self.loop.forget(self.source)
        else:
            self.loop.watch(self.source, 0, self._readable)

    def _resume(self) -> None:
        self.loop.watch(self.source, POLLIN, self._readable)
        self._move()

    def _move(self) -> None:
        for _ in range(_ROUNDS):
            if not self._flush():
                return
            if self._goal is not None and self.caught_up:
                self.loop.watch(self.source, 0, self._readable)  # the rest is for whoever comes after us
                return
            if not self._move_some():
                return

    def _move_some(self) -> bool:
        """One chunk; False when there is no more now, at the end, or when the reader must be waited for."""
        in_bulk = self._in_bulk
        try:
            moved = self._splice() if in_bulk else self._copy()
        except BlockingIOError:
            return in_bulk and self._blocked()
        if not moved:
            self._finish()
            return False
        if self.total > _BULK and not self._pipe_size:
            self._enlarge()
        return self._flush()

    @property
    def _in_bulk(self) -> bool:
        """Whether so much is relayed that splice(2) is of use, and the reader reads.

        It hands on each write of the server as a buffer of its own, and a pipe has 16 of them: a few words would fill the
        reader's, and a caller who reads stderr only when stdout has ended would wait for ever.
        """
        seen = self.keep or self.hear or self.sink.screen
        return self.sink.splices and not seen and self.total > _BULK

    def _splice(self) -> int:
        if _splice is None:
            return self._copy()
        try:
            moved: int = _splice(self.source, self.sink.fd, _SPLICE_CHUNK, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            raise
        except OSError as error:
            # EINVAL: not this kind of descriptor; read and write it. Anything else is the reader's end.
            self.sink.splices = False
            if error.errno != errno.EINVAL:
                self.sink.fail(error)
            return self._copy()
        self.total += moved
        return moved

    def _copy(self) -> int:
        data = os.read(self.source, _CHUNK)
        self._take(data)
        return len(data)

    def _blocked(self) -> bool:
        """EAGAIN of splice(2) has two reasons: the pipe is empty, or the reader's is full. Only the second is waited for."""
        if self.sink.splices and self.available():
            return self._wait_for_reader()
        return False

    def _enlarge(self) -> None:
        try:
            self._pipe_size = fcntl.fcntl(self.source, fcntl.F_SETPIPE_SZ, _BULK_PIPE)
        except (AttributeError, OSError):  # not Linux, or the user's limit for pipes is reached
            self._pipe_size = _CHUNK

    def available(self) -> int:
        """Bytes in the pipe."""
        from termios import FIONREAD

        return int.from_bytes(fcntl.ioctl(self.source, FIONREAD, bytes(4)), "little")

    @property
    def full(self) -> bool:
        """Whether the server would have to wait for our reader before it could say more."""
        if not self._waiting or self.hung_up:
            return False
        try:
            # Small writes leave gaps in the pages of a pipe, so only the kernel knows, and it tells writers.
            write_end = os.open(f"/proc/self/fd/{self.source}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return self.available() > 0
        full = not is_writable(write_end)
        os.close(write_end)
        return full

    def mark(self) -> None:
        """Note how much there is now: `caught_up` then means that all of it has been relayed.

        No more than that is taken until `unmark`: a server that goes on writing faster than the reader reads would keep us.
        """
        if not self.hung_up:
            self._goal = self.total + self.available()

    def unmark(self) -> None:
        """The launch goes on."""
        if self._goal is not None:
            self._goal = None
            if not self.finished and not self._waiting:
                self.loop.watch(self.source, POLLIN, self._readable)

    @property
    def caught_up(self) -> bool:
        """Whether everything up to `mark` (or the end) has been handed to the reader."""
        if (
            self._pending or self.hung_up
        ):  # at the end nobody can add anything: all of it belongs to the launch
            return self.finished and not self._pending
        return self._goal is not None and self.total >= self._goal

    def _finish(self) -> None:
        self.finished = True
        self.loop.forget(self.source)
        if not self.hung_up:
            self.hung_up = True
            self._on_hang_up()

    def stop(self) -> None:
        """Relay no more; the pipe stays as it is, to be closed or given to a drain."""
        self.loop.forget(self.source)
        self._stop_waiting()
