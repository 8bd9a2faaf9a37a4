"""How commands are asked for things: names of daemons, durations, signals, verbs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from daemonize.errors import DaemonizeError, UsageError, printable
from daemonize.posix.signals import valid
from daemonize.registry.names import similar
from daemonize.registry.record import Registry

if TYPE_CHECKING:
    from collections.abc import Callable


class Name(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """The name of a daemon."""

    name = "NAME"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Those that there are records of."""
        try:
            return [CompletionItem(name) for name in Registry().names if name.startswith(incomplete)]
        except DaemonizeError:
            return []


class Converted(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """What a function of ours makes of the text."""

    def __init__(self, name: str, convert: Callable[[str], Any]) -> None:
        self.name, self._convert = name, convert

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """From text; what is converted already stays as it is."""
        try:
            return self._convert(value) if isinstance(value, str) else value
        except UsageError as error:
            self.fail(_origin(param, ctx) + str(error), param, ctx)


def _origin(param: click.Parameter | None, ctx: click.Context | None) -> str:
    from_outside = ctx and param and param.name and ctx.get_parameter_source(param.name)
    return f"${param.envvar}: " if param and from_outside is ParameterSource.ENVIRONMENT else ""


class NoReaderError(Exception):
    """Who reads our output has seen enough. Click would end with status 1 by a BrokenPipeError."""


class Verbs(click.Group):
    """Knows `ps` for `list`, and what somebody may have meant."""

    def invoke(self, ctx: click.Context) -> Any:
        """Carry a verb out. Raises NoReaderError."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise NoReaderError from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """By its name."""
        return super().get_command(ctx, "list" if cmd_name == "ps" else cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises UsageError for a verb that there is none of."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            begun = [verb for verb in self.commands if verb.startswith(args[0])]
            meant = begun or similar(args[0], [*self.commands, "ps"])
            guess = f'; did you mean "{meant[0]}"?' if meant else ""
            raise UsageError(f"there is no verb \"{printable(args[0])}\"{guess} (try 'daemonctl --help')")
        return super().resolve_command(ctx, args)


def parse_signal(text: str) -> int:
    """A signal by name, with or without SIG, or number. Raises UsageError."""
    name = text.upper().removeprefix("SIG")
    known: dict[str, int] = {number.name.removeprefix("SIG"): int(number) for number in signal.Signals}
    if name in known:
        return known[name]
    if text.isascii() and text.isdecimal() and int(text) in valid():
        return int(text)
    raise UsageError(f"'{printable(text)}' is not a signal; write HUP, SIGUSR1, 15, ...")


def parse_lines(text: str) -> int | None:
    """A number of lines; None for `all`. Raises UsageError."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"'{printable(text)}' is not a number of lines; write 10, 100, all, ...")
    return int(text)
