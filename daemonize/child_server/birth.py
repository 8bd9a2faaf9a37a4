"""How a server comes into the world: the owner's side of the fork, until the server is initialised or has ended."""

from __future__ import annotations

import gc
import os
import socket
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING

from daemonize.channel import codec
from daemonize.child_server import live, report
from daemonize.errors import SetupError, UsageError
from daemonize.offspring import forking, settling
from daemonize.offspring.process import Child
from daemonize.posix import fds, prctl
from daemonize.posix.blocked import Blocked
from daemonize.posix.identity import pidfd_open

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemonize.child_server.body import Server


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
    with Blocked():
        threads = forking.has_threads()
    if threads:
        forking.warn(name, "server")
    forking.flush(threads=threads)
    with ExitStack() as always, ExitStack() as failing:
        with Blocked():
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
                    settling.streams(),
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
    forking.flush(threads=ends.threads)
    pid = forking.fork_quietly(threads=ends.threads)
    if pid == 0:
        live.live(server, ends)
    child = Child(pid)
    failing.callback(child.close)
    failing.callback(child.end, grace)
    return child
