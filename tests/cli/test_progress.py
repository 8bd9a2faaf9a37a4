"""What people see at a terminal while they wait; and that nobody else sees anything of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import cli, procs
from tests.support.programs import SHELL, program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

DRAWN = re.compile(rb"\x1b7\x1b\[\?7l([^\x1b]*)\x1b\[K\x1b\[\?7h\x1b8")
ERASE = b"\x1b[K"
NEVER = [SHELL, "-c", "exec sleep 100"]
ENV = {"TERM": "xterm"}


class Terminal:
    """A terminal with somebody who looks at it. said: all that has come to it."""

    def __init__(self, columns: int = 80) -> None:
        self.near, self.far = pty.openpty()
        fcntl.ioctl(self.far, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        attributes = termios.tcgetattr(self.far)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(self.far, termios.TCSANOW, attributes)
        self.said = b""

    def read_on(self, timeout: float = 10.0) -> None:
        """Until something new has come."""
        assert procs.readable(self.near, timeout), f"nothing after {self.said!r}"
        self.said += os.read(self.near, 65536)

    def until(self, text: bytes) -> None:
        """Until this is to be seen."""
        while text not in self.said:
            self.read_on()

    def rest(self) -> None:
        """What has come since."""
        while procs.readable(self.near, 0):
            self.said += os.read(self.near, 65536)

    @property
    def lines(self) -> list[str]:
        """Every line that was drawn."""
        return [text.decode() for text in DRAWN.findall(self.said)]

    @property
    def besides(self) -> bytes:
        """What was shown but for the lines."""
        return DRAWN.sub(b"", self.said).replace(ERASE, b"")

    def close(self) -> None:
        """Hang up."""
        os.close(self.near)
        os.close(self.far)


@pytest.fixture
def screen() -> Iterator[Terminal]:
    """A terminal, 80 columns wide."""
    terminal = Terminal()
    yield terminal
    terminal.close()


@contextlib.contextmanager
def launching(
    screen: Terminal, *words: str, env: Mapping[str, str | None] | None = None, **how: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A launch at a terminal, by its only process."""
    streams: dict[str, Any] = {"stdin": screen.far, "stdout": screen.far, "stderr": screen.far, **how}
    with cli.popen(*words, env={**ENV, **(env or {})}, **streams) as wrapper:
        try:
            yield wrapper
        finally:
            procs.stop(wrapper.pid)


def waits(script: str, trigger: Trigger) -> list[str]:
    """A shell script in which $1 is waited for with `$wait`, and that serves on."""
    return [SHELL, "-c", f'wait="head -c1 $1"; {script}; exec sleep 100', SHELL, trigger.path]


# --- the line ------------------------------------------------------------------------------------------------------


def test_what_is_awaited(screen: Terminal, servers: Family, trigger: Trigger) -> None:
    """After a moment, in seconds; gone without a trace when the server is ready."""
    with launching(screen, "-r", "log:ready", *waits("$wait >/dev/null; echo ready", trigger)) as wrapper:
        screen.until(b"waiting 2 s")
        trigger.release()
        assert wrapper.wait(10) == 0
    screen.rest()

    assert screen.lines == [f"daemonize: waiting {n} s for log:ready (Ctrl-C stops it)" for n in (1, 2)]
    assert screen.besides == b"ready\n"
    assert screen.said.endswith(ERASE + b"ready\n")


def test_nothing_in_the_first_moment(screen: Terminal, servers: Family) -> None:
    """Most servers are ready sooner: the terminal shows their words, and not a byte more."""
    with launching(screen, "-r", "log:ready", *program("meets_spec", "log:ready")) as wrapper:
        assert wrapper.wait(10) == 0
    screen.rest()

    assert screen.said == b"waiting\nready\n"


