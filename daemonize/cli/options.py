"""The options of `daemonize`: one table, from which both parsers and the tests of the manual page are made."""

from __future__ import annotations

from daemonize.errors import UsageError, printable
from daemonize.launcher.request import MOST_NICE
from daemonize.units import parse_amount, parse_duration, parse_rotation, parse_timeout

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


def parse_umask(text: str) -> int:
    """An octal number up to 777. Raises UsageError."""
    if not text or len(text) > 4 or text.strip("01234567") or int(text, 8) > 0o777:
        raise UsageError(f"'{printable(text)}' is not a umask: an octal number from 0 to 777, as in 027")
    return int(text, 8)


def parse_nice(text: str) -> int:
    """A number to add to the niceness. Raises UsageError."""
    digits = text.removeprefix("-").removeprefix("+")
    if (
        not (digits.isascii() and digits.isdecimal())
        or len(text) - len(digits) > 1
        or int(digits) > MOST_NICE
    ):
        raise UsageError(
            f"'{printable(text)}' cannot be added to the niceness; write a number from -{MOST_NICE} to {MOST_NICE}"
        )
    return int(text)


def parse_limit(text: str) -> tuple[str, tuple[int, int | None]]:
    """NAME=SOFT[:HARD]. Raises UsageError."""
    name, equals, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    if not name or not equals:
        raise UsageError(f"'{printable(text)}' is not of the form NAME=SOFT[:HARD], as in nofile=1024:4096")
    return name, (parse_amount(soft), parse_amount(hard) if colon else None)


def parse_name(text: str) -> str:
    """The name of a daemon. Raises UsageError."""
    from daemonize.registry.names import check_name  # most launches have none

    return check_name(text)


def parse_user(text: str) -> str:
    """USER[:GROUP]. Raises UsageError."""
    if not text.partition(":")[0]:
        raise UsageError(f"'{printable(text)}' is not of the form USER[:GROUP]")
    return text


OPTIONS = (
    Option(("-n", "--name"), "name", VALUE, "Name of the daemon, one at a time, by which daemonctl knows it "
           "[default: the command's, numbered if taken].", metavar="NAME", convert=parse_name),
    Option(("-r", "--ready"), "ready", MANY, "How the server becomes ready; repeated, all must hold: "
           "streams (default), notify, fd:N, fdvar:NAME, port, port:[HOST:]PORT, unix:PATH, http://HOST[:PORT][/PATH], "
           "https://HOST[:PORT][/PATH], log:REGEX, file:PATH, exec:COMMAND, exit, alive:DURATION, started.", metavar="SPEC"),
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
    Option(("-u", "--user"), "user", VALUE, "Run the server as this user (root only).", metavar="USER[:GROUP]",
           convert=parse_user),
    Option(("--chroot",), "chroot", VALUE, "New root directory for the server.", metavar="DIR"),
    Option(("--umask",), "umask", VALUE, "File mode creation mask of the server.", metavar="MASK", convert=parse_umask),
    Option(("--nice",), "nice", VALUE, "Add this to the server's niceness.", metavar="N", convert=parse_nice),
    Option(("--core",), "core", FLAG, "Let the server write core files, as large as its hard limit allows."),
    Option(("--no-core", "--nocore"), "no_core", FLAG, "Never let the server write a core file."),
    Option(("--limit",), "limits", MANY, "Set a resource limit of the server: nofile=1024, core=0:0.",
           metavar="NAME=SOFT[:HARD]", convert=parse_limit),
    Option(("--safe",), "safe", FLAG, "As root: refuse a program that others may write to."),
    Option(("-p", "--pid-file", "--pidfile"), "pid_file", VALUE, "Write the pid of the server's main process to a file.",
           metavar="FILE"),
    Option(("-l", "--lock-file"), "lock_file", VALUE, "Run only if nobody holds the lock on this file.", metavar="FILE"),
    Option(("--clear-env",), "clear_environment", FLAG, "Start the server with no other variables than those of -E."),
    Option(("-o", "--stdout"), "stdout", VALUE, "File for the server's stdout.", metavar="FILE"),
    Option(("-e", "--stderr"), "stderr", VALUE, "File for the server's stderr.", metavar="FILE"),
    Option(("-a", "--append"), "append", FLAG, "Append to the files of -o and -e instead of truncating them."),
    Option(("--log-rotate",), "log_rotate", VALUE, "Rotate the logs when they grow beyond a size, while the server runs: "
           "10M, 512K:3. KEEP old ones stay [default: 5].", metavar="SIZE[:KEEP]", convert=parse_rotation),
    Option(("--timestamps",), "timestamps", FLAG, "Put the time before every line of the logs."),
    Option(("--stdin",), "stdin", VALUE, "File for the server's stdin [default: /dev/null].", metavar="FILE"),
    Option(("--keep-fd",), "keep_fds", MANY, "Open descriptor that the server inherits.", metavar="N",
           convert=parse_descriptor),
    Option(("--listen",), "listen", MANY, "Socket that the server finds open, from descriptor 3 on (LISTEN_FDS): "
           "[HOST:]PORT, unix:PATH. {fd} and {port} in the command are replaced.", metavar="[NAME=]ADDR"),
    Option(("-f", "--foreground"), "foreground", FLAG, "Stay the server's parent: relay, forward signals, exit as it does."),
    Option(("--watchdog",), "watchdog", VALUE, "With -f: feed the service manager's watchdog as long as this holds: "
           "http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH], exec:COMMAND.", metavar="SPEC"),
    Option(("--json",), "json", FLAG, "Print one line of JSON about the launch; the server's stdout goes to stderr."),
    Option(("-q", "--quiet"), "quiet", FLAG, "Print no line of daemonize's own."),
    Option(("-v", "--verbose"), "verbose", FLAG, "Print what happens, on stderr."),
)  # fmt: skip
