"""What the keeper forks for a request: the wrapper of one launch, or one that keeps its server.

    owner ─┬─ "stop", "signal" ──▶ wrapper ── fork ── server (a session of its own)
           ◀── "ready", "ended" ──────┘ reaps, adopts what is left behind, and stops all of it

A server that is kept ends with those who use it: when each has closed its socket, or has died.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
from functools import cache
from typing import TYPE_CHECKING, Any

from daemonize.errors import DaemonizeError, LaunchError, SetupError
from daemonize.launcher.environment import caller_environment, unmanaged
from daemonize.launcher.files import STREAMS
from daemonize.launcher.foreground import Foreground
from daemonize.launcher.orders import Began, Ended, Forked, Order
from daemonize.launcher.outputs import Targets
from daemonize.launcher.request import Request
from daemonize.launcher.wrapper import Wrapper
from daemonize.outcomes import Cancelled
from daemonize.posix import child, fds, frames, signals
from daemonize.posix.identity import has_proc, pidfd_open, read_stat
from daemonize.posix.loop import POLLIN
from daemonize.posix.sockets import peer_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemonize.launcher.ready import Ready


def refuse(answers: int, error: OSError) -> None:
    """Tell an owner that its order cannot be carried out."""
    sock = socket.socket(fileno=os.dup(answers))
    _tell(sock, Ended(SetupError("fork", "a wrapper", error), None, []))
    sock.close()


def rehearse() -> None:
    """Make, and throw away, what every server that is kept needs: by the time that there is an order, it is in memory."""
    ours, theirs = socket.socketpair()
    null = os.open(os.devnull, os.O_RDWR)
    request = Request(["true"], ready=("port:1",), stdout=os.devnull, stderr=os.devnull, foreground=True)
    here = _keepers_environment()
    order = Order(True, False, request, Targets(null, null), None, signals.SIGTERM, here, 0)
    kept = Kept(pickle.loads(pickle.dumps(order)), b"", User(theirs, None), None)  # noqa: S301 (our own)
    kept.rehearse()
    for end in (ours, theirs):
        end.close()
    os.close(null)


def serve(message: bytes, passed: Sequence[int], token: bytes, owner: int | None) -> None:
    """In a freshly forked process of the keeper: carry an order out. owner: a pidfd."""
    order: Order = pickle.loads(message)  # noqa: S301 (from the process that executed us)
    if order.keeps:
        # Whoever waits to be told of the owner waits for nothing of a server that it keeps.
        order = order._replace(environment=unmanaged(order.environment))
    answers_fd, directory, *rest = passed
    numbers = order.request.keep_fds
    answers_fd, directory, *rest = (fds.away(fd, numbers) for fd in passed)
    owner = None if owner is None else fds.away(owner, numbers)
    answers = socket.socket(fileno=answers_fd)
    try:
        others = _settle(order, directory, rest)
        if order.keeps:
            Kept(order, token, User(answers, owner), others).keep()
            return
        gone = _CallerGone(answers_fd, owner)
        answer: object = Wrapper(order.request, order.targets, queue=gone, token=token).run()
    except DaemonizeError as error:
        answer = Ended(error, None, []) if order.keeps else error
    except Exception as error:  # noqa: BLE001 (the owner gets it in any case)
        failure = SetupError("carry out", "the launch", OSError(0, f"internal error: {error!r}"))
        answer = Ended(failure, None, []) if order.keeps else failure
    _tell(answers, answer)


def _settle(order: Order, directory: int, rest: list[int]) -> socket.socket | None:
    """Be where the owner is, and have its descriptors where it has them. The socket that others come to, if there is one."""
    _set_environment(order.environment)
    os.umask(order.umask)
    os.fchdir(directory)
    os.close(directory)
    request, targets = order.request, order.targets
    others = socket.socket(fileno=rest.pop()) if order.is_shared else None
    if targets.stdout is not None:
        targets.stdout = rest.pop(0)
    if targets.stderr is not None:
        targets.stderr = rest.pop(0)
    for number, fd in zip(request.keep_fds, rest, strict=True):
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
    if order.keeps:
        _write_to(request, targets)
    return others


def _set_environment(wanted: dict[bytes, bytes]) -> None:
    """Most of it is as it was."""
    there = _keepers_environment()
    for name in there.keys() - wanted.keys():
        del os.environb[name]
    for name, value in wanted.items():
        if there.get(name) != value:
            os.environb[name] = value


@cache
def _keepers_environment() -> dict[bytes, bytes]:
    """That of this process, until it has an order: when it rehearses, there is time to look."""
    return caller_environment()


def _write_to(request: Request, logs: Targets) -> None:
    """The server writes to files that have no name. By this one it can open them itself, as long as we are there."""
    base = f"/proc/{os.getpid()}/fd" if has_proc() else "/dev/fd"
    request.stdout, request.stderr = (f"{base}/{fd}".encode() for fd in (logs.stdout, logs.stderr))
    request.append = True


def _tell(sock: socket.socket, message: object, fds: Sequence[int] = ()) -> None:
    try:
        frames.send(sock, pickle.dumps(message), fds)
    except OSError:
        pass  # nobody wants to know any more


class _CallerGone(signals.SignalSource):
    """The end of the caller's socket, or of the caller, as a source of signals: a SIGTERM."""

    def __init__(self, answers: int, owner: int | None) -> None:
        self.fd = answers
        if owner is not None:
            self._poll = select.epoll()
            for fd in (answers, owner):
                self._poll.register(fd, select.EPOLLIN)
            self.fd = self._poll.fileno()

    def read(self) -> list[tuple[int, int | None]]:
        """Called when either is readable, which is at its end."""
        self.ended = True
        return [(signals.SIGTERM, None)]


