"""What a launch puts down about its daemon in the registry, for `daemonctl` and for the next launch of that name."""

from __future__ import annotations

import os
from time import time

from daemonize.notify import SOCKET
from daemonize.posix.identity import current_boot_id, read_stat
from daemonize.registry import content

TYPE_CHECKING = False
if TYPE_CHECKING:
    from daemonize.errors import LaunchError
    from daemonize.launcher.family import Family
    from daemonize.launcher.ready import Ready
    from daemonize.launcher.request import Request
    from daemonize.posix.child import Program
    from daemonize.posix.identity import Process
    from daemonize.registry.entry import Entry


class Registration:
    """The record of a launch. entry: its name. request: as it was asked for. program, token: what runs, and what marks it.

    Errors are raised for a name that was given; else a launch goes on without a record.
    """

    def __init__(self, entry: Entry, request: Request, program: Program, token: bytes) -> None:
        """Raises SetupError."""
        self._entry, self._request = entry, request
        self._common = self._find(program, token)
        if entry.is_explicit:
            entry.prepare(content.write({**self._common, "pid": None, "start": 0}))

    def write(self, outcome: Ready | LaunchError, family: Family) -> None:
        """This is what runs. Raises SetupError."""
        run = {"since": family.since, "session": family.session or 0}
        outcome.record = {**self._common, **self._process(family.chosen), **self._result(outcome), **run}
        self._entry.write(content.write(outcome.record))

    def _find(self, program: Program, token: bytes) -> dict[str, object]:
        """Those of registry/record.py that are known before there is an outcome."""
        request = self._request
        given = SOCKET in request.environment  # then it is somebody else's
        return {
            "boot_id": current_boot_id(),
            "explicit": self._entry.is_explicit,
            "name": self._entry.name,
            "token": token,
            "former": self._entry.former,
            "foreground": request.foreground,
            "by_option": request.shown_as is not None,
            "stopped": None,
            "notify_socket": None if given else program.environment.get(SOCKET),
            "directory": _directory(),
            "program": None if request.chroot else _executed(program),
            "settings": request.asked,
        }

    @staticmethod
    def _process(main: Process | None) -> dict[str, object]:
        stat = read_stat(main.pid) if main else None
        return {
            "pid": main.pid if main else None,
            "start": main.start if main else 0,
            "process": stat.name if stat else "",
        }

    @staticmethod
    def _result(outcome: Ready | LaunchError) -> dict[str, object]:
        drain = read_stat(outcome.drain) if outcome.drain else None
        return {
            "began": time(),
            "ready": outcome.exit_status == 0,
            "seconds": outcome.seconds,
            "stdout": outcome.files[0],
            "stderr": outcome.files[1],
            "pid_file": getattr(outcome, "pid_file", None),
            "pid_file_is_locked": getattr(outcome, "pid_file_is_locked", False),
            "drain": outcome.drain,
            "drain_start": drain.start if drain else 0,
            "listen": outcome.listen,
            "found": getattr(outcome, "found", {}),
        }


def _directory() -> bytes | None:
    try:
        return os.getcwdb()
    except OSError:
        return None  # it has been deleted


def _executed(program: Program) -> bytes | None:
    """The file that is executed, from wherever the program is called by its name."""
    return next((path for path in program.paths if os.access(path, os.X_OK)), None)
