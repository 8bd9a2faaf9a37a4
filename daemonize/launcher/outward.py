"""Who stands above a server in the foreground, and waits to be told of it: systemd, s6, dinit.

    manager ── fork ── wrapper ── fork ── server
       ◀── READY=1, STATUS= ──┘ ◀── probes, NOTIFY_SOCKET ──┘

The wrapper stands for the server: it has its status, its signals are the server's, and it is the main process (MAINPID).
Were the server that, systemd would not see how it ended: it is no child of systemd's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemonize import notify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemonize.launcher.ready import Ready

#: Variables of sd_notify(3) that are passed on as they come.
_ALWAYS = (b"STATUS", b"EXTEND_TIMEOUT_USEC", b"STOPPING", b"ERRNO", b"BUSERROR", b"EXIT_STATUS")
#: Those that mean something only of a server that has been ready. READY=1 then ends a reload.
_READY = (b"RELOADING", b"MONOTONIC_USEC", b"READY")
_WATCHDOG = (b"WATCHDOG", b"WATCHDOG_USEC")
#: What is said again and again: the next time will do.
_WORDS = frozenset((b"STATUS", b"WATCHDOG"))


class Outward:
    """The manager, as the environment of this process tells of it; where there is none, nobody is told anything.

    feeds: whether the watchdog is ours to feed, and not the server's.
    """

    def __init__(self, say: Callable[[str], None], *, feeds: bool) -> None:
        self._say, self._feeds = say, feeds
        self._served = self._spoken = False
        self._refused = False  # the last message
        self._ready = ""  # in our own words
        self._starves = False

    @property
    def hears(self) -> bool:
        """Whether there is somebody who can be told more than that the server is ready."""
        return notify.has_socket()

    @property
    def waits(self) -> bool:
        """Whether somebody wants to know when the server is ready."""
        return self.hears or notify.has_descriptor()

    @property
    def variables(self) -> dict[bytes, bytes]:
        """For the server's environment: that it has a watchdog to feed."""
        limit = notify.watchdog_interval()
        return {} if limit is None or self._feeds else {notify.WATCHDOG: b"%d" % round(limit * 2e6)}

    def waiting(self, specs: Sequence[str]) -> None:
        """Tell what is waited for, unless the server has said something itself."""
        if specs and not self._spoken:
            notify.status(f"waiting for {', '.join(specs)}")

    def pass_on(self, fields: Mapping[bytes, bytes]) -> None:
        """Tell what the server has said of itself."""
        names = (*_ALWAYS, *(_READY if self._served else ()), *(() if self._feeds else _WATCHDOG))
        said = [name for name in names if name in fields]
        self._spoken = self._spoken or b"STATUS" in fields
        if not said or not self.hears:
            return
        patience = notify.PATIENCE
        if _WORDS.issuperset(said):
            patience = 0.0 if self._refused else notify.LITTLE
        self._refused = not notify.pass_on(*(name + b"=" + fields[name] for name in said), patience=patience)
        if self._refused:
            self._say("the service manager cannot be told what the server says: NOTIFY_SOCKET takes nothing")

    def ready(self, outcome: Ready, specs: Sequence[str]) -> None:
        """Tell that the server is ready; in words, if it has none of its own."""
        if not self.waits:
            return
        met = ", ".join(
            f"{spec} ({outcome.found[spec]})" if spec in outcome.found else spec for spec in specs
        )
        self._ready = f"ready after {outcome.seconds:.3f} s: {met}"
        told = [notify.tell_ready(None if self._spoken else self._ready), notify.tell_descriptor()]
        self._served = True
        self._say("the service manager has been told" if any(told) else "the service manager cannot be told")

    def feed(self) -> None:
        """The server is alive and well."""
        notify.watchdog()
        if self._starves and not self._spoken:
            notify.status(self._ready)
        self._starves = False

    def starve(self, why: str) -> None:
        """The server does not answer."""
        self._starves = True
        if not self._spoken:
            notify.status(f"no answer: {why}")
