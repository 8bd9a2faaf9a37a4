"""The options of `daemonize`: one table, from which both parsers and the tests of the manual page are made."""

from __future__ import annotations

from daemonize.errors import UsageError, printable
from daemonize.units import parse_duration, parse_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FLAG, VALUE, MANY = "flag", "value", "many"


class Option:
    """One option. dest: keyword of the parsed result. convert: from text, raises UsageError. envvar: where a default is."""

    __slots__ = ("convert", "dest", "envvar", "help", "kind", "metavar", "names")

    def __init__(
        self,
        names: tuple[str, ...],
        dest: str,
        kind: str,
        help: str,  # noqa: A002 (click's word)
        *,
        metavar: str = "",
        convert: Callable[[str], object] = str,
        envvar: str = "",
    ) -> None:
        self.names, self.dest, self.kind, self.help = names, dest, kind, help
        self.metavar, self.convert, self.envvar = metavar, convert, envvar


def parse_variable(text: str) -> tuple[str, str]:
    """NAME=VALUE. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"'{printable(text)}' is not of the form NAME=VALUE")
    return name, value


def parse_on_timeout(text: str) -> str:
    """`stop` or `leave`. Raises UsageError."""
    if text not in ("stop", "leave"):
        raise UsageError(f"'{printable(text)}' is neither stop nor leave")
    return text


def parse_descriptor(text: str) -> int:
    """A descriptor number from 3 on. Raises UsageError."""
    if not (text.isascii() and text.isdecimal()) or not 3 <= int(text) < 1 << 20:
        raise UsageError(f"'{printable(text)}' is not a descriptor that can be kept (3 and up)")
    return int(text)


OPTIONS = (
    Option(("-r", "--ready"), "ready", MANY, "How the server becomes ready; repeated, all must hold: "
           "streams (default), started, exit, alive:DURATION.", metavar="SPEC"),
    Option(("-t", "--timeout"), "timeout", VALUE, "Longest start-up: 500ms, 2min, infinity [default: 90s; none with -f].",
           metavar="DURATION", convert=parse_timeout, envvar="DAEMONIZE_TIMEOUT"),
    Option(("--on-timeout",), "on_timeout", VALUE, "What becomes of a server that is not ready in time [default: stop].",
           metavar="stop|leave", convert=parse_on_timeout),
    Option(("--stop-timeout",), "stop_timeout", VALUE, "Time between SIGTERM and SIGKILL [default: 10s].",
           metavar="DURATION", convert=parse_duration),
    Option(("--strict",), "strict", FLAG, "Anything on stderr before the server is ready is a failure."),
    Option(("-c", "--chdir"), "directory", VALUE, "Directory the server runs in.", metavar="DIR"),
    Option(("-E", "--env"), "environment", MANY, "Set a variable for the server.", metavar="NAME=VALUE",
           convert=parse_variable),
    Option(("--clear-env",), "clear_environment", FLAG, "Start the server with no other variables than those of -E."),
    Option(("-o", "--stdout"), "stdout", VALUE, "File for the server's stdout.", metavar="FILE"),
    Option(("-e", "--stderr"), "stderr", VALUE, "File for the server's stderr.", metavar="FILE"),
    Option(("-a", "--append"), "append", FLAG, "Append to the files of -o and -e instead of truncating them."),
    Option(("--stdin",), "stdin", VALUE, "File for the server's stdin [default: /dev/null].", metavar="FILE"),
    Option(("--keep-fd",), "keep_fds", MANY, "Open descriptor that the server inherits.", metavar="N",
           convert=parse_descriptor),
    Option(("-f", "--foreground"), "foreground", FLAG, "Stay the server's parent: relay, forward signals, exit as it does."),
    Option(("--json",), "json", FLAG, "Print one line of JSON about the launch; the server's stdout goes to stderr."),
    Option(("-q", "--quiet"), "quiet", FLAG, "Print no line of daemonize's own."),
    Option(("-v", "--verbose"), "verbose", FLAG, "Print what happens, on stderr."),
)  # fmt: skip
