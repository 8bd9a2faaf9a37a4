"""Sessions that a document shows: what is typed, what comes out, and how they are run.

In a session a line that starts with `$ ` is typed (after a backslash one that starts with `> `, too), and the lines after
it are what comes out, on stdout or stderr. `...` stands for anything within a line, and alone for any lines; two blanks or
more, as between the columns of a table, for as many as there are, or a tab.
"""

from __future__ import annotations

import glob
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

from tests.support import cli, ports, procs, servers

if TYPE_CHECKING:
    from pathlib import Path

#: The command, and what examples use besides.
PATH = os.pathsep.join([os.path.dirname(cli.COMMAND), servers.PATH, *glob.glob("/usr/lib/postgresql/*/bin")])


_ANY_LINES = "\n...\n"
#: Sections that are a walk from block to block.
CHAINED = ("Named daemons",)


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def console(text: str) -> list[str]:
    """The sessions of a document; a section that is a walk is one."""
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE):
        title = part.partition("\n")[0]
        sessions_here = blocks(part, "console")
        found += ["".join(sessions_here)] if title in CHAINED else sessions_here
    return found


def saved(text: str) -> dict[str, str]:
    """The blocks that are files, by name."""
    found = re.findall(r"^```\w+\n(# ([\w-]+\.\w+)\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {name: content for content, name in found}


def save_files(text: str, directory: Path) -> str:
    """Save the blocks that are files. Returns the port that they have in place of 8000."""
    port = str(ports.free_port())
    for name, content in saved(text).items():
        (directory / name).write_text(content.replace("8000", port))
    return port


def joined(block: str) -> str:
    """A session whose continued lines are one."""
    return block.replace("\\\n> ", "")


def expected(block: str) -> re.Pattern[str]:
    """What a session must print, all commands together."""
    return _pattern([line for line in joined(block).splitlines() if not line.startswith("$ ")])


def transcript(block: str) -> re.Pattern[str]:
    """What stands in a terminal in which a session was typed."""
    return _pattern(joined(block).splitlines())


def _pattern(lines: list[str]) -> re.Pattern[str]:
    """What fits a line, and the first place that fits what stands between two `...`, is taken for good.

    Else it takes for ever to find that a long session differs.
    """
    parts = "".join(map(_pattern_of_line, lines)).split(_ANY_LINES)
    middle = "".join(f"(?>(?:[^\n]*\n)+?{part})" for part in parts[1:-1])
    last = f"(?:[^\n]*\n)+?{parts[-1]}" if parts[1:] else ""
    return re.compile(parts[0] + middle + last)


def _pattern_of_line(line: str) -> str:
    if line == "...":
        return _ANY_LINES
    literal = re.sub(r"(?:\\ ){2,}", r"(?: {2,}|\\t)", re.escape(line))
    return "(?>" + literal.replace(re.escape("..."), "[^\n]*") + "\n)"


def commands(block: str) -> str:
    """What is typed in a session."""
    return "\n".join(line[2:] for line in joined(block).splitlines() if line.startswith("$ "))


def played(typed: str, mark: str, directory: Path) -> str:
    """What a session prints. Whatever it leaves behind, which carries the variable `mark`, is ended.

    The output is a pipe and is read to its end: a server that kept it open would make this time out.
    """
    try:
        done = subprocess.run(
            ["bash", "-c", typed],
            cwd=directory,
            env=cli.environ({"PATH": PATH, "PYTHONUNBUFFERED": "1", mark: "1"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        for process in procs.carrying(mark):
            procs.stop(process.pid, signal.SIGKILL)
    return done.stdout
