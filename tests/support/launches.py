"""A launch whose three processes are known, at a moment that a test holds (tests/support/held.py)."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.support import procs

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


class Launch:
    """A launch that has come to a certain moment."""

    def __init__(self, wrapper: subprocess.Popen[bytes], proceed: Callable[[], None] = lambda: None) -> None:
        self.wrapper, self.proceed = wrapper, proceed
        # The intermediate parent, and its only child.
        (self.parent,) = procs.children(wrapper.pid)
        self.server = next(iter(procs.children(self.parent.pid)), None)

    def victim(self, who: str) -> procs.Process:
        """One of the three processes."""
        found = {"wrapper": procs.stat(self.wrapper.pid), "parent": self.parent, "server": self.server}[who]
        assert found is not None
        return found

    def kill(self, who: str, number: int = signal.SIGKILL) -> None:
        """Kill one of the three; returns when it has ended."""
        victim = self.victim(who)
        procs.send(victim.pid, number, victim.start)
        assert procs.wait_ended(victim.pid, start=victim.start)

    def finish(self) -> tuple[int, bytes, bytes]:
        """Status, and the rest of both streams; the intermediate parent has gone by then as well."""
        out, err = self.wrapper.communicate(timeout=20)
        assert procs.wait_ended(self.parent.pid, start=self.parent.start)
        return self.wrapper.returncode, out, err
