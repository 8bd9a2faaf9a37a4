"""The server's side: what a forked process is made fit by, and the main loop."""

from __future__ import annotations

import gc
import io
import os
import select
import signal
import sys
import traceback
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from daemonize.channel import MessageChannel
from daemonize.channel_errors import (
    ChannelClosed,
    MessageTooLarge,
    PeerGone,
    RemoteError,
    UnexpectedMessage,
    UnknownMessage,
)
from daemonize.child_server import report
from daemonize.child_server.owner import Owner, OwnerEndedError
from daemonize.posix import fds, signals

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from daemonize.child_server.handlers import SignalHandler

    class Server(Protocol):
        """What the body is that of."""

        strict: bool
        stop_timeout: float
        max_size: int

        def initialize_server(self) -> None:
            """Before the main loop."""

        def finalize_server(self) -> None:
            """After it."""

        def _enter(self, body: Body) -> None:
            """This process is the server from now on."""

        def _handler_of(self, message: str) -> Callable[..., object] | None:
            """What handles messages of this name."""

        def _known(self) -> list[str]:
            """Names of messages."""

        def _handled_signals(self) -> Mapping[int, SignalHandler]:
            """Those that the user has defined."""


class Ends(NamedTuple):
    """What a server is given at its birth. capture: where descriptor 2 goes until it is initialised.

    owner: pid of who forks it, and a pidfd of that (None: this system has none). threads: whether more than one lived there.
    streams: what is to be stdout and stderr.
    """

    client: socket.socket
    report: socket.socket
    capture: int
    owner: tuple[int, int | None]
    keep: tuple[int, ...]
    collects: bool
    threads: bool
    streams: tuple[io.TextIOWrapper, io.TextIOWrapper]


#: What must not be finalized here: its descriptors have been closed, and their numbers may be another's.
_inherited: list[object] = []


def live(server: Server, ends: Ends) -> NoReturn:
    """Be the server, in a process just forked with all signals blocked, to its end."""
    status = 1
    try:
        status = _live(server, ends)
    except BaseException as error:  # noqa: BLE001 (nothing returns into the caller's stack)
        status = _status_of(error)
    finally:
        try:
            _flush()
        finally:
            os._exit(status)


def _live(server: Server, ends: Ends) -> int:
    signals.set_defaults()
    try:
        stderr = os.dup(2)
        os.dup2(ends.capture, 2)
        _settle(ends, stderr)
        owner = Owner(*ends.owner, server.stop_timeout)
        body = Body(server, MessageChannel(ends.client, max_size=server.max_size), owner)
        server._enter(body)  # noqa: SLF001 (of the same make)
        set_signals(server)
        owner.watch()
        signals.restore_mask(())
        body.initialize()
        owner.watch()
    except Exception as error:  # noqa: BLE001 (the owner raises it)
        signals.restore_mask(())
        report.tell(ends.report, error)
        # The owner looks first for whom this process has forked: then it ends them all.
        ends.report.recv(1)
        return 1
    _release(stderr)
    report.tell(ends.report)
    ends.report.close()
    body.serve()
    return 0


def _settle(ends: Ends, stderr: int) -> None:
    """Make of the copy of another process one that stands for itself."""
    gc.freeze()
    if ends.collects:
        gc.enable()
    _leave_event_loop()
    fds.sweep({ends.client.fileno(), ends.report.fileno(), stderr, *_numbers(ends.owner[1]), *ends.keep})
    _take_streams(ends)
    # Python has done that for its own (random).
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()


def _numbers(fd: int | None) -> tuple[int, ...]:
    return () if fd is None else (fd,)


def _leave_event_loop() -> None:
    """The owner may be in one: it is none of ours, nor is the descriptor that tells it of signals."""
    signal.set_wakeup_fd(-1)
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or not hasattr(asyncio, "_get_running_loop"):
        return
    _inherited.append(asyncio._get_running_loop())  # noqa: SLF001 (for those who make loops)
    asyncio._set_running_loop(None)  # noqa: SLF001 (likewise)
    policy: Any = getattr(asyncio.events, "_event_loop_policy", None)
    if local := getattr(policy, "_local", None):
        _inherited.append(local)
        policy._local = type(local)()  # noqa: SLF001 (as asyncio does itself from 3.12 on)


def streams() -> tuple[io.TextIOWrapper, io.TextIOWrapper]:
    """For a server: stdout and stderr without a buffer. Made in the owner, whose memory it need not copy for that."""
    return _stream(sys.stdout, 1, "strict"), _stream(sys.stderr, 2, "backslashreplace")


def _stream(old: Any, number: int, errors: str) -> io.TextIOWrapper:
    encoding, errors = getattr(old, "encoding", None) or "utf-8", getattr(old, "errors", None) or errors
    raw: Any = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding=encoding, errors=errors, write_through=True)


