"""`ChildServer`: the owner's side."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from daemonize.channel import MessageChannel
from daemonize.channel.end import MAX_SIZE, checked_size
from daemonize.child_errors import ServerAlreadyStarted, ServerNotStarted
from daemonize.child_server import birth, handlers
from daemonize.child_server.body import Body, set_signals
from daemonize.child_server.running import Running, locking, lost, reap_lost
from daemonize.errors import InvalidState, UsageError
from daemonize.posix import signals
from daemonize.units import seconds_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from daemonize.channel.codec import HasFileno
    from daemonize.child_server.handlers import SignalHandler
    from daemonize.offspring.process import Child

#: Seconds for each step of a stop.
STOP_TIMEOUT = 3.0


class ChildServer:
    """A server in a child process that has one client, its owner: subclass it.

    `initialize_server`, handlers of messages and `finalize_server` run in the server; a message is a list of strings, of
    which the first is its name, and the others are the arguments of its handler. What a handler answers it writes to
    `client`. An exception in one, and a message that has none, are answered with an error, which the owner's next read
    raises (RemoteError, UnknownMessage); it names the message that it answers. The server goes on, unless strict.

    strict: the first of those ends the server, with status 1. stop_timeout: seconds (or "5s") for each step of `stop`.
    keep_fds: descriptors, or files, that the server is to have beside 0, 1, 2 and its own. timeout: seconds (or "5s") that
    a call of the owner's end may wait, None: for ever. max_size: bytes of a message that is read.

    In the server, every signal has its default, but for SIGPIPE and SIGXFSZ, which Python ignores, and SIGHUP; random
    generators are seeded anew; what the owner has registered for its exit never runs. It ends with its owner, also when
    that is killed. A context manager, which starts and stops it. It may be started again. Any thread may use it. Raises
    UsageError.
    """

    _declared: ClassVar[dict[str, str]] = {}
    _messages: dict[str, Callable[..., object] | str]
    _signals: dict[int, SignalHandler]
    _running: Running | None
    _starting: bool
    _body: Body | None
    _status: int | None
    _stopped: bool
    #: As of one that is made without a word, also by a subclass that forgets to call __init__.
    strict = False
    stop_timeout: float = STOP_TIMEOUT
    timeout: float | None = None
    max_size = MAX_SIZE
    _keep: tuple[HasFileno | int, ...] = ()

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        cls._declared = handlers.declared(cls)
        for method in cls._declared.values():
            if hasattr(ChildServer, method):
                raise UsageError(
                    f"{method} is something else of a ChildServer: name the method otherwise, and the message as it "
                    f"pleases you: @message_handler({method!r})"
                )

    def __new__(cls, *_args: object, **_settings: object) -> Self:
        """Not in __init__, which subclasses forget to call."""
        self = super().__new__(cls)
        self._messages, self._signals = {}, {}
        self.renew_locks()
        locking[id(self)] = self
        self._running = self._body = self._status = None
        self._stopped = False
        return self

    def __init__(
        self,
        *,
        strict: bool = False,
        stop_timeout: float | str = STOP_TIMEOUT,
        keep_fds: Sequence[HasFileno | int] = (),
        timeout: float | str | None = None,
        max_size: int = MAX_SIZE,
    ) -> None:
        self.strict = bool(strict)
        self.stop_timeout = seconds_of("stop_timeout", stop_timeout)
        self.timeout = None if timeout is None else seconds_of("timeout", timeout)
        self.max_size = checked_size(max_size)
        try:
            self._keep = tuple(keep_fds)
        except TypeError:
            raise UsageError(f"keep_fds is a list of descriptors or files, and not {keep_fds!r}") from None

    # -- what a subclass has ------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """In the owner, before the server is forked."""

    def initialize_server(self) -> None:
        """In the server: `start` returns when this does, and raises what it raises."""

    def finalize_server(self) -> None:
        """In the server, when it leaves the main loop, for whatever reason but a signal that ends it."""

    def define_message_handler(self, name: str, handler: Callable[..., object] | str) -> None:
        """handler: called with the arguments of messages of this name; or the name of a method. Raises UsageError.

        What is defined while the server runs holds from the next start on; in the server itself, at once.
        """
        function = getattr(self, handler, None) if isinstance(handler, str) else handler
        if not callable(function):
            raise UsageError(f"a handler is a function, or the name of a method, and {handler!r} is neither")
        handlers.refuse_async(function)
        self._messages[handlers.checked_name(name)] = handler

    def define_signal_handler(self, number: int | str, handler: SignalHandler) -> None:
        """handler: as of `signal.signal`; number: or the signal's name. Raises UsageError.

        Handlers of signals run between two steps of whatever the server does; `quit_main` may be called in them.
        """
        number, handler = handlers.checked_signal(number), handlers.checked_handler(handler)
        here = self._body is not None and self._body.pid == os.getpid()
        if here and threading.current_thread() is not threading.main_thread():
            raise UsageError("only the main thread of a server can set a handler of a signal")
        self._signals[number] = handler
        if here:
            signal.signal(number, handler)

    def quit_main(self) -> None:
        """In the server: leave the main loop after this message. Raises InvalidState elsewhere."""
        self._here.quit()

    @property
    def client(self) -> MessageChannel:
        """In the server: its end of the channel. Raises InvalidState elsewhere."""
        return self._here.client

    @property
    def _here(self) -> Body:
        if self._body is None or self._body.pid != os.getpid():
            raise InvalidState(
                f"only {self._name} itself, in its own process, has a client and a main loop; its owner has `server`"
            )
        return self._body

    # -- what its owner has -------------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether it has been started by this process, and not stopped since; it may have died."""
        return self._running is not None and not self._running.foreign

    @property
    def alive(self) -> bool:
        """Whether it has been started, and lives; one that has closed its end of the channel is about to end."""
        running = self._running
        if running is None or running.foreign or running.child.look():
            return False
        return running.channel.closed or running.channel.has_peer

    @property
    def server_pid(self) -> int | None:
        """Of the server, also when it has died; None: it has not been started, or has been stopped."""
        return self._running.child.pid if self._running else None

    @property
    def exit_status(self) -> int | None:
        """Of the last server, 128+N if it died of signal N.

        None: it runs, there has been none, or somebody else has reaped it. (Of a start that failed: ServerError.status.)
        """
        if self._running and not self._running.foreign:
            self._running.child.look()
        return self._running.child.status if self._running else self._status

    @property
    def server(self) -> MessageChannel:
        """The owner's end of the channel. If the server has died, what is read is None, and a write raises PeerGone.

        Raises ServerNotStarted.
        """
        running = self._owned(self._running)
        return running.channel

    def start(self) -> Self:
        """Fork the server, and return when it is initialised.

        Raises ServerAlreadyStarted; what `initialize_server` has raised, its cause a ServerError with the traceback and
        what was written to stderr, or that alone where the exception cannot be pickled, or the process has ended;
        SetupError, UsageError. Nothing runs then, and it may be tried again.
        """
        self._refuse_elsewhere()
        with self._lock:
            if self._running or self._starting:
                raise ServerAlreadyStarted(self._name, self.server_pid)
            self._starting = True
            try:
                self.before_fork()
                reap_lost()
                birth.bear(self, self._name, self._keep, self.stop_timeout, self._take)
            except BaseException:
                self._running = None
                raise
            finally:
                self._starting = False
        return self

    def stop(self) -> None:
        """End the server, and reap it: by end of file, SIGTERM after `stop_timeout` seconds, SIGKILL after as many more.

        If it comes to SIGTERM, what is below it gets the same. Raises ServerNotStarted, StillRunning.
        """
        self._refuse_elsewhere()
        with self._lock:
            running = self._owned(self._running)
            # The end of file comes also where another process has a copy of this end.
            running.channel.hang_up()
            if not running.child.wait(self.stop_timeout):
                running.child.end(self.stop_timeout)
            self._status, self._running, self._stopped = running.child.status, None, True
            running.close()

    def start_synchronously(self, sock: socket.socket | int) -> None:
        """Be the server in this process, until the other end of the socket is closed or `quit_main` is called.

        All hooks are called but `before_fork`. The socket is closed afterwards. Signal handlers and mask are then what
        they were. Only the main thread can set handlers of signals: in another one the server lives with those there are.
        Raises UsageError; whatever a hook raises; and, if strict, a handler.
        """
        main = threading.current_thread() is threading.main_thread()
        if self._signals and not main:
            raise UsageError("only the main thread can be a server with handlers of signals")
        with self._lock:
            if self._running or self._starting or self._body:
                raise ServerAlreadyStarted(self._name, self.server_pid)
            body = Body(self, MessageChannel(sock, max_size=self.max_size))
            self._body = body
        try:
            with signals.AllDefault() if main else nullcontext():
                if main:
                    set_signals(self)
                    signals.restore_mask(())
                body.run()
        finally:
            self._body = None
            body.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.started:
            self.stop()

    def __repr__(self) -> str:
        state = f"pid {self.server_pid}" if self.alive else "dead" if self.started else "not started"
        return f"<{self._name}: {state}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        """Two objects for one process: what became of one of them would end the server of the other."""
        raise TypeError(f"{self._name} stands for a process, and cannot be copied or pickled")

    def __del__(self) -> None:
        running = self.__dict__.get("_running")
        if running is None or running.foreign or sys.is_finalizing():
            return
        try:
            warnings.warn(f"{self!r} was not stopped", ResourceWarning, stacklevel=2, source=self)
        finally:  # a warning may be an error
            self._running = None
            running.channel.close()
            lost.append(running.child)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _owned(self, running: Running | None) -> Running:
        self._refuse_elsewhere()
        if running is None:
            raise ServerNotStarted(self._name, stopped=self._stopped)
        return running

    def _refuse_elsewhere(self) -> None:
        if self._body and self._body.pid == os.getpid():
            raise InvalidState(
                f"this is {self._name} itself: only its owner starts, stops, and has `server`; here it is `client`"
            )
        if self._running and self._running.foreign:
            raise InvalidState(
                f"{self._name} is the server of process {self._running.owner}, from which this one was forked: "
                "make another one"
            )

    def renew_locks(self) -> None:
        """Not for users: in a forked child, nobody is in the middle of anything."""
        self._lock, self._starting = threading.RLock(), False

    # -- what its body asks for ---------------------------------------------------------------------------------------

    def _take(self, child: Child, sock: socket.socket) -> None:
        self._running = Running(child, MessageChannel(sock, timeout=self.timeout, max_size=self.max_size))
        self._status = None

    def _enter(self, body: Body) -> None:
        self._body, self._running = body, None
        self._lock = threading.RLock()

    def _handler_of(self, message: str) -> Callable[..., object] | None:
        handler = self._messages.get(message) or self._declared.get(message)
        found: Any = getattr(self, handler) if isinstance(handler, str) else handler
        return found  # type: ignore[no-any-return]

    def _known(self) -> list[str]:
        return [*self._messages, *self._declared]

    def _handled_signals(self) -> Mapping[int, SignalHandler]:
        return self._signals
