"""`--daemonize` for parsers of argparse: `add_daemonize_arguments`, and after parsing `daemonize_if_asked`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Unpack

from daemonize.errors import STATUS_USAGE, UsageError
from daemonize.launcher import words
from daemonize.option import begin
from daemonize.option.settings import Settings, is_own_command_line, program_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemonize.option.settings import Given

_PID_FILE, _LOG_FILE = "daemonize_pid_file", "daemonize_log_file"


class _Flag(argparse.Action):
    """Says in the namespace not only that it was given, but also as which option: an abbreviation is known only here."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_rest: Any) -> None:
        setattr(namespace, self.dest, True)
        # From a file it may have come without having been typed.
        namespace.daemonize_typed = None if parser.fromfile_prefix_chars else self.option_strings


def add_daemonize_arguments(
    parser: argparse.ArgumentParser,
    *option_strings: str,
    pid_file: str | Sequence[str] | None = "--pid-file",
    log_file: str | Sequence[str] | None = "--log-file",
) -> None:
    """Add `--daemonize`, `--pid-file` and `--log-file` to a parser, or to one of a subcommand.

    option_strings: other names for the first. pid_file, log_file: names of the other two (None: no such option). They are
    `daemonize`, `daemonize_pid_file` and `daemonize_log_file` in what is parsed, and `daemonize_typed` says whether the
    first was an argument; see `daemonize_if_asked`.
    """
    names = option_strings or ("--daemonize",)
    parser.set_defaults(daemonize_typed=None)
    group = parser.add_argument_group("running in the background")
    group.add_argument(
        *names, dest="daemonize", action=_Flag, nargs=0, default=False, help="return when the server is ready"
    )
    for decls, dest, text in (
        (pid_file, _PID_FILE, "then write the server's pid to this file"),
        (log_file, _LOG_FILE, "then append its output to this file, once it is ready"),
    ):
        if decls is not None:
            group.add_argument(
                *([decls] if isinstance(decls, str) else decls), dest=dest, metavar="FILE", help=text
            )


def daemonize_if_asked(args: argparse.Namespace, **settings: Unpack[Given]) -> None:
    """Return in the server, if `--daemonize` is among the parsed arguments; else do nothing.

    The process that was called does not come back from here: it leaves with the status of the launch. Call it as soon as
    the arguments are parsed, before anything is opened. Settings: as of `daemonize_option`.

    Raises SystemExit where nothing could be started; UsageError for settings that cannot be, and where the arguments were
    not those of this process, which must not be taken over.
    """
    checked = Settings(**settings)
    pid_file, log_file = (getattr(args, name, None) for name in (_PID_FILE, _LOG_FILE))
    if not getattr(args, "daemonize", False):
        if pid_file or log_file:
            given = "pid file" if pid_file else "log file"
            words.complain(f"the option for a {given} is of use only with --daemonize", program_name())
            raise SystemExit(STATUS_USAGE)
        return
    typed = getattr(args, "daemonize_typed", None)
    if not is_own_command_line(typed or (), typed=typed is not None, abbreviated=True):
        raise UsageError(
            "--daemonize takes over the whole process, and these are not the arguments of this one"
        )
    try:
        begin.begin(checked, pid_file, log_file)
    except begin.EndedError as ended:
        raise SystemExit(ended.status) from None
