"""A command line that is carried out within another program: by click's CliRunner, a test, an interactive shell.

    other program ── fork ── intermediate parent ── fork ── server: the command's body, and then _exit(2)
        │ relays into its own sys.stdout and sys.stderr, and goes on

That program must neither leave when the server is ready nor go on in the server.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

from daemonize.errors import SetupError
from daemonize.launcher.outputs import Targets
from daemonize.option import begin
from daemonize.posix.callers import has_threads

if TYPE_CHECKING:
    from typing import TextIO

    from daemonize.launcher.request import Request


def run(request: Request, command: click.Command, name: str) -> int:
    """The status of a launch whose server is a command, which ends there as a program of that name would.

    Raises SetupError.
    """
    if sys.platform != "linux" or has_threads(begin.LEAVING):
        reason = OSError(
            0, "threads are running here, or this is not Linux; start it as a program of its own (subprocess)"
        )
        raise SetupError("daemonize", name, reason)
    request.shown_as = os.fsencode(name)
    said: list[str] = []
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            status = begin.fork(request, Targets(out.fileno(), err.fileno()), said.append, takes_over=False)
        except begin.EndedError as ended:
            status = ended.status
        if status is None:
            _serve(command, name)
        for source, target in ((out, sys.stdout), (err, sys.stderr)):
            source.seek(0)
            _hand_on(source.read(), target)
    for line in said:
        click.echo(f"{name}: {line}", err=True)
    return status


def _hand_on(data: bytes, target: TextIO) -> None:
    """Write the server's bytes to what stands for a stream here, which may take only text."""
    target.flush()
    if hasattr(target, "buffer"):
        target.buffer.write(data)
    else:
        target.write(data.decode("utf-8", "replace"))
    target.flush()


def _serve(command: click.Command, name: str) -> NoReturn:
    """Be the server, with streams of its own, to the end of the process."""
    status = 1
    try:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (they are to stay)
        sys.stdout, sys.stderr = open(1, "w", 1, closefd=False), open(2, "w", 1, closefd=False)  # noqa: SIM115
        status = _carry_out(command, name)
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    except BaseException:  # noqa: BLE001 (as the interpreter would, at the end of a program)
        traceback.print_exc()
    finally:
        begin.flush()
        os._exit(status)


def _carry_out(command: click.Command, name: str) -> int:
    """The status that click would give a program; what it says goes to stderr."""
    try:
        command.main([], name)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return (ended.code or 0) & 0xFF
        click.echo(ended.code, err=True)
    return 1
