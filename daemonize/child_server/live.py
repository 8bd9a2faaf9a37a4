"""The server's side: a copy of its owner is made one that stands for itself, and lives from its birth to its end."""

from __future__ import annotations

import gc
import os
import traceback
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from daemonize.channel import MessageChannel
from daemonize.child_server import report
from daemonize.child_server.body import Body, numbers, set_signals
from daemonize.child_server.owner import Owner, OwnerEndedError
from daemonize.offspring import forking, settling
from daemonize.posix import fds, signals

if TYPE_CHECKING:
    import io
    import socket

    from daemonize.child_server.body import Server


class Ends(NamedTuple):
    """What a server is given at its birth. capture: where descriptor 2 goes until it is initialised.

    owner: pid of who forks it, and a pidfd of that (None: this system has none). threads: whether more than one lived there.
    streams: what is to be stdout and stderr.
    """

    client: socket.socket
    report: socket.socket
    capture: int
    owner: tuple[int, int | None]
    keep: tuple[int, ...]
    collects: bool
    threads: bool
    streams: tuple[io.TextIOWrapper, io.TextIOWrapper]


def live(server: Server, ends: Ends) -> NoReturn:
    """Be the server, in a process just forked within `Blocked`, to its end."""
    status = 1
    try:
        status = _live(server, ends)
    except BaseException as error:  # noqa: BLE001 (nothing returns into the caller's stack)
        status = _status_of(error)
    finally:
        try:
            forking.flush()
        finally:
            os._exit(status)


def _live(server: Server, ends: Ends) -> int:
    signals.set_defaults()
    body: Body | None = None
    try:
        stderr = os.dup(2)
        os.dup2(ends.capture, 2)
        _settle(ends, stderr)
        owner = Owner(*ends.owner, server.stop_timeout)
        body = Body(server, MessageChannel(ends.client, max_size=server.max_size), owner)
        server._enter(body)  # noqa: SLF001 (of the same make)
        set_signals(server)
        owner.watch()
        signals.restore_mask(())
        body.run(lambda: _begin(ends, owner, stderr))
    except Exception as error:
        if body and body.initialized:
            raise
        signals.restore_mask(())
        report.tell(ends.report, error)
        # The owner looks first for whom this process has forked: then it ends them all.
        ends.report.recv(1)
        return 1
    return 0


def _begin(ends: Ends, owner: Owner, stderr: int) -> None:
    """It is initialised: that is told, and what it has said until now."""
    owner.watch()
    _release(stderr)
    report.tell(ends.report)
    ends.report.close()


def _settle(ends: Ends, stderr: int) -> None:
    """Make of the copy of another process one that stands for itself."""
    gc.freeze()
    if ends.collects:
        gc.enable()
    settling.leave_event_loop()
    fds.sweep({ends.client.fileno(), ends.report.fileno(), stderr, *numbers(ends.owner[1]), *ends.keep})
    settling.take_streams(ends.streams, threads=ends.threads)
    settling.seed()


def _release(stderr: int) -> None:
    """Descriptor 2 is again what it was, and what has been said meanwhile is said there."""
    size = os.fstat(2).st_size
    said = os.pread(2, size, 0) if size else b""
    os.dup2(stderr, 2)
    os.close(stderr)
    try:
        fds.write_all(2, said)
    except OSError:
        pass  # nobody is there to read it


def _status_of(error: BaseException) -> int:
    """The exit status of a server that ends with an exception, which is shown, unless it means just that."""
    if isinstance(error, OwnerEndedError):
        return 0
    if isinstance(error, SystemExit):
        return settling.status_of(error)
    traceback.print_exception(error)
    return 1
