"""The examples of child servers say what they do, and nothing is left of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys

EXAMPLES = os.path.join(os.path.dirname(__file__), "..", "..", "examples")


def said_by(name: str) -> str:
    """On stdout; nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", os.path.join(EXAMPLES, name)],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_privileged_helper() -> None:
    """It opens what the program may not, nothing else, and ends clean."""
    assert re.fullmatch(
        r"the helper opened it: swordfish\n"
        r"refused: PermissionError: \.\./etc/passwd is not a file of that directory\n"
        r"refused: FileNotFoundError: \[Errno 2\] No such file or directory: 'nothing'\n"
        r"the helper has ended with status 0\n",
        said_by("privileged_helper.py"),
    )


def test_the_warm_interpreter() -> None:
    """One process for one key; errors are what they were."""
    assert said_by("warm_interpreter.py") == (
        "median: 2\n"
        "statistics.StatisticsError: no median for empty data\n"
        "mode: 2\n"
        "the same process: True; in less than 0.1 s: True\n"
        "not started: No module named 'no_such_module'\n"
        "interpreters: 1\n"
    )