def test_what_the_server_says_of_itself(screen: Terminal, servers: Family) -> None:
    """Its STATUS, cleaned; and the one that is awaited still."""
    steps = ["send=STATUS=reading \x1b[31m the index"]
    with launching(screen, "-r", "notify", "-r", "alive:10ms", *program("notifies", *steps)):
        screen.until(b"Ctrl-C")

    assert screen.lines == [
        "daemonize: waiting 1 s for notify (reading \\x1b[31m the index; Ctrl-C stops it)"
    ]


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (40, "daemonize: waiting 1 s for file:/nonexis"[:39]),
        (47, "daemonize: waiting 1 s for file:/nonexistent/"),
        (0, "daemonize: waiting 1 s for file:/nonexistent/漢字 (Ctrl-C stops it)"),
    ],
)
def test_the_width_of_the_terminal(columns: int, line: str, servers: Family) -> None:
    """It is one row, also of wide characters; of a terminal that does not know its width, 80 columns."""
    screen = Terminal(columns)
    with launching(screen, "-r", "file:/nonexistent/漢字", *NEVER):
        screen.until(b"\x1b8")
    screen.close()

    assert screen.lines[0] == line


def test_it_is_below_what_the_server_says(screen: Terminal, servers: Family, trigger: Trigger) -> None:
    """Cleared before any word of it; drawn again when that word has its end; nothing is glued to half a line."""
    script = (
        "$wait >/dev/null; echo one; $wait >/dev/null; printf half; $wait >/dev/null; echo; $wait >/dev/null"
    )
    with launching(screen, "-r", "log:never", *waits(script, trigger)):
        screen.until(b"Ctrl-C")
        trigger.release()
        screen.until(ERASE + b"one\n\x1b7")
        trigger.release()
        screen.until(ERASE + b"half")
        assert not procs.readable(screen.near, 1.5)
        trigger.release()
        screen.until(b"half\n\x1b7")

    assert screen.besides.startswith(b"one\nhalf\n")


def test_output_is_byte_exact_besides(screen: Terminal, servers: Family) -> None:
    """Whatever comes, and whenever it is drawn."""
    script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exec sleep 100"
    with launching(screen, "-r", "log:^line 300$", SHELL, "-c", script) as wrapper:
        while wrapper.poll() is None:
            if procs.readable(screen.near, 0.1):
                screen.read_on()
    screen.rest()

    assert screen.lines
    assert screen.besides == b"".join(b"line %d\n" % number for number in range(1, 301))


def test_a_pipe_that_leads_to_the_terminal(screen: Terminal, servers: Family, trigger: Trigger) -> None:
    """`daemonize ... | tee`: it is gone before the words get there."""
    words = waits("$wait >/dev/null; echo one; $wait >/dev/null; echo ready", trigger)
    with (
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=screen.far) as end,
        launching(screen, "-r", "log:ready", *words, stdout=end.stdin) as wrapper,
    ):
        assert end.stdin
        end.stdin.close()
        screen.until(b"Ctrl-C")
        trigger.release()
        screen.until(ERASE + b"one\n\x1b7")
        trigger.release()
        assert wrapper.wait(10) == 0
    screen.rest()

    assert screen.besides == b"one\nready\n"


def test_our_own_words_have_the_row_for_themselves(screen: Terminal, family: Family) -> None:
    """The message of a failure."""
    with launching(screen, "-t", "1.5s", "-r", "log:never", *NEVER) as wrapper:
        assert wrapper.wait(10) == 124
    screen.rest()

    assert ERASE + b"daemonize: sh was not ready within 1.5 s" in screen.said.replace(SHELL.encode(), b"sh")
    assert screen.besides.count(b"\n") == 1


def test_ctrl_c(screen: Terminal, family: Family) -> None:
    """It stops it, as the line says."""
    with launching(screen, "-r", "log:never", *NEVER, start_new_session=True) as wrapper:
        screen.until(b"Ctrl-C")
        wrapper.send_signal(2)
        assert wrapper.wait(10) == 130
    screen.rest()

    assert ERASE + b"daemonize: interrupted by SIGINT" in screen.said


# --- the hint ------------------------------------------------------------------------------------------------------


def test_a_server_that_never_closes_its_streams(screen: Terminal, family: Family) -> None:
    """After five seconds those are told of --ready who cannot know of it: once, in a line that stays."""
    with launching(screen, *NEVER, env={"TERM": "dumb"}):
        screen.until(b"\n")
        assert not procs.readable(screen.near, 1.5)

    assert screen.said.count(b"\n") == 1
    assert screen.said.startswith(b"daemonize: still waiting for the server to close its stdout and stderr")
    assert b"--ready port" in screen.said
    assert screen.lines == []


