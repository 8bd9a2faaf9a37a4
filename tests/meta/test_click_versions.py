"""The option under releases of click from 8.1.0 on, each fetched into a directory of its own. Nothing deprecated is used."""

from __future__ import annotations

import os
import sys
import tomllib
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import apps, registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: The first and the last of the oldest series that is supported, and the first of each that came with changes to options.
OTHERS = ("8.1.0", "8.1.8", "8.2.0", "8.3.0")
INSTALLED = "installed"
STRICT = (sys.executable, "-W", "error::DeprecationWarning")
PROGRAM = """
@click.group(invoke_without_command=True)
@click.option('--name', default='x')
@click.pass_context
def cli(ctx, name):
    click.echo(f'group {name}')

@cli.command()
@click.option('--end', type=int)
@click.argument('number', type=int, default=3)
@daemonize_option()
@click.version_option('7')
@click.pass_context
def web(ctx, end, number):
    click.echo(f'body {number}')
    if end == 1:
        raise click.ClickException('it is wrong')
    if end:
        ctx.exit(end)
    serve()

@click.command()
@daemonize_option('-d', '--background/--foreground', pid_file='--pid', log_file=None, default=True)
def alone():
    click.echo('alone')
    serve()
"""
USUAL = "cli(prog_name='app')"


class Click(NamedTuple):
    """A release of click. directory: where it was fetched to; None: it is the one that is installed."""

    version: str
    directory: str | None

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which a program has this click."""
        return {"PYTHONPATH": self.directory} if self.directory else {}


@pytest.fixture(
    scope="module",
    params=[INSTALLED, *(pytest.param(version, marks=pytest.mark.registry) for version in OTHERS)],
)
def a_click(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Click:
    """Each release in turn. Skipped, with pip's reason, where the package registry cannot be reached."""
    version: str = request.param
    if version == INSTALLED:
        return Click(version, None)
    directory = str(tmp_path_factory.mktemp("click"))
    registry.fetch(f"click=={version}", directory)
    return Click(version, directory)


def run(a_click: Click, directory: Path, code: str, *words: str, **variables: str) -> apps.Result:
    """Run a program under this click; a use of what is deprecated is an error."""
    program = apps.write(directory, PROGRAM + code)[1:]
    return apps.run([*STRICT, *program], *words, cwd=directory, env={**a_click.variables, **variables})


def test_the_oldest_is_what_is_promised() -> None:
    """Who promises an older click, or no longer so old a one, has it tested."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]

    assert f"click>={OTHERS[0].removesuffix('.0')}" in dependencies


def test_it_is_this_one(a_click: Click, tmp_path: Path) -> None:
    """The environment has what it is named for."""
    code = "import importlib.metadata; print(importlib.metadata.version('click'), click.__file__)"
    version, path = run(a_click, tmp_path, code).out.decode().split()

    if a_click.directory:
        assert version == a_click.version
        assert os.path.commonpath([path, a_click.directory]) == a_click.directory
    else:
        assert path.startswith(sys.prefix)


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_command_of_a_group(a_click: Click, way: str, tmp_path: Path, servers: Family) -> None:
    """It is ready, its pid is in the file, its body has been carried out once, with its arguments."""
    done = run(
        a_click, tmp_path, apps.WAYS[way] + USUAL,
        "--name", "y", "web", "--daemonize", "4", "--pid-file", "web.pid", "--log-file", "web.log",
    )  # fmt: skip

    assert (done.status, done.err) == (0, b"")
    assert done.out == {"fork": b"group y\nbody 4\n", "anew": b"group y\ngroup y\nbody 4\n"}[way]
    assert (tmp_path / "web.pid").read_text() == f"{servers.only().pid}\n"
    assert (tmp_path / "web.log").exists()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--end", "5"), 5, b"before it was ready"),
        (("--end", "1"), 1, b"Error: it is wrong\n"),
        (("--nonsense",), 2, b"--nonsense"),
        (("--daemonize=1",), 2, b"does not take a value"),
    ],
)
def test_ends(
    a_click: Click, words: tuple[str, ...], status: int, said: bytes, tmp_path: Path, family: Family
) -> None:
    """Status and words are those of click."""
    done = run(a_click, tmp_path, USUAL, "web", "--daemonize", *words)

    assert done.status == status
    assert said in done.err
    family.nobody()


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        ((), {}),
        (("--background",), {}),
        (("-d",), {}),
        (("--foreground", "-d"), {}),
        ((), {"APP_BACKGROUND": "yes"}),
    ],
)
def test_a_command_by_itself(
    a_click: Click, words: tuple[str, ...], variables: dict[str, str], tmp_path: Path, servers: Family
) -> None:
    """By default, by either of its names, by a variable of the environment: each way to ask makes one server."""
    code = "alone(auto_envvar_prefix='APP')"
    with open(tmp_path / "out", "wb") as out:  # its own streams: what is not typed asks for nothing elsewhere
        program = apps.write(tmp_path, PROGRAM + code)[1:]
        environment = {**a_click.variables, **variables}
        done = apps.run([*STRICT, *program], *words, cwd=tmp_path, env=environment, stdout=out, stderr=out)

    assert done.status == 0
    assert (tmp_path / "out").read_bytes() == b"alone\n"
    assert servers.only().ppid == 1


def test_a_file_is_of_no_use_alone(a_click: Click, tmp_path: Path, family: Family) -> None:
    """A wrong usage, also where an unset option has a value of click's own that is not None (8.3)."""
    done = run(a_click, tmp_path, USUAL, "web", "--log-file", "web.log")

    assert done.status == 2
    assert b"--log-file is of use only with --daemonize" in done.err
    family.nobody()


