"""The server's side: a copy of its owner is made one that stands for itself, and lives from its birth to its end."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from daemonize.channel import MessageChannel
from daemonize.child_server import report
from daemonize.child_server.body import Body, numbers, set_signals
from daemonize.child_server.owner import Owner, OwnerEndedError
from daemonize.posix import fds, signals

if TYPE_CHECKING:
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


#: What must not be finalized here: its descriptors have been closed, and their numbers may be another's.
_inherited: list[object] = []


def live(server: Server, ends: Ends) -> NoReturn:
    """Be the server, in a process just forked with all signals blocked, to its end."""
    status = 1
    try:
        status = _live(server, ends)
    except BaseException as error:  # noqa: BLE001 (nothing returns into the caller's stack)
        status = _status_of(error)
    finally:
        try:
            _flush()
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
    _leave_event_loop()
    fds.sweep({ends.client.fileno(), ends.report.fileno(), stderr, *numbers(ends.owner[1]), *ends.keep})
    _take_streams(ends)
    # Python has done that for its own (random).
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()


def _leave_event_loop() -> None:
    """The owner may be in one: it is none of ours, nor is the descriptor that tells it of signals."""
    signal.set_wakeup_fd(-1)
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or not hasattr(asyncio, "_get_running_loop"):
        return
    _inherited.append(asyncio._get_running_loop())  # noqa: SLF001 (for those who make loops)
    asyncio._set_running_loop(None)  # noqa: SLF001 (likewise)
    policy: Any = getattr(asyncio.events, "_event_loop_policy", None)
    if local := getattr(policy, "_local", None):
        _inherited.append(local)
        policy._local = type(local)()  # noqa: SLF001 (as asyncio does itself from 3.12 on)


def streams() -> tuple[io.TextIOWrapper, io.TextIOWrapper]:
    """For a server: stdout and stderr without a buffer. Made in the owner, whose memory it need not copy for that."""
    return _stream(sys.stdout, 1, "strict"), _stream(sys.stderr, 2, "backslashreplace")


def _stream(old: Any, number: int, errors: str) -> io.TextIOWrapper:
    encoding, errors = getattr(old, "encoding", None) or "utf-8", getattr(old, "errors", None) or errors
    raw: Any = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding=encoding, errors=errors, write_through=True)


def _take_streams(ends: Ends) -> None:
    """What the owner had buffered stays in the old ones.

    They are not touched where another thread may have used them at the fork: their locks would be held for ever.
    """
    for name, stream in zip(("stdout", "stderr"), ends.streams, strict=True):
        old = getattr(sys, name)
        _inherited.append(old)
        if isinstance(old, io.TextIOWrapper) and not ends.threads:
            old.reconfigure(line_buffering=True)  # for whoever has kept it, as logging does
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


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


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112 (whatever the user has put there)
            continue


def _status_of(error: BaseException) -> int:
    """The exit status of a server that ends with an exception, which is shown, unless it means just that."""
    if isinstance(error, OwnerEndedError):
        return 0
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)  # noqa: T201 (as Python does)
        return 1
    traceback.print_exception(error)
    return 1
