"""Who stands above a server in the foreground, and waits to be told of it: systemd, s6, dinit.

    manager ── fork ── wrapper ── fork ── server
       ◀── READY=1, STATUS= ──┘ ◀── probes, NOTIFY_SOCKET ──┘

The wrapper stands for the server: it has its status, its signals are the server's, and it is the main process (MAINPID).
Were the server that, systemd would not see how it ended: it is no child of systemd's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemonize import notify
from daemonize.launcher.outbox import Outbox
from daemonize.posix.fds import is_inherited

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemonize.launcher.ready import Ready
    from daemonize.posix.loop import Loop

#: Variables of sd_notify(3) that are passed on as they come.
_ALWAYS = (b"STATUS", b"EXTEND_TIMEOUT_USEC", b"STOPPING", b"ERRNO", b"BUSERROR", b"EXIT_STATUS")
#: Those that mean something only of a server that has been ready. READY=1 then ends a reload.
_READY = (b"RELOADING", b"MONOTONIC_USEC", b"READY")
_WATCHDOG = (b"WATCHDOG", b"WATCHDOG_USEC")
#: What is said again and again.
_WORDS = frozenset((b"STATUS", b"WATCHDOG"))


class Outward:
    """The manager, as the environment of this process tells of it; where there is none, nobody is told anything.

    To be made before anything else is opened. feeds: whether the watchdog is ours to feed, and not the server's.
    """

    def __init__(self, say: Callable[[str], None], *, feeds: bool) -> None:
        self._say, self._feeds = say, feeds
        self._served = self._spoken = False
        self._ready = ""  # in our own words
        self._starves = False
        self._outbox: Outbox
        #: Whether there is somebody who can be told more than that the server is ready.
        self.hears = notify.has_socket()
        # Now: a number that was closed when we were executed may be ours by the time we write.
        fd = notify.descriptor()
        self._has_descriptor = fd is not None and is_inherited(fd)

    def connect(self, loop: Loop) -> None:
        """From now on something may be told."""
        self._outbox = Outbox(loop, notify.variable(notify.SOCKET) if self.hears else b"", self._say)

    @property
    def waits(self) -> bool:
        """Whether somebody wants to know when the server is ready."""
        return self.hears or self._has_descriptor

    @property
    def variables(self) -> dict[bytes, bytes]:
        """For the server's environment: that it has a watchdog to feed."""
        watched = notify.watchdog_interval() is not None and not self._feeds
        return {notify.WATCHDOG: notify.variable(notify.WATCHDOG)} if watched else {}

    def waiting(self, specs: Sequence[str]) -> None:
        """Tell what is waited for, unless the server has said something itself."""
        if specs and not self._spoken:
            self._outbox.send(notify.status_line(f"waiting for {', '.join(specs)}"), words=True)

    def pass_on(self, fields: Mapping[bytes, bytes]) -> None:
        """Tell what the server has said of itself."""
        names = (*_ALWAYS, *(_READY if self._served else ()), *(() if self._feeds else _WATCHDOG))
        said = [name for name in names if name in fields]
        self._spoken = self._spoken or b"STATUS" in fields
        self._outbox.send(*(name + b"=" + fields[name] for name in said), words=_WORDS.issuperset(said))

    def ready(self, outcome: Ready, specs: Sequence[str]) -> None:
        """Tell that the server is ready; in words, if it has none of its own."""
        if not self.waits:
            return
        met = ", ".join(
            f"{spec} ({outcome.found[spec]})" if spec in outcome.found else spec for spec in specs
        )
        self._ready = f"ready after {outcome.seconds:.3f} s: {met}"
        told = [self._outbox.send(*notify.ready_lines(None if self._spoken else self._ready))]
        if self._has_descriptor:
            told.append(notify.tell_descriptor())
        self._served = True
        if any(told):
            self._say("the service manager has been told")
        elif not self._outbox.is_full:
            self._say("the service manager cannot be told")

    def feed(self) -> None:
        """The server is alive and well."""
        self._outbox.send(b"WATCHDOG=1", words=True)
        if self._starves and not self._spoken:
            self._outbox.send(notify.status_line(self._ready), words=True)
        self._starves = False

    def starve(self, why: str) -> None:
        """The server does not answer."""
        self._starves = True
        if not self._spoken:
            self._outbox.send(notify.status_line(f"no answer: {why}"), words=True)

    def close(self) -> None:
        """The server has ended."""
        self._outbox.withdraw(b"READY=1")
        self._outbox.close()
