"""Completion as README and manual page set it up, in the shells themselves: Tab is pressed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import cli, pages, procs, sessions
from tests.support.terminal import SHELLS, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE, README = ((ROOT / name).read_text() for name in ("man/daemonctl.1", "README.md"))

each_shell = pytest.mark.parametrize("shell", SHELLS)


def setting(shell: str) -> str:
    """What the README says one has to put down for that shell."""
    (found,) = (block for block in sessions.blocks(README, shell) if "_DAEMONCTL_COMPLETE" in block)
    return found.strip()


@pytest.fixture
def terminal(shell: str, tmp_path: Path) -> Iterator[Terminal]:
    """That shell, and two daemons, of which one has a name that is the other's and more."""
    with Terminal(str(tmp_path), cli.environ({"PATH": sessions.PATH}), shell=shell) as made:
        pids = [
            cli.run("--json", "--name", name, "-r", "started", "sleep", "1000").json["pid"]
            for name in ("web", "worker")
        ]
        yield made
        running = [procs.alive(pid) for pid in pids]
        for pid in pids:
            procs.stop(pid)
    assert running == [True, True]


@each_shell
def test_verbs_names_and_options_are_completed(shell: str, terminal: Terminal) -> None:
    """Each by its first letters and Tab."""
    terminal.type(setting(shell))
    terminal.type("daemonctl stat\twe\t--js\t")

    terminal.shows(re.compile(r'^{"name": "web", "state": "running", ', re.MULTILINE))


@each_shell
def test_what_fits_several_is_listed(shell: str, terminal: Terminal) -> None:
    """Both names; nothing is stopped by that, says the fixture."""
    terminal.type(setting(shell))
    terminal.keys("daemonctl stop w\t\t")
    terminal.shows(re.compile(r"^web +worker", re.MULTILINE))


@each_shell
def test_options_of_daemonize_are_completed(shell: str, terminal: Terminal) -> None:
    """By the same line with the other name."""
    line = setting(shell).replace("DAEMONCTL", "DAEMONIZE").replace("daemonctl", "daemonize")
    terminal.type(line)
    terminal.type("daemonize --vers\t")

    terminal.shows(re.compile(r"^daemonize \d", re.MULTILINE))


@each_shell
def test_control_without_the_setting_no_name_is_completed(shell: str, terminal: Terminal) -> None:
    """Negative control: it is ours that completes."""
    terminal.type("daemonctl status we\t")

    terminal.shows(re.compile('no daemon named "we"'))


@each_shell
def test_the_manual_page_says_the_same(shell: str) -> None:
    """The line of the README is in the section COMPLETION."""
    assert setting(shell) in pages.examples(pages.section(PAGE, "COMPLETION"))
