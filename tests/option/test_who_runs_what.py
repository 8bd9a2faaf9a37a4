"""Which process runs what: group callbacks the one that was called, the command the server; and each of it once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import apps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.family import Family

#: Says in the file NOTES, a line each, what happens and in which process.
NOTES = """
import contextlib
def note(word):
    fd = os.open(os.environ['NOTES'], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f'{os.getpid()} {word}\\n'.encode())
    os.close(fd)

@contextlib.contextmanager
def resource(name):
    note('open ' + name)
    try:
        yield
    finally:
        note('close ' + name)

def around(name):
    def decorate(function):
        def inner(*args, **kwargs):
            with resource(name):
                return function(*args, **kwargs)
        return click.decorators.update_wrapper(inner, function)
    return decorate

def take(ctx, param, value):
    note('parameter')
    return value

atexit.register(note, 'atexit')
"""

DECORATED = """
@click.command()
@around('upper')
@click.option('--x', callback=take)
@daemonize_option()
@click.pass_context
@around('lower')
def main(ctx, x):
    ctx.call_on_close(lambda: note('on close'))
    ctx.with_resource(resource('its own'))
    note('body')
main()
"""
GROUP = """
@click.group()
@click.pass_context
def main(ctx):
    ctx.obj = 'object'
    ctx.call_on_close(lambda: note('group closed'))
    ctx.with_resource(resource('of group'))
    note('group')

@main.group()
def inner():
    note('inner')

@main.result_callback()
def result(value):
    note(f'result {value}')

@inner.command()
@daemonize_option()
@click.pass_obj
def run(obj):
    note('body ' + obj)
    return 5
main()
"""
ON_GROUP = """
@click.group(invoke_without_command=True)
@daemonize_option()
@click.pass_context
def main(ctx):
    note(f'group {ctx.invoked_subcommand}')

@main.command()
def run():
    note('body')
main()
"""
WITHOUT_CALLBACK = """
main = daemonize_option()(click.Group('main'))

@main.command()
def run():
    note('body')
main()
"""
CHAIN = """
@click.group(chain=True)
def main():
    note('group')

@main.command()
def first():
    note('first')
    return 1

@main.command()
@daemonize_option()
def second():
    note('second')
    return 2

@main.command()
@daemonize_option()
def third():
    note('third')
    return 3

@main.result_callback()
def result(values):
    note(f'result {values}')
main()
"""
INVOKING = """
@click.command()
@daemonize_option()
@click.option('--n', type=int, default=3)
def other(n):
    note(f'other {n}')

@click.command()
@daemonize_option()
@click.option('--n', type=int, default=4)
@click.pass_context
def main(ctx, n):
    note('body')
    ctx.invoke(other)
    ctx.invoke(other, n=5)
    ctx.forward(other)
    with ctx.scope():
        ctx.invoke(lambda: note('function'))
main()
"""
TWICE = """
@click.group()
@daemonize_option()
def main():
    note('group')

@main.group()
@daemonize_option('-D', '--detach')
def inner():
    note('inner')

@inner.command()
@daemonize_option()
def run():
    note('body')
main()
"""
LAZY = """
class Lazy(click.Group):
    def list_commands(self, ctx):
        return ['run']
    def get_command(self, ctx, name):
        note('load')
        @click.command('run')
        @daemonize.daemonize_option()
        def run():
            note('body')
        return run

class Own(click.Command):
    def invoke(self, ctx):
        note('invoke')
        return super().invoke(ctx)
    def make_context(self, *args, **kwargs):
        note('context')
        return super().make_context(*args, **kwargs)

@click.group(cls=Lazy)
def main():
    note('group')

@click.command(cls=Own)
@daemonize_option()
def own():
    note('body')
main() if sys.argv[1] == 'run' else own.main(sys.argv[2:])
"""
FINISHED = """
@click.command()
@click.option('--x', callback=take)
@around('lower')
def main(x):
    note('body')
daemonize_option()(main)
main()
"""
SWITCH = """
@click.group()
def cli():
    note('group')
@cli.command()
@daemonize_option('--background/--foreground', default=True)
def run():
    note('body')