def test_without_standalone_mode(a_click: Click, tmp_path: Path, servers: Family) -> None:
    """The caller gets what click gives him; the server goes on in the command."""
    code = """
try:
    cli(standalone_mode=False)
except click.ClickException as error:
    print('caught', error.message)
"""
    refused = run(a_click, tmp_path, code, "web", "--daemonize", "--end", "1")
    done = run(a_click, tmp_path, code, "web", "--daemonize")

    assert (refused.status, refused.out) == (0, b"group x\nbody 3\ncaught it is wrong\n")
    assert (done.status, done.out, done.err) == (0, b"group x\nbody 3\n", b"")
    assert servers.only().ppid == 1


def test_by_its_runner(a_click: Click, tmp_path: Path, servers: Family) -> None:
    """CliRunner gets status and output; the program that uses it goes on."""
    code = """
from click.testing import CliRunner
for words in ['web', '--daemonize'], ['web', '--daemonize', '--end', '5'], ['web', '--daemonize', '--end', '1']:
    result = CliRunner().invoke(cli, words)
    print(result.exit_code, 'body 3' in result.output, 'it is wrong' in result.output)
"""
    done = run(a_click, tmp_path, code)

    assert (done.status, done.err) == (0, b"")
    assert done.out == b"0 True False\n5 True False\n1 True True\n"


def test_help_and_completion(a_click: Click, tmp_path: Path, family: Family) -> None:
    """The option is shown and completed, and neither starts anything."""
    shown = run(a_click, tmp_path, USUAL, "web", "--daemonize", "--help")
    completed = run(
        a_click, tmp_path, USUAL,
        _APP_COMPLETE="bash_complete", COMP_WORDS="app web --daemonize --", COMP_CWORD="3",
    )  # fmt: skip

    assert (shown.status, shown.err, completed.err) == (0, b"", b"")
    for option in (b"--daemonize", b"--pid-file", b"--log-file"):
        assert option in shown.out
    for option in (b"--pid-file", b"--log-file"):
        assert option in completed.out
    family.nobody()


def test_what_is_deprecated_is_an_error(tmp_path: Path) -> None:
    """Negative control: since 8.2 click warns of its own `__version__`."""
    done = run(Click(INSTALLED, None), tmp_path, "print(click.__version__)")

    assert done.status == 1
    assert b"DeprecationWarning" in done.err
