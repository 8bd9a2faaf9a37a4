"""What programs do around the option that must not change what it means."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import apps, procs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

GROUP = """
@click.group()
def cli():
    {group}

@cli.command()
@daemonize_option(timeout=20)
@click.option('--then', default=0)
def web(then):
    {body}
cli()
"""


def program(directory: Path, way: str, *, group: str = "pass", body: str = "serve()") -> list[str]:
    """A group with one command."""
    return apps.write(directory, apps.WAYS[way] + GROUP.format(group=group, body=body))


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_redirection_before_the_command_is_no_readiness(way: str, tmp_path: Path, family: Family) -> None:
    """A group callback that redirects stdout and stderr says nothing about the command, which then fails."""
    group = "fd = os.open(os.devnull, os.O_WRONLY); os.dup2(fd, 1); os.dup2(fd, 2)"
    done = apps.run(program(tmp_path, way, group=group, body="os._exit(5)"), "web", "--daemonize")

    assert done.status == 5
    family.nobody()


def test_what_a_hook_opens_when_it_is_forked_stays(tmp_path: Path, servers: Family) -> None:
    """Libraries make their descriptors anew in a forked process: they are the program's, and not the launch's."""
    group = "os.register_at_fork(after_in_child=lambda: OPENED.append(open('state', 'a')))"
    body = "others = [open('other', 'w') for _ in range(9)]; OPENED[-1].write('kept'); OPENED[-1].flush(); serve()"
    code = "OPENED = []\n" + GROUP.format(group=group, body=body)
    done = apps.run(apps.write(tmp_path, code), "web", "--daemonize", cwd=tmp_path)

    assert (done.status, done.err) == (0, b"")
    assert (tmp_path / "state").read_text() == "kept"
    assert (tmp_path / "other").read_text() == ""


def test_a_timer_does_not_end_the_wrapper(tmp_path: Path, servers: Family) -> None:
    """exec(2) keeps a timer, and forgets who handles its signal."""
    group = "signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, .01, .01)"
    done = apps.run(program(tmp_path, "anew", group=group, body="serve()"), "web", "--daemonize")

    assert (done.status, done.err) == (0, b"")


@pytest.mark.parametrize("way", apps.WAYS)
def test_another_options_callback_does_not_begin_the_launch(
    way: str, tmp_path: Path, servers: Family
) -> None:
    """It may invoke something while the command line is still being read; the files come after it, and count."""
    code = (
        apps.WAYS[way]
        + """
def look(ctx, param, value):
    return ctx.invoke(lambda: value)

@click.command()
@daemonize_option()
@click.option('--first', callback=look)
def main(first):
    serve()
main()
"""
    )
    words = ("--daemonize", "--first", "1", "--pid-file", "web.pid", "--log-file", "web.log")
    done = apps.run(apps.write(tmp_path, code), *words, cwd=tmp_path)

    assert (done.status, done.err) == (0, b"")
    assert (tmp_path / "web.pid").read_bytes() == b"%d\n" % servers.only().pid
    assert (tmp_path / "web.log").exists()


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/2"])
def test_a_log_that_is_a_stream(path: str, tmp_path: Path, family: Family) -> None:
    """In the background there are no streams of the caller's: refused at once, and not after the whole timeout."""
    done = apps.run(program(tmp_path, "fork"), "web", "--daemonize", "--log-file", path)

    assert done.status == 2
    assert b"the log cannot be " + path.encode() in done.err
    family.nobody()


def test_arguments_from_a_file(tmp_path: Path, servers: Family) -> None:
    """Argparse may read them from a file: then the option is nowhere in the arguments, and means the same."""
    code = """
parser = argparse.ArgumentParser(fromfile_prefix_chars='@')
daemonize.add_daemonize_arguments(parser)
daemonize.daemonize_if_asked(parser.parse_args())
serve('up')
"""
    (tmp_path / "arguments").write_text("--daemonize\n")
    with apps.popen(apps.write(tmp_path, code), "@arguments", cwd=tmp_path) as process:
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out, err) == (0, b"up\n", b"")


def test_a_colon_in_the_path_of_packages(tmp_path: Path, servers: Family) -> None:
    """What separates directories in a variable may be part of the name of one."""
    directory = tmp_path / "a:b"
    directory.mkdir()
    argv = apps.write(
        tmp_path,
        "sys.path.insert(0, sys.argv.pop(1))\n" + apps.THREAD + GROUP.format(group="pass", body="serve()"),
    )
    done = apps.run(argv, os.fspath(directory), "web", "--daemonize")

    assert (done.status, done.err) == (0, b"")


LATE = """
def leave(status, called=os.getpid(), leave=os._exit):
    if os.getpid() == called:
        os.kill(called, signal.SIGQUIT)
    leave(status)

os._exit = leave
"""


def test_a_signal_when_the_server_has_been_handed_over(tmp_path: Path, servers: Family) -> None:
    """SIGQUIT, which is not caught, no longer ends the server: nor must the caller be told that it has died."""
    argv = apps.write(tmp_path, LATE + GROUP.format(group="pass", body="serve()"))

    assert apps.run(argv, "web", "--daemonize") == (0, b"", b"")


@pytest.mark.stress
def test_a_signal_at_any_moment_of_the_hand_over(tmp_path: Path, family: Family) -> None:
    """SIGQUIT, which is not caught: either the launch has failed and nobody is there, or it has not."""

    def family_is_gone() -> None:
        family.nobody()
        assert not (tmp_path / "web.pid").exists()

    argv = program(tmp_path, "fork", body="serve()")
    for delay in range(40):
        with apps.popen(argv, "web", "--daemonize", "--pid-file", "web.pid", cwd=tmp_path) as process:
            procs.wait_ended(process.pid, 0.05 + delay / 1000)
            process.send_signal(signal.SIGQUIT)
            process.communicate(timeout=30)
        if process.returncode:
            procs.eventually(family_is_gone)  # the intermediate parent sees to it
        else:
            assert (tmp_path / "web.pid").read_bytes() == b"%d\n" % family.only().pid
            family.end()
            (tmp_path / "web.pid").unlink()
