"""Wait for a daemon that somebody else is starting."""

from __future__ import annotations

from time import monotonic

from daemonize.daemon_errors import BadRecord, NoSuchDaemon, NotPossible, NotYet
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
    while (launcher := registry.launcher(name)) is not None and not _runs(registry, name):
        left = deadline - monotonic()
        if left <= 0:
            raise NotYet(name, f"is not ready after {timeout:g} s")
        _wait_for(launcher[0], min(left, pause))
        pause = min(pause * 2, _LONGEST_WAIT)
    record = registry.read(name)
    if record.identity is None or not record.identity.alive:
        raise NotPossible(name, f"is not running; to start it: daemonctl start {name}")
    if not record.ready:
        raise NotPossible(name, "runs, but was not ready in time when it was started (--on-timeout=leave)")
    return record


def _runs(registry: Registry, name: str) -> bool:
    """Whether there is a record of it that is true: then its launch is over, also where its parent stays (-f)."""
    try:
        identity = registry.read(name).identity
    except (NoSuchDaemon, BadRecord):
        return False
    return identity is not None and identity.alive


def _wait_for(pid: int | None, timeout: float) -> None:
    """Until a launcher has ended, at most for a moment: a record that is written, and a lock, have no event."""
    try:
        process = Process(pid) if pid else None
    except ProcessLookupError:
        process = None
    loop = Loop()
    if process and process.fd is not None and not process.ended:  # else its intermediate parent has the lock
        loop.watch(process.fd, POLLIN, lambda _events: None)
    loop.run_once(timeout)
    if process:
        process.close()
