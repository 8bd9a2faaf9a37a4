"""`--watchdog SPEC`: the service manager's watchdog is fed as long as the server answers.

A server that hangs gives no answer, the manager is told nothing, and does what it does then: systemd ends it with SIGABRT,
and starts it again if the unit says so (WatchdogSec= in systemd.service(5)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemonize.errors import UsageError, printable
from daemonize.launcher.probes import attempt
from daemonize.readiness import FORMS, Probe, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.readiness import Launch


#: What a server itself answers, each time anew.
_MODULES = ("http", "https", "command")
_FORMS = [form for form, module, _ in FORMS if module in _MODULES]
#: While there is no answer it is asked so many times in every interval.
_TRIES = 4


class Watchdog(Probe):
    """Asks again and again, from `start` on. It is never held: nobody waits for it to be ready. Raises UsageError."""

    needs_launch = True

    def __init__(self, spec: str) -> None:
        super().__init__(spec, "")
        self.specify(spec)
        self._launch: Launch
        self._feed: Callable[[], None]
        self._starve: Callable[[str], None]
        self._interval = self._began = 0.0
        self._asking = False
        self._told = ""

    def specify(self, spec: str) -> None:
        """Before anything else: this is the spec. Raises UsageError."""
        if not any(spec.startswith(form.partition(":")[0] + ":") for form in _FORMS):
            raise UsageError(
                f"'{printable(spec)}' is nothing that a server answers again and again; "
                f"its watchdog can be {', '.join(_FORMS)}"
            )
        self.spec, self._asks = spec, parse(spec)

    def prepare(self, launch: Launch) -> None:
        """See the probe that asks."""
        self._launch = launch
        self._asks.prepare(launch)

    def start(
        self, now: float, interval: float, feed: Callable[[], None], starve: Callable[[str], None]
    ) -> None:
        """The server is ready: ask it every `interval` seconds, and feed when it has answered; else tell why not."""
        self._interval, self._feed, self._starve = interval, feed, starve
        self.due = now

    def tick(self, now: float) -> None:
        """To be called after whatever has happened: the answer comes by way of the loop."""
        if not self._interval:
            return
        if not self._asking and self.due is not None and now >= self.due:
            self._asking, self._began = True, now
            attempt(self._asks, self._asks.again, now, self._interval / _TRIES)
        elif self._asking and self._asks.due is not None and now >= self._asks.due:
            attempt(self._asks, self._asks.tick, now)
        if self._asking and self._asks.held:
            self._asking, self._told = False, ""
            self._feed()
        self.due = self._asks.due if self._asking else max(now, self._began + self._interval)
        if self._asking and self._asks.problem not in ("", self._told):
            self._told = self._asks.problem
            self._starve(f"{self.spec}: {self._told}")

    def close(self) -> None:
        """Ask no more."""
        self._asks.close()
