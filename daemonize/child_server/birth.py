"""How a server comes into the world: the owner's side of the fork, until the server is initialised or has ended."""

from __future__ import annotations

import gc
import os
import socket
import sys
import tempfile
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING

from daemonize.channel import codec
from daemonize.child_server import live, report
from daemonize.child_server.process import Child
from daemonize.errors import SetupError, UsageError
from daemonize.posix import callers, fds, prctl, signals
from daemonize.posix.child import fork_alone
from daemonize.posix.identity import pidfd_open

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemonize.child_server.body import Server

#: Seconds that a thread has to be gone which Python has seen off.
_PATIENCE = 0.02
#: Threads of ours, which hold no lock that a server could need (collection.py).
harmless: set[int] = set()
_warned: list[int] = []


def bear(
    server: Server,
    name: str,
    keep: Sequence[codec.HasFileno | int],
    grace: float,
    take: Callable[[Child, socket.socket], None],
) -> None:
    """Fork a server. keep: what it is to have of our descriptors. grace: seconds for one that has failed to end.

    take: called with the child, when it is initialised, and the owner's end of the channel, which are the caller's then.
    Raises what its initialize_server has raised; ServerError, SetupError, UsageError. Nothing of it is left then.
    """
    kept = tuple(_checked(file) for file in keep)
    prctl.prepare()
    with signals.Blocked():
        threads = _has_threads()
    if threads:
        _warn(name)
    _flush(threads=threads)
    with ExitStack() as always, ExitStack() as failing:
        with signals.Blocked():
            try:
                owned = fds.Descriptors()
                always.callback(owned.close)
                # Else a socket would be 0, 1 or 2, where the server does not look for one.
                fds.occupy_standard(owned)
                ours, client = socket.socketpair()
                failing.enter_context(ours)
                always.enter_context(client)
                hears, tells = map(always.enter_context, socket.socketpair())
                capture = _unnamed(owned)
                owner = pidfd_open(os.getpid())
                if owner is not None:
                    owned.add(owner)
                ends = live.Ends(
                    client,
                    tells,
                    capture,
                    (os.getpid(), owner),
                    kept,
                    gc.isenabled(),
                    threads,
                    live.streams(),
                )
                child = _fork(server, ends, failing, grace)
            except OSError as error:
                raise SetupError("start", name, error) from None
        tells.close()
        told = report.hear(hears, child)
        if told is None:
            child.wait(grace)
        if told != b"":
            child.end(grace)
            report.fail(name, told, child, _text(capture))
        take(child, ours)
        failing.pop_all()


def _checked(file: codec.HasFileno | int) -> int:
    fd = codec.descriptor_of(file)
    try:
        os.fstat(fd)
    except OSError:
        raise UsageError(f"keep_fds: descriptor {fd} is not open") from None
    return fd


def _unnamed(owned: fds.Descriptors) -> int:
    """A file without a name. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return owned.add(os.memfd_create("stderr", os.MFD_CLOEXEC))
    with tempfile.TemporaryFile() as file:
        return owned.add(os.dup(file.fileno()))


def _text(capture: int) -> str:
    size = os.fstat(capture).st_size
    return os.pread(capture, size, 0).decode("utf-8", "backslashreplace") if size else ""


def _fork(server: Server, ends: live.Ends, failing: ExitStack, grace: float) -> Child:
    # A handler may have said something meanwhile. Only now could nobody interrupt it, where it has to wait.
    _flush(threads=ends.threads)
    pid = _fork_quietly(ends)
    if pid == 0:
        live.live(server, ends)
    child = Child(pid)
    failing.callback(child.close)
    failing.callback(child.end, grace)
    return child


def _fork_quietly(ends: live.Ends) -> int:
    """Python has warned of threads by now, in our words (3.12 and later do so in their own as well)."""
    if not ends.threads or sys.version_info < (3, 12):
        return fork_alone()
    with warnings.catch_warnings():  # type: ignore[unreachable, unused-ignore]
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
        return fork_alone()


def _flush(*, threads: bool) -> None:
    """What we have buffered is not to be said by the server as well.

    Another thread may be writing just now, which has the lock: in the server, those streams are not used then.
    """
    if threads:
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112 (whatever the user has put there)
            continue


def _has_threads() -> bool:
    return callers.has_threads(_PATIENCE, besides=len(harmless))


def _warn(name: str) -> None:
    """Once in a process."""
    if os.getpid() in _warned:
        return
    warnings.warn(
        f"{name} is started by fork(2) while other threads live: a lock that one of them holds is held for ever "
        "in the server. Start servers before threads, or see the README for what is safe",
        RuntimeWarning,
        stacklevel=_levels(),
    )
    _warned[:] = [os.getpid()]


def _levels() -> int:
    """How far above its own line the caller's is."""
    frame, level = sys._getframe(1), 1  # noqa: SLF001 (as warnings does)
    while frame.f_back and os.path.dirname(frame.f_code.co_filename) == os.path.dirname(__file__):
        frame, level = frame.f_back, level + 1
    return level
