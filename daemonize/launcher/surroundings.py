"""What probes see of their launch. Only loaded where one of them looks (`streams`, `started`, `exit`, `alive` do not)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daemonize.launcher.probes import attempt
from daemonize.posix.identity import is_below, is_process
from daemonize.posix.loop import POLLIN
from daemonize.posix.tree import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemonize.launcher.deadline import Deadline
    from daemonize.launcher.family import Family
    from daemonize.posix.fds import Descriptors
    from daemonize.posix.loop import Loop
    from daemonize.readiness import Probe


class Surroundings:
    """See Launch in readiness/__init__.py."""

    def __init__(
        self,
        loop: Loop,
        owner: Descriptors,
        family: Family,
        deadline: Deadline,
        *,
        environment: Mapping[bytes, bytes],
        uid: int,
        kept: Sequence[int],
        say: Callable[[str], None],
        pass_on: Callable[[Mapping[bytes, bytes]], None],
    ) -> None:
        self.loop, self.owner, self.environment, self.uid = loop, owner, environment, uid
        self.helpers, self.kept = family.helpers, kept
        self.pass_on = pass_on
        self.taken: set[int] = set()
        self._family, self._deadline, self._say = family, deadline, say
        try:
            self.directory = os.getcwdb()
        except FileNotFoundError:  # it has been deleted: nothing is in it
            self.directory = b"/"

    @property
    def parent(self) -> int:
        """Pid of the process that everybody of the server's tree is below."""
        return self._family.parent

    @property
    def main(self) -> int:
        """Pid of the main process."""
        main = self._family.main
        return main.pid if main else 0

    def watch(self, probe: Probe, fd: int, callback: Callable[[], None]) -> None:
        """Call when fd is readable; an exception means "not yet"."""
        self.loop.watch(fd, POLLIN, lambda _events: attempt(probe, callback))

    def members(self) -> list[int]:
        """Pids of all that have not ended."""
        return descendants(self.parent, self.helpers) if self.parent else []

    def owns(self, pid: int) -> bool:
        """Whether a living process belongs to the server's tree.

        Whoever the server leaves behind is adopted by the parent of all, and stays below it.
        """
        if not self.parent or pid == self.parent or any(is_below(pid, helper) for helper in self.helpers):
            return False
        return is_below(pid, self.parent)

    def note(self, text: str) -> None:
        """Say it under -v."""
        self._say(text)

    def extend(self, seconds: float) -> None:
        """At least so much time from now on."""
        self._deadline.left = max(self._deadline.left, seconds)

    def name_main(self, pid: int) -> bool:
        """The server says which process is its main one."""
        return is_process(pid) and self.owns(pid) and self._family.name_main(pid)

    def tell(self, fact: str, value: str | int) -> None:
        """What the server said about itself."""
        self._family.told[fact] = value
