"""Commands of Typer from 0.26 on, which has a click of its own: options of click are nothing to it.

Its public ways make the options: a function that takes them, of which Typer makes a command, whose parameters they are.
What a callback gets (context, parameter, value) is what click's would, but for classes of other names.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    _Adds = Callable[[Any], Any]


def is_command(given: object) -> bool:
    """Whether it is such a command, or a group of them."""
    core = sys.modules.get("typer.core")
    kinds = (core.TyperCommand, core.TyperGroup) if core else ()
    return isinstance(given, kinds) and not isinstance(given, click.Command)


def is_app(given: object) -> bool:
    """Whether it is what Typer makes commands of, and not yet one."""
    typer = sys.modules.get("typer")
    return typer is not None and isinstance(given, typer.Typer)


def flag(names: Sequence[str], callback: Callable[..., Any], *, default: bool, text: str) -> _Adds:
    """What adds an option without a value to a command, which does not get it."""
    return _option(bool, names, callback, default=default, help=text)


def file(names: Sequence[str], callback: Callable[..., Any], text: str) -> _Adds:
    """What adds an option that takes the path of a file, likewise."""
    return _option(str | None, names, callback, default=None, help=text, metavar="FILE", dir_okay=False)


def command(body: Callable[[], object], name: str) -> Any:
    """A command that is just this body, to be carried out as Typer does."""
    return sys.modules["typer.core"].TyperCommand(name, callback=body)


def _option(
    kind: object, names: Sequence[str], callback: Callable[..., Any], *, default: object, **settings: Any
) -> _Adds:
    typer = sys.modules["typer"]

    def take(ctx, param, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 (Typer reads them below)
        callback(ctx, param, value)
        return value

    def taker(**_given: object) -> None:
        """Typer makes an option of its parameter."""

    # What the parameter is called must be its alone: options of one name have one value.
    name = max(names, key=len).lstrip("-").partition("/")[0].replace("-", "_")
    take.__annotations__ = {"ctx": typer.Context, "param": typer.CallbackParam, "value": kind}
    taker.__annotations__ = {name: kind}
    given = typer.Option(default, *names, callback=take, **settings)
    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=given, annotation=kind)
    taker.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(taker)
    (option,) = typer.main.get_command(app).params
    option.expose_value = False

    def add(command: Any) -> None:
        command.params.append(option)

    return add