def test_a_program_with_the_option(screen: Terminal, family: Family, tmp_path: Path) -> None:
    """In its own name; the hint names what its author can call."""
    path = tmp_path / "serves.py"
    path.write_text(PROGRAM)
    streams = {"stdin": screen.far, "stdout": screen.far, "stderr": screen.far}
    command = [sys.executable, path, "--daemonize"]
    with subprocess.Popen(command, env=cli.environ(ENV), **streams) as wrapper:  # type: ignore[call-overload]
        screen.until(b"daemonize.ready()")
        procs.stop(wrapper.pid)
    screen.rest()

    assert screen.lines[0] == "serves.py: waiting 1 s for streams (Ctrl-C stops it)"
    assert b"serves.py: still waiting for the server to call daemonize.ready()" in screen.besides


PROGRAM = """
import time
import click
import daemonize

@click.command()
@daemonize.daemonize_option()
def main():
    time.sleep(100)

main()
"""


# --- nobody else ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "env"),
    [(["-q"], {}), (["-v"], {}), ([], {"TERM": "dumb"}), ([], {"TERM": None})],
    ids=["quiet", "verbose", "dumb", "unknown"],
)
def test_where_it_is_not_wanted(
    screen: Terminal, family: Family, options: list[str], env: Mapping[str, str | None]
) -> None:
    """-q; -v, which says more; terminals on which nothing can be cleared."""
    with launching(screen, *options, "-r", "alive:1.3s", *NEVER, env=env) as wrapper:
        assert wrapper.wait(10) == 0
    screen.rest()
    family.end()

    assert screen.lines == []
    assert b"\x1b" not in screen.said


@pytest.mark.parametrize("which", ["stdout", "stdin"])
def test_stderr_is_no_terminal(screen: Terminal, servers: Family, which: str) -> None:
    """A script, with or without a terminal at another end."""
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, which: screen.far}
    with cli.popen("-r", "alive:1.3s", *NEVER, env=ENV, **streams) as wrapper:
        out, err = wrapper.communicate(timeout=10)
    screen.rest()

    assert (out or b"", err, screen.said) == (b"", b"", b"")


def test_only_what_is_shown_is_loaded(screen: Terminal, servers: Family) -> None:
    """Nothing of it before the moment; nothing of it ever where there is no terminal."""
    env = {"PYTHONPROFILEIMPORTTIME": "1"}
    module = b"daemonize.launcher.progress"
    with launching(screen, *program("repoints"), env=env) as wrapper:
        assert wrapper.wait(10) == 0
    screen.rest()
    elsewhere = cli.run("-r", "alive:1.3s", *NEVER, env={**ENV, **env})

    assert module not in screen.said
    assert module not in elsewhere.err
    with launching(screen, "-r", "alive:1.3s", *NEVER, env=env) as wrapper:  # negative control
        screen.until(module)
        assert wrapper.wait(10) == 0


def test_a_stopped_terminal(screen: Terminal, servers: Family, trigger: Trigger) -> None:
    """Ctrl-S: the launch does not wait for it."""
    words = waits("$wait >/dev/null; echo ready", trigger)
    with launching(screen, "-r", "log:ready", *words, stdout=subprocess.DEVNULL) as wrapper:
        screen.until(b"Ctrl-C")
        termios.tcflow(screen.far, termios.TCOOFF)
        assert not procs.wait_ended(wrapper.pid, 1.5)
        trigger.release()
        assert wrapper.wait(10) == 0
        termios.tcflow(screen.far, termios.TCOON)
    screen.rest()

    assert screen.besides == b""


def test_in_the_foreground(screen: Terminal, family: Family) -> None:
    """Until it is ready; and only if somebody waits for that."""
    serves = [SHELL, "-c", "sleep 1.3; echo ready; sleep 1.3"]
    with launching(screen, "-f", "-r", "log:ready", *serves) as wrapper:
        assert wrapper.wait(10) == 0
    screen.rest()
    assert screen.lines == ["daemonize: waiting 1 s for log:ready (Ctrl-C stops it)"]
    screen.said = b""
    with launching(screen, "-f", *serves) as wrapper:
        assert wrapper.wait(10) == 0
    screen.rest()

    assert screen.said == b"ready\n"


