"""A command line that another program carries out: that program lives on, and learns how the launch went."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import apps, procs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

#: Commands, and a program that says in which process it is when all is done.
PROGRAM = """
from click.testing import CliRunner

@click.command()
@daemonize_option()
@click.option('--end', default='')
@click.pass_context
def command(ctx, end):
    click.echo('out')
    click.echo('err', err=True)
    if end == 'exit':
        ctx.exit(3)
    if end == 'fail':
        ctx.fail('it fails')
    if end == 'raise':
        raise RuntimeError('unforeseen')
    if end == 'abort':
        raise click.Abort
    if end == 'sys':
        sys.exit(4)
    if end == 'text':
        sys.exit('text')
    if end == 'kill':
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
    if end == 'os':
        sys.stdout.flush()
        os._exit(6)
    if end == 'return':
        return 'value'
    if end == 'interrupt':
        raise KeyboardInterrupt
    serve()

@click.group()
def group():
    click.echo('group')
group.add_command(command)

def say(*words):
    os.write(1, (json.dumps(words) + '\\n').encode())

def invoke(what, *words, **options):
    result = CliRunner().invoke(what, words, **options)
    return result.exit_code, result.stdout, result.stderr

me = os.getpid()
"""


def outcome(directory: Path, code: str, *words: str) -> list[list[object]]:
    """What the program says, line by line; it ends well, in the process that was called."""
    code = f"{PROGRAM}\n{code}\nassert os.getpid() == me\nsay('end')\n"
    done = apps.run(apps.write(directory, code), *words)
    assert (done.status, done.err) == (0, b"")
    *lines, end = map(json.loads, done.out.splitlines())
    assert end == ["end"]
    return lines


#: End of the command, its status, and what is the last line of stderr.
ENDS = {
    "exit": (3, "err\n"),
    "fail": (2, "Error: it fails\n"),
    "raise": (1, "RuntimeError: unforeseen\n"),
    "abort": (1, "Aborted!\n"),
    "sys": (4, "err\n"),
    "text": (1, "text\n"),
    "kill": (137, "err\n"),
    "os": (6, "err\n"),
    "interrupt": (1, "Aborted!\n"),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_runner_has_the_status(end: str, tmp_path: Path, family: Family) -> None:
    """CliRunner: status and words of a server that ended, as without the option; the command ran in another process."""
    status, last = ENDS[end]
    code = f"say(*invoke(command, '--daemonize', '--end', '{end}'))"
    ((found, out, err),) = outcome(tmp_path, code)

    assert (found, out) == (status, "out\n")
    assert str(err).startswith("err\n")
    assert str(err).endswith(last)
    family.nobody()
    if end in {"exit", "fail", "abort", "sys", "interrupt"}:
        ((found, control, control_err),) = outcome(tmp_path, code.replace("'--daemonize', ", ""))
        assert (found, control) == (status, out)
        assert str(control_err).replace("\n\n", "\n") == str(err).replace("\n\n", "\n")


def test_the_runner_goes_on_when_the_server_is_ready(tmp_path: Path, servers: Family) -> None:
    """Status 0, the server's words, and the server lives; again and again in one program, under groups as well."""
    code = """
for _ in range(3):
    say(*invoke(command, '--daemonize'))
say(*invoke(group, 'command', '--daemonize'))
say(*invoke(command, '--end', 'exit'))
"""
    assert outcome(tmp_path, code) == [
        *[[0, "out\n", "err\n"]] * 3, [0, "group\nout\n", "err\n"], [3, "out\n", "err\n"],
    ]  # fmt: skip
    living = servers.living()
    assert len(living) == 4
    assert all(process.ppid == 1 for process in living)


def test_called_as_a_function(tmp_path: Path, servers: Family) -> None:
    """`main([...], standalone_mode=False)` with words that are not the program's own: it has the status, and goes on."""
    code = """
sys.stdout.flush()
say(command.main(['--daemonize'], standalone_mode=False))
say(group.main(['command', '--daemonize', '--end', 'exit'], standalone_mode=False))
with command.make_context('x', ['--daemonize', '--end', 'exit']) as ctx:
    try:
        command.invoke(ctx)
    except click.exceptions.Exit as e:
        say(e.exit_code)
try:
    command.main(['--daemonize', '--end', 'exit'])
except SystemExit as e:
    say(e.code)
"""
    code = f"{PROGRAM}\n{code}\nassert os.getpid() == me\nsay('end')\n"
    done = apps.run(apps.write(tmp_path, code))

    assert done.status == 0
    said = [line for line in done.out.decode().splitlines() if line.startswith("[")]
    assert said == ["[0]", "[3]", "[3]", "[3]", '["end"]']
    assert done.out.count(b"out\n") == 4
    assert done.err.count(b"err\n") == 4
    assert len(servers.living()) == 1