def _take_streams(ends: Ends) -> None:
    """What the owner had buffered stays in the old ones.

    They are not touched where another thread may have used them at the fork: their locks would be held for ever.
    """
    for name, stream in zip(("stdout", "stderr"), ends.streams, strict=True):
        old = getattr(sys, name)
        _inherited.append(old)
        if isinstance(old, io.TextIOWrapper) and not ends.threads:
            old.reconfigure(line_buffering=True)  # for whoever has kept it, as logging does
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _release(stderr: int) -> None:
    """Descriptor 2 is again what it was, and what has been said meanwhile is said there."""
    size = os.fstat(2).st_size
    said = os.pread(2, size, 0) if size else b""
    os.dup2(stderr, 2)
    os.close(stderr)
    try:
        fds.write_all(2, said)
    except OSError:
        pass  # nobody is there to read it


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112 (whatever the user has put there)
            continue


def _status_of(error: BaseException) -> int:
    """The exit status of a server that ends with an exception, which is shown, unless it means just that."""
    if isinstance(error, OwnerEndedError):
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)  # noqa: T201 (as Python does)
        return 1
    traceback.print_exception(error)
    return 1


def set_signals(server: Server) -> None:
    """Ignore those that Python ignores, and SIGHUP; then what the user has defined. All others are at their default."""
    for ignored in (signals.SIGPIPE, signals.SIGXFSZ, signals.SIGHUP):
        signals.ignore(ignored)
    for number, handler in server._handled_signals().items():  # noqa: SLF001 (of the same make)
        signals.handle(number, handler)


_bodies: weakref.WeakSet[Body] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked child of a server's: the client is to see the end of it, also where that child lives on."""
    for body in list(_bodies):
        body.close()


os.register_at_fork(after_in_child=_let_go)


class Body:
    """What makes a server of its process. client: its end of the channel. owner: None for a synchronous run."""

    def __init__(self, server: Server, client: MessageChannel, owner: Owner | None = None) -> None:
        self.client, self.pid = client, os.getpid()
        self._server, self._owner = server, owner
        self._quitting = False
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        _bodies.add(self)

    def quit(self) -> None:
        """Leave the main loop after the message that is being handled. Also for signal handlers, and other threads."""
        self._quitting = True
        try:
            os.write(self._wake, b"\0")
        except BlockingIOError:
            pass  # it will wake

    def close(self) -> None:
        """Give everything back."""
        _bodies.discard(self)
        self.client.close()
        os.close(self._woken)
        os.close(self._wake)

    def initialize(self) -> None:
        """Raises whatever it raises."""
        with self._owner.interrupts() if self._owner else nullcontext():
            self._server.initialize_server()

    def serve(self) -> None:
        """Until the end. Raises what a handler of a signal has raised, and a handler of a message, if that is strict."""
        try:
            self._loop()
        except OwnerEndedError:
            pass
        finally:
            self._server.finalize_server()

    def _loop(self) -> None:
        poll = select.poll()
        for fd in (self.client.fileno(), self._woken, *_numbers(self._owner.fd if self._owner else None)):
            poll.register(fd, select.POLLIN)
        while self._awaits_message(poll):
            try:
                message = self.client.read()
            except (UnexpectedMessage, MessageTooLarge) as error:
                self.client.skip()
                self._answer(error, "")
            except RemoteError as error:
                self._answer(error, "")
            else:
                if message is None:
                    return
                self._handle(message)

    def _awaits_message(self, poll: select.poll) -> bool:
        """Whether there is one, or the end of them."""
        while not (self._quitting or self.client.closed or (self._owner and self._owner.overdue)):
            ready = {fd for fd, _ in poll.poll()}
            if self._woken in ready:
                continue
            # What the owner has still written comes before its end.
            if self.client.fileno() in ready:
                return True
            if self._owner and self._owner.fd in ready:
                return False
        return False

    def _handle(self, message: list[str]) -> None:
        name, *arguments = message or [""]
        handler = self._server._handler_of(name)  # noqa: SLF001 (of the same make)
        if handler is None:
            self._answer(UnknownMessage.of(name, self._server._known()), name)  # noqa: SLF001 (likewise)
            return
        try:
            with self._owner.interrupts() if self._owner else nullcontext():
                handler(*arguments)
        except Exception as error:  # noqa: BLE001 (it is the answer)
            here = error.__traceback__
            self._answer(error.with_traceback(here.tb_next if here and here.tb_next else here), name)

    def _answer(self, error: Exception, name: str) -> None:
        if isinstance(error, (PeerGone, ChannelClosed)) and (self.client.closed or self._is_left()):
            return  # the next look shows that it is over
        if self._server.strict:
            raise error
        try:
            self.client.write_error(error, message=name)
        except (PeerGone, ChannelClosed):
            pass  # likewise

    def _is_left(self) -> bool:
        poll = select.poll()
        poll.register(self.client.fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))
