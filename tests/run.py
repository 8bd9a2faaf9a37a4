"""`make test`: the tests in three parts at once, as most of them wait. With arguments: pytest with these, alone.

What the other parts say is shown when the first is done. The status is that of a part that failed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from typing import IO

TESTS = os.path.dirname(os.path.abspath(__file__))
#: Directories of the first parts, which take about as long as the rest.
PARTS = (("cli",), ("apps", "background", "child_server", "manager", "meta", "unit"))


def pytest(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "pytest", *arguments]


def main(arguments: list[str]) -> int:
    """Run them; the exit status."""
    if arguments:
        return subprocess.run(pytest(*arguments), check=False).returncode
    parts = [[os.path.join(TESTS, name) for name in names] for names in PARTS]
    rest = [f"--ignore={path}" for part in parts for path in part]
    with contextlib.ExitStack() as stack:
        others = [started(stack, part) for part in (*parts[1:], rest)]
        status = subprocess.run(pytest(*parts[0]), check=False).returncode
        for process, said in others:
            status = process.wait() or status
            said.seek(0)
            sys.stdout.buffer.write(said.read())
    return status


def started(stack: contextlib.ExitStack, arguments: list[str]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """A part, and what it says."""
    said = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack is one)
    return stack.enter_context(subprocess.Popen(pytest(*arguments), stdout=said, stderr=said)), said


try:
    sys.exit(main(sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(130)