cli()
"""

#: Code, arguments with and without the flag, what happens; from the line `--` on in the server.
RUNS: dict[str, tuple[str, str, str, list[str]]] = {
    "decorators": (DECORATED, "--daemonize", "", [
        "parameter", "--", "open upper", "open lower", "open its own", "body", "close lower", "close upper",
        "close its own", "on close", "atexit",
    ]),
    "finished": (FINISHED, "--daemonize", "", ["parameter", "--", "open lower", "body", "close lower", "atexit"]),
    "groups": (GROUP, "inner run --daemonize", "inner run", [
        "open of group", "group", "inner", "--", "body object", "result 5", "close of group", "group closed", "atexit",
    ]),
    "on the group": (ON_GROUP, "--daemonize run", "run", ["--", "group run", "body", "atexit"]),
    "group alone": (ON_GROUP, "--daemonize", "", ["--", "group None", "atexit"]),
    "group without callback": (WITHOUT_CALLBACK, "--daemonize run", "run", ["--", "body", "atexit"]),
    "chain": (CHAIN, "first second --daemonize third", "first second third", [
        "group", "first", "--", "second", "third", "result [1, 2, 3]", "atexit",
    ]),
    "chain twice": (CHAIN, "first second --daemonize third --daemonize", "first second third", [
        "group", "first", "--", "second", "third", "result [1, 2, 3]", "atexit",
    ]),
    "invoke": (INVOKING, "--daemonize", "", [
        "--", "body", "other 3", "other 5", "other 4", "function", "atexit",
    ]),
    "twice": (TWICE, "--daemonize inner --detach run --daemonize", "inner run", ["--", "group", "inner", "body", "atexit"]),
    "the second": (TWICE, "inner -D run", "inner run", ["group", "--", "inner", "body", "atexit"]),
    "the last": (TWICE, "inner run --daemonize", "inner run", ["group", "inner", "--", "body", "atexit"]),
    "lazy": (LAZY, "run --daemonize", "run", ["load", "group", "--", "body", "atexit"]),
    "own class": (LAZY, "own --daemonize", "own", ["context", "invoke", "--", "body", "atexit"]),
    "switch": (SWITCH, "run", "run --foreground", ["group", "--", "body", "atexit"]),
    "switch typed": (SWITCH, "run --background", "run --foreground", ["group", "--", "body", "atexit"]),
    "last word counts": (SWITCH, "run --foreground --background", "run --background --foreground", [
        "group", "--", "body", "atexit",
    ]),
}  # fmt: skip


class Notes:
    """What has been noted, by whom."""

    def __init__(self, directory: Path, called: int) -> None:
        path = directory / "notes"
        lines = [line.split(" ", 1) for line in path.read_text().splitlines()]
        path.unlink()
        self.words = [word for _, word in lines]
        self.called = [word for pid, word in lines if int(pid) == called]
        self.server = [word for pid, word in lines if int(pid) != called]
        self.processes = {pid for pid, _ in lines}


def noted(argv: Sequence[str], words: Sequence[str], directory: Path, **env: str) -> tuple[int, Notes]:
    """Run a program to its end: the status, and the notes."""
    with apps.popen(
        argv, *words, env={"NOTES": os.fspath(directory / "notes"), **env}, cwd=directory
    ) as process:
        _, err = process.communicate(timeout=30)
    assert b"Traceback" not in err
    return process.returncode, Notes(directory, process.pid)


@pytest.mark.parametrize("name", RUNS)
def test_forked(name: str, tmp_path: Path, family: Family) -> None:
    """The same happens, once, in the same order: what is before the command where it was called, the rest in one server."""
    code, words, without, happens = RUNS[name]
    argv = apps.write(tmp_path, NOTES + code)
    status, control = noted(argv, without.split(), tmp_path)
    at = happens.index("--")
    called, server = happens[:at], happens[at + 1 :]

    assert (status, control.words, control.server) == (0, [*called, *server], [])
    status, found = noted(argv, words.split(), tmp_path)
    assert (status, found.called, found.server) == (0, called, server)
    assert found.words == control.words
    assert len(found.processes) == (2 if called else 1)
    family.nobody()


@pytest.mark.parametrize("name", RUNS)
def test_started_anew(name: str, tmp_path: Path, family: Family) -> None:
    """With threads all of it happens in one server, from the start; where it was called what is before it, closed."""
    code, words, _, happens = RUNS[name]
    argv = apps.write(tmp_path, apps.THREAD + NOTES + code)
    at = happens.index("--")
    called, server = happens[:at], happens[at + 1 :]
    status, found = noted(argv, words.split(), tmp_path)

    closed = [word for word in server if word in {"close of group", "group closed", "atexit"}]
    assert (status, found.called, found.server) == (0, [*called, *closed], [*called, *server])
    assert len(found.processes) == 2
    family.nobody()


#: Ways to ask for it without typing it, or with a value: arguments, environment.
ASKED = {
    "typed": ("--daemonize", {}),
    "variable": ("", {"APP_DAEMONIZE": "1"}),
    "variable and typed": ("--daemonize", {"APP_DAEMONIZE": "1"}),
    "variable true": ("", {"APP_DAEMONIZE": "true"}),
    "map": ("", {"DEFAULT_MAP": "1"}),
    "all": ("--daemonize --daemonize", {"DEFAULT_MAP": "1", "APP_DAEMONIZE": "yes"}),
}
#: And not to ask for it.
NOT_ASKED = {
    "nothing": ("", {}),
    "variable 0": ("", {"APP_DAEMONIZE": "0"}),
    "variable empty": ("", {"APP_DAEMONIZE": ""}),
}
ASKING = """
@click.command()
@daemonize_option()
def main():
    note('body')
    sys.exit(3)
