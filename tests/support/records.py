"""Records of daemons that were never started, and the functions of `daemonctl` that are given one, as a process.

python records.py FILE WHAT KEYWORDS        WHAT: `logs`; KEYWORDS: JSON

The record is read from FILE (JSON) whenever it is asked for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from daemonize.cli.logs import show_logs
from daemonize.errors import DaemonizeError, SetupError
from daemonize.registry import record as registry

#: What a record says of which nothing else is said.
_DEFAULTS: dict[str, Any] = {
    "name": "web", "pid": None, "start": 0, "boot_id": "", "explicit": False, "since": 0, "session": 0,
    "token": "DAEMONIZE_ID=0", "former": [],
    "process": "web", "ready": True, "foreground": False, "by_option": False, "began": 0.0, "seconds": 0.1, "stopped": None,
    "stdout": "/dev/null", "stderr": "/dev/null", "pid_file": None, "pid_file_is_locked": False, "drain": None,
    "drain_start": 0, "notify_socket": None, "listen": [], "found": {}, "directory": "/", "program": None,
    "settings": {"command": ["server"]},
}  # fmt: skip


class Record(registry.Record):
    """A record of the registry."""

    def __init__(self, **fields: Any) -> None:
        super().__init__({**_DEFAULTS, **fields})

    def write(self, path: str | os.PathLike[str]) -> None:
        """To a file, at once."""
        with open(f"{os.fspath(path)}.new", "w") as file:
            json.dump(self.fields, file)
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
