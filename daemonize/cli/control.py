"""The command `daemonctl`: see, read, stop and start the daemons that `daemonize` has started."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from daemonize.cli import named
from daemonize.cli.asking import Converted, Name, NoReaderError, Verbs, parse_lines, parse_signal
from daemonize.daemon_errors import NoSuchDaemon, NotPossible
from daemonize.errors import STATUS_USAGE, AlreadyRunning, UsageError, printable
from daemonize.launcher.daemon import DEAD, RUNNING, STARTING, STOPPED, Daemon
from daemonize.registry.private import settled
from daemonize.registry.record import Registry
from daemonize.units import parse_duration, parse_timeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemonize.registry.record import Record

#: Linux Standard Base, "Init Script Actions": what `status` exits with.
_STATUS = {RUNNING: 0, DEAD: 1, STOPPED: 3, STARTING: 3}
_READY_TIMEOUT = 90.0

_DURATION = Converted("DURATION", parse_duration)
_TIMEOUT = Converted("DURATION", parse_timeout)
_SIGNAL = Converted("SIGNAL", parse_signal)
_one = click.argument("name", type=Name())
_some = click.argument("names", metavar="NAME...", type=Name(), nargs=-1, required=True)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=Verbs, context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(package_name="daemonize-ready", prog_name=named.PROGRAM, message="%(prog)s %(version)s")
def control() -> None:
    """See, read, stop and start the daemons that daemonize has started.

    Exit status: 0 done; 1 it could not be done; 2 usage; 4 no daemon of that name, or a record that cannot be used; 124
    not in time. status: 0 running, 1 dead, 3 stopped. start, restart: those of daemonize.
    """


# --- what it is asked ---------------------------------------------------------------------------------------------


def _say_json(value: object) -> None:
    click.echo(json.dumps(value))


@control.command("list")
@_json
@click.option("-a", "--all", "everything", is_flag=True, help="Those that do not run, too.")
def list_daemons(as_json: bool, everything: bool) -> int:
    """List the daemons that run (also: ps)."""
    from daemonize.cli import overview

    found: list[dict[str, Any]] = []

    def add(name: str) -> None:
        try:
            daemon = Daemon.find(name)
        except NoSuchDaemon:
            return  # it has been forgotten in between
        state = daemon.state
        if everything or state in (RUNNING, STARTING):
            found.append(overview.facts(daemon.record, state))

    registry = Registry()
    status = named.each(registry.names, add)
    for name in registry.only_locked:
        launch = registry.launcher(name)
        if launch:
            found.append(overview.of_launch(name, launch[0]))
    found.sort(key=lambda known: str(known["name"]))
    if as_json:
        _say_json(found)
    else:
        table = overview.table(list(map(overview.row, found)), aligned=os.isatty(1))
        click.echo(table, nl=False)
    return status


@control.command()
@_some
@_json
@click.option(
    "-n",
    "--lines",
    default=5,
    show_default=True,
    metavar="N",
    type=click.IntRange(0),
    help="So many lines of its logs.",
)
def status(names: Sequence[str], as_json: bool, lines: int) -> int:
    """Tell how daemons are. The exit status is that of the worst: 0 running, 1 dead, 3 stopped, 4 unknown."""
    from functools import cache

    from daemonize.cli import overview
    from daemonize.launcher.members import marked

    marks = cache(marked)

    def tell(name: str) -> int:
        try:
            daemon = Daemon.find(name)
        except NoSuchDaemon:
            launch = Registry().launcher(name)
            if launch is None:
                raise
            known = overview.of_launch(name, launch[0])
            if not as_json:
                click.echo(f"{printable(name)}: being started, for the first time")
            state = STARTING
        else:
            state = daemon.state
            known = overview.facts(daemon.record, state)
            if not as_json:
                click.echo(overview.paragraph(daemon.record, known, lines, marks), nl=False)
        if as_json:
            _say_json(known)
        return _STATUS[state]

    return named.each(names, tell)


_grace = click.option(
    "-t", "--timeout", type=_DURATION, help="Time until SIGKILL [default: as it was started with, or 10s]."
)


@control.command(short_help="Stop daemons, all at the same time.")
@_some
@_grace
@click.option(
    "-s",
    "--signal",
    "number",
    type=_SIGNAL,
    default="TERM",
    show_default=True,
    help="What it is told to end by.",
)
def stop(names: Sequence[str], timeout: float | None, number: int) -> int:
    """Stop daemons, all at the same time, and return when they and all that belongs to them are gone.

    To stop what is stopped succeeds.
    """
    return named.stop(names, timeout, number)


_quiet = click.option("-q", "--quiet", is_flag=True, help="Print no line of daemonctl's own.")
_verbose = click.option("-v", "--verbose", is_flag=True, help="Print what happens, on stderr.")


@control.command(short_help="Start a daemon again, as it was started.")
@_one
@_quiet
@_verbose
def start(name: str, quiet: bool, verbose: bool) -> int:
    """Start a daemon again as it was started, and return when it is ready, with the exit status of daemonize."""
    try:
        daemon = Daemon.find(name)
    except NoSuchDaemon:
        launch = Registry().launcher(name)
        if launch is None:
            raise
        raise AlreadyRunning("name", name, launch[0], launch[1], launching=True) from None
    return _launch(daemon, quiet=quiet, verbose=verbose)


@control.command(short_help="Stop a daemon, and start it again.")
@_one
@_grace
@_quiet
@_verbose
def restart(name: str, timeout: float | None, quiet: bool, verbose: bool) -> int:
    """Stop a daemon, start it again as it was started, and return when it is ready, with the exit status of daemonize."""
    from daemonize.launcher import relaunch

    daemon = Daemon(named.to_stop(name))
    relaunch.refuse_unrepeatable(daemon.record)
    relaunch.refuse_lost(daemon.record)
    ran = daemon.is_running
    daemon.stop(timeout)
    status = _launch(daemon, quiet=quiet, verbose=verbose)
    if status and ran and not quiet:
        named.complain(f"{printable(name)} has been stopped, and is not running now")
    return status


def _launch(daemon: Daemon, *, quiet: bool, verbose: bool) -> int:
    from daemonize.cli.main import Run
    from daemonize.launcher import relaunch

    record = daemon.record
    os.environb.update(settled(os.environb))
    relaunch.go_to(record)
    if record.by_option:
        return _execute(record)
    request = relaunch.request_of(record)
    return Run(request, record.command, quiet=quiet, verbose=verbose, program=named.PROGRAM).status()


def _execute(record: Record) -> int:
    """Its own command line does it all."""
    from daemonize.launcher import relaunch

    program, command, environment = relaunch.own_command_line(record)
    try:
        os.execve(program, command, environment)
    except OSError as error:
        raise NotPossible(record.name, f"cannot be started: {printable(program)}: {error.strerror}") from None


@control.command()
@_one
@click.argument("number", metavar="SIGNAL", type=_SIGNAL)
def signal(name: str, number: int) -> None:
    """Send a signal (HUP, SIGUSR1, 15) to the main process of a daemon."""
    named.find(name).signal(number)


@control.command(short_help="Let a daemon read its configuration again.")
@_one
@click.option(
    "-t", "--timeout", type=_TIMEOUT, default="90s", show_default=True, help="Longest that it may take."
)
def reload(name: str, timeout: float) -> None:
    """Let a daemon read its configuration again (SIGHUP); if it says when it has (--ready notify), wait for that."""
    if not named.find(name).reload(timeout) and os.isatty(2):
        named.complain(f"{printable(name)} has been told (SIGHUP); it does not say when it has reloaded")


@control.command()
@_one
@click.option(
    "-n",
    "--lines",
    type=Converted("N", parse_lines),
    default="10",
    show_default=True,
    help="So many of the last lines of each stream, or all.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--stderr", "stderr_only", is_flag=True, help="What it said on stderr only.")
@click.option("--since", metavar="WHEN", help="Nothing older: 10min, 2h, '2026-01-31 12:00'.")
def logs(name: str, lines: int | None, follow: bool, stderr_only: bool, since: str | None) -> int:
    """Print what a daemon has written."""
    from time import time

    from daemonize.cli.logs import show_logs
    from daemonize.logs.since import parse_since

    moment = None if since is None else parse_since(since, time())
    chosen = click.get_current_context().get_parameter_source("lines")
    if moment is not None and chosen is click.core.ParameterSource.DEFAULT:
        lines = None
    return show_logs(
        lambda: named.find(name).record, lines=lines, follow=follow, stderr_only=stderr_only, since=moment
    )


@control.command(short_help="Show all that is known of a daemon.")
@_one
@_json
def show(name: str, as_json: bool) -> None:
    """Show all that is known of a daemon: its record, its processes, where it listens, what it uses."""
    from daemonize.cli.details import text

    found = named.find(name).show()
    if as_json:
        _say_json(found)
    else:
        click.echo(text(found), nl=False)


@control.command()
@_one
@click.option("--exit", "mode", flag_value="exit", default="exit", help="Until it has ended (default).")
@click.option("--ready", "mode", flag_value="ready", help="Until the launch that is under way is over.")
@click.option("-t", "--timeout", type=_DURATION, help="Wait no longer [default: for ever; 90s with --ready].")
def wait(name: str, mode: str, timeout: float | None) -> None:
    """Wait until a daemon has ended, or is ready."""
    if mode == "ready":
        Daemon.wait_until_ready(name, _READY_TIMEOUT if timeout is None else timeout)
        return
    from daemonize.daemon_errors import NotYet

    daemon = named.find(name)
    if not daemon.wait(timeout):
        raise NotYet(name, f"still runs after {timeout:g} s (pid {daemon.pid})")


@control.command()
@_some
def forget(names: Sequence[str]) -> int:
    """Remove the records of daemons that do not run. Their logs stay."""
    from daemonize.registry import changes

    return named.each(names, changes.forget)


@control.command()
@_one
@click.option(
    "--format",
    "_form",
    type=click.Choice(["systemd"]),
    default="systemd",
    show_default=True,
    help="What for.",
)
def export(name: str, _form: str) -> None:
    """Print the unit that would start a daemon as it was started."""
    click.echo(named.find(name).export(_sibling("daemonize")), nl=False)


def _sibling(command: str) -> str:
    """The path of another command that was installed with this one."""
    path = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), command)
    return path if os.path.isfile(path) and os.access(path, os.X_OK) else command


# --- how it ends --------------------------------------------------------------------------------------------------


def run(arguments: list[str]) -> int:
    """The exit status of `daemonctl ARGUMENTS`. Raises DaemonizeError."""
    try:
        result = control.main(arguments, named.PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return STATUS_USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else named.PROGRAM
        raise UsageError(f"{_without_stop(error.format_message())} (try '{where} --help')") from None
    except click.Abort:
        raise KeyboardInterrupt from None  # what it was before click had it
    except NoReaderError:
        raise BrokenPipeError from None  # likewise
    return int(result or 0)


def _without_stop(sentence: str) -> str:
    """Click's own sentences end with a full stop; ours may end with an ellipsis."""
    return sentence if sentence.endswith("...") else sentence.removesuffix(".")
