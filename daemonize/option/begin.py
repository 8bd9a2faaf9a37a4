"""Where a program that was asked for `--daemonize` becomes the wrapper of its own server.

one thread:   program = wrapper ── fork ── intermediate parent ── fork ── server: `begin` returns
else:         program ── exec ── wrapper ── fork ── intermediate parent ── fork, exec ── the program, from its start:
                                                                                          `begin` returns

A program with threads cannot be copied (another thread may hold any lock, for ever), nor can one on macOS. Its process
becomes the wrapper by exec(2), so that nothing of it is left (a port that a group callback took, say) when the same command
line is started again. That one is told by MARK that it is the server, or it would do the same, for ever.

The program ends once, in the process that went on with it: there its atexit handlers run, its buffers are written, its
contexts are closed. The process that was called leaves by _exit(2) when there has been a server.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from daemonize import announce
from daemonize.errors import STATUS_FAILED, DaemonizeError, SetupError
from daemonize.launcher import words
from daemonize.launcher.continued import Continued
from daemonize.launcher.interpreter import command
from daemonize.launcher.outputs import Targets
from daemonize.launcher.wrapper import CANCELLING
from daemonize.option.settings import program_name
from daemonize.posix import arrival, fds, signals
from daemonize.posix.callers import has_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.launcher.request import Request
    from daemonize.option.settings import Settings

#: Set to the pid of a server that has been started anew. A launcher of the interpreter that is a process of its own may
#: stand between, hence the parent's.
MARK = "DAEMONIZE_SERVER"
#: Seconds that a thread may need to be gone when the program has seen it off.
LEAVING = 0.2
_started_anew = os.environ.pop(MARK, "") in (str(os.getpid()), str(os.getppid()))
_is_server = False


def is_server() -> bool:
    """Whether this process has become the server: then the option means nothing more, whoever carries out what."""
    return _is_server


class EndedError(Exception):
    """This process has nothing left to do but to end with `status`; what there is to be said has been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def begin(
    settings: Settings,
    pid_file: str | None,
    log_file: str | None,
    close: Callable[[], None] = lambda: None,
) -> None:
    """Return in the server. The process that was called does not come back: it leaves with the launch's status.

    close: closes what the program has open, before it is replaced. Raises EndedError if no server came of it.
    """
    try:
        if _started_anew and not _is_server:
            _enter(settings)
        elif not _is_server:
            _launch(settings, pid_file, log_file, close)
    except DaemonizeError as error:
        _say(str(error))
        raise EndedError(error.exit_status) from None


def _launch(
    settings: Settings, pid_file: str | None, log_file: str | None, close: Callable[[], None]
) -> None:
    if sys.platform != "linux" or has_threads(LEAVING):
        _replace(settings.request_anew(pid_file, log_file), close)
    status = fork(settings.request(pid_file, log_file), Targets(), _say, takes_over=True)
    if status is not None:
        os._exit(status)


def _say(line: str) -> None:
    words.complain(line, program_name())


def fork(request: Request, targets: Targets, say: Callable[[str], None], *, takes_over: bool) -> int | None:
    """Launch this very program. None: this is the server. Else the status to leave with.

    say: is given every line that is to be said. takes_over: as of Continued. Raises DaemonizeError, and EndedError if the
    server did not come to go on.
    """
    wrapper = Continued(request, targets, takes_over=takes_over)
    flush()  # or what is in the buffers would be written twice
    try:
        outcome = wrapper.launch()
    except DaemonizeError as error:
        if not wrapper.family.executed:
            raise
        say(str(error))
        return error.exit_status
    if outcome is None:
        _become_server()
        wrapper.release_signals()
        return None
    for line in words.lines(wrapper, outcome):
        say(line)
    if not wrapper.family.executed:
        raise EndedError(outcome.exit_status)
    return outcome.exit_status


def _enter(settings: Settings) -> None:
    """In a server that has been started anew: what it has not been given by the wrapper."""
    context = settings.context
    if context:
        try:
            context.open()
        except OSError as error:
            what = f"{context.stage.partition(':')[0]} {context.describe(context.stage)}".strip()
            reason = OSError(
                error.errno, os.strerror(error.errno or 0)
            )  # setrlimit(2) has only a number for it
            raise SetupError("set", what, reason) from None
    _become_server()


def _become_server() -> None:
    global _is_server  # noqa: PLW0603 (of this process, and it does not end before it)
    _is_server = True
    announce.buffer_lines((1,))
    if os.geteuid() == 0:
        announce.open_logs()  # rights that it has now it may give up before it is ready


def flush() -> None:
    """Write what Python has not yet written. What cannot be written stays where it is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # nobody reads it; it is closed; there is none


def _replace(request: Request, close: Callable[[], None]) -> NoReturn:
    """Make this process the wrapper of the program's server, which is started as this process was."""
    if not _is_repeatable():
        reason = OSError(0, "threads are running, and there is no command line to start it anew with")
        raise SetupError("daemonize", program_name(), reason)
    # Only now: whoever is forked never needs them.
    import pickle
    import tempfile

    request.pid_variable = MARK.encode()
    close()
    atexit._run_exitfuncs()  # noqa: SLF001  # exec(2) does not, and nobody else will
    flush()
    fds.occupy_standard(fds.Descriptors())  # or the file would be the stdout that the caller has closed
    with tempfile.TemporaryFile() as file:
        pickle.dump((request, program_name(), arrival.BLOCKED), file)
        file.flush()
        os.set_inheritable(file.fileno(), True)
        arguments = command("daemonize.option.begin", file.fileno())
        # What interrupts a launch waits until the wrapper can read it: an interpreter that starts would die of it.
        mask = signals.block(())
        signals.restore_mask({*arrival.BLOCKED, *CANCELLING})
        try:
            os.execve(sys.executable, arguments, arrival.ENVIRONMENT)
        except OSError as error:
            signals.restore_mask(mask)
            raise SetupError("execute", sys.executable, error) from None


def _is_repeatable() -> bool:
    """Whether this process can be started anew: by an interpreter, from something that can be read again."""
    from_stdin = sys.argv[:1] in ([""], ["-"])
    return bool(sys.executable) and not getattr(sys, "frozen", False) and not from_stdin


def main(arguments: list[str]) -> NoReturn:
    """Be that wrapper."""
    import pickle

    from daemonize.launcher.wrapper import Wrapper, catch_interrupts

    status, program = STATUS_FAILED, "daemonize"
    try:
        fds.occupy_standard(fds.Descriptors())
        with open(int(arguments[0]), "rb") as file:
            file.seek(0)
            request, program, mask = pickle.load(file)  # noqa: S301 (from the program that this process was)
        wrapper = Wrapper(request, Targets(), queue=catch_interrupts())
        signals.restore_mask(mask)
        outcome = wrapper.run()
        for line in words.lines(wrapper, outcome):
            words.complain(line, program)
        status = outcome.exit_status
    except DaemonizeError as error:
        words.complain(str(error), program)
        status = error.exit_status
    finally:
        os._exit(status)
