"""Programs of Typer: its newer releases have a click of their own, in which the option is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import apps

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

PROGRAM = """
import typer
app = typer.Typer()

@app.callback()
def main():
    print('group', os.getpid())

@app.command()
def web(end: str = '', number: int = 3):
    print('body', os.getpid(), number)
    if end == 'exit':
        raise typer.Exit(5)
    if end == 'wrong':
        raise typer.BadParameter('it is wrong')
    if end == 'abort':
        raise typer.Abort
    if end == 'sys':
        sys.exit(6)
    if end == 'kill':
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
    serve()

@app.command()
def other():
    print('other')

cli = typer.main.get_command(app)
daemonize_option()(cli.commands['web'])
"""
SINGLE = """
import typer
app = typer.Typer()

@app.command()
def web():
    print('body', os.getpid())
    serve()

@app.command()
def never():
    pass

cli = typer.main.get_command(app)
daemonize_option('--background')(cli)
cli()
"""


@pytest.mark.parametrize("way", apps.WAYS)
def test_ready(way: str, tmp_path: Path, servers: Family) -> None:
    """The group in the process that was called, the command in the server, whose pid is in the file; once each."""
    argv = apps.write(tmp_path, apps.WAYS[way] + PROGRAM + "cli()")
    done = apps.run(
        argv, "web", "--daemonize", "--number", "4", "--pid-file", "web.pid", "--log-file", "web.log",
        cwd=tmp_path,
    )  # fmt: skip

    groups = [line.split()[1] for line in done.out.splitlines() if line.startswith(b"group")]
    (body,) = [line.split() for line in done.out.splitlines() if line.startswith(b"body")]
    assert (done.status, done.err) == (0, b"")
    assert body[2] == b"4"
    assert (tmp_path / "web.pid").read_bytes() == body[1] + b"\n"
    assert (tmp_path / "web.log").exists()
    assert len(groups) == (1 if way == "fork" else 2)
    assert groups[0] != body[1]


@pytest.mark.parametrize("end", ["exit", "wrong", "abort", "sys", "kill"])
def test_ends_as_in_the_foreground(end: str, tmp_path: Path, family: Family) -> None:
    """Status and words of Typer's own exceptions are those of the foreground, but for our line where there were none."""
    argv = apps.write(tmp_path, PROGRAM + "cli()")
    front = apps.run(argv, "web", "--end", end)
    back = apps.run(argv, "web", "--daemonize", "--end", end)

    assert back.status == front.status != 0
    assert back.err == front.err if front.err else b"before it was ready" in back.err
    assert (front.out.count(b"\n"), back.out.count(b"\n")) == (2, 2)
    family.nobody()


@pytest.mark.parametrize("words", [("other",), ("--help",), ("web", "--help")])
def test_without_it(words: tuple[str, ...], tmp_path: Path, family: Family) -> None:
    """Nothing is different without the option; help tells of it."""
    done = apps.run(apps.write(tmp_path, PROGRAM + "cli()"), *words)

    assert (done.status, done.err) == (0, b"")
    assert (b"--daemonize" in done.out) == (words == ("web", "--help"))
    family.nobody()


def test_a_file_is_of_no_use_alone(tmp_path: Path, family: Family) -> None:
    """A wrong usage, in Typer's own form."""
    done = apps.run(apps.write(tmp_path, PROGRAM + "cli()"), "web", "--pid-file", "web.pid")

    assert done.status == 2
    assert b"--pid-file is of use only with --daemonize" in done.err
    family.nobody()


def test_on_a_group(tmp_path: Path, servers: Family) -> None:
    """The option of a group without a callback, under another name: its command is the server's."""
    argv = apps.write(tmp_path, SINGLE)
    done = apps.run(argv, "--background", "web")

    assert (done.status, done.err) == (0, b"")
    assert done.out.startswith(b"body ")


def test_in_another_program(tmp_path: Path, servers: Family) -> None:
    """With words that are not the program's own the command is forked off; the caller goes on with the status."""
    code = """
for end in ('', 'exit', 'wrong'):
    try:
        cli(['web', '--daemonize', '--end', end])
    except SystemExit as ended:
        print('status', ended.code)
print('still here')
"""
    done = apps.run(apps.write(tmp_path, PROGRAM + code))

    assert done.status == 0
    assert [line for line in done.out.splitlines() if line.startswith((b"status", b"still"))] == [
        b"status 0", b"status 5", b"status 2", b"still here",
    ]  # fmt: skip
    assert b"it is wrong" in done.err
