"""What `daemonctl` does to daemons by their names, without click: to load that takes longer than most of it."""

from __future__ import annotations

from daemonize.daemon_errors import NoSuchDaemon, NotPossible
from daemonize.errors import DaemonizeError, printable
from daemonize.launcher import words
from daemonize.launcher.members import main_of
from daemonize.launcher.stopping import stop_all
from daemonize.posix.signals import SIGTERM
from daemonize.registry.record import Registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from daemonize.launcher.daemon import Daemon
    from daemonize.registry.record import Record

PROGRAM = "daemonctl"


def complain(text: object) -> None:
    """One line on stderr."""
    words.complain(str(text), PROGRAM)


def each(names: Sequence[str], act: Callable[[str], int | None]) -> int:
    """Do it for every name, whatever becomes of the others; the worst of their statuses."""
    worst = 0
    for name in dict.fromkeys(names):
        try:
            worst = max(worst, act(name) or 0)
        except DaemonizeError as error:
            complain(error)
            worst = max(worst, error.exit_status)
    return worst


def stop(names: Sequence[str], timeout: float | None = None, number: int = SIGTERM) -> int:
    """The exit status of `daemonctl stop`. timeout: seconds; number: the first signal."""
    records: list[Record] = []
    status = each(names, lambda name: records.append(to_stop(name)))
    stopped = [record.name for record in records if main_of(record) is None]
    for name, failure in stop_all(records, timeout, number).items():
        if failure:
            complain(f"{printable(name)}: {failure}")
            status = max(status, failure.exit_status)
    for name in stopped:
        if namesakes := _namesakes(name, {*names}):
            others = " ".join(map(printable, namesakes))
            verb = "does" if len(namesakes) == 1 else "do"
            complain(f"{printable(name)} did not run; {others} {verb}: daemonctl stop {others}")
    return status


def _namesakes(name: str, known: Collection[str]) -> list[str]:
    """Those that run, and have the same name but for a number: of the same command, as like as not."""
    registry = Registry()
    found = []
    for other in registry.names:
        if other not in known and other.startswith(f"{name}-") and other.removeprefix(f"{name}-").isdecimal():
            try:
                identity = registry.read(other).identity
            except DaemonizeError:
                continue
            if identity is not None and identity.alive:
                found.append(other)
    return found


def find(name: str) -> Daemon:
    """Raises NotPossible of one that is being started for the first time, NoSuchDaemon, BadRecord."""
    from daemonize.launcher.daemon import Daemon

    return Daemon(_read(name))


def _read(name: str) -> Record:
    try:
        return Registry().read(name)
    except NoSuchDaemon:
        refuse_starting(name)
        raise


def to_stop(name: str) -> Record:
    """Raises NotPossible while it is being started: nobody knows yet what there is to be stopped."""
    record = _read(name)
    if main_of(record) is None:  # whoever stays the parent of one that runs (-f) keeps its name
        refuse_starting(name)
    return record


def refuse_starting(name: str) -> None:
    """Raises NotPossible if a launch of that name is under way."""
    launch = Registry().launcher(name)
    if launch:
        who = f" by pid {launch[0]}; to interrupt that: kill -INT {launch[0]}" if launch[0] else ""
        raise NotPossible(name, f"is being started{who}; to wait for it: daemonctl wait {name} --ready")
