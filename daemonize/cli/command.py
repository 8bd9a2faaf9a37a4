"""The click command of `daemonize`, made from the option table: help, errors, completion, and every unusual case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from daemonize.cli.asking import Converted
from daemonize.cli.options import FLAG, MANY, OPTIONS, Option
from daemonize.errors import UsageError
from daemonize.readiness import FORMS

if TYPE_CHECKING:
    from collections.abc import Callable

_HELP = """\
Start a server in the background and return exactly when it is ready.

COMMAND runs as a daemon. What it says while it starts is relayed. The exit status is 0 when it is ready, and the
server's own when it died before that. Options end at COMMAND.
"""

_EPILOG = """\
Exit status: 0 ready; the server's own, or 128+N for signal N; 1 it exited 0 before --ready held, or --strict; 2 usage; 75
already running: the lock file, pid file, port or socket is taken; 124 not ready in time; 125 daemonize itself failed; 126,
127 the command cannot be executed, was not found.

\b
More: man -M DIR/share/man daemonize
(DIR is where it was installed, as in DIR/bin/daemonize: /opt/daemonize, say.
`man daemonize` alone may show another program of that name.)
"""


class _Value(Converted):
    """A value of the option table."""

    def __init__(self, option: Option) -> None:
        super().__init__(option.metavar, option.convert)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Files, directories, readiness specs, or the words of a choice."""
        if self.name in {"FILE", "DIR"}:
            return [CompletionItem(incomplete, type=self.name.lower())]
        words = [form for form, _, _ in FORMS] if self.name == "SPEC" else _choices(self.name)
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _choices(metavar: str) -> list[str]:
    return metavar.split("|") if "|" in metavar else []


def _parameter(option: Option) -> click.Option:
    if option.kind == FLAG:
        return click.Option([*option.names, option.dest], is_flag=True, default=None, help=option.help)
    return click.Option(
        [*option.names, option.dest],
        type=_Value(option),
        multiple=option.kind == MANY,
        metavar=option.metavar,
        envvar=option.envvar or None,
        help=option.help,
    )


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"daemonize {version('daemonize-ready')}")
        ctx.exit()


def make_command(callback: Callable[..., Any] | None = None) -> click.Command:
    """The command. `callback` gets what was given, by `dest`, and `command`: the words of COMMAND."""
    version = click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Show the version.",
    )
    return click.Command(
        "daemonize",
        params=[
            *(_parameter(option) for option in OPTIONS),
            version,
            click.Argument(
                ["command"],
                nargs=-1,
                required=True,
                type=click.UNPROCESSED,
                metavar="COMMAND [ARG]...",
                shell_complete=lambda _ctx, _param, incomplete: [CompletionItem(incomplete, type="file")],
            ),
        ],
        callback=callback,
        help=_HELP,
        epilog=_EPILOG,
        context_settings={"allow_interspersed_args": False, "help_option_names": ["--help"]},
    )


def parse(arguments: list[str]) -> tuple[dict[str, object], list[str]] | int:
    """What click makes of the arguments: as `fast.parse`; a number is the exit status of a run that has ended here.

    Raises UsageError.
    """

    def collect(command: tuple[str, ...], **given: object) -> tuple[dict[str, object], list[str]]:
        unset = (None, False)  # an option that was not given (click 8.1 and 8.3 differ in which it is)
        return {name: v for name, v in given.items() if not any(v is u for u in unset) and v != ()}, list(
            command
        )

    try:
        result = make_command(collect).main(arguments, "daemonize", standalone_mode=False)
    except click.MissingParameter:
        raise UsageError("no command was given (try 'daemonize --help')") from None
    except click.ClickException as error:
        message = error.format_message().rstrip(".")
        raise UsageError(f"{message} (try 'daemonize --help')") from None
    except click.Abort:
        return 1
    return result if isinstance(result, tuple) else int(result or 0)
