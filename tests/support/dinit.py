"""A throw-away dinit, a user's and not the system's, with one service. See dinit(8), dinit-service(5).

pytest ─ dinit ─ the server, with a descriptor to say "ready" on: its number is in NOTIFY_FD
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

_SERVICE = "server"


class Service:
    """A service of its own dinit, stopped at first.

    directory: a new one for all that belongs to it. `lines` go to the service description. pid_file: the server leaves
    the foreground and writes its pid there (dinit's `bgprocess`, without a descriptor); none: it stays. Skips the test
    where there is no dinit. When the block is left, the service is stopped, and dinit ends with it.
    """

    def __init__(self, directory: str, command: Sequence[str], *lines: str, pid_file: str = "") -> None:
        dinit, self._dinitctl = _need("dinit"), _need("dinitctl")
        self.directory, self._socket = directory, f"{directory}/socket"
        os.makedirs(f"{directory}/services")
        self._describe("boot", "type = internal")
        stays = ("type = process", "ready-notification = pipevar:NOTIFY_FD")
        leaves = ("type = bgprocess", f"pid-file = {pid_file}")
        self._describe(
            _SERVICE,
            *(leaves if pid_file else stays),
            f"command = {' '.join(map(_quoted, command))}",
            "restart = false",
            f"logfile = {directory}/said",
            *lines,
        )
        told, ready = os.pipe()
        with open(told, "rb") as up, open(f"{directory}/log", "wb") as log:
            self._dinit = subprocess.Popen(
                [dinit, "-u", "-d", f"{directory}/services", "-p", self._socket, "-F", str(ready)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[ready],
            )
            os.close(ready)
            came_up = bool(up.read())
        if not came_up:
            self.close()
            pytest.fail(f"dinit did not come up: {self._log}", pytrace=False)

    @property
    def _log(self) -> str:
        """What dinit itself has said so far."""
        with open(f"{self.directory}/log") as file:
            return file.read()

    def _describe(self, name: str, *lines: str) -> None:
        with open(f"{self.directory}/services/{name}", "w") as file:
            file.write("\n".join([*lines, ""]))

    def ctl(self, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        """`dinitctl VERB` with this service. `start` returns when it is ready, `stop` when it has ended."""
        with self.popen(verb, *options) as process:
            try:
                out, err = process.communicate(timeout=40)
            finally:
                process.kill()
        return subprocess.CompletedProcess(verb, process.returncode, out, err)

    def popen(self, verb: str, *options: str) -> subprocess.Popen[str]:
        """The same, still running. Use it in a `with` block."""
        return subprocess.Popen(
            [self._dinitctl, "--socket-path", self._socket, verb, *options, _SERVICE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def said(self) -> str:
        """What the service has said so far."""
        with open(f"{self.directory}/said") as file:
            return file.read()

    def show(self) -> dict[str, str]:
        """What `dinitctl status` says: {"State": "STARTED", "Process ID": "123", ...}."""
        lines = self.ctl("status").stdout.splitlines()
        return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def close(self) -> None:
        """Stop the service, and dinit. An AssertionError with what it has said if dinit does not end by itself."""
        self._dinit.terminate()
        try:
            status = self._dinit.wait(20)
        finally:
            self._dinit.kill()
            self._dinit.wait()
        assert status == 0, self._log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _quoted(word: str) -> str:
    """A word as a service description has it: dinit knows no single quotes, and puts in variables everywhere."""
    for special, instead in (("\\", "\\\\"), ('"', '\\"'), ("$", "$$")):
        word = word.replace(special, instead)
    return f'"{word}"'


def _need(name: str) -> str:
    """The path of one of its programs; the test is skipped where there is none."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not on PATH: no package has it, see tests/supervisors/test_dinit.py")
    return found
