"""Typer on both sides of 0.26, from which on it has a click of its own: each release fetched into a directory of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import apps, ports, procs, registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]

#: One for click 8.1, the last that is made of click's commands, and the first that is not. The installed one is a later one.
RELEASES = {"0.15.4": True, "0.25.1": True, "0.26.0": False}
PROGRAM = """
import http.server, typer
app = typer.Typer()

@app.callback()
def main():
    print('group')

@app.command()
def web(port: int):
    server = http.server.HTTPServer(('127.0.0.1', port), http.server.SimpleHTTPRequestHandler)
    print('body')
    daemonize.ready()
    server.serve_forever()

cli = typer.main.get_command(app)
daemonize_option()(cli.commands['web'])
cli()
"""


class Typer(NamedTuple):
    """A release, and where it was fetched to."""

    version: str
    directory: str

    def run(self, directory: Path, code: str, *words: str) -> apps.Result:
        """Run a program that finds it."""
        return apps.run(
            apps.write(directory, code), *words, cwd=directory, env={"PYTHONPATH": self.directory}
        )


@pytest.fixture(scope="module", params=RELEASES)
def a_typer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Typer:
    """Each release in turn."""
    directory = str(tmp_path_factory.mktemp("typer"))
    registry.fetch(f"typer=={request.param}", directory)
    return Typer(request.param, directory)


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_server(a_typer: Typer, way: str, tmp_path: Path, servers: Family) -> None:
    """Ready when it listens, in the background; a port that is taken is told in its own words."""
    port = ports.free_port()
    words = ("web", str(port), "--daemonize")
    code = apps.WAYS[way] + PROGRAM
    done = a_typer.run(tmp_path, code, *words, "--pid-file", "web.pid", "--log-file", "web.log")
    answer = ports.get(port)
    taken = a_typer.run(tmp_path, code, *words)
    pid = int((tmp_path / "web.pid").read_text())

    assert (done.status, done.err) == (0, b"")
    assert done.out.endswith(b"group\nbody\n")
    assert b" 200 OK" in answer
    assert taken.status == 1
    assert b"in use" in taken.err
    assert servers.only().pid == pid
    procs.stop(pid)
    assert "GET /" in (tmp_path / "web.log").read_text()


def test_it_is_this_one(a_typer: Typer, tmp_path: Path) -> None:
    """The control: the release that it is named for, made of click's commands or not."""
    code = (
        "import importlib.metadata, typer.core\n"
        "print(importlib.metadata.version('typer'), issubclass(typer.core.TyperCommand, click.Command))"
    )
    done = a_typer.run(tmp_path, code)

    assert done.out.decode().split() == [a_typer.version, str(RELEASES[a_typer.version])]
