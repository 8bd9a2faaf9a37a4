"""The owner's side of a keeper (launcher/keeper.py): there is at most one of this process, executed when it is first needed.

A forked child of this process is another owner. What a keeper has inherited from us and no order carries must still be so
when it is asked: else another one takes its place, and the old one leaves when its servers have ended.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import socket
import subprocess
import threading
import weakref
from typing import TYPE_CHECKING

from daemonize.errors import DaemonizeError, LaunchError, SetupError, UsageError
from daemonize.launcher import interpreter
from daemonize.launcher.orders import OWN, SHARED, Ended, Order, packed
from daemonize.launcher.ready import Ready
from daemonize.posix import callers, frames
from daemonize.posix.fds import Descriptors, occupy_standard
from daemonize.posix.identity import pidfd_open, read_stat, wait_for_end
from daemonize.posix.signals import SIGTERM
from daemonize.registry.private import settled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemonize.launcher.outputs import Targets
    from daemonize.launcher.request import Request

#: Seconds that a keeper is given to go when its owner does. Its servers have stop plans of their own.
_PATIENCE = 60.0


class _Keeper:
    """A keeper that was executed for this process. surroundings: how this process was then. Raises SetupError."""

    def __init__(self, surroundings: bytes) -> None:
        self.surroundings = surroundings
        self._is_sending = False
        self._sock, theirs = _pair()
        owner = pidfd_open(os.getpid())
        passed = [theirs.fileno(), *([] if owner is None else [owner])]
        try:
            command = interpreter.command(
                "daemonize.launcher.keeper", *passed, *([-1] if owner is None else [])
            )
            # Nothing of ours stays open in it, nor our directory; a Ctrl-C is ours to act on.
            starter = subprocess.Popen(
                command, pass_fds=passed, cwd="/", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            starter.wait()
        except OSError as error:
            self._sock.close()
            raise SetupError("start", "the keeper", error) from None
        finally:
            theirs.close()
            if owner is not None:
                os.close(owner)
        received = frames.receive(self._sock)
        if received is None:
            self._sock.close()
            raise SetupError("start", "the keeper", OSError(0, "it was killed"))
        pid: int = pickle.loads(received[0])  # noqa: S301 (from our own child)
        stat = read_stat(pid)
        self._pid, self._start = pid, stat.start if stat else 0

    def send(self, message: bytes, fds: Sequence[int]) -> bool:
        """Hand an order over; False if it has gone, or (in a signal handler) is just being handed another one."""
        if self._is_sending:
            return False
        self._is_sending = True
        try:
            frames.send(self._sock, message, fds)
        except OSError:
            return False
        self._is_sending = False
        return True

    def part(self) -> None:
        """It will not be asked again, and leaves when its servers have ended."""
        self._sock.close()

    @property
    def is_there(self) -> bool:
        """Whether it has not left: who is on his way out has not."""
        stat = read_stat(self._pid)
        if stat is None or stat.start != self._start:
            return False
        if stat.state == "Z":
            self._reap()
        return stat.state != "Z"

    def wait(self) -> None:
        """Until it has left."""
        try:
            if self.is_there and wait_for_end(self._pid, _PATIENCE):
                self._reap()
        except ProcessLookupError:
            pass  # in this moment

    def _reap(self) -> None:
        """Nobody's child is ours where we adopt orphans: as pid 1 of a container, or by PR_SET_CHILD_SUBREAPER."""
        try:
            os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            pass  # it is another's, who has reaped it or will


class _Owner:
    """This process, as one that may have a keeper."""

    def __init__(self) -> None:
        # A signal handler may start a server, too, whatever of this it comes between.
        self._lock = threading.RLock()
        self._keeper: _Keeper | None = None
        self._parted: list[_Keeper] = []
        self._wrappers: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def send(self, message: bytes, fds: Sequence[int]) -> None:
        """Hand an order to the keeper. Raises SetupError."""
        with self._lock:
            surroundings = callers.surroundings()
            keeper = self._keeper
            sent = False
            try:
                if keeper and keeper.surroundings == surroundings:
                    sent = keeper.send(message, fds)
                if not sent:
                    self._part()
                    keeper = _Keeper(surroundings)
                    self._part()  # with that of a signal handler, if it has made one meanwhile
                    self._keeper = keeper
                    sent = keeper.send(message, fds)
            finally:
                if not sent:
                    self._part()  # of a message that was cut off it would take the next one for the rest
            if not sent:
                raise SetupError("ask", "the keeper", OSError(0, "it was killed"))

    def add(self, wrapper: socket.socket) -> None:
        """This is the socket to the wrapper of an order."""
        with self._lock:
            self._wrappers.add(wrapper)

    @property
    def wrappers(self) -> list[socket.socket]:
        """To those that may still be there."""
        with self._lock:
            return [wrapper for wrapper in self._wrappers if wrapper.fileno() >= 0]

    def dismiss(self) -> None:
        """Let the keeper go, and wait until it has: servers that it keeps are stopped first."""
        for wrapper in self.wrappers:
            _hang_up(wrapper)
        self._release()

    def release_unless_needed(self) -> None:
        """A program without threads may never launch anything again: nothing of ours stays, unless it has servers."""
        if not (callers.has_threads() or self.wrappers):
            self._release()

    def _release(self) -> None:
        with self._lock:
            self._part()
            parted, self._parted = self._parted, []
        for keeper in parted:
            keeper.wait()

    def _part(self) -> None:
        if self._keeper:
            self._keeper.part()
            self._parted = [keeper for keeper in (*self._parted, self._keeper) if keeper.is_there]
            self._keeper = None

    def forget(self) -> None:
        """In a forked child: the keeper is the parent's."""
        self._lock = threading.RLock()
        self._wrappers.clear()
        for sock in list(_private):
            sock.close()  # else its other side would not hear that the parent has closed it
        self._part()
        self._parted.clear()


