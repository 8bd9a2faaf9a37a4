"""What authors of servers get wrong, they hear when the program is loaded, in words that say what to write instead."""

from __future__ import annotations

import re

import click
import pytest
import typer

import daemonize


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strict": "yes"}, "strict must be True or False, not 'yes'"),
        ({"cwd": 3}, "cwd must be a path, not 3"),
        ({"limits": {"nofle": 3}}, "'nofle' is not a resource limit; there are: as"),
        ({"timeout": -1}, "unlike -1 and 10"),
        ({"stop_timeout": -1}, "unlike 90 and -1"),
        ({"umask": 0o1000}, "umask must be"),
        ({"nice": 100}, "nice must be"),
        ({"timeout": "soon"}, "soon"),
    ],
)
def test_settings(settings: dict[str, object], said: str) -> None:
    """A setting that cannot be is named."""
    with pytest.raises(daemonize.UsageError, match=re.escape(said)):
        daemonize.daemonize_option(**settings)


def test_unknown_settings() -> None:
    """As an unknown keyword of any function."""
    with pytest.raises(TypeError, match="no such setting: chroot"):
        daemonize.daemonize_option(chroot="/")


def test_without_parentheses() -> None:
    """The commonest slip."""
    with pytest.raises(TypeError, match=re.escape("write @daemonize_option()")):

        @daemonize.daemonize_option
        def command() -> None:
            """Never made."""


@pytest.mark.parametrize("given", [typer.Typer(), "command", None])
def test_what_is_no_command(given: object) -> None:
    """An app of Typer is not yet a command; the message names what makes it one."""
    with pytest.raises(TypeError, match=re.escape("typer.main.get_command(app)")):
        daemonize.daemonize_option()(given)


def test_what_is_right() -> None:
    """Control: functions and commands, in any of the ways, and every setting at once."""
    settings = {
        "timeout": "5s", "stop_timeout": 0, "strict": True, "user": "nobody", "cwd": "/no/such", "umask": 0o22, "nice": 1,
        "core": False, "limits": {"nofile": 100},
    }  # fmt: skip
    decorate = daemonize.daemonize_option("-d", "--detach", pid_file=None, **settings)

    @click.command()
    @decorate
    def command() -> None:
        """One."""

    decorated = decorate(click.Command("other"))

    assert [param.opts for param in command.params] == [["-d", "--detach"], ["--log-file"]]
    assert [param.opts for param in decorated.params] == [["-d", "--detach"], ["--log-file"]]
