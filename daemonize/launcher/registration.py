"""What a launch puts down about its daemon in the registry, for `daemonctl` and for the next launch of that name."""

from __future__ import annotations

import os
from time import time

from daemonize.notify import SOCKET
from daemonize.posix.identity import current_boot_id, read_stat
from daemonize.registry import content
from daemonize.registry.entry import Entry
from daemonize.registry.names import base_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemonize.errors import LaunchError
    from daemonize.launcher.family import Family
    from daemonize.launcher.ready import Ready
    from daemonize.launcher.request import Request
    from daemonize.posix.child import Program
    from daemonize.posix.fds import Descriptors
    from daemonize.posix.identity import Process


class Registration:
    """The name of a launch, and its record. request: as it was asked for, before anything was filled in.

    entry: the name. Errors are raised for a name that was given; else a launch goes on without a record.
    """

    def __init__(self, request: Request, environment: Mapping[bytes, bytes]) -> None:
        self._request = request
        self.entry = Entry(request.name, base_name(request.shown_as or request.command[0]), environment)
        self._directory: bytes | None = None
        self._program: Program
        self._token = b""

    def claim(self, owner: Descriptors) -> None:
        """Take the name. Raises AlreadyRunning, SetupError."""
        try:
            self._directory = os.getcwdb()
        except OSError:
            pass  # it has been deleted
        self.entry.claim(owner)

    def prepare(self, program: Program, token: bytes) -> None:
        """This is what is going to run. Raises SetupError."""
        self._program, self._token = program, token
        self.entry.prepare(content.write(self._fields(None)))

    def write(self, outcome: Ready | LaunchError, family: Family) -> None:
        """This is what runs. Raises SetupError."""
        run = {"since": family.since, "session": family.session or 0}
        outcome.record = {**self._fields(family.chosen), **self._result(outcome), **run}
        self.entry.write(content.write(outcome.record))

    def abandon(self) -> None:
        """There is no daemon. Never raises."""
        self.entry.abandon()

    def _fields(self, main: Process | None) -> dict[str, object]:
        """Those of registry/record.py that are known before there is an outcome."""
        request = self._request
        stat = read_stat(main.pid) if main else None
        given = SOCKET in request.environment  # then it is somebody else's
        return {
            "pid": main.pid if main else None,
            "start": main.start if main else 0,
            "boot_id": current_boot_id(),
            "explicit": self.entry.is_explicit,
            "name": self.entry.name,
            "process": stat.name if stat else "",
            "token": self._token,
            "foreground": request.foreground,
            "by_option": request.shown_as is not None,
            "began": time(),
            "stopped": None,
            "notify_socket": None if given else self._program.environment.get(SOCKET),
            "directory": self._directory,
            "program": self._found,
            "settings": request.asked,
        }

    @staticmethod
    def _result(outcome: Ready | LaunchError) -> dict[str, object]:
        drain = read_stat(outcome.drain) if outcome.drain else None
        return {
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

    @property
    def _found(self) -> bytes | None:
        """The file that is executed, wherever the program is called from; None where its name means something else there."""
        if self._request.chroot:
            return None
        return next((path for path in self._program.paths if os.access(path, os.X_OK)), None)
