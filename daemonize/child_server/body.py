"""The server's side: its main loop, in a process of its own (live.py) or in the caller's."""

from __future__ import annotations

import os
import select
import warnings
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING

from daemonize.channel_errors import (
    ChannelClosed,
    MalformedMessage,
    MessageTooLarge,
    PeerGone,
    RemoteError,
    TruncatedMessage,
    UnexpectedMessage,
    UnknownMessage,
)
from daemonize.child_server.owner import Owner, OwnerEndedError
from daemonize.posix import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from daemonize.channel import MessageChannel
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


_RETURNED = "what the handler of '{name}' returns is not sent: write the answer to self.client"


def numbers(fd: int | None) -> tuple[int, ...]:
    """What is there of it."""
    return () if fd is None else (fd,)


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
        self.initialized = self._quitting = False
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

    def run(self, begin: Callable[[], object] = lambda: None) -> None:
        """From initialize_server to finalize_server, which runs if the former has come to its end.

        begin: called between that and the main loop. Raises what the hooks raise, what a handler of a signal raises, and a
        handler of a message, if that is strict.
        """
        try:
            self._initialize()
            begin()
            self._loop()
        except OwnerEndedError:
            pass
        finally:
            if self.initialized:
                self._server.finalize_server()

    def _initialize(self) -> None:
        with self._owner.interrupts() if self._owner else nullcontext():
            self._server.initialize_server()
            self.initialized = True

    def _loop(self) -> None:
        poll = select.poll()
        for fd in (self.client.fileno(), self._woken, *numbers(self._owner.fd if self._owner else None)):
            poll.register(fd, select.POLLIN)
        while self._awaits_message(poll):
            try:
                message = self.client.read()
            except (UnexpectedMessage, MessageTooLarge) as error:
                self.client.skip()
                self._answer(error, "")
            except RemoteError as error:
                self._answer(error, "")
            except TruncatedMessage:
                return  # the owner has been killed as it wrote: its end, and no fault of the server's
            except MalformedMessage as error:
                self._answer(error, "")
                return  # whoever writes that may write anything next
            else:
                if message is None:
                    return
                self._handle(message)

    def _awaits_message(self, poll: select.poll) -> bool:
        """Whether there is one, or the end of them."""
        while not (self._quitting or self.client.closed or (self._owner and self._owner.overdue)):
            ready = dict(poll.poll())
            # A handler has closed what it did not open: a number may be another's next, and poll(2) never waits again.
            if any(events & select.POLLNVAL for events in ready.values()):
                return False
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
                if handler(*arguments) is not None:
                    warnings.warn(_RETURNED.format(name=name), RuntimeWarning, stacklevel=1)
        except Exception as error:  # noqa: BLE001 (it is the answer)
            here = error.__traceback__
            self._answer(error.with_traceback(here.tb_next if here and here.tb_next else here), name)

    def _answer(self, error: Exception, name: str) -> None:
        if isinstance(error, (PeerGone, ChannelClosed)) and (self.client.closed or not self.client.has_peer):
            return  # the next look shows that it is over
        if self._server.strict:
            raise error
        try:
            self.client.write_error(error, message=name)
        except (PeerGone, ChannelClosed):
            pass  # likewise
