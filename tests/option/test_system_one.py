"""The launcher that the flag comes from (gpupgrade's `--daemonize`): what its tests promise, and what it did wrong."""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import apps, ports, procs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

HUB = """
@click.group()
@click.option('--config', type=click.Path(exists=True))
def cli(config):
    if config is None:
        raise click.ClickException('no configuration: name one with --config')

@cli.command()
@daemonize_option()
@click.option('--port', type=int, default=0)
def hub(port):
    server = socket.create_server(('127.0.0.1', port))
    click.echo(f'Hub started on port {server.getsockname()[1]} with pid {os.getpid()}')
    click.echo('warning: this is a test', err=True)
    daemonize.ready()
    signal.alarm(120)
    while True:
        connection, _ = server.accept()
        print('a stray print')
        connection.sendall(repr([server.fileno(), connection.fileno()]).encode())
        connection.close()
def load(path):
    return {'hub': {'port': int(open(path).read() or 0)}}
if '--config' in sys.argv:
    cli(default_map=load(sys.argv[2]), auto_envvar_prefix='HUB')
cli()
"""


def command(directory: Path, way: str, body: str, settings: str = "") -> list[str]:
    """A program with one command."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return apps.write(
        directory,
        f"{apps.WAYS[way]}@click.command()\n@daemonize_option({settings})\ndef main():\n{lines}\nmain()\n",
    )


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("given", ["flag", "variable", "config", "default"])
def test_the_hub(given: str, way: str, tmp_path: Path, servers: Family) -> None:
    """`hub --daemonize && client`: the banner tells port and pid, whichever way the port was given; the client is served."""
    port = 0 if given == "default" else ports.free_port()
    (tmp_path / "config").write_text(str(port) if given == "config" else "")
    argv = apps.write(tmp_path, apps.WAYS[way] + HUB)
    words = ["--port", str(port)] if given == "flag" else []
    env = {"HUB_HUB_PORT": str(port)} if given == "variable" else {}
    done = apps.run(argv, "--config", os.fspath(tmp_path / "config"), "hub", "--daemonize", *words, env=env)

    banner = re.fullmatch(rb"Hub started on port (\d+) with pid (\d+)\n", done.out)
    assert (done.status, done.err) == (0, b"warning: this is a test\n")
    assert banner
    assert int(banner[2]) == servers.only().pid
    assert port in {0, int(banner[1])}
    for _ in range(3):  # its prints do no harm, and no connection is ever 0, 1 or 2
        assert min(map(int, re.findall(rb"\d+", ports.ask(int(banner[1]), b"")))) > 2


@pytest.mark.parametrize("way", apps.WAYS)
def test_an_error_of_the_configuration(way: str, tmp_path: Path, family: Family) -> None:
    """It reaches the caller, with the status and to the byte as without the flag."""
    argv = apps.write(tmp_path, apps.WAYS[way] + HUB)
    before, after = apps.run(argv, "hub"), apps.run(argv, "hub", "--daemonize")

    assert before == after == (1, b"", b"Error: no configuration: name one with --config\n")
    family.nobody()


def test_without_the_flag(tmp_path: Path, family: Family) -> None:
    """Nothing is put into the background."""
    (tmp_path / "config").write_text("0")
    argv = apps.write(tmp_path, HUB)
    with apps.popen(argv, "--config", os.fspath(tmp_path / "config"), "hub") as process:
        assert process.stdout
        assert f"with pid {process.pid}\n".encode() in process.stdout.readline()
        assert [found.pid for found in family.living()] == [process.pid]
        process.kill()


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("failing", [False, True])
def test_both_streams_to_the_byte(failing: bool, way: str, tmp_path: Path, servers: Family) -> None:
    """Megabytes of every byte there is, on both at once."""
    body = (
        "data = bytes(range(256)) * 4096\n"
        "def say(fd):\n    view = memoryview(data + bytes([fd]))\n"
        "    while view:\n        view = view[os.write(fd, view):]\n"
        "t = threading.Thread(target=say, args=(2,))\nt.start()\nsay(1)\nt.join()\n"
    ) + ("sys.exit(9)" if failing else "serve()")
    done = apps.run(command(tmp_path, way, body), "--daemonize")
    data = bytes(range(256)) * 4096

    assert done == (9 if failing else 0, data + b"\1", data + b"\2")


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("status", [0, 1, 2, 64, 127, 254, 255])
def test_a_silent_death(status: int, way: str, tmp_path: Path, family: Family) -> None:
    """It is no success: its status, and a line that says what happened."""
    done = apps.run(command(tmp_path, way, f"os._exit({status})"), "--daemonize")

    assert (done.status, done.out) == (status, b"")
    assert done.err.startswith(b"app.py: the server exited ")
    assert done.err.count(b"\n") == 1
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("close", ["os.close(2)\nos.close(1)", "os.close(1)\nos.close(2)"])
def test_a_death_with_closed_streams(close: str, way: str, tmp_path: Path, family: Family) -> None:
    """Streams that close just before the end are no sign of readiness."""
    done = apps.run(command(tmp_path, way, f"{close}\nos._exit(3)"), "--daemonize")

    assert (done.status, done.out) == (3, b"")
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_server_that_only_closes_its_streams(way: str, tmp_path: Path, servers: Family) -> None:
    """As the Go servers do: ready, although nothing was re-pointed."""
    done = apps.run(
        command(
            tmp_path,
            way,
            "print('here', flush=True)\nos.close(2)\nos.close(1)\nsignal.alarm(120)\nsignal.pause()",
        ),
        "--daemonize",
    )

    assert done == (0, b"here\n", b"")
    assert servers.only()


@pytest.mark.parametrize("way", apps.WAYS)
def test_strict(way: str, tmp_path: Path, family: Family) -> None:
    """The Go rule, if it is wanted: anything on stderr is a failure: the server's status, or 1. Silent: ready (control)."""
    for body, status in (
        ("serve()", 0),
        ("os.write(2, b'w')\nserve()", 1),
        ("os.write(2, b'w')\nos._exit(7)", 7),
    ):
        done = apps.run(command(tmp_path, way, body, "strict=True"), "--daemonize")
        assert done.status == status
        assert done.err.startswith(b"w" if status else b"")
        if status:
            family.nobody()
        family.end()