class User:
    """Who uses a server that is kept. sock: messages go both ways. process: a pidfd of it, or None where there are none."""

    def __init__(self, sock: socket.socket, process: int | None) -> None:
        self.sock, self.process = sock, process

    @property
    def descriptors(self) -> list[int]:
        """What becomes readable when there is a message from it, or none will come any more."""
        return [self.sock.fileno(), *([] if self.process is None else [self.process])]


class _Program(child.Program):
    """Leads a session of its own: what a terminal says to our owner, and `kill 0` of the server's, is not for the other."""

    def set_signals(self) -> None:
        """The session first: a look from outside must find the server in it."""
        os.setsid()
        super().set_signals()


class Kept(Foreground):
    """A launch that goes on for as long as anybody uses the server. others: where more users come to, or None."""

    def __init__(self, order: Order, token: bytes, user: User, others: socket.socket | None) -> None:
        request, logs = order.request, order.targets
        self._users: list[User] = []
        self._first, self._others = user, others
        self._began = Began(token, order.facts)
        self._forked: Forked | None = None
        self._logs = [fd for fd in (logs.stdout, logs.stderr) if fd is not None]
        self._ready: Ready | None = None
        # What is said through pipes is relayed to the logs; else the server writes there itself.
        targets = logs if "streams" in request.ready else Targets(None, None)
        super().__init__(
            request, targets, say=_unheard, warn=_unheard, on_ready=self._tell_ready, token=token,
            environment=order.environment,
        )  # fmt: skip
        self._remains.first = order.stop_signal
        # These are closed when the server has them.
        opened = (self.owner.add(os.dup(fd)) for fd in self._logs)
        self.outputs.use(dict(zip(STREAMS, opened, strict=True)))

    def keep(self) -> None:
        """Start it; returns when all of it has ended, and who is left has been told. Raises as `run` does."""
        self._add(self._first)
        _tell(self._first.sock, self._began)
        if others := self._others:
            self.loop.watch(others.fileno(), POLLIN, lambda _events: self._welcome(others))
        outcome = self.run()
        error = outcome if isinstance(outcome, LaunchError) and self._ready is None else None
        ended = Ended(error, self.family.ended, list(getattr(outcome, "survivors", ())))
        for user in self._users:
            _tell(user.sock, ended)

    def rehearse(self) -> None:
        """All but to start it."""
        try:
            self._arrange()
        except (DaemonizeError, OSError):
            pass  # the port that we do not need is taken
        self._close()
        if self.queue:
            self.queue.close()

    def _kind(self, *arguments: Any, **settings: Any) -> child.Program:
        return _Program(*arguments, **settings)

    def _fork(self, report: int, gate: int) -> None:
        super()._fork(report, gate)
        server = self.family.session = self.family.server
        stat = read_stat(server)
        self._forked = Forked(server, stat.start if stat else 0)
        for user in self._users:
            _tell(user.sock, self._forked)
        # Nobody but us reaps it: it can be found already, and saves the time in which we would be woken at its gate.
        self.family.let_through(server)

    def _conclude(self) -> None:
        self._reap()  # its end may have been seen before the signal that tells of it
        super()._conclude()

    # -- users --------------------------------------------------------------------------------------------------------

    def _add(self, user: User) -> None:
        self._users.append(user)
        for fd in user.descriptors:
            self.loop.watch(fd, POLLIN, lambda _events, fd=fd: self._hear(user, fd))  # type: ignore[misc]

    def _forget(self, user: User) -> None:
        for fd in user.descriptors:
            self.loop.forget(fd)

    def _hear(self, user: User, fd: int) -> None:
        received = frames.receive(user.sock) if fd != user.process else None
        if received is None:
            self._leave(user, None)
            return
        word, value = pickle.loads(received[0])  # noqa: S301 (from a process of this user that runs this package)
        if word == "stop":
            self._leave(user, value)
        elif self.family.main and self.family.ended is None:
            self._send(value)

    def _send(self, number: int) -> None:
        try:
            if self.family.main:
                self.family.main.send(number)
        except PermissionError:
            pass  # it has become another user's

    def _leave(self, user: User, grace: float | None) -> None:
        """It needs the server no longer. Who is the last waits until that is gone."""
        if len(self._users) > 1:
            self._forget(user)
            self._users.remove(user)
            _tell(user.sock, None)
            user.sock.close()
            return
        self._forget(user)
        self._stop(grace)

    def _welcome(self, others: socket.socket) -> None:
        """Somebody else wants to use it, and is told what the first one knows."""
        sock, _ = others.accept()
        pid, uid = peer_of(sock)
        if uid != os.geteuid():
            sock.close()
            return
        self._add(User(sock, pidfd_open(pid)))
        _tell(sock, self._began, self._logs)
        for told in (self._forked, self._ready):
            if told:
                _tell(sock, told)

    def _stop(self, grace: float | None) -> None:
        if self._others:
            # Who comes now waits until we are gone, and starts another one.
            self.loop.forget(self._others.fileno())
        if grace is not None:
            self._remains.grace = grace
        self.family.follows = False
        if not isinstance(self.outcome, LaunchError):
            self._rewind()
            self.outcome = Cancelled(signals.SIGTERM)

    def _tell_ready(self, outcome: Ready) -> None:
        self._ready = outcome
        self.outputs.unfollow()
        for user in self._users:
            _tell(user.sock, outcome)


def _unheard(_text: str) -> None:
    """Nobody listens to the progress of a launch."""
