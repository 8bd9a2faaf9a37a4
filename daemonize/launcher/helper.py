"""A wrapper of its own for callers that must not be forked.

    caller ── spawn ── helper (executed: the wrapper) ── fork ── intermediate parent ── fork ── server
       │ ── request ──▶   │
       ◀── outcome ─────  │

The request pipe stays open as long as the caller wants the server: its end of file, also by the caller's death, cancels
the launch. Both pipes carry pickles between two processes of this package.
"""

from __future__ import annotations

import os
import pickle
import subprocess
from typing import TYPE_CHECKING

from daemonize.errors import DaemonizeError, LaunchError, SetupError
from daemonize.launcher import interpreter
from daemonize.launcher.ready import Ready
from daemonize.launcher.wrapper import Wrapper
from daemonize.posix import signals
from daemonize.posix.fds import Descriptors, occupy_standard, write_all
from daemonize.registry.private import settled

if TYPE_CHECKING:
    from daemonize.launcher.outputs import Targets
    from daemonize.launcher.request import Request


def run(request: Request, targets: Targets, directory: str | None = None) -> Ready | LaunchError:
    """What `Wrapper(request, targets).run()` would give, without forking this process. Raises what that would.

    directory: to launch from (None: where this process is).
    """
    owner = Descriptors()
    try:
        occupy_standard(owner)
        request_end, request_write = owner.pipe()
        outcome_read, outcome_end = owner.pipe()
        inherited = {request_end, outcome_end, targets.stdout, targets.stderr, *request.keep_fds} - {None}
        process = _spawn(request_end, outcome_end, {fd for fd in inherited if fd is not None}, directory)
        owner.shut(request_end, outcome_end)
        try:
            _send(request_write, (request, targets))
            answer = _receive(outcome_read)
        finally:
            owner.shut(request_write)
            process.wait()
    finally:
        owner.close()
    if isinstance(answer, (Ready, LaunchError)):
        return answer
    raise answer


def _spawn(
    request_end: int, outcome_end: int, inherited: set[int], directory: str | None
) -> subprocess.Popen[bytes]:
    command = interpreter.command("daemonize.launcher.helper", request_end, outcome_end)
    try:
        environment = {**os.environb, **settled(os.environb)}
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=inherited, cwd=directory, env=environment
        )
    except OSError as error:
        raise SetupError("start", "the launch helper", error) from None


def _send(fd: int, message: object) -> None:
    data = pickle.dumps(message)
    try:
        write_all(fd, b"%d\n" % len(data) + data)
    except BrokenPipeError:
        pass  # it has been killed; the missing answer says so


def _receive(fd: int) -> DaemonizeError | Ready:
    data = b""
    while chunk := os.read(fd, 65536):
        data += chunk
    if not data:
        return SetupError("finish", "the launch", OSError(0, "the launch helper was killed"))
    return pickle.loads(data.partition(b"\n")[2])  # type: ignore[no-any-return]  # noqa: S301 (from our own child)


class _CallerGone(signals.SignalSource):
    """The request pipe as a source of signals: its end is a SIGTERM."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self) -> list[tuple[int, int | None]]:
        """Called when the pipe is readable, which is at its end."""
        self.ended = True
        return [(signals.SIGTERM, None)]


def main(arguments: list[str]) -> None:
    """The helper's side."""
    request_end, outcome_end = int(arguments[0]), int(arguments[1])
    for fd in (request_end, outcome_end):
        os.set_inheritable(fd, False)
    signals.ignore(signals.SIGINT)  # a Ctrl-C is the caller's to act on
    length = b""
    while not length.endswith(b"\n"):
        byte = os.read(request_end, 1)
        if not byte:
            return
        length += byte
    data = b""
    while len(data) < int(length):
        data += os.read(request_end, int(length) - len(data))
    request, targets = pickle.loads(data)  # noqa: S301 (from the process that executed us)
    answer: object
    try:
        answer = Wrapper(request, targets, queue=_CallerGone(request_end)).run()
    except DaemonizeError as error:
        answer = error
    except Exception as error:  # noqa: BLE001 (the caller gets it in any case)
        answer = SetupError("carry out", "the launch", OSError(0, f"internal error: {error!r}"))
    _send(outcome_end, answer)