def test_not_by_the_library(screen: Terminal, servers: Family) -> None:
    """The terminal of a program that calls `launch()` is that program's."""
    code = "import daemonize, sys; daemonize.launch(sys.argv[1:], ready='alive:1.3s')"
    streams = {"stdin": screen.far, "stdout": screen.far, "stderr": screen.far}
    subprocess.run([sys.executable, "-c", code, *NEVER], check=True, env=cli.environ(ENV), **streams)  # type: ignore[call-overload]
    screen.rest()

    assert screen.said == b""


# --- sharing a terminal with others --------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", ["tostop", "-tostop"])
def test_a_job_in_the_background(screen: Terminal, servers: Family, stops: str) -> None:
    """Nothing is written over what the foreground shows; where the terminal stops jobs that write, nobody is stopped."""
    script = f'stty {stops}; set -m; "$@" & wait $!; echo status $?'
    words = [SHELL, "-c", script, SHELL, cli.COMMAND, "-r", "alive:2.3s", *NEVER]
    session = ["setsid", "--ctty", "--wait", *words]
    streams = {"stdin": screen.far, "stdout": screen.far, "stderr": screen.far}
    with subprocess.Popen(session, env=cli.environ(ENV), **streams) as shell:  # type: ignore[call-overload]
        screen.until(b"status")
        shell.wait(10)
    screen.rest()

    assert screen.said == b"status 0\n"


def test_a_job_in_the_foreground(screen: Terminal, servers: Family) -> None:
    """Negative control."""
    words = [SHELL, "-c", '"$@"; echo status $?', SHELL, cli.COMMAND, "-r", "alive:1.3s", *NEVER]
    streams = {"stdin": screen.far, "stdout": screen.far, "stderr": screen.far}
    session = ["setsid", "--ctty", "--wait", *words]
    with subprocess.Popen(session, env=cli.environ(ENV), **streams) as shell:  # type: ignore[call-overload]
        screen.until(b"status")
        shell.wait(10)
    screen.rest()

    assert len(screen.lines) == 1
    assert screen.besides == b"status 0\n"


@pytest.fixture
def pane(tmp_path: Path, servers: Family) -> Iterator[Pane]:
    """A terminal of tmux, 60 columns by 10 rows, in which `start` is played."""
    if not shutil.which("tmux"):
        pytest.skip("needs tmux")
    made = Pane(tmp_path)
    yield made
    made.close()


class Pane:
    """What stands on a screen, as tmux sees it."""

    def __init__(self, directory: Path) -> None:
        self.tmux = ["tmux", "-S", os.fspath(directory / "tmux"), "-f", "/dev/null"]
        self.directory = directory

    def play(self, script: str) -> None:
        """A script of the caller's."""
        path = self.directory / "start"
        path.write_text(f"{script}; exec sleep 100\n")
        size = ["-x", "60", "-y", "10"]
        subprocess.run([*self.tmux, "new-session", "-d", *size, SHELL, path], check=True)

    @property
    def rows(self) -> list[str]:
        """All that have something in them."""
        done = subprocess.run([*self.tmux, "capture-pane", "-p"], check=True, capture_output=True)
        return [row.rstrip() for row in done.stdout.decode().splitlines() if row.strip()]

    def shows(self, *rows: str) -> None:
        """These stand at the end, sooner or later."""

        def check() -> None:
            found = self.rows
            assert found[-len(rows) :] == list(rows), found

        procs.eventually(check, 10)

    def close(self) -> None:
        """End it."""
        pid = subprocess.run([*self.tmux, "display", "-p", "#{pid}"], check=True, capture_output=True).stdout
        subprocess.run([*self.tmux, "kill-server"], check=True)
        procs.wait_ended(int(pid))


def test_what_stands_on_the_screen(pane: Pane, trigger: Trigger) -> None:
    """After what the caller has said without an end, in one row; at the end nothing is there but the words."""
    server = waits("$wait >/dev/null; echo hello; $wait >/dev/null; echo ready", trigger)
    command = shlex.join([cli.COMMAND, "-r", "log:ready", *server])
    pane.play(f"printf 'Starting ... '; {command}; echo status $?")
    pane.shows("Starting ... daemonize: waiting 1 s for log:ready (Ctrl-C s")
    trigger.release()
    pane.shows("Starting ... hello", "daemonize: waiting 2 s for log:ready (Ctrl-C stops it)")
    trigger.release()
    pane.shows("Starting ... hello", "ready", "status 0")
