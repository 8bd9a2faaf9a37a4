"""A launch whose three processes are known, at a moment that a test holds (tests/support/held.py)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support import cli, held, procs
from tests.support.programs import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


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


@contextlib.contextmanager
def launching(*words: cli.Word) -> Iterator[subprocess.Popen[bytes]]:
    """A launch that is not waited for if the test has failed."""
    with cli.popen(*words) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def held_at(
    step: str, directory: Path, words: Sequence[str]
) -> Iterator[tuple[subprocess.Popen[bytes], Trigger]]:
    """A wrapper with these words, at a step of the launch (tests/support/held.py), and what lets it go on."""
    with Trigger(directory, "reached") as reached, Trigger(directory, "release") as release:
        argv = [sys.executable, "-P", held.__file__, step, os.fspath(directory), *words]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0) as process:
            try:
                assert os.read(reached._fd, 100)
                yield process, release
            finally:
                process.kill()  # a test that has failed must not wait for it
