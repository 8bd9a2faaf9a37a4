"""Programs that call `daemonize.launch()`, each a process of its own, for what cannot be shown inside pytest."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

#: Which way a launch goes: forked by the caller itself, through the executed keeper, or as the caller decides.
WAYS = {
    "direct": "from daemonize.launcher import api; api._needs_keeper = lambda: False\n",
    "keeper": "from daemonize.launcher import api; api._needs_keeper = lambda: True\n",
    "natural": "",
}
_PRELUDE = """
import atexit, os, signal, sys, tempfile, threading
from daemonize import launch
import daemonize
command = sys.argv[1:]
"""


def popen(code: str, *command: str, way: str = "natural", **options: Any) -> subprocess.Popen[bytes]:
    """Start a caller. Its code finds `launch`, `daemonize`, and the server's `command`. Both streams are pipes."""
    given: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **options,
    }
    return subprocess.Popen([sys.executable, "-c", _PRELUDE + WAYS[way] + code, *command], **given)


def run(
    code: str, *command: str, way: str = "natural", timeout: float = 30, **options: Any
) -> tuple[int, bytes, bytes]:
    """Run a caller to its end and to the end of file of both streams: its status and what it said."""
    with popen(code, *command, way=way, **options) as caller:
        try:
            out, err = caller.communicate(timeout=timeout)
        finally:
            caller.kill()
    return caller.returncode, out or b"", err or b""
