"""`add_daemonize_arguments` and `daemonize_if_asked`: the same flag for programs that parse with argparse."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import apps, procs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

PARSING = """
atexit.register(lambda: print('end'))
parser = argparse.ArgumentParser()
parser.add_argument('--debug', action='store_true')
parser.add_argument('--port', type=int)
daemonize.add_daemonize_arguments(parser)
args = parser.parse_args()
daemonize.daemonize_if_asked(args)
print('here', flush=True)
"""
SUBPARSERS = """
parser = argparse.ArgumentParser()
commands = parser.add_subparsers(dest='command', required=True)
run = commands.add_parser('run')
daemonize.add_daemonize_arguments(run, '-d', '--background', pid_file=('-p', '--pid'), log_file=None)
other = commands.add_parser('other')
args = parser.parse_args()
daemonize.daemonize_if_asked(args)
print('here', flush=True)
serve()
"""
#: How a program goes on, and its status.
ENDS = {
    "end": ("", 0),
    "sys.exit(3)": ("sys.exit(3)", 3),
    "sys.exit(text)": ("sys.exit('text')", 1),
    "exception": ("raise RuntimeError('unforeseen')", 1),
    "interrupt": ("raise KeyboardInterrupt", 130),
    "os._exit": ("os._exit(6)", 6),
    "killed": ("os.kill(os.getpid(), 9)", 137),
    "SystemExit caught": ("try:\n    sys.exit(5)\nexcept SystemExit as e:\n    sys.exit(e.code + 1)", 6),
    "parser.error": ("parser.error('it cannot be')", 2),
    "parser.exit": ("parser.exit(4, 'words')", 4),
}


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("name", ENDS)
def test_an_end(name: str, way: str, tmp_path: Path, family: Family) -> None:
    """As in the foreground; one line more where nothing was said, or all went well."""
    code, status = ENDS[name]
    argv = apps.write(tmp_path, apps.WAYS[way] + PARSING + code)
    before = apps.run(argv)
    after = apps.run(argv, "--daemonize")

    assert before.status == status
    assert after.status == status
    # When it is started anew the process that was called runs its handlers, too, as it ends.
    assert after.out.removeprefix(b"end\n" if way == "anew" else b"") == before.out
    assert after.err == before.err or re.fullmatch(
        rb"app\.py: the server [^\n]+\n", after.err.removeprefix(before.err)
    )
    assert (after.err == before.err) == bool(before.err and status)
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("word", ["--daemonize", "--daemoniz", "--da"])
def test_abbreviated(word: str, way: str, tmp_path: Path, servers: Family) -> None:
    """As far as it is unambiguous."""
    argv = apps.write(tmp_path, apps.WAYS[way] + PARSING + "serve()")
    done = apps.run(argv, word)

    assert (done.status, done.err) == (0, b"")
    assert done.out.endswith(b"here\n")
    assert servers.only().ppid == 1


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--daemonize", "--help"], ["--daemonize", "--port", "x"], ["--daemonize=1"], ["--d"]],
)
def test_nobody_is_started(words: list[str], tmp_path: Path, family: Family) -> None:
    """Help, wrong values, an ambiguous abbreviation, a value for the flag: argparse's own words and status."""
    done = apps.run(apps.write(tmp_path, PARSING), *words)

    assert done.status == (0 if "--help" in words else 2)
    assert b"here" not in done.out
    assert b"usage: app.py" in done.out + done.err
    family.nobody()


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("words", [["-d"], ["--background"], ["--back"], ["-dp", "pid"], ["-d", "--pid=pid"]])
def test_names(words: list[str], way: str, tmp_path: Path, servers: Family) -> None:
    """Other names, in a subcommand, short ones among others; the option that was left out is not there."""
    argv = apps.write(tmp_path, apps.WAYS[way] + SUBPARSERS)
    done = apps.run(argv, "run", *words, cwd=tmp_path)

    assert (done.status, done.err) == (0, b"")
    server = servers.only()
    assert server.ppid == 1
    if len(words) > 1:
        assert (tmp_path / "pid").read_text() == f"{server.pid}\n"
    assert b"unrecognized" in apps.run(argv, "run", "--log-file", "x").err


