"""`make test`: the tests in two halves at once, one for each core. With arguments: pytest with these, alone.

What the second half says is shown when the first is done. The status is that of a half that failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

TESTS = os.path.dirname(os.path.abspath(__file__))
#: Directories of the first half, which with the rest takes about as long.
FIRST = ("cli", "meta", "apps", "unit", "manager")


def pytest(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "pytest", *arguments]


def main(arguments: list[str]) -> int:
    """Run them; the exit status."""
    if arguments:
        return subprocess.run(pytest(*arguments), check=False).returncode
    first = [os.path.join(TESTS, name) for name in FIRST]
    rest = [f"--ignore={path}" for path in first]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(pytest(*rest), stdout=said, stderr=said) as second,
    ):
        status = subprocess.run(pytest(*first), check=False).returncode
        second.wait()
        said.seek(0)
        sys.stdout.buffer.write(said.read())
    return status or second.returncode


try:
    sys.exit(main(sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(130)
