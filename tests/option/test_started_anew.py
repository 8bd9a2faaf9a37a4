"""A program that cannot be forked is started anew: as it was started, where it was started, and only once more."""

from __future__ import annotations

import json
import os
import stat
import sys
import zipapp
from typing import TYPE_CHECKING

import pytest

from tests.support import apps, ports, procs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

#: Why a program cannot be forked.
REASONS = {
    "thread": apps.THREAD,
    "non-daemon thread": "threading.Thread(target=threading.Event().wait).start()\n",
    "foreign thread": (
        "libc = ctypes.CDLL(None)\nassert not libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.pause, None)\n"
        "assert threading.active_count() == 1\n"
    ),
    # Stands for macOS, where a program that has used the system's frameworks must not go on after fork(2).
    "another system": "sys.platform = 'darwin'\n",
}
TELL = """
def tell():
    main = sys.modules['__main__']
    print(json.dumps({
        'argv': sys.argv, 'orig_argv': sys.orig_argv, 'flags': str(sys.flags), 'x': sys._xoptions, 'w': sys.warnoptions,
        'spec': getattr(main.__spec__, 'name', None), 'path': sys.path, 'executable': sys.executable, 'cwd': os.getcwd(),
        'prefix': sys.prefix, 'encoding': sys.stdout.encoding,
        'environ': {k: v for k, v in os.environ.items() if not k.startswith('DAEMONIZE_') or k == 'DAEMONIZE_SERVER'},
    }))
"""
COMMAND = """
@click.command()
@daemonize_option()
@click.option('--end', is_flag=True)
def main(end):
    tell()
    if end:
        sys.stdout.flush()
        os._exit(0)
    serve()
if __name__ == '__main__':
    main()
"""


def starts(directory: Path, code: str) -> dict[str, list[str]]:
    """The ways to start a program: argument lists."""
    app = apps.write(directory, code)
    (directory / "package").mkdir()
    apps.write(directory / "package", code, "__main__.py")
    (directory / "package" / "__init__.py").write_text("")
    (directory / "script").write_text(
        f"#!{sys.executable} -I\nimport sys\n" + (directory / "app.py").read_text()
    )
    (directory / "script").chmod(0o755)
    console = f"#!{sys.executable}\nimport sys\nfrom app import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    (directory / "console").write_text(console)
    (directory / "console").chmod(0o755)
    text = (directory / "app.py").read_text()
    return {
        "file": app,
        "relative file": [sys.executable, "app.py"],
        "module": [sys.executable, "-m", "app"],
        "package": [sys.executable, "-m", "package"],
        "directory": [sys.executable, "package"],
        "text": [sys.executable, "-c", text],
        "script": [os.fspath(directory / "script")],
        "relative script": ["./script"],
        "console script": ["./console"],
        "on the path": ["script"],
        "flags": [sys.executable, "-X", "dev", "-W", "error::BytesWarning", "-O", "-B", "-u", "-s", *app[1:]],
        "isolated": [sys.executable, "-I", "-X", "utf8=0", *app[1:]],
        "interpreter by name": [os.path.basename(sys.executable), *app[1:]],
    }


