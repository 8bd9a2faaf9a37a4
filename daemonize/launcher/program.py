"""From what is asked for to what is executed: descriptors, files to try, environment; and why it was not executed."""

from __future__ import annotations

import os
import stat
from errno import ENAMETOOLONG, ENOENT, ENOTDIR

from daemonize.errors import NotExecuted, SetupError
from daemonize.launcher.environment import server_environment
from daemonize.notify import ID, STDERR, STDOUT, STREAMS, streams_value
from daemonize.posix import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemonize.launcher.outputs import Outputs
    from daemonize.launcher.request import Request
    from daemonize.posix.fds import Descriptors


def build(
    request: Request, outer: Mapping[bytes, bytes], token: bytes, outputs: Outputs, owner: Descriptors
) -> child.Program:
    """The program of a request, whose outputs are open. token: `NAME=value` that marks it. Raises SetupError."""
    own = {ID: token.partition(b"=")[2]}
    if outputs.pipes:
        streams = streams_value(outputs.program_stdout, outputs.program_stderr)
        own |= {STREAMS: streams, STDOUT: outputs.files[0], STDERR: outputs.files[1]}
    environment = server_environment(outer, request.environment, own, clear=request.clear_environment)
    stdin, fifo = _open_stdin(request, owner)
    return child.Program(
        request.command, child.search(request.command[0], environment), environment,
        directory=request.directory, stdin=stdin, fifo=fifo,
        stdout=outputs.program_stdout, stderr=outputs.program_stderr,
        keep=request.keep_fds, dies_with_parent=request.foreground,
    )  # fmt: skip


def _open_stdin(request: Request, owner: Descriptors) -> tuple[int | None, bytes | None]:
    """The descriptor for stdin (None: the caller's), or the fifo that the server opens itself."""
    path = request.stdin
    if path is None and request.foreground:
        return None, None
    try:
        fd = owner.open(path or b"/dev/null", os.O_RDONLY | os.O_NONBLOCK)
        if path and stat.S_ISFIFO(os.fstat(fd).st_mode):
            owner.shut(fd)
            return (
                None,
                path,
            )  # to open it is to wait for a writer: let the server wait, we have a timeout to keep
        os.set_blocking(fd, True)
        return fd, None
    except OSError as error:
        raise SetupError("open", os.fsdecode(path or b"/dev/null"), error) from None


def not_executed(program: child.Program, stage: str, errno: int) -> NotExecuted:
    """The outcome for a step that failed, with what it failed on."""
    if stage != "exec":
        on = {"directory": program.directory, "stdin": program.fifo}.get(stage)
        return NotExecuted(stage, errno, os.fsdecode(on or b""))
    existing = [path for path in program.paths if os.path.exists(path)]
    found = bool(existing) or errno not in (ENOENT, ENOTDIR, ENAMETOOLONG)
    named = existing or (program.paths if found else [])
    return NotExecuted(stage, errno, os.fsdecode(named[0]) if named else "", found=found)
