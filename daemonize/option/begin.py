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
from typing import IO, TYPE_CHECKING, NoReturn

from daemonize import announce
from daemonize.errors import STATUS_FAILED, DaemonizeError, SetupError
from daemonize.launcher import words
from daemonize.launcher.continued import Continued
from daemonize.launcher.interpreter import command
from daemonize.launcher.outputs import Targets
from daemonize.launcher.wrapper import CANCELLING
from daemonize.notify import NAME, variable
from daemonize.option.settings import STREAMS, program_name
from daemonize.posix import arrival, fds, signals
from daemonize.posix.callers import has_threads
from daemonize.posix.identity import is_below

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.launcher.request import Request
    from daemonize.option.settings import Settings

#: Set to the pid of a server that has been started anew. A launcher of the interpreter that is a process of its own may
#: stand between, hence the parent's.
MARK = "DAEMONIZE_SERVER"
#: After the pid: where the program was called, stdout is written line by line.
_LINES = b" lines"
#: What those are told who wait long for a server that may never say that it is ready.
HINT = "still waiting for the server to call daemonize.ready(), or to close its stdout and stderr"
#: Seconds that a thread may need to be gone when the program has seen it off.
LEAVING = 0.2
_mark, _, _how = os.environ.pop(MARK, "").partition(" ")
_started_anew = _mark in (str(os.getpid()), str(os.getppid()))
_is_server = False
if _started_anew:
    announce.hold_streams()  # a group callback may redirect them; that is not readiness


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
        anew = settings.request_anew(pid_file, log_file)
        anew.name = _name()
        _replace(anew, close)
    request = settings.request(pid_file, log_file)
    request.name = _name()
    status = fork(request, Targets(), _say, takes_over=True)
    if status is not None:
        os._exit(status)


def _name() -> str | None:
    """The name of the daemon, if somebody has given it one, who cannot do it by an option: `daemonctl start`."""
    return os.fsdecode(variable(NAME)) or None


def _say(line: str) -> None:
    words.complain(line, program_name())


def fork(request: Request, targets: Targets, say: Callable[[str], None], *, takes_over: bool) -> int | None:
    """Launch this very program. None: this is the server. Else the status to leave with.

    say: is given every line that is to be said. takes_over: as of Continued. Raises DaemonizeError, and EndedError if the
    server did not come to go on.
    """
    waiting = words.waiting(HINT, program_name()) if takes_over else None
    wrapper = Continued(request, targets, _become_server, takes_over=takes_over, waiting=waiting)
    flush()  # or what is in the buffers would be written twice
    try:
        outcome = wrapper.launch()
    except DaemonizeError as error:
        if not wrapper.family.executed:
            raise
        say(str(error))
        return error.exit_status
    if outcome is None:
        announce.spare_memory()
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
            # setrlimit(2) has only a number for it.
            reason = OSError(error.errno, os.strerror(error.errno or 0))
            raise SetupError("set", what, reason) from None
    _become_server()


def _become_server() -> None:
    global _is_server  # noqa: PLW0603 (of this process, and it does not end before it)
    _is_server = True
    for name, fd in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # the caller had closed it
            setattr(sys, name, open(fd, "w", 1, errors="backslashreplace", closefd=False))  # noqa: SIM115 (it stays)
    announce.give_back_streams()
    if _how == _LINES.decode().strip():
        announce.buffer_lines((1,))  # as on the caller's terminal
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
        reason = OSError(0, "threads are running, and this command line cannot be started again")
        raise SetupError("daemonize", program_name(), reason)
    request.assigns_pid = (b"%s=%%d%s" % (MARK.encode(), _LINES if _buffers_lines() else b""),)
    fds.occupy_standard(fds.Descriptors())  # or the file would be the stdout that the caller has closed
    with _written((request, program_name(), arrival.BLOCKED)) as file:
        close()
        atexit._run_exitfuncs()  # noqa: SLF001  # exec(2) does not, and nobody else will
        flush()
        # They would be the wrapper's, with nobody to handle their signal.
        signals.set_timers(dict.fromkeys(signals.timers(), (0.0, 0.0)))
        arguments = command("daemonize.option.begin", file.fileno())
        # What interrupts a launch waits until the wrapper can read it: an interpreter that starts would die of it.
        mask = signals.block(())
        signals.restore_mask({*arrival.BLOCKED, *CANCELLING})
        try:
            os.execve(sys.executable, arguments, arrival.ENVIRONMENT)
        except OSError as error:
            signals.restore_mask(mask)
            raise SetupError("execute", sys.executable, error) from None


def _written(message: object) -> IO[bytes]:
    """A file without a name, which a program that is executed inherits. Raises SetupError."""
    # Only now: whoever is forked never needs them.
    import pickle
    import tempfile

    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
        pickle.dump(message, file)
        file.flush()
    except OSError as error:
        raise SetupError("write", "a temporary file", error) from None
    os.set_inheritable(file.fileno(), True)
    return file


def _buffers_lines() -> bool:
    return bool(getattr(sys.stdout, "line_buffering", False))


def _is_in_a_circle() -> bool:
    """Whether the server that was marked is one of our ancestors: what executes us stands between, and would for ever."""
    return _mark.isdigit() and 1 < int(_mark) < 1 << 31 and is_below(os.getpid(), int(_mark))


def _is_repeatable() -> bool:
    """Whether this process can be started anew: by an interpreter, once, from something that can be read again."""
    script = sys.argv[0] if sys.argv else ""
    from_stream = script in ("", "-") or script.startswith(STREAMS)
    return (
        bool(sys.executable)
        and not getattr(sys, "frozen", False)
        and not from_stream
        and not _is_in_a_circle()
    )


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
        waiting = words.waiting(HINT, program)
        wrapper = Wrapper(request, Targets(), queue=catch_interrupts(), waiting=waiting)
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
