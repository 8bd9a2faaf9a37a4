"""The command `daemonize`: parse, call, translate the outcome into words and a status."""

from __future__ import annotations

import os
import sys

from daemonize.cli import fast
from daemonize.errors import STATUS_FAILED, DaemonizeError, LaunchError, SetupError, UsageError, printable
from daemonize.launcher import words
from daemonize.launcher.outputs import Targets
from daemonize.launcher.request import Request
from daemonize.launcher.wrapper import Wrapper, catch_interrupts
from daemonize.posix import signals
from daemonize.posix.fds import Descriptors, is_writable, occupy_standard, write_all

#: What those are told who wait long for a server that may never do what it is waited for.
HINT = (
    "still waiting for the server to close its stdout and stderr, as a daemon does when it is ready; "
    "if it never does, say how it becomes ready: --ready port, --ready log:REGEX, ... (see daemonize(1))"
)

#: A socket that the server has been given says nothing of it.
HINT_WITH_SOCKETS = HINT.replace("port,", "http://HOST:PORT/, notify,")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from daemonize.launcher.ready import Ready
    from daemonize.launcher.words import Waiting


def main() -> NoReturn:
    """Run with sys.argv and exit; nothing of the interpreter's own clean-up is waited for."""
    occupy_standard(Descriptors())  # before the first pipe of ours is made
    status = STATUS_FAILED
    try:
        status = run(sys.argv[1:])
    except DaemonizeError as error:
        words.complain(str(error))
        status = error.exit_status
    except SystemExit as ended:  # click's completion ends so
        status = ended.code if isinstance(ended.code, int) else 0
    except Exception as error:  # noqa: BLE001 (a user gets one line, whatever it is)
        words.complain(f"internal error: {type(error).__name__}: {printable(str(error))}")
    finally:
        os._exit(status)


def run(arguments: list[str]) -> int:
    """The exit status of `daemonize ARGUMENTS`. Raises UsageError."""
    parsed = fast.parse(arguments)
    if parsed is None:
        from daemonize.cli import command

        read = command.parse(arguments)
        if isinstance(read, int):
            return read
        parsed = read
    return Run.of(*parsed).status()


class Run:
    """One launch from a command line. words: the command. program: who says what there is to be said."""

    def __init__(
        self,
        request: Request,
        words: list[str],
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        program: str = "daemonize",
    ) -> None:
        self.request, self.words, self.program = request, words, program
        self.json, self.quiet, self.verbose = json, quiet, verbose
        self.targets = Targets(2 if json else 1, 2)

    @classmethod
    def of(cls, given: dict[str, object], words: list[str]) -> Run:
        """From what the parser has found. Raises UsageError."""
        flags = {name: bool(given.pop(name, False)) for name in ("json", "quiet", "verbose")}
        for name in given.keys() & {"environment", "limits"}:
            given[name] = dict(given[name])  # type: ignore[call-overload]
        if given.pop("no_core", False):
            if "core" in given:
                raise UsageError("--core and --no-core exclude each other")
            given["core"] = False
        request = Request(words, **given)  # type: ignore[arg-type]
        request.hands_on = True
        return cls(request, words, json=flags["json"], quiet=flags["quiet"], verbose=flags["verbose"])

    def status(self) -> int:
        """Carry it out. Raises UsageError."""
        try:
            outcome: Ready | DaemonizeError = self._launch()
        except UsageError:
            raise
        except DaemonizeError as error:
            outcome = error
        except OSError as error:
            outcome = SetupError("prepare", "the launch", error)
        self._report(outcome)
        if self.request.foreground:
            from daemonize.outcomes import Exited

            if isinstance(outcome, Exited) and outcome.signal:
                # Whoever asks the kernel is told what it would be of the server.
                signals.die_of(outcome.signal)
        return outcome.exit_status

    def _launch(self) -> Ready | LaunchError:
        if self.request.foreground:
            from daemonize.launcher.foreground import Foreground

            return Foreground(
                self.request, self.targets, say=self._say, warn=self._warn,
                on_ready=self._report, waiting=self._waiting(),
            ).run()  # fmt: skip
        queue = catch_interrupts()
        wrapper = Wrapper(self.request, self.targets, queue=queue, say=self._say, waiting=self._waiting())
        try:
            outcome = wrapper.run()
        except BaseException:
            queue.close()
            raise
        if isinstance(outcome, LaunchError):
            queue.close()
        # Else the signals stay caught: a late one can no longer stop the server, so it must not look as if it had.
        for problem in words.problems(wrapper, verbose=self.verbose):
            self._complain(problem)
        return outcome

    def _waiting(self) -> Waiting | None:
        """For people; those who asked for every step have those."""
        hint = HINT_WITH_SOCKETS if self.request.listen else HINT
        return None if self.quiet or self.verbose else words.waiting(hint, self.program)

    def _report(self, outcome: Ready | DaemonizeError) -> None:
        """Say what happened, where the server has not said it itself."""
        if getattr(outcome, "served", False):
            return  # it was ready, and that has been reported
        if isinstance(outcome, DaemonizeError):
            if self._needs_words(outcome):
                self._complain(str(outcome))
        else:
            self._say(f"ready after {outcome.seconds:.3f} s: pid {outcome.pid}")
            for spec, found in outcome.found.items():
                self._say(f"{spec}: {found}")
            if not self.request.foreground:
                self._say(f"files for its output: {', '.join(map(printable, outcome.files))}")
        if self.json:
            from daemonize.cli.report import json_line

            try:
                write_all(1, json_line(self.words, outcome))
            except OSError as error:
                self._complain(f"the report could not be written: {error.strerror}")

    def _needs_words(self, outcome: DaemonizeError) -> bool:
        if self.verbose:
            return True
        if self.request.foreground and not outcome.exit_status:
            return False  # in the foreground a command may simply come to its end
        return words.needs_words(outcome)

    def _complain(self, text: str) -> None:
        if not self.quiet:
            words.complain(text, self.program)

    def _warn(self, text: str) -> None:
        """What goes wrong when the server has long been ready: as `_say`, unasked."""
        if is_writable(2):
            self._complain(text)

    def _say(self, text: str) -> None:
        """Progress, during the launch: said only to a reader who does not make us wait."""
        if self.verbose and is_writable(2):
            self._complain(text)
