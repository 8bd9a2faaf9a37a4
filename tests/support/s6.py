"""A throw-away s6-supervise of one service directory. See s6-supervise(8), servicedir(7).

pytest ─ s6-supervise ─ ./run, which executes the server in its own place, with descriptor 3 to say "ready" on
"""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Self

from tests.support import procs, programs
from tests.support.servers import need

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The descriptor on which the service says that it is ready. The run script tells the server by NOTIFY_FD.
NOTIFICATION_FD = 3
#: What s6-svwait exits with when its time is over.
TIMED_OUT = 99


class Service:
    """A service of its own s6-supervise, down at first.

    directory: a new one, the service directory. Skips the test where s6 is not installed. When the block is left, the
    service is stopped, and s6-supervise ends with it.
    """

    def __init__(self, directory: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._tools = {
            name: need(name) for name in ("s6-supervise", "s6-svc", "s6-svok", "s6-svwait", "s6-svstat")
        }
        self.directory = directory
        os.mkdir(directory)
        files = {
            "run": f"#!{programs.SHELL}\nNOTIFY_FD={NOTIFICATION_FD} exec {shlex.join(command)}\n",
            "notification-fd": f"{NOTIFICATION_FD}\n",
            "down": "",
        }
        for name, text in files.items():
            with open(f"{directory}/{name}", "w") as file:
                file.write(text)
        os.chmod(f"{directory}/run", 0o755)
        with open(f"{directory}/said", "wb") as said:
            self._supervise = subprocess.Popen(
                [self._tools["s6-supervise"], directory],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, **(env or {})},
            )
        try:
            procs.eventually(self._assert_supervised)
        except BaseException:
            self.close()
            raise

    def _assert_supervised(self) -> None:
        # It takes orders a moment before it has written how the service stands, and who asks for that then fails.
        assert self._run("s6-svok") == self._run("s6-svstat") == 0, self.said

    def _run(self, tool: str, *options: str) -> int:
        words = [self._tools[tool], *options, self.directory]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=40, check=False)
        return done.returncode

    @property
    def said(self) -> str:
        """What the service, and s6-supervise about it, have said so far."""
        with open(f"{self.directory}/said") as file:
            return file.read()

    def control(self, command: str, *options: str) -> int:
        """`s6-svc -COMMAND`: u up, d down, r restart, h SIGHUP, and so on; its exit status."""
        return self._run("s6-svc", *options, f"-{command}")

    def wait(self, state: str, milliseconds: int = 20_000) -> int:
        """`s6-svwait -STATE`: U up and ready, D down; its exit status."""
        return self._run("s6-svwait", f"-{state}", "-t", str(milliseconds))

    def waiting(self, state: str) -> subprocess.Popen[bytes]:
        """The same, still running. Use it in a `with` block."""
        return subprocess.Popen(
            [self._tools["s6-svwait"], f"-{state}", self.directory], stdin=subprocess.DEVNULL
        )

    def show(self, *fields: str) -> list[str]:
        """Some fields of `s6-svstat -o`, in this order: up, ready, pid, exitcode, ..."""
        words = [self._tools["s6-svstat"], "-o", ",".join(fields), self.directory]
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout.split()

    def close(self) -> None:
        """Stop the service as `s6-svc -dx` does. An AssertionError if s6-supervise does not end by that."""
        self._supervise.terminate()
        try:
            status = self._supervise.wait(20)
        finally:
            self._supervise.kill()
            self._supervise.wait()
        assert status == 0, self.said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
