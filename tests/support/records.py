"""Records of daemons that were never started, and the functions of `daemonctl` that are given one, as a process.

python records.py FILE WHAT KEYWORDS        WHAT: `logs`; KEYWORDS: JSON

The record is read from FILE (JSON: what differs from the defaults) whenever it is asked for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from daemonize.cli.logs import show_logs
from daemonize.errors import DaemonizeError, SetupError


@dataclass
class Record:
    """What a record of the registry has."""

    name: str = "web"
    pid: int | None = None
    start: int = 0
    boot_id: str = ""
    session: int = 0
    token: str = "DAEMONIZE_ID=0"
    process: str = "web"
    explicit: bool = False
    ready: bool = True
    foreground: bool = False
    began: float = 0.0
    seconds: float = 0.1
    stopped: float | None = None
    stdout: str = "/dev/null"
    stderr: str = "/dev/null"
    pid_file: str | None = None
    pid_file_is_locked: bool = False
    drain: int | None = None
    listen: list[str] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    program: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, path: str | os.PathLike[str]) -> None:
        """To a file, at once."""
        with open(f"{os.fspath(path)}.new", "w") as file:
            json.dump(asdict(self), file)
        os.replace(f"{os.fspath(path)}.new", path)


def read(path: str) -> Record:
    """From a file. Raises SetupError."""
    try:
        with open(path) as file:
            return Record(**json.load(file))
    except OSError as error:
        raise SetupError("read", path, error) from None


def command(path: str | os.PathLike[str], **keywords: Any) -> list[str]:
    """The argument list that shows the logs of the record in a file."""
    given = {"lines": 10, "follow": False, "stderr_only": False, "since": None, **keywords}
    return [sys.executable, "-P", __file__, os.fspath(path), json.dumps(given)]


def logs(path: str | os.PathLike[str], **keywords: Any) -> subprocess.CompletedProcess[bytes]:
    """Show them, to the end."""
    return subprocess.run(
        command(path, **keywords), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30
    )


def main() -> int:
    """The exit status; errors are one line."""
    path, keywords = sys.argv[1:]
    try:
        return show_logs(lambda: read(path), **json.loads(keywords))
    except DaemonizeError as error:
        sys.stderr.write(f"daemonctl: {error}\n")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