main(auto_envvar_prefix='APP', default_map={'daemonize': True} if 'DEFAULT_MAP' in os.environ else None)
"""


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("name", ASKED | NOT_ASKED)
def test_asked(name: str, way: str, tmp_path: Path, family: Family) -> None:
    """However it is asked for, one server runs the command, once; where it is not, the process that was called does."""
    words, env = (ASKED | NOT_ASKED)[name]
    argv = apps.write(tmp_path, apps.WAYS[way] + NOTES + ASKING)
    status, found = noted(argv, words.split(), tmp_path, **env)

    assert status == 3
    assert found.words.count("body") == 1
    assert ("body" in found.server) == (name in ASKED)
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("word", ["--daemonize=1", "--daemonize=true", "--daemonize="])
def test_a_value(word: str, way: str, tmp_path: Path, family: Family) -> None:
    """Click gives a flag no value: its own words for that, status 2, and nobody is started."""
    argv = apps.write(tmp_path, apps.WAYS[way] + NOTES + ASKING)
    done = apps.run(argv, word, env={"NOTES": os.fspath(tmp_path / "notes")})

    assert done.status == 2
    assert b"does not take a value" in done.err
    assert "body" not in (tmp_path / "notes").read_text()
    family.nobody()


INNER = """
@click.command()
@daemonize_option()
def other():
    note(f'other of {os.getpid()}')

@click.command()
@daemonize_option()
def main():
    note(f'body of {os.getpid()}')
    other.main(['--daemonize'], standalone_mode=False)
    subprocess.run([sys.executable, '-c', 'import daemonize.option.begin as b; assert not b._started_anew'], check=True)
main()
"""


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_server_is_no_caller(way: str, tmp_path: Path, family: Family) -> None:
    """In a server the same option of another command means nothing more: it is in the background already."""
    argv = apps.write(tmp_path, apps.WAYS[way] + NOTES + INNER)
    status, found = noted(argv, ["--daemonize"], tmp_path)

    (server,) = {word.split()[-1] for word in found.server if " of " in word}
    assert status == 0
    assert found.server == [f"body of {server}", f"other of {server}", "atexit"]
    family.nobody()


# --- buffers -------------------------------------------------------------------------------------------------------

WRITING = """
file = open('written', 'a')
file.write('file\\n')
sys.stdout.write('out ')
sys.stderr.write('err ')
ended = []
atexit.register(lambda: (file.write('end\\n'), sys.stdout.write('at exit\\n')))

@click.command()
@daemonize_option()
def main():
    sys.stdout.write('body ')
    file.write('body\\n')
    sys.exit(3)
main()
"""


def test_buffers_are_written_once(tmp_path: Path, family: Family) -> None:
    """What was in a buffer when the program was forked is written once, as in the foreground, and in the same order."""
    argv = apps.write(tmp_path, WRITING)
    results = []
    for words in ([], ["--daemonize"]):
        done = apps.run(argv, *words, cwd=tmp_path)
        results.append((done.status, done.out, done.err, (tmp_path / "written").read_text()))
        (tmp_path / "written").unlink()

    assert results[0] == (3, b"out body at exit\n", b"err ", "file\nbody\nend\n")
    (status, out, err, written), (other_status, other_out, other_err, other_written) = results
    assert (status, out, written) == (other_status, other_out, other_written)
    assert other_err.startswith(err)
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
def test_where_there_never_was_a_server(way: str, tmp_path: Path, servers: Family) -> None:
    """The pid file is taken: the process that was called ends as a program does, handlers and buffers included; 75."""
    code = (
        apps.WAYS[way]
        + "note('server' if 'DAEMONIZE_ID' in os.environ else 'called')"
        + WRITING.replace("    sys.exit(3)\n", "    file.flush()\n    serve()\n")
    )
    argv = apps.write(tmp_path, NOTES + code)
    env = {"NOTES": os.fspath(tmp_path / "notes")}
    first = apps.run(argv, "--daemonize", "--pid-file", "pid", cwd=tmp_path, env=env)
    (tmp_path / "written").unlink()
    (tmp_path / "notes").unlink()
    second = apps.run(argv, "--daemonize", "--pid-file", "pid", cwd=tmp_path, env=env)

    assert first.status == 0
    assert second.status == 75
    assert b"already running" in second.err
    # What is in the buffer of a file that nobody closes does not survive exec(2), which comes before anything can fail.
    assert (tmp_path / "written").read_text() == ("file\nend\n" if way == "fork" else "")
    assert second.out == b"out at exit\n"
    assert "atexit" in (tmp_path / "notes").read_text()
    assert str(servers.only().pid) == (tmp_path / "pid").read_text().strip()
