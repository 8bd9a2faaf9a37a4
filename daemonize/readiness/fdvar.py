"""`fdvar:NAME`: a newline on the descriptor whose number is in the variable NAME, as dinit wants it (its `pipevar:`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daemonize.errors import UsageError
from daemonize.readiness.fd import Fd

if TYPE_CHECKING:
    from daemonize.readiness import Launch


class FdVar(Fd):
    """`fdvar:NOTIFY_FD` is for servers that call `daemonize.ready()`."""

    def _choose(self) -> None:
        try:
            self._name = os.fsencode(self.argument)
        except UnicodeEncodeError:
            raise UsageError("the name of the variable has characters that no variable can have") from None
        if not self._name or b"=" in self._name or b"\0" in self._name:
            raise UsageError("it names no variable")
        if self._name.startswith(b"DAEMONIZE_"):
            raise UsageError("variables that begin with DAEMONIZE_ have another meaning; take another name")

    def prepare(self, launch: Launch) -> None:
        """Make the pipe, and choose a number that nobody has asked for."""
        number = 3
        while number in launch.taken:
            number += 1
        launch.taken.add(number)
        self.variables[self._name] = b"%d" % number
        self.number = number
        super().prepare(launch)
