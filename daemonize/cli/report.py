"""One line of JSON about a launch (`--json`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from daemonize.errors import AlreadyRunning, LaunchError, SetupError

if TYPE_CHECKING:
    from daemonize.errors import DaemonizeError
    from daemonize.launcher.ready import Ready

#: Facts of a failed launch that are told where there are any.
_FACTS = ("signal", "stage", "errno", "what", "unmet", "met", "waiting_for", "problems", "listens", "told", "left",
          "log")  # fmt: skip


def _name(outcome: Ready | DaemonizeError) -> str | None:
    """The daemon's; the name of an AlreadyRunning is that of the process that runs."""
    if isinstance(outcome, AlreadyRunning):
        return outcome.path if outcome.what == "name" else None
    return getattr(outcome, "name", None) or None


def json_line(command: list[str], outcome: Ready | DaemonizeError) -> bytes:
    """The line: who, how it ended, where its files are, what made it ready; the facts of a failure."""
    report: dict[str, object] = {
        "outcome": getattr(outcome, "outcome", "failed"),
        "pid": getattr(outcome, "pid", None),
        "status": outcome.exit_status,
        "seconds": round(getattr(outcome, "seconds", 0.0), 6),
        "name": _name(outcome),
        "command": command,
        "files": dict(zip(("stdout", "stderr"), getattr(outcome, "files", ()), strict=False)) or None,
        "pid_file": getattr(outcome, "pid_file", None),
        "listen": list(getattr(outcome, "listen", ())) or None,
        "found": getattr(outcome, "found", None) or None,
        "drain": getattr(outcome, "drain", None),
        "message": str(outcome) if isinstance(outcome, Exception) else None,
    }
    if isinstance(outcome, (LaunchError, SetupError)):
        survivors = [{"pid": pid, "name": name} for pid, name in getattr(outcome, "survivors", ())]
        report |= {"survivors": survivors} if survivors else {}
        report |= {
            fact: getattr(outcome, fact)
            for fact in _FACTS
            if getattr(outcome, fact, None) not in (None, "", {}, [])
        }
    return json.dumps(report).encode("ascii") + b"\n"