@pytest.mark.parametrize("way", apps.WAYS)
def test_timeout(way: str, tmp_path: Path, family: Family) -> None:
    """Not ready in time: 124, what it said is there, it has been stopped."""
    body = "print('never', flush=True)\nsignal.alarm(120)\nsignal.pause()"
    done = apps.run(command(tmp_path, way, body, "timeout='2s'"), "--daemonize")

    assert (done.status, done.out) == (124, b"never\n")
    assert b"not ready within 2 s" in done.err
    assert done.err.count(b"\n") == 1
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
def test_no_timeout(way: str, tmp_path: Path, servers: Family, trigger: Trigger) -> None:
    """timeout=None waits as long as it takes."""
    body = f"print('here', flush=True)\nopen({trigger.path!r}).read(1)\nserve()"
    with apps.popen(command(tmp_path, way, body, "timeout=None"), "--daemonize") as process:
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        assert not procs.wait_ended(process.pid, 0.2)
        trigger.release()
        assert process.wait(20) == 0


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("status", [0, 3])
def test_a_grandchild_that_holds_stdout(status: int, way: str, tmp_path: Path, servers: Family) -> None:
    """A server that ended is not waited for because of it. After a failure it is stopped; else it is what is left."""
    body = f"subprocess.Popen(['sleep', '100'])\nos._exit({status})"
    began = time.monotonic()
    done = apps.run(command(tmp_path, way, body), "--daemonize")

    assert done.status == status
    assert time.monotonic() - began < 10
    left = {process.name: process for process in servers.living()}
    assert ("sleep" in left) == (status == 0)
    if left:  # and what it says is copied to the log, as long as it lives
        procs.stop(left.pop("sleep").pid)
    for drain in left.values():
        assert procs.wait_ended(drain.pid, start=drain.start)


