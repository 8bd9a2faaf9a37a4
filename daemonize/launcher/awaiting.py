"""Wait for a daemon that somebody else is starting."""

from __future__ import annotations

from time import monotonic

from daemonize.errors import NotPossible, NotYet
from daemonize.posix.identity import Process
from daemonize.posix.loop import POLLIN, Loop
from daemonize.registry.record import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize.registry.record import Record

_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05


def wait_until_ready(name: str, timeout: float) -> Record:
    """Return when the daemon of that name is ready: now, if it is; else when the launch that is under way is over.

    timeout: seconds. Raises NotYet when they have passed, NotPossible if it does not run and nobody is starting it,
    NoSuchDaemon, BadRecord.
    """
    registry, deadline = Registry(), monotonic() + timeout
    pause = _FIRST_WAIT
    while (launcher := registry.launcher(name)) is not None:
        left = deadline - monotonic()
        if left <= 0:
            raise NotYet(name, f"is not ready after {timeout:g} s")
        _wait_for(launcher[0], left, pause)
        pause = min(pause * 2, _LONGEST_WAIT)
    record = registry.read(name)
    if record.identity is None or not record.identity.alive:
        raise NotPossible(name, f"is not running; to start it: daemonctl start {name}")
    if not record.ready:
        raise NotPossible(name, "runs, but was not ready in time when it was started (--on-timeout=leave)")
    return record


def _wait_for(pid: int | None, timeout: float, pause: float) -> None:
    """Until a launcher has ended, or for a moment where it cannot be waited for: its lock has no event."""
    try:
        process = Process(pid) if pid else None
    except ProcessLookupError:
        process = None
    loop = Loop()
    if process is None or process.fd is None or process.ended:
        loop.run_once(min(pause, timeout))  # its intermediate parent has the lock for a moment longer
    else:
        loop.watch(process.fd, POLLIN, lambda _events: None)
        loop.run_once(timeout)
    if process:
        process.close()