#: Sockets that no forked child of this process may keep open.
_private: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def private(sock: socket.socket) -> socket.socket:
    """The same socket: a forked child of this process closes it at once."""
    _private.add(sock)
    return sock


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    return private(ours), private(theirs)


def _hang_up(wrapper: socket.socket) -> None:
    """Its server is not needed any more."""
    try:
        wrapper.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it has gone


_owner = _Owner()
os.register_at_fork(after_in_child=_owner.forget)
dismiss = _owner.dismiss
atexit.register(dismiss)


def order(
    request: Request,
    targets: Targets,
    *,
    keeps: bool = False,
    others: socket.socket | None = None,
    facts: object = None,
    stop_signal: int = SIGTERM,
    directory: str | None = None,
    take: Callable[[socket.socket], object],
) -> None:
    """Have a server launched, or kept.

    take: gets the socket to its wrapper, whose end of file ends the launch, or the server. It gets that before anything is
    asked for: whatever is raised then, also by a signal handler, the caller can wait there until nothing is left. targets:
    where its output is relayed to, or the logs of one that is kept. others: a listening socket that more users of one that
    is kept connect to, facts: what they are told of it. stop_signal: what asks one that is kept to end. directory: to launch
    from (None: where this process is). Raises SetupError.
    """
    owner = Descriptors()
    try:
        occupy_standard(owner)
        ours, theirs = _pair()
    except OSError as error:
        owner.close()
        raise SetupError("prepare", "the launch", error) from None
    try:
        _owner.add(ours)
        take(ours)
        at = owner.open(directory or ".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
        relayed = [fd for fd in (targets.stdout, targets.stderr) if fd is not None]
        fds = [theirs.fileno(), at, *relayed, *request.keep_fds, *([others.fileno()] if others else [])]
        if len(fds) > frames.MOST_DESCRIPTORS:
            raise UsageError(f"{len(request.keep_fds)} descriptors are too many to be handed over (keep_fds)")
        environment = {**os.environb, **settled(os.environb)}
        wanted = Order(
            keeps, others is not None, request, targets, facts, stop_signal, environment, callers.umask()
        )
        _owner.send((SHARED if others else OWN) + packed(wanted), fds)
    except OSError as error:
        raise SetupError("prepare", "the launch", error) from None
    finally:
        theirs.close()
        owner.close()


def run(request: Request, targets: Targets, directory: str | None = None) -> Ready | LaunchError:
    """What `Wrapper(request, targets).run()` would give, without forking this process. Raises what that would.

    directory: to launch from (None: where this process is).
    """
    with contextlib.ExitStack() as held:
        wrappers: list[socket.socket] = []
        try:
            order(
                request,
                targets,
                directory=directory,
                take=lambda sock: wrappers.append(held.enter_context(sock)),
            )
            received = frames.receive(wrappers[0])
        except BaseException:
            for wrapper in wrappers:
                _hang_up(wrapper)
                frames.receive(wrapper)  # its answer: the server is gone
            raise
    _owner.release_unless_needed()
    if received is None:
        raise SetupError("finish", "the launch", OSError(0, "its wrapper was killed"))
    told: Ready | DaemonizeError | Ended = pickle.loads(received[0])  # noqa: S301 (from a process of ours)
    # `Ended` tells of an order that the keeper could not carry out.
    answer = told.error if isinstance(told, Ended) else told
    if isinstance(answer, (Ready, LaunchError)):
        return answer
    raise answer or SetupError("finish", "the launch", OSError(0, "its wrapper ended"))