def test_a_parser_without_it(tmp_path: Path, family: Family) -> None:
    """`daemonize_if_asked` does nothing where the subcommand has no such argument: the program is in the foreground."""
    with apps.popen(apps.write(tmp_path, SUBPARSERS), "other") as process:
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        assert procs.alive(process.pid)
        assert [found.pid for found in family.living()] == [process.pid]
        process.kill()


@pytest.mark.parametrize("words", [["--pid-file", "pid"], ["--log-file", "log"]])
def test_files_without_the_flag(words: list[str], tmp_path: Path, family: Family) -> None:
    """Of no use: status 2, one line that says so, no file is made."""
    done = apps.run(apps.write(tmp_path, PARSING), *words, cwd=tmp_path)

    assert (done.status, done.out) == (2, b"end\n")
    assert done.err.startswith(b"app.py: ")
    assert b"--daemonize" in done.err
    assert done.err.count(b"\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"app.py"}


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_second_server(way: str, tmp_path: Path, servers: Family) -> None:
    """75 and one line; the process that was called ends as a program does."""
    argv = apps.write(tmp_path, apps.WAYS[way] + PARSING + "serve()")
    words = ("--daemonize", "--pid-file", "pid", "--log-file", "log")
    first = apps.run(argv, *words, cwd=tmp_path)
    second = apps.run(argv, *words, cwd=tmp_path)

    assert (first.status, second.status) == (0, 75)
    assert second.out == b"end\n"
    assert second.err.count(b"\n") == 1
    server = servers.only()
    assert (tmp_path / "pid").read_text() == f"{server.pid}\n"
    assert procs.descriptors(server.pid)[2] == f"{tmp_path}/log"


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_default(way: str, tmp_path: Path, servers: Family) -> None:
    """`set_defaults(daemonize=True)`, as from a configuration file; and a second call in the server does nothing."""
    code = PARSING.replace("args = ", "parser.set_defaults(daemonize=True)\nargs = ")
    argv = apps.write(tmp_path, apps.WAYS[way] + code + "daemonize.daemonize_if_asked(args)\nserve('again')")
    done = apps.run(argv)

    assert (done.status, done.err) == (0, b"")
    assert done.out.endswith(b"here\nagain\n")
    assert servers.only().ppid == 1


def test_words_that_are_not_the_programs_own(tmp_path: Path, family: Family) -> None:
    """Arguments from elsewhere would take over a process that is not theirs: UsageError; its own words do (the control)."""
    code = PARSING.replace("parse_args()", "parse_args(['--daemonize'])").replace(
        "daemonize.daemonize_if_asked(args)",
        "try:\n    daemonize.daemonize_if_asked(args)\n"
        "except daemonize.UsageError as error:\n    sys.exit(f'caught {error}')",
    )
    done = apps.run(apps.write(tmp_path, code + "serve()"))
    control = apps.run(apps.write(tmp_path, code + "serve()"), "--daemonize")

    assert (done.status, done.out) == (1, b"end\n")
    assert done.err.startswith(b"caught --daemonize takes over")
    assert control.status == 0
    family.end()


@pytest.mark.parametrize("way", apps.WAYS)
def test_settings(way: str, tmp_path: Path, servers: Family) -> None:
    """They are those of the option of click: directory, umask, a timeout."""
    code = PARSING.replace("asked(args)", "asked(args, umask=0o027, cwd='/', timeout=9)")
    done = apps.run(apps.write(tmp_path, apps.WAYS[way] + code + "serve()"), "--daemonize")
    server = servers.only()

    assert (done.status, done.err) == (0, b"")
    assert procs.status(server.pid)["Umask"] == "0027"
    assert os.readlink(f"/proc/{server.pid}/cwd") == "/"


@pytest.mark.parametrize(
    "settings", ["nonsense=1", "umask=-1", "timeout=0", "user=''", "nice='x'", "limits={'x': 'y'}"]
)
def test_wrong_settings(settings: str, tmp_path: Path, family: Family) -> None:
    """The author hears of it at once, whether the flag is given or not."""
    for words in ([], ["--daemonize"]):
        done = apps.run(
            apps.write(tmp_path, PARSING.replace("asked(args)", f"asked(args, {settings})")), *words
        )
        assert done.status != 0
        assert b"here" not in done.out
        assert settings.partition("=")[0].encode() in done.err or b"limit" in done.err
    family.nobody()
