"""The README's examples run, and print what they show.

They follow one convention. A block marked `console` is a session: a line that starts with `$ ` is typed, and
the lines after it are what comes out, on stdout or stderr. `...` stands for anything within a line, and alone
for any lines. A block marked `python` whose first line is `# NAME.py` is saved under that name first. Port
8000 is replaced by one that is free. Any other block is shown, not run.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import cli, ports, procs

README = (Path(__file__).parents[2] / "README.md").read_text()

#: Other people's commands that an example may use.
BORROWED = ("curl", "jq")


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def expected(block: str) -> re.Pattern[str]:
    """What a session must print, all commands together."""
    lines = [line for line in block.splitlines() if not line.startswith("$ ")]
    patterns = [
        ".*\n" if line == "..." else re.escape(line).replace(re.escape("..."), "[^\n]*") + "\n"
        for line in lines
    ]
    return re.compile("".join(patterns), re.DOTALL)


def commands(block: str) -> str:
    """What is typed in a session."""
    return "\n".join(line[2:] for line in block.splitlines() if line.startswith("$ "))


def play(block: str, text: str, directory: Path) -> str:
    """Run a session of the document `text`, end what it left behind, and return what it printed.

    The output is a pipe and is read to its end: a server that kept it open would make this time out.
    """
    port = str(ports.free_port())
    for program in blocks(text, "python"):
        if named := re.match(r"# (\w+\.py)\n", program):
            (directory / named[1]).write_text(program.replace("8000", port))
    mark = f"TEST_SESSION_{secrets.token_hex(8)}"
    path = f"{os.path.dirname(cli.COMMAND)}:{os.environ['PATH']}"
    try:
        done = subprocess.run(
            ["bash", "-c", commands(block).replace("8000", port)],
            cwd=directory,
            env=cli.environ({"PATH": path, "PYTHONUNBUFFERED": "1", mark: "1"}),
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
    return done.stdout.replace(port, "8000")


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=commands(block)) for block in blocks(README, "console")]
)
def test_an_example_does_what_the_readme_shows(block: str, tmp_path: Path) -> None:
    """The session prints exactly what is printed there."""
    for command in BORROWED:
        if re.search(rf"\b{command}\b", commands(block)) and not shutil.which(command):
            pytest.skip(f"{command} is not installed")

    printed = play(block, README, tmp_path)

    assert expected(block).fullmatch(printed), f"the README shows\n{block}\nbut this was printed:\n{printed}"


def test_the_readme_has_examples() -> None:
    """Negative control: a renamed fence would leave the test above with nothing to do."""
    assert len(blocks(README, "console")) >= 5


@pytest.mark.parametrize(
    ("block", "fits"),
    [
        ("$ echo one\none\n", True),
        ("$ echo one; echo two >&2\none\ntwo\n", True),
        ("$ echo pid 4711, started\npid ..., started\n", True),
        ("$ seq 9\n1\n...\n9\n", True),
        ("$ cat script.py\n# script.py\nport = 8000\n", True),
        ("$ echo one\ntwo\n", False),
        ("$ echo one\n", False),
        ("$ true\none\n", False),
        ("$ seq 9\n1\n...\n8\n", False),
        ("$ printf 'a\\nb\\n'\na...\n", False),
    ],
)
def test_a_wrong_example_is_seen(block: str, fits: bool, tmp_path: Path) -> None:
    """Negative control: a session that prints something else does not pass."""
    printed = play(block, "```python\n# script.py\nport = 8000\n```\n", tmp_path)

    assert (expected(block).fullmatch(printed) is not None) == fits


def test_what_an_example_leaves_behind_is_ended(tmp_path: Path) -> None:
    """Negative control: a server in a session of its own, which outlives the shell, is found and killed."""
    printed = play("$ setsid sleep 60 >/dev/null 2>&1 & echo $!\n", "", tmp_path)

    assert not procs.alive(int(printed))