def test_the_words_of_another_program(tmp_path: Path, servers: Family) -> None:
    """The same function with the program's own words takes the process over; that is the difference (the control)."""
    code = f"{PROGRAM}\ncommand.main(sys.argv[1:], standalone_mode=False)\nsay('never')\n"
    done = apps.run(apps.write(tmp_path, code), "--daemonize")

    assert (done.status, done.out, done.err) == (0, b"out\n", b"err\n")
    assert servers.only().ppid == 1


def test_words_that_only_look_alike(tmp_path: Path, servers: Family) -> None:
    """A runner's `-d` is not the `-d` that stands among the letters of another program's option, as in `pytest -rd`."""
    code = """
@click.command()
@daemonize_option('-d', '--daemonize')
def command():
    serve('out')
say(*invoke(command, '-d'))
"""
    assert outcome(tmp_path, code, "-rd", "--dae") == [[0, "out\n", ""]]
    assert servers.only().ppid == 1


def test_streams_of_the_program(tmp_path: Path, servers: Family) -> None:
    """A program that writes through an object of its own is taken over all the same: it is its own command line."""
    code = """
class Both:
    def write(self, text):
        os.write(1, text.encode())
    def flush(self):
        pass
sys.stdout = Both()
command()
"""
    done = apps.run(apps.write(tmp_path, PROGRAM + code), "--daemonize")

    assert (done.status, done.out, done.err) == (0, b"out\n", b"err\n")
    assert servers.only()


def test_threads(tmp_path: Path, family: Family) -> None:
    """A program with threads cannot be forked, and must not be replaced: one line that says so, status 125."""
    code = f"{apps.THREAD}\nsay(*invoke(command, '--daemonize'))"
    ((status, out, err),) = outcome(tmp_path, code)

    assert (status, out) == (125, "")
    assert "threads are running" in str(err)
    assert str(err).count("\n") == 1
    family.nobody()


def test_what_the_caller_has_is_not_touched(tmp_path: Path, servers: Family) -> None:
    """Handlers, mask, environment, descriptors, directory, streams of the calling program are as before; no atexit runs."""
    code = """
def facts():
    return [
        {n: str(signal.getsignal(n)) for n in range(1, 32)}, sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        dict(os.environ), sorted(os.listdir('/proc/self/fd')), os.getcwd(), id(sys.stdout), id(sys.stderr), gc.isenabled(),
        signal.set_wakeup_fd(-1),
    ]
atexit.register(lambda: os.write(1, b'["atexit"]\\n') if os.getpid() != me else None)
before = facts()
invoke(command, '--daemonize')
invoke(command, '--daemonize', '--end', 'exit')
invoke(command, '--daemonize', '--pid-file', '/nonexistent/pid')
say(facts() == before)
"""
    assert outcome(tmp_path, code) == [[True]]


def test_files(tmp_path: Path, servers: Family) -> None:
    """Pid file and log file work there, too; for a second server the pid file is taken: 75, in one line."""
    code = """
say(*invoke(command, '--daemonize', '--pid-file', 'pid', '--log-file', 'log'))
say(*invoke(command, '--daemonize', '--pid-file', 'pid'))
"""
    directory = os.getcwd()
    os.chdir(tmp_path)
    try:
        first, second = outcome(tmp_path, code)
    finally:
        os.chdir(directory)

    assert first == [0, "out\n", "err\n"]
    assert second[:2] == [75, ""]
    assert str(second[2]).startswith("command: ")
    assert "already running" in str(second[2])
    assert (tmp_path / "pid").read_text() == f"{servers.only().pid}\n"
    assert procs.descriptors(servers.only().pid)[1] == f"{tmp_path}/log"


def test_an_interrupt_of_the_caller(tmp_path: Path, family: Family) -> None:
    """Ctrl-C while the server starts: KeyboardInterrupt where the caller waits, and the server has been stopped."""
    code = """
@click.command()
@daemonize_option()
def never():
    os.kill(os.getppid(), 0)
    os.kill(me, signal.SIGINT)
    signal.pause()
say(*invoke(never, '--daemonize'))
"""
    ((status, _out, _err),) = outcome(tmp_path, code)

    assert status == 1
    family.nobody()


def test_captured_by_a_test_runner(tmp_path: Path, servers: Family) -> None:
    """Pytest's streams have descriptors, but not 1 and 2: a default, too, does not take its process over."""
    test = tmp_path / "test_it.py"
    test.write_text(
        "import os, time, click, daemonize\n"
        "ME = os.getpid()\n"
        "@click.command()\n@daemonize.daemonize_option(default=True)\n"
        "def command(): daemonize.ready(); time.sleep(60)\n"
        "def test_it(): assert command.main([], standalone_mode=False) == 0\n"
        "def test_still_there(): assert os.getpid() == ME\n"
    )
    done = apps.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(test)]
    )

    assert done.status == 0
    assert b"2 passed" in done.out
