"""The README's walk through the verbs of daemonctl, typed in a real terminal: as root, and as an ordinary user."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemonize.cli.control import control
from tests.support import cli, procs, sessions, users
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README.partition("\n## Named daemons\n")[2].partition("\n## ")[0]
WALK = "".join(sessions.blocks(SECTION, "console"))

#: The commands, for whoever cannot reach the installed ones, and the modules that they run.
COMMANDS = {"daemonize": "daemonize.cli.main", "daemonctl": "daemonize.cli.daemonctl"}


class Place:
    """A directory with the README's files, and a terminal there. port: what stands for 8000."""

    def __init__(self, directory: str, terminal: Terminal, port: str) -> None:
        self.directory, self.terminal, self.port = directory, terminal, port

    def walk(self, session: str, patience: float = 10) -> None:
        """Type all of it; an AssertionError unless what then stands there is what is shown."""
        for line in sessions.commands(session.replace("8000", self.port)).splitlines():
            self.terminal.type(line)
        pattern = sessions.transcript(session.replace("8000", self.port)).pattern
        self.terminal.shows(re.compile(rf"\A{pattern}\$\n\Z"), patience)


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Place]:
    """This user's, which is root where tests run as root."""
    port = sessions.save_files(README, tmp_path)
    environment = cli.environ({"PATH": sessions.PATH, "PYTHONUNBUFFERED": "1"})
    with Terminal(str(tmp_path), environment) as terminal:
        yield Place(str(tmp_path), terminal, port)


@pytest.fixture
def ordinary() -> Iterator[Place]:
    """An ordinary user's, with nothing but a home: records and logs are where they are by default."""
    with users.open_directory() as directory:
        port = sessions.save_files(README, Path(directory))
        commands = os.path.join(directory, "bin")
        os.mkdir(commands)
        os.symlink(users.python(), os.path.join(commands, "python3"))
        for name, module in COMMANDS.items():
            path = os.path.join(commands, name)
            Path(path).write_text(f"#!{users.python()}\nfrom {module} import main\nmain()\n")
            os.chmod(path, 0o755)
        os.mkdir(os.path.join(directory, "home"))
        os.chown(os.path.join(directory, "home"), users.NOBODY.uid, users.NOBODY.uid)
        changes = {"HOME": os.path.join(directory, "home"), "PATH": f"{commands}:{os.defpath}"}
        scrubbed = dict.fromkeys(
            ("DAEMONIZE_STATE_DIR", "DAEMONIZE_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
        )
        environment = cli.environ({**users.environ(), **scrubbed, **changes, "PYTHONUNBUFFERED": "1"})
        with Terminal(directory, environment, become=users.become(users.NOBODY)) as terminal:
            yield Place(directory, terminal, port)


def test_the_walk_has_every_verb() -> None:
    """Negative control: a verb that is not typed is not shown to work."""
    typed = sessions.commands(WALK)

    assert [verb for verb in control.commands if f"daemonctl {verb}" not in typed] == []


def test_the_walk_of_the_readme(roots: Place) -> None:
    """What stands on the screen is what the README shows, line by line."""
    roots.walk(WALK)


def test_the_walk_of_the_readme_by_an_ordinary_user(ordinary: Place) -> None:
    """Likewise; records are below his home, and nobody else can look at them."""
    state = os.path.join(ordinary.directory, "home/.local/state/daemonize")
    ordinary.walk(WALK)

    directory = os.path.join(state, "run", socket.gethostname())
    assert os.stat(directory).st_uid == users.NOBODY.uid
    assert os.stat(directory).st_mode & 0o777 == 0o700
    assert [name for name in os.listdir(directory) if not name.startswith(".")] == []
    assert "web.out" in os.listdir(state)


def test_control_a_walk_that_shows_something_else(roots: Place) -> None:
    """Negative control: the screen is read, and to its end."""
    roots.terminal.type("daemonctl stop web")
    roots.terminal.shows(re.compile("no daemon named"))
    roots.terminal.type("clear")
    with pytest.raises(AssertionError, match="no daemon named"):
        roots.walk("$ daemonctl stop web\n", patience=1)
    with pytest.raises(AssertionError, match="no daemon named"):
        roots.walk('$ daemonctl stop web\ndaemonctl: no daemon named "bew"\n', patience=1)


def test_logs_are_followed_until_ctrl_c(roots: Place) -> None:
    """What the daemon writes is on the screen as it comes; after Ctrl-C the prompt is back, and the daemon runs on."""
    terminal = roots.terminal
    terminal.type("daemonize --name web -r notify -p web.pid python3 web.py")
    terminal.keys("daemonctl logs -f web\n")
    terminal.shows(re.compile(rf"logs -f web\n(.*\n)*web.py: serving on port {roots.port}\n"))
    procs.send(int(Path(roots.directory, "web.pid").read_text()), signal.SIGHUP)
    terminal.shows(re.compile(r"logs -f web\n(.*\n)*web.py: configuration read again\n"))
    terminal.keys("\x03")
    terminal.prompted()
    terminal.type('echo "status $?"; daemonctl status -n0 web | head -1')

    terminal.shows(re.compile(r"\^C\n\$ echo .*\nstatus 130\nweb: running since"))
    terminal.type("daemonctl stop web")


def test_a_row_of_the_table_ends_at_the_edge_of_the_terminal(tmp_path: Path) -> None:
    """However long the command is: nothing runs over into the next row."""
    with Terminal(str(tmp_path), cli.environ({"PATH": sessions.PATH}), columns=60) as terminal:
        terminal.type(
            f"daemonize --name long -r started {sys.executable} -c 'import time; time.sleep(1000)' {'x' * 200}"
        )
        terminal.type("clear; daemonctl list")
        terminal.shows(re.compile(r"\ANAME .*\nlong  running .*…\n\$\n\Z"))
        terminal.type("daemonctl stop long")