STARTS = (
    "file", "relative file", "module", "package", "directory", "text", "script", "relative script", "console script",
    "on the path", "flags", "isolated", "interpreter by name",
)  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_as_it_was_started(name: str, tmp_path: Path, servers: Family) -> None:
    """Interpreter, flags, arguments, path, module, directory, environment: the server finds what a foreground run does."""
    argv = starts(tmp_path, apps.THREAD + TELL + COMMAND)[name]
    env = {
        "PATH": f"{tmp_path}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    before = apps.run(argv, "--end", env=env, cwd=tmp_path)
    after = apps.run(argv, "--daemonize", env=env, cwd=tmp_path)

    assert (before.status, after.status, after.err) == (0, 0, b"")
    wanted, found = json.loads(before.out), json.loads(after.out)
    for told, word in ((wanted, "--end"), (found, "--daemonize")):
        told["argv"].remove(word)
        told["orig_argv"][0] = os.path.basename(
            told["orig_argv"][0]
        )  # it was found on the path, and need not be again
        told["orig_argv"].remove(word)
    assert found == wanted


@pytest.mark.parametrize("reason", REASONS)
def test_nothing_of_the_first_is_left(reason: str, tmp_path: Path, servers: Family) -> None:
    """Directory and environment as the caller gave them, a port that is free again, and one process in the end."""
    port = ports.free_port()
    code = f"""
@click.group()
def cli():
    os.chdir('/')
    os.environ['GROUP'] = os.environ.get('GROUP', '') + '.'
    os.environ.pop('REMOVED')
    cli.port = socket.create_server(('127.0.0.1', {port}))

@cli.command()
@daemonize_option()
def run():
    tell()
    sys.stdout.flush()
    subprocess.run(['env'])
    serve()

at_first = os.getcwd(), os.environ.get('GROUP'), os.environ['REMOVED']
print(at_first)
sys.stdout.flush()
{REASONS[reason]}
cli()
"""
    argv = apps.write(tmp_path, TELL + code)
    done = apps.run(argv, "run", "--daemonize", cwd=tmp_path, env={"REMOVED": "1"})

    assert (done.status, done.err) == (0, b"")
    first, again, told, *environment = done.out.decode().splitlines()
    assert first == again
    assert json.loads(told)["environ"]["GROUP"] == "."
    assert "GROUP=." in environment
    assert not any("DAEMONIZE_SERVER" in line for line in [*environment, told])
    assert ports.accepts(port)
    assert servers.only().ppid == 1


def test_one_thread_is_forked(tmp_path: Path, servers: Family) -> None:
    """The control: without a reason the program is not started a second time."""
    argv = apps.write(tmp_path, "print('started')\n" + TELL + COMMAND)
    done = apps.run(argv, "--daemonize")
    control = apps.write(tmp_path, apps.THREAD + "print('started')\n" + TELL + COMMAND)
    servers.end()
    twice = apps.run(control, "--daemonize")

    assert (done.out.count(b"started\n"), twice.out.count(b"started\n")) == (1, 2)


def test_threads_that_have_ended_are_no_reason(tmp_path: Path, servers: Family) -> None:
    """Only threads that run when the command begins count, though a joined one may be there a moment longer."""
    code = (
        "print('started', flush=True)\n"
        "for t in [threading.Thread(target=lambda: bytearray(1 << 20)) for _ in range(200)]:\n    t.start()\n    t.join()\n"
    )
    done = apps.run(apps.write(tmp_path, code + TELL + COMMAND), "--daemonize")

    assert (done.status, done.out.count(b"started\n")) == (0, 1)


def test_the_program_is_gone(tmp_path: Path, family: Family) -> None:
    """The interpreter that cannot be executed again, the directory that has been deleted: one line, and a status."""
    code = apps.THREAD + "sys.executable = '/nonexistent/python'\n" + TELL + COMMAND
    done = apps.run(apps.write(tmp_path, code), "--daemonize")

    assert done.status == 125
    assert done.err.startswith(b"app.py: cannot execute /nonexistent/python: No such file")
    assert done.err.count(b"\n") == 1
    family.nobody()


def test_frozen(tmp_path: Path, family: Family) -> None:
    """A program without an interpreter beside it says that it cannot be started anew; without threads it is forked."""
    for way, status in ((apps.THREAD, 125), ("", 0)):
        done = apps.run(apps.write(tmp_path, way + "sys.frozen = True\n" + TELL + COMMAND), "--daemonize")
        assert done.status == status
        assert (b"threads are running" in done.err) == (status == 125)
    family.end()


@pytest.mark.parametrize("mode", [0o700, 0o000])
def test_a_directory_that_was_left(mode: int, tmp_path: Path, servers: Family) -> None:
    """The caller's directory no longer has a name: the server is where the caller is, as in the foreground."""
    gone = tmp_path / "gone"
    gone.mkdir(mode=0o700)
    argv = apps.write(
        tmp_path, apps.THREAD + "@click.command()\n@daemonize_option()\ndef main(): serve()\nmain()"
    )
    gone.chmod(mode | stat.S_IXUSR)
    done = apps.run(["sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh", *argv], "--daemonize")

    assert (done.status, done.err) == (0, b"")
    assert os.readlink(f"/proc/{servers.only().pid}/cwd") == f"{gone} (deleted)"


def test_a_marked_stranger(tmp_path: Path, family: Family) -> None:
    """The mark of another process means nothing: the program is launched, by itself, as if there were none."""
    argv = apps.write(tmp_path, apps.THREAD + TELL + COMMAND)
    for mark in ("1", "0", "", "x", "-1", "999999999", str(1 << 70)):
        done = apps.run(argv, "--daemonize", env={"DAEMONIZE_SERVER": mark})
        assert (done.status, done.err) == (0, b"")
        assert procs.stat(family.only().pid).ppid == 1  # type: ignore[union-attr]
        family.end()


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize(
    ("name", "called"),
    [("file", "app.py"), ("module", "app"), ("package", "package"), ("directory", "package"), ("text", "python"),
     ("script", "script"), ("archive", "archive.pyz")],
)  # fmt: skip
def test_its_name(name: str, called: str, way: str, tmp_path: Path, family: Family) -> None:
    """What it is called in messages: as its user calls it."""
    code = (
        "@click.command()\n@daemonize_option()\ndef main(): os._exit(3)\nif __name__ == '__main__': main()\n"
    )
    code = apps.WAYS[way] + code
    argvs = starts(tmp_path, code)
    zipapp.create_archive(tmp_path / "package", tmp_path / "archive.pyz")
    argvs["archive"] = [sys.executable, "archive.pyz"]
    done = apps.run(argvs[name], "--daemonize", cwd=tmp_path)

    assert (done.status, done.out) == (3, b"")
    assert done.err.startswith(f"{called}: the server exited with status 3 ".encode())
    family.nobody()


@pytest.mark.parametrize("word", [["-"], []])
def test_a_program_from_stdin(word: list[str], tmp_path: Path, family: Family) -> None:
    """It has been read, and cannot be read again: one line, 125. Without threads it is forked (the control)."""
    words = "sys.argv[1:] = ['--daemonize']\n" + "main()\n"
    for way, status in ((apps.THREAD, 125), ("", 3)):
        code = f"{way}@click.command()\n@daemonize_option()\ndef main(): os._exit(3)\n{words}"
        path = apps.write(tmp_path, code)[1]
        with open(path, "rb") as source:
            done = apps.run([sys.executable, *word], stdin=source)
        assert done.status == status
        assert done.err.startswith(b"python: ")
        assert (b"threads are running" in done.err) == (status == 125)
    family.nobody()


def test_interrupted_between_two_programs(tmp_path: Path, family: Family) -> None:
    """A Ctrl-C while this program is replaced by the wrapper is not lost, nor Python's to answer: 130, one line."""
    code = (
        "execve = os.execve\n"
        "def interrupted(*args):\n    signal.raise_signal(signal.SIGINT)\n    execve(*args)\n"
        "os.execve = interrupted\n"
    )
    done = apps.run(apps.write(tmp_path, apps.THREAD + code + TELL + COMMAND), "--daemonize")

    assert (done.status, done.out) == (130, b"")
    assert done.err.startswith(b"app.py: interrupted by SIGINT")
    assert done.err.count(b"\n") == 1
    family.nobody()
