"""`fd:N`: a newline on the server's descriptor N, as s6 wants it. What comes before it is of no meaning.

N is the write end of a pipe. It is read to its end, also when this has held: a server that writes more in the foreground
must not be held up, or killed by SIGPIPE.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daemonize.errors import UsageError
from daemonize.readiness import Probe

if TYPE_CHECKING:
    from daemonize.readiness import Launch

_CHUNK = 65536


class Fd(Probe):
    """The wrapper's copy of the write end is closed when the server has its own, so that there is an end of file."""

    needs_launch = True

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        self._launch: Launch
        self._end = -1
        self._choose()

    def _choose(self) -> None:
        limit = os.sysconf("SC_OPEN_MAX")
        # Longer than any number of a descriptor: int() has a limit of its own.
        if not (self.argument.isascii() and self.argument.isdigit() and len(self.argument) <= 10):
            raise UsageError("it names no descriptor number")
        self.number = int(self.argument)
        if self.number < 3:
            raise UsageError("0, 1 and 2 are the server's stdin, stdout and stderr; take 3 or more")
        if self.number >= limit:
            raise UsageError(f"the limit of open files is {limit}; take a number below it")

    def prepare(self, launch: Launch) -> None:
        """Make the pipe."""
        self._launch = launch
        self._end, write = launch.owner.pipe()
        os.set_blocking(self._end, False)
        if launch.uid != os.getuid():
            os.fchown(write, launch.uid, -1)  # opened by name, /dev/fd/N, it must be the server's own
        self.placed[self.number] = write
        launch.watch(self, self._end, self._read)

    def executed(self, now: float) -> None:
        """From now on something may come."""
        if not self.held and not self.problem:
            self.problem = f"no newline has been written to descriptor {self.number}"

    def ended(self) -> None:
        """What it wrote just before."""
        self._read()

    def _read(self) -> None:
        if self._end < 0:
            return
        try:
            data = os.read(self._end, _CHUNK)
        except BlockingIOError:
            return
        if b"\n" in data:
            self.held, self.problem = True, ""
        if not data:
            self._launch.loop.forget(self._end)
            self._launch.owner.shut(self._end)
            self._end = -1
            if not self.held:
                self.problem = f"descriptor {self.number} was closed and no newline written to it"
