"""What happens, or is said by the kernel, in another order than usual."""

from __future__ import annotations

import os
import select
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from daemonize import NotExecuted
from daemonize.launcher import api, intermediate
from daemonize.launcher.family import Family
from daemonize.launcher.wrapper import Wrapper
from daemonize.posix import loop
from tests.support import procs
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.family import Family as Processes


class Poll:
    """poll(2) looks at one pipe after the other: one may become readable when it has been looked at, and another has not.

    It says nothing of the pipe `hidden` as long as there is, or soon will be, something to be said of others.
    """

    hidden = -1

    def __init__(self) -> None:
        self._poll, self._others = select.poll(), select.poll()

    def register(self, fd: int, events: int) -> None:
        """Look at fd."""
        (self._poll if fd == self.hidden else self._others).register(fd, events)

    def unregister(self, fd: int) -> None:
        """Look at it no longer."""
        (self._poll if fd == self.hidden else self._others).unregister(fd)

    def poll(self, _timeout: float | None) -> list[tuple[int, int]]:
        """What there is to be said."""
        return self._others.poll(500) or self._poll.poll(0)


def test_an_end_does_not_overtake_its_reason(monkeypatch: pytest.MonkeyPatch, family: Processes) -> None:
    """A step that failed is told as what it is, and not as the status of a server that never was."""
    watch: Callable[..., None] = Family.watch_report

    def watched(family: Family, report: int, gate: int) -> None:
        monkeypatch.setattr(Poll, "hidden", report)
        watch(family, report, gate)

    monkeypatch.setattr(Family, "watch_report", watched)
    monkeypatch.setattr(loop, "select", SimpleNamespace(poll=Poll))
    with pytest.raises(NotExecuted) as caught:
        api.launch(["true"], cwd="/no/such/directory", relay_stdout=None, relay_stderr=None)

    assert caught.value.stage == "directory"
    family.nobody()


def test_an_interrupt_at_the_very_last_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: Processes
) -> None:
    """Raised while the intermediate parent, which has been let go, is waited for: the server is stopped all the same."""
    wait: Callable[[int, float], bool] = intermediate.wait_for_end
    interrupts = iter([KeyboardInterrupt()])

    def interrupted(pid: int, timeout: float) -> bool:
        for interrupt in interrupts:
            raise interrupt
        return wait(pid, timeout)

    monkeypatch.setattr(intermediate, "wait_for_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        api.launch(program("repoints"), pid_file=tmp_path / "pid", relay_stdout=None, relay_stderr=None)

    assert not (tmp_path / "pid").exists()
    family.nobody()


HELD = """
sleep 60 >/dev/null 2>&1 &
(head -c1 <release >/dev/null; echo LAST WORDS; exec >/dev/null 2>&1; echo >ended) &
"""


def test_last_words_before_the_last_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, servers: Processes
) -> None:
    """A pipe is closed just before the wrapper lets go, and the reader is slow: what was said into it is relayed."""
    look: Callable[[Wrapper], bool] = Wrapper._is_overtaken
    words, relay = os.pipe()
    os.set_blocking(relay, False)
    full = os.write(relay, bytes(1 << 20))
    read: list[bytes] = []
    reader = Thread(target=lambda: read.extend(iter(lambda: os.read(words, 1 << 16), b"")))
    with Trigger(tmp_path, "release") as release, Trigger(tmp_path, "ended") as ended:

        def late(wrapper: Wrapper) -> bool:
            if not reader.ident:
                release.release()
                assert procs.readable(ended._fd)  # it has closed the pipe
            overtaken = look(wrapper)
            if not reader.ident:
                reader.start()
            return overtaken

        monkeypatch.setattr(Wrapper, "_is_overtaken", late)
        try:
            api.launch([SHELL, "-c", HELD], cwd=tmp_path, relay_stdout=relay, relay_stderr=None)
        finally:
            os.close(relay)
            reader.join()
            os.close(words)

    assert b"".join(read)[full:] == b"LAST WORDS\n"
    assert len(servers.living()) == 1
