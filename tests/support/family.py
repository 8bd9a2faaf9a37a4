"""The processes that the running test has brought about, wherever in the tree they are by now."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING

from tests.support import procs

if TYPE_CHECKING:
    from collections.abc import Container, Sequence


class Family:
    """Known by the mark that the guards put on every test (tests/support/guards.py): it survives exec and env -i.

    Use it through the fixture `family`, which ends at the end of a test what `ends` was called for, and nothing else:
    a process that nobody expected fails the test under the guards.
    """

    def __init__(self) -> None:
        self._brand = str(resource.getrlimit(resource.RLIMIT_RTTIME)[0]).encode()

    def living(self, besides: Container[int] = ()) -> list[procs.Process]:
        """All that have not ended, but this process and `besides`."""
        return [
            process
            for process in procs.processes()
            if process.pid != os.getpid()
            and process.pid not in besides
            and not process.ended
            and self._brand in procs.read(f"/proc/{process.pid}/limits").split()
            and procs.alive(process.pid)
        ]

    def only(self, besides: Container[int] = ()) -> procs.Process:
        """The one there is."""
        found = self.living(besides)
        assert len(found) == 1, f"not one process, but {self._names(found)}"
        return found[0]

    def running(self, argv: Sequence[str]) -> procs.Process:
        """The one that has executed `argv` (a copy of this process, forked and not yet executed, has not)."""
        line = b"".join(os.fsencode(word) + b"\0" for word in argv)
        found = [process for process in self.living() if procs.read(f"/proc/{process.pid}/cmdline") == line]
        assert len(found) == 1, f"not one process, but {self._names(found)}"
        return found[0]

    def nobody(self, besides: Container[int] = ()) -> None:
        """An AssertionError that names them if there are any."""
        found = self.living(besides)
        assert not found, f"left running: {self._names(found)}"

    def end(self, besides: Container[int] = ()) -> None:
        """End them all; returns when all have ended."""
        while found := self.living(besides):
            for process in found:
                procs.send(process.pid, signal.SIGKILL, process.start)
                procs.wait_ended(process.pid, start=process.start)

    @staticmethod
    def _names(found: list[procs.Process]) -> list[str]:
        return [f"{process.pid}: {procs.command_line(process.pid)}" for process in found]
