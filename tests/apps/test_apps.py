"""Servers that no one here wrote get the option by a few lines: the programs beside this file, started by their users.

Each is started as it is (it goes on by fork), under an agent that gives it a thread (it is started anew), and by the
command `daemonize`, for which `ready()` is all it needs.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from daemonize.option import begin
from tests.support import apps, cli, ports, procs
from tests.support.programs import Trigger

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

HERE = os.path.dirname(os.path.abspath(__file__))
FORK, ANEW, COMMAND = "fork", "anew", "daemonize"
#: Another run of the same program says the same, but for these.
CHANGING = re.compile(rb"process \[\d+\]|\d+:\d+:\d+|0x[0-9a-f]+")


class App(NamedTuple):
    """One program.

    words: its command line, but for the port. banner: what it says before it is ready. answer: what a client gets (`%d`:
    the pid). logged: what it says of a client. taken: what it says where the port is taken.
    """

    words: tuple[str, ...]
    banner: bytes
    answer: bytes
    logged: bytes
    taken: bytes


APPS = {
    "starlette": App(
        words=("starlette_app.py",),
        banner=b"Uvicorn running on http://127.0.0.1:%d ",
        answer=b"Starlette is here, pid %d\n",
        logged=b'"GET / HTTP/1.0" 200 OK',
        taken=b"error while attempting to bind on address",
    ),
    "flask": App(
        words=("flask_app.py",),
        banner=b" * Running on http://127.0.0.1:%d\n",
        answer=b"Flask is here, pid %d\n",
        logged=b'"GET / HTTP/1.0" 200 -',
        taken=b"is in use by another program",
    ),
    "http.server": App(
        words=("http_server_app.py",),
        banner=b"Serving on port %d\n",
        answer=b"Directory listing for /",
        logged=b'"GET / HTTP/1.0" 200 -',
        taken=b"Address already in use\n",
    ),
    "uvicorn": App(
        words=("uvicorn_command.py", "starlette_app:app"),
        banner=b"Uvicorn running on http://127.0.0.1:%d ",
        answer=b"Starlette is here, pid %d\n",
        logged=b'"GET / HTTP/1.0" 200 OK',
        taken=b"error while attempting to bind on address",
    ),
    "flask run": App(
        words=("flask_command.py", "--app", f"{HERE}/flask_app.py", "run"),
        banner=b" * Running on http://127.0.0.1:%d\n",
        answer=b"Flask is here, pid %d\n",
        logged=b'"GET / HTTP/1.0" 200 -',
        taken=b"is in use by another program",
    ),
    "datasette": App(
        words=("datasette_command.py", "--memory"),
        banner=b"Uvicorn running on http://127.0.0.1:%d ",
        answer=b'<a href="/_memory">_memory</a>',
        logged=b'"GET / HTTP/1.0" 200 OK',
        taken=b"error while attempting to bind on address",
    ),
}
each_app = pytest.mark.parametrize("app", APPS.values(), ids=APPS)
each_way = pytest.mark.parametrize("way", [FORK, ANEW, COMMAND])


def argv(app: App, port: int) -> list[str]:
    """The command line that serves on this port."""
    program, *words = app.words
    return [sys.executable, os.path.join(HERE, program), *words, "--port", str(port)]


def start(words: list[str], way: str, directory: Path) -> apps.Result:
    """Start a program in the background, from a directory that it leaves its pid and its log in."""
    files = ["web.pid", "web.log"]
    if way == COMMAND:
        options = ["--pid-file", files[0], "--stdout", files[1], "--stderr", files[1], "--ready", "streams"]
        return apps.run([cli.COMMAND, *options, "--"], *words, cwd=directory)
    env = {}
    if way == ANEW:
        # Those of tracing vendors come this way, too: into every interpreter that finds them on its path.
        agent = directory / "agent"
        agent.mkdir()
        (agent / "sitecustomize.py").write_text(f"import threading\n{apps.THREAD}")
        env["PYTHONPATH"] = str(agent)
    options = ["--daemonize", "--pid-file", files[0], "--log-file", files[1]]
    return apps.run(words, *options, cwd=directory, env=env)


def answer(app: App, pid: int) -> bytes:
    """What a client gets from the server with this pid."""
    return app.answer % pid if b"%d" in app.answer else app.answer


@each_way
@each_app
def test_it_answers_at_once(app: App, way: str, tmp_path: Path, family: Family) -> None:
    """The first client is answered; the caller has its banner, the log what follows; the pid in the file is that to stop."""
    port = ports.free_port()
    done = start(argv(app, port), way, tmp_path)
    answered = ports.get(port)
    pid = int((tmp_path / "web.pid").read_text())
    server = family.only()
    descriptors = procs.descriptors(pid)
    was_started_anew = begin.MARK in procs.environment(pid)

    def logged() -> None:
        assert app.logged in (tmp_path / "web.log").read_bytes()

    procs.eventually(logged)
    procs.stop(pid)

    assert done.status == 0
    assert app.banner % port in done.out + done.err
    assert app.logged not in done.out + done.err
    assert answer(app, pid) in answered
    assert server.pid == pid
    assert server.ppid == 1
    assert [descriptors[fd] for fd in range(3)] == [os.devnull, *[f"{tmp_path}/web.log"] * 2]
    assert was_started_anew == (way == ANEW)
    family.nobody()


@each_way
@each_app
def test_a_taken_port(app: App, way: str, tmp_path: Path, family: Family) -> None:
    """It fails in its own words, with its own status, as in the foreground; nothing is left of it, no pid file either."""
    with ports.taken() as port:
        front = apps.run(argv(app, port), cwd=tmp_path)
        back = start(argv(app, port), way, tmp_path)

    assert back.status == front.status != 0
    assert app.taken in back.err
    assert CHANGING.sub(b"", back.err) == CHANGING.sub(b"", front.err)
    assert back.out == front.out
    assert not (tmp_path / "web.pid").exists()
    family.nobody()


@each_app
def test_by_hand_nothing_is_different(app: App, tmp_path: Path, family: Family) -> None:
    """Without the option it stays where it was started, and goes on talking there."""
    port = ports.free_port()
    with apps.popen(argv(app, port), cwd=tmp_path, env={"PYTHONUNBUFFERED": "1"}) as process:
        ports.wait_listening(port)
        answered = ports.get(port)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)

    assert answer(app, process.pid) in answered
    assert app.banner % port in out + err
    assert app.logged in out + err
    family.nobody()


@pytest.mark.parametrize(
    ("name", "variable"), [("uvicorn", "UVICORN_DAEMONIZE"), ("flask run", "FLASK_RUN_DAEMONIZE")]
)
def test_asked_for_by_the_environment(name: str, variable: str, tmp_path: Path, servers: Family) -> None:
    """These commands take each option from a variable, this one too: once, though the server inherits the variable."""
    app, port = APPS[name], ports.free_port()
    with open(tmp_path / "out", "wb") as out:  # its own streams, as in a script
        done = apps.run(argv(app, port), cwd=tmp_path, env={variable: "1"}, stdout=out, stderr=out)
    answered = ports.get(port)
    server = servers.only()

    assert done.status == 0
    assert answer(app, server.pid) in answered
    assert procs.environment(server.pid)[variable] == "1"


@pytest.mark.parametrize("way", [FORK, ANEW])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("uvicorn_command.py", "starlette_app:missing"), b'Attribute "missing" not found'),
        (("uvicorn_command.py", "starlette_app:app", "--nonsense"), b"No such option"),
        (("flask_command.py", "--app", "missing", "run"), b"Could not import 'missing'"),
        (("datasette_command.py", "missing.db"), b"Path 'missing.db' does not exist"),
    ],
)
def test_their_own_mistakes(
    words: tuple[str, ...], said: bytes, way: str, tmp_path: Path, family: Family
) -> None:
    """What these commands say of a wrong command line is said once, and the status is that of the foreground."""
    program = argv(App(words, b"", b"", b"", b""), ports.free_port())
    front = apps.run(program, cwd=tmp_path)
    back = start(program, way, tmp_path)

    assert back.status == front.status != 0
    assert back.err == front.err
    assert back.err.count(said) == 1
    family.nobody()


def test_a_server_that_says_so_too_early(tmp_path: Path, servers: Family) -> None:
    """Negative control: one that is not listening yet is found out by the first client."""
    port = ports.free_port()
    with Trigger(tmp_path) as trigger:
        code = f"""
@click.command()
@daemonize_option()
def main():
    daemonize.ready()
    open({trigger.path!r}).read(1)
    socket.create_server(('127.0.0.1', {port}))
main()
"""
        done = apps.run(apps.write(tmp_path, code), "--daemonize")

        assert done.status == 0
        with pytest.raises(ConnectionRefusedError):
            ports.get(port)
