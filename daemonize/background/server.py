"""`BackgroundServer`: a real server for as long as a block of code, a test or a whole test run needs it.

    owner (the tests) ── keeper ── wrapper ── server            (launcher/keeper.py, launcher/kept.py)

The wrapper is the server's parent: it starts it, finds it ready by the same probes as `daemonize`, and stops it with all
that belongs to it: when it is told to, and when the owner has died, of whatever. What the server says goes to files that
have no name, so that none is ever left.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import warnings
import weakref
from errno import EMFILE
from signal import SIGTERM, valid_signals
from typing import TYPE_CHECKING, Any

from daemonize.background.explained import explained
from daemonize.background.link import Link
from daemonize.background.logs import Logs
from daemonize.background.plan import Plan
from daemonize.background.shared import Place
from daemonize.background.ways import Ways
from daemonize.errors import (
    AlreadyRunning,
    DaemonizeError,
    InvalidState,
    LaunchError,
    SetupError,
    StillRunning,
    UsageError,
    printable,
)
from daemonize.launcher import kinds, owner
from daemonize.launcher.outputs import Targets
from daemonize.outcomes import Exited, NotExecuted
from daemonize.posix import stop
from daemonize.posix.identity import Identity
from daemonize.posix.loop import Loop
from daemonize.posix.tree import Tree
from daemonize.units import seconds_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from typing import Self

    from daemonize.launcher.ready import Ready
    from daemonize.launcher.request import Limit, StrPath

#: Seconds.
BOOT_TIMEOUT, TERM_TIMEOUT = 10.0, 1.0
#: So many times a server is started on another port, when somebody has taken the one that was free.
_TRIES = 5


_started: weakref.WeakValueDictionary[int, BackgroundServer] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def started() -> list[tuple[Logs, BackgroundServer]]:
    """Those of this process that have been ready, and that somebody still has, in the order in which they were started."""
    return [(server._logs, server) for server in list(_started.values()) if server._logs]  # noqa: SLF001 (its own)


class BackgroundServer(Ways):
    """A server that runs in the background until it is stopped, or this process ends: a context manager, also `async with`.

    command: program and arguments, or text for the shell. `{port}` in it, in the values of env and in specs is a free
    port (`{port2}`: another one), or `port` if that is given. ready: readiness specs, all of which must hold
    (daemonize(1)); by default it is to listen on its port, and without one on any port at all, which is `port` then. env:
    variables to set. cwd: directory. boot_timeout: seconds (or "5s") to become ready, None: no limit. term_timeout:
    seconds between SIGTERM (or stop_signal) and SIGKILL. shared: a name under which all processes of one test run have
    this server together (daemonize.background.shared). listen, clear_env, stdin, keep_fds, user, chroot, umask, nice,
    core, limits, strict: as of `daemonize.launch`.

    Raises UsageError for what cannot be. An object is started once. As a decorator it starts a server like itself for
    every call of the function, which gets it as its argument `server` if it has one.
    """

    def __init__(
        self,
        command: str | Sequence[StrPath],
        *,
        port: int | None = None,
        ready: str | Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: StrPath | None = None,
        boot_timeout: float | str | None = BOOT_TIMEOUT,
        term_timeout: float | str = TERM_TIMEOUT,
        stop_signal: int = SIGTERM,
        listen: str | Sequence[str] | None = None,
        clear_env: bool = False,
        stdin: StrPath | None = None,
        keep_fds: Sequence[int] = (),
        user: str | int | None = None,
        chroot: StrPath | None = None,
        umask: int | None = None,
        nice: int = 0,
        core: bool | None = None,
        limits: Mapping[str, Limit] | None = None,
        strict: bool = False,
        shared: str | None = None,
    ) -> None:
        self._asked: dict[str, Any] = {name: value for name, value in locals().items() if name != "self"}
        kinds.check(self._asked)
        _check_signal("stop_signal", stop_signal)
        self._shared = shared
        self._pid = os.getpid()
        # While the order is given: a stop comes before or after it. A signal handler may stop it, too.
        self._ordering = threading.RLock()
        self._started = self._unwanted = False
        self._link: Link | None = None
        #: Before anybody may stop it: who has its other end is still ourselves.
        self._ordered: Link | None = None
        self._logs: Logs | None = None
        with kinds.refusing("BackgroundServer()"):
            self._plan = Plan(
                command, port, ready, env, listen,
                timeout=float("inf") if boot_timeout is None else seconds_of("boot_timeout", boot_timeout, above=True),
                stop_timeout=seconds_of("term_timeout", term_timeout),
                directory=cwd, clear_environment=clear_env, stdin=stdin, keep_fds=tuple(keep_fds), user=user,
                chroot=chroot, umask=umask, nice=nice, core=core, limits=limits, strict=strict,
            )  # fmt: skip

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def command(self) -> list[str]:
        """Program and arguments, with the port it has."""
        return self._plan.command

    @property
    def port(self) -> int | None:
        """The TCP port it listens on: the one that was asked for, chosen, or found; None: there is none (yet)."""
        return self.ports[0] if self.ports else None

    @property
    def ports(self) -> list[int]:
        """All of them: `{port}`, `{port2}` and so on, or what was found."""
        return self._plan.ports or _ports_of(self._ready)

    @property
    def pid(self) -> int | None:
        """Of its main process, also when that has ended; None: it has not been ready."""
        return self._ready.pid if self._ready else None

    @property
    def status(self) -> str:
        """`not_running`, `starting`, `listening`."""
        if not self.running:
            return "not_running"
        return "listening" if self._ready else "starting"

    @property
    def running(self) -> bool:
        """Whether it has been started, and has not ended."""
        link = self._looked()
        if link is None or link.over:
            return False
        ready = link.ready
        if ready is None or ready.pid is None or Identity.of(ready.pid, ready.start).alive:
            return True
        link.wait(lambda: link.over)  # its end is known, and its status in a moment
        return False

    @property
    def listening(self) -> bool:
        """Whether it has become ready, and runs."""
        return self.status == "listening"

    @property
    def exit_status(self) -> int | None:
        """Its own, or 128+N if it died of signal N; None: it has not ended, or that is not known."""
        if self.running or self._link is None or self._link.ended is None:
            return None
        status = self._link.ended.status
        if isinstance(self._link.ended.error, NotExecuted):
            return None  # that was the process which was to become the server
        return None if status is None else Exited(status).status

    def logs(self) -> str:
        """What it has said: the lines of stdout, then of stderr, numbered."""
        return self._logs.numbered() if self._logs else "out: <missing>\nerr: <missing>"

    @property
    def stdout(self) -> str:
        """What it has said on stdout."""
        return self._logs.text("out") if self._logs else ""

    @property
    def stderr(self) -> str:
        """What it has said on stderr."""
        return self._logs.text("err") if self._logs else ""

    def __repr__(self) -> str:
        port = "" if self.port is None else f", port {self.port}"
        pid = "" if self.pid is None else f", pid {self.pid}"
        return f"<BackgroundServer {' '.join(map(printable, self.command))}: {self.status}{port}{pid}>"

    @property
    def _ready(self) -> Ready | None:
        return self._link.ready if self._link else None

    def _looked(self) -> Link | None:
        """With all that is known by now. A forked child of ours knows nothing more, and must take nothing from us."""
        if self._link and os.getpid() == self._pid:
            self._link.look()
        return self._link

    # -- start and stop -----------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start it, and return it when it is ready.

        Raises InvalidState for a second start; AlreadyRunning if its port, or the socket of a spec, is taken;
        CrashedOnStartup, TimedOut, NotExecuted or another LaunchError, with what it has said; UsageError, SetupError.
        Nothing runs then.
        """
        self._refuse_children()
        with self._ordering:
            if self._started:
                raise InvalidState("cannot start a server that has already been started: make another one")
            self._started = True
        try:
            if self._shared is None:
                self._start_own(None)
            else:
                self._start_or_join(Place(self._shared))
            _started[next(_numbers)] = self
        except BaseException:
            self._plan.release_ports()
            self._link = self._ordered or self._link
            if self._link and not self._link.over:
                self.stop()
            raise
        return self

    def _start_own(self, others: socket.socket | None) -> None:
        """others: where more users come to."""
        for attempt in range(_TRIES):
            try:
                self._start_once(others)
            except (LaunchError, AlreadyRunning) as error:
                if not self._plan.has_lost_port(error) or attempt == _TRIES - 1:
                    raise
            else:
                return

    def _start_once(self, others: socket.socket | None) -> None:
        request = self._plan.request()
        with self._ordering:
            self._refuse_unwanted()
            self._logs = Logs()
            logs, facts = Targets(*self._logs.descriptors), (self._terms, self.command, self._plan.ports)
            owner.order(
                request,
                logs,
                keeps=True,
                others=others,
                facts=facts,
                stop_signal=self._asked["stop_signal"],
                take=self._take,
            )
            self._link = self._ordered
        if self._link:
            self._await_ready(self._link)

    def _take(self, sock: socket.socket) -> None:
        self._ordered = Link(sock)

    def _refuse_unwanted(self) -> None:
        if self._unwanted:
            raise InvalidState("it was stopped before it was ready")

    def _await_ready(self, link: Link) -> None:
        if self._unwanted:
            link.send("stop", None)
        link.wait(lambda: link.ready is not None)
        if link.ready is None:
            raise self._failure_of(link)

    def _start_or_join(self, place: Place) -> None:
        for sock, is_first in place.meet(self._refuse_unwanted):
            if is_first:
                with sock:
                    self._start_own(sock)
                return
            if self._join(sock):
                return

    def _join(self, sock: socket.socket) -> bool:
        """Use what somebody else has started; False if that has just gone."""
        link = Link(sock)
        link.wait(lambda: link.began is not None)
        if link.began is None:
            link.close()
            return False
        if len(link.logs) < 2:
            link.close()
            raise SetupError("share", printable(self._shared or ""), OSError(EMFILE, os.strerror(EMFILE)))
        self._link, self._logs = link, Logs((link.logs[0], link.logs[1]))
        facts: Any = link.began.facts
        terms, command, chosen = facts
        if other := [name for name, value in self._terms.items() if terms.get(name) != value]:
            link.close()
            raise InvalidState(
                f"the shared server {printable(self._shared or '')} was started by another process with another "
                f"{' and '.join(other)}: all that share it must ask for the same"
            )
        self._plan.take_over(command, chosen)
        self._await_ready(link)
        return True

    @property
    def _terms(self) -> dict[str, str]:
        """What all that share it must have asked for."""
        return {name: repr(value) for name, value in self._asked.items()}

    def _failure_of(self, link: Link) -> DaemonizeError:
        error = link.ended.error if link.ended else None
        if link.ended is None:
            self._end_lost(link)
            if not self._unwanted:  # else a signal handler has stopped it, and nobody could read how it ended
                error = SetupError("keep", self.command[0], OSError(0, "its wrapper was killed"))
        return explained(error, self.command, self.exit_status, self._logs)

    def stop(self, timeout: float | str | None = None) -> None:
        """End it and everything that belongs to it; returns when all is gone. What is stopped may be stopped again.

        timeout: seconds between SIGTERM and SIGKILL, instead of term_timeout. Raises StillRunning with the survivors,
        UsageError.
        """
        self._refuse_children()
        grace = None if timeout is None else seconds_of("timeout", timeout)
        with self._ordering:
            self._unwanted = self._started
            link = self._link
        if link is None:
            return
        link.send("stop", grace)
        link.wait(lambda: False)
        self._plan.release_ports()
        if link.ended is None and not link.left:
            self._end_lost(link)
        if link.ended and link.ended.survivors:
            raise StillRunning(link.ended.survivors)

    def _end_lost(self, link: Link) -> None:
        """The wrapper was killed, and the keeper may have been, too."""
        if link.began is None:
            return
        plan = stop.default_plan(seconds_of("term_timeout", self._asked["term_timeout"]))
        # It bears no mark before it is executed, nor on its way out, which is waited for.
        main = link.forked if link.forked and link.forked.start else None
        roots = {main.pid} if main and Identity.of(*main).alive else ()
        survivors = stop.run(Loop(), Tree(roots, tokens=[link.began.token]), main, plan)
        if survivors:
            raise StillRunning(survivors)

    def wait(self, timeout: float | str | None = None) -> int | None:
        """Wait until it has ended by itself, at most `timeout` seconds: its exit status, None if it still runs.

        What is left until a moment that has passed (less than 0) is no time. Raises UsageError.
        """
        self._refuse_children()
        if timeout is not None:
            passed = isinstance(timeout, (int, float)) and timeout < 0
            timeout = 0.0 if passed else seconds_of("timeout", timeout)
        if self._link:
            self._link.wait(lambda: False, timeout)
        return self.exit_status

    def send_signal(self, number: int) -> None:
        """Send a signal to its main process; nothing happens if that has ended. Raises UsageError if it is none."""
        self._refuse_children()
        _check_signal("the signal", number)
        if self._link:
            self._link.send("signal", number)

    def _refuse_children(self) -> None:
        if os.getpid() != self._pid:
            raise InvalidState("the server is another process's: this one was forked from that")

    def _another(self) -> BackgroundServer:
        return type(self)(**self._asked)

    def __del__(self) -> None:
        if not hasattr(self, "_plan"):
            return  # it was never made
        link = self._link
        if link is None or link.over or os.getpid() != self._pid or sys.is_finalizing():
            self._plan.release_ports()  # who exits has let go of all servers (owner.dismiss), and can say nothing any more
            return
        warnings.warn(f"{self!r} was not stopped", ResourceWarning, stacklevel=2, source=self)
        link.close()
        self._plan.release_ports()


def _check_signal(what: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number not in valid_signals():
        raise UsageError(f"{what} must be one such as signal.SIGTERM, not {number!r}")


def _ports_of(ready: Ready | None) -> list[int]:
    """The ports of the addresses that were found, or that it was given."""
    if ready is None:
        return []
    found = [text for spec, text in ready.found.items() if spec.startswith("port")]
    numbers = [address.rpartition(":")[2] for address in [*", ".join(found).split(", "), *ready.listen]]
    return list(dict.fromkeys(int(number) for number in numbers if number.isdecimal()))
