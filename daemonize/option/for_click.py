"""`@daemonize.daemonize_option()`: the option for commands of click.

The command's own steps stay click's. When the command is about to be invoked (its parameters are complete, the callbacks
of the groups above it have run), its context is asked to invoke the callback, whatever other decorators are around that:
there, once, the program becomes the wrapper, and what is invoked is invoked in the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, Unpack
from weakref import WeakKeyDictionary

import click

from daemonize.errors import DaemonizeError
from daemonize.option import begin, for_typer
from daemonize.option.settings import Settings, is_own_command_line, program_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemonize.option.settings import Given

    Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)
    _Adds = Callable[[Any], Any]

_HELP = "Run in the background; return when the server is ready."
_PID_HELP = "With {option}: write the server's pid to this file."
_LOG_HELP = "With {option}: append the server's output to this file, once it is ready."


def daemonize_option(
    *param_decls: str,
    pid_file: str | Sequence[str] | None = "--pid-file",
    log_file: str | Sequence[str] | None = "--log-file",
    default: bool = False,
    help: str = _HELP,  # noqa: A002 (click's name for it)
    **settings: Unpack[Given],
) -> Callable[[Decorated], Decorated]:
    """Add `--daemonize`, with which the command runs in the background: its caller gets the prompt back when it is ready.

    The command says so by calling `daemonize.ready()`. What it says until then, and its exit status if it ends before,
    are its caller's. param_decls: the option's own names, if not `--daemonize`. pid_file, log_file: names of the options
    for a pid file, and for the file that takes stdout and stderr once the server is ready (None: no such option).
    default: whether it runs so if nobody says anything (then name what undoes it, too: `--daemonize/--foreground`). help:
    of the option. Settings: timeout, seconds (or "90s") to become ready, None: no limit; stop_timeout, seconds between
    SIGTERM and SIGKILL for a server that did not become ready; strict, anything on stderr before ready is a failure;
    user, cwd, umask, nice, core, limits, as of `daemonize.context`: entered between the group callbacks and the command.

    Decorates functions, as `click.option`, and finished commands, also those that Typer makes of functions. Raises
    UsageError for settings that cannot be.
    """
    if not all(isinstance(name, str) for name in param_decls):
        raise TypeError("write @daemonize_option(), with parentheses; what is in them is the option's name")
    names = param_decls or ("--daemonize",)
    shown = max(names, key=len).partition("/")[0]
    flag = _Flag(Settings(**settings), shown)
    files = [
        (names_of, take, text.format(option=shown))
        for names_of, take, text in (
            (pid_file, flag.take_pid_file, _PID_HELP),
            (log_file, flag.take_log_file, _LOG_HELP),
        )
        if names_of is not None
    ]

    def decorate(decorated: Decorated) -> Decorated:
        _refuse_others(decorated)
        of_typer = for_typer.is_command(decorated)
        flag_option, file_option = (
            (for_typer.flag, for_typer.file) if of_typer else (_flag_option, _file_option)
        )
        options = [flag_option(names, flag.take, default=default, text=help)]
        for names_of, take, text in files:
            options.append(file_option([names_of] if isinstance(names_of, str) else names_of, take, text))
        if of_typer or isinstance(decorated, click.Command):
            # A group without a callback of its own has nowhere else to begin.
            decorated.callback = decorated.callback or _nothing  # type: ignore[union-attr]
        else:
            options.reverse()  # click turns those of functions round
        for option in options:
            option(decorated)
        return decorated

    return decorate


def _refuse_others(decorated: object) -> None:
    """Raise TypeError for what is no command, and nothing to make one of."""
    if not callable(decorated) or for_typer.is_app(decorated):
        kinds = "functions and commands (such as typer.main.get_command(app))"
        raise TypeError(f"daemonize_option() is for {kinds}, not for {decorated!r}")


def _flag_option(names: Sequence[str], callback: Callable[..., None], *, default: bool, text: str) -> _Adds:
    return click.option(
        *names, is_flag=True, default=default, help=text, expose_value=False, callback=callback
    )


def _file_option(names: Sequence[str], callback: Callable[..., None], text: str) -> _Adds:
    path = click.Path(dir_okay=False)
    return click.option(*names, type=path, help=text, expose_value=False, callback=callback)


def _command_of(like: click.Command, name: str, body: Callable[[], object]) -> click.Command:
    """A command that is just this body, of the kind of another: each kind has exceptions of its own."""
    if for_typer.is_command(like):
        command: click.Command = for_typer.command(body, name)
        return command
    return click.Command(name, callback=body)


def _nothing(**_params: object) -> None:
    """The callback of a group that has none."""


class _Asked:
    """What one command line asks for."""

    def __init__(self) -> None:
        self.daemonize = self.is_own = False
        self.files: dict[str, str | None] = {"pid": None, "log": None}
        self.idle: list[click.Parameter] = []  # given on the command line, and of no use without the flag


class _Flag:
    """One use of the decorator. name: of the option, as it is shown."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._asked: WeakKeyDictionary[click.Context, _Asked] = WeakKeyDictionary()

    def _of(self, ctx: click.Context) -> _Asked:
        return self._asked.setdefault(ctx, _Asked())

    def take(self, ctx: click.Context, param: click.Parameter, value: bool) -> None:
        """Callback of the flag itself."""
        if ctx.resilient_parsing:
            return
        asked = self._of(ctx)
        asked.daemonize = value
        typed = _is_typed(ctx, param)
        asked.is_own = is_own_command_line([*param.opts, *param.secondary_opts], typed=typed)
        self._wait_for_invocation(ctx, asked)

    def take_pid_file(self, ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        """Callback of the option for the pid file."""
        self._take_file("pid", ctx, param, value)

    def take_log_file(self, ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        """Callback of the option for the log file."""
        self._take_file("log", ctx, param, value)

    def _take_file(self, kind: str, ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        asked = self._of(ctx)
        asked.files[kind] = value
        if value is not None and _is_typed(ctx, param):
            asked.idle.append(param)

    def _wait_for_invocation(self, ctx: click.Context, asked: _Asked) -> None:
        """Put ourselves in front of what this context invokes first: the command's callback, decorators and all.

        To wrap the callback would leave what other decorators have around it outside, in the process that is called.
        """

        def invoke(callback: Any, *args: Any, **kwargs: Any) -> object:
            if callback is not ctx.command.callback and _is_parsing(ctx):
                return type(ctx).invoke(ctx, callback, *args, **kwargs)
            del ctx.invoke
            self._begin(ctx, asked, lambda: ctx.invoke(callback, *args, **kwargs))
            return ctx.invoke(callback, *args, **kwargs)

        ctx.invoke = invoke  # type: ignore[method-assign, assignment]

    def _begin(self, ctx: click.Context, asked: _Asked, body: Callable[[], object]) -> None:
        """Return where the command is to be carried out: here, or in the server."""
        if not asked.daemonize:
            for param in asked.idle:
                ctx.fail(f"{max(param.opts, key=len)} is of use only with {self._name}.")
            return
        if begin.is_server():
            return
        if not asked.is_own:
            ctx.exit(self._embed(ctx, asked, body))
        try:
            begin.begin(self._settings, asked.files["pid"], asked.files["log"], lambda: _close(ctx))
        except begin.EndedError as ended:
            ctx.exit(ended.status)

    def _embed(self, ctx: click.Context, asked: _Asked, body: Callable[[], object]) -> int:
        from daemonize.option import embedded  # only now: a program of its own never needs it

        name = ctx.info_name or program_name()
        try:
            request = self._settings.request(asked.files["pid"], asked.files["log"], base=None)
            return embedded.run(request, _command_of(ctx.command, name, body), name)
        except DaemonizeError as error:
            click.echo(f"{name}: {error}", err=True)
            return error.exit_status


def _close(ctx: click.Context) -> None:
    """Close what the callbacks have opened with this context, and those above it."""
    closing: click.Context | None = ctx
    while closing is not None:
        closing.close()
        closing = closing.parent


def _is_parsing(ctx: click.Context) -> bool:
    """Whether a callback of another option invokes something while the command line is still being read."""
    return any(ctx.get_parameter_source(param.name or "") is None for param in ctx.command.params)


def _is_typed(ctx: click.Context, param: click.Parameter) -> bool:
    """Whether it was an argument. By the name of the source: Typer has sources of its own."""
    source = ctx.get_parameter_source(param.name or "")
    return source is not None and source.name == "COMMANDLINE"