def test_a_launch_that_fails_after_the_server_began(tmp_path: Path, family: Family) -> None:
    """The program ended where it went on, and does not do so a second time where it was called; status 125, one line."""
    code = (
        "from daemonize.launcher import drain\n"
        "def fails(pipes): raise OSError(11, 'no more processes')\ndrain.start = fails\n"
        "atexit.register(lambda: os.write(1, b'end '))\n"
    )
    argv = command(tmp_path, "fork", "subprocess.Popen(['sleep', '100'])")
    text = (tmp_path / "app.py").read_text().replace("@click.command()", code + "@click.command()")
    (tmp_path / "app.py").write_text(text)
    done = apps.run(argv, "--daemonize")

    assert (done.status, done.out) == (125, b"end ")
    assert done.err == b"app.py: cannot start the drain: no more processes\n"
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
def test_callers_that_read_to_the_end(way: str, tmp_path: Path, servers: Family) -> None:
    """`ssh host "server --daemonize"`, `$(...)`, `| cat`: the caller's pipes are let go of when it returns."""
    argv = command(tmp_path, way, "serve('here')")
    line = (
        f"x=$('{argv[0]}' '{argv[1]}' --daemonize) && '{argv[0]}' '{argv[1]}' --daemonize | cat; echo \"$x\""
    )
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, check=True, timeout=20, stdin=subprocess.DEVNULL
    )

    assert done.stdout == b"here\nhere\n"
    assert len(servers.living()) == 2


@pytest.mark.parametrize("way", apps.WAYS)
def test_files(way: str, tmp_path: Path, servers: Family) -> None:
    """Pid and log file, from where the caller is, though a group goes elsewhere; a second server: 75, who it is, and why."""
    code = """
@click.group()
def cli():
    os.chdir('/')

@cli.command()
@daemonize_option()
def run():
    print('before', flush=True)
    daemonize.ready()
    print('after')
    serve()
cli()
"""
    argv = apps.write(tmp_path, apps.WAYS[way] + code)
    words = ("run", "--daemonize", "--pid-file", "pid", "--log-file", "log")
    done = apps.run(argv, *words, cwd=tmp_path)
    server = servers.only()
    second = apps.run(argv, *words, cwd=tmp_path)

    def check() -> None:
        assert (tmp_path / "log").read_text() == "after\n"

    procs.eventually(check)
    assert done == (0, b"before\n", b"")
    assert (tmp_path / "pid").read_text() == f"{server.pid}\n"
    assert (second.status, second.out) == (75, b"")
    assert f"{server.pid}" in second.err.decode()
    assert second.err.startswith(b"app.py: already running")


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("option", ["--pid-file", "--log-file"])
def test_a_file_that_cannot_be(option: str, way: str, tmp_path: Path, family: Family) -> None:
    """One line that names it, 125, and the command never runs; without the flag the file is of no use: click's words, 2."""
    argv = command(tmp_path, way, "print('ran')\nserve()")
    done = apps.run(argv, "--daemonize", option, "/nonexistent/file")
    idle = apps.run(argv, option, "/tmp/file")

    assert (done.status, done.out) == (125, b"")
    assert b"/nonexistent/file" in done.err
    assert done.err.count(b"\n") == 1
    assert (idle.status, idle.out) == (2, b"")
    assert b"of use only with --daemonize" in idle.err
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_failed_launch_takes_its_pid_file_away(way: str, tmp_path: Path, family: Family) -> None:
    """Nothing is left that would stand in the way of the next; which has its own log lines appended."""
    argv = command(tmp_path, way, "os._exit(3)")
    (tmp_path / "log").write_text("old\n")
    done = apps.run(argv, "--daemonize", "--pid-file", "pid", "--log-file", "log", cwd=tmp_path)

    assert done.status == 3
    assert not (tmp_path / "pid").exists()
    assert (tmp_path / "log").read_text() == "old\n"


@pytest.mark.parametrize("way", apps.WAYS)
def test_many_at_once(way: str, tmp_path: Path, servers: Family) -> None:
    """Of many that want one pid file at the same time one is started; the others: 75."""
    argv = command(tmp_path, way, "serve()")
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    everybody = [
        subprocess.Popen([*argv, "--daemonize", "--pid-file", "pid"], cwd=tmp_path, **pipes)  # type: ignore[call-overload]
        for _ in range(6)
    ]
    statuses = sorted(process.wait(30) for process in everybody)

    assert statuses == [0] + [75] * 5
    assert (tmp_path / "pid").read_text() == f"{servers.only().pid}\n"
