"""What `notify` and `fd:N` read, and when: one wake-up, and the end of the server."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from daemonize.launcher.deadline import Deadline
from daemonize.launcher.family import Family
from daemonize.launcher.surroundings import Surroundings
from daemonize.notify import tell_ready
from daemonize.posix.fds import Descriptors
from daemonize.posix.loop import Loop
from daemonize.readiness import notify, parse
from tests.support import forked

if TYPE_CHECKING:
    from collections.abc import Iterator


class Place:
    """A launch whose tree are the children of this process."""

    def __init__(self, owner: Descriptors) -> None:
        self.loop, self.said = Loop(), list[str]()
        self.family = Family(self.loop, owner, self.said.append)
        self.family.parent = os.getpid()
        self.launch = Surroundings(
            self.loop,
            owner,
            self.family,
            Deadline(1.0),
            environment={},
            uid=os.getuid(),
            kept=(),
            say=self.said.append,
            pass_on=lambda _fields: None,
        )


@pytest.fixture
def place() -> Iterator[Place]:
    """One, whose descriptors are closed after the test."""
    with contextlib.closing(Descriptors()) as owner:
        yield Place(owner)


def test_a_wake_up_reads_no_more_than_it_may(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood does not keep the loop from anything else; nor is more read than READY=1. The end does read what is left."""
    monkeypatch.setattr(notify, "_AT_ONCE", 2)
    probe = parse("notify")
    probe.prepare(place.launch)
    monkeypatch.setenv("NOTIFY_SOCKET", os.fsdecode(probe.variables[b"NOTIFY_SOCKET"]))
    seen = []

    assert forked.call(lambda: [tell_ready(str(number)) for number in range(7)]) == [True] * 7
    for _ in range(2):
        place.loop.run_once(0)
        seen.append(place.family.told["status"])
    probe.ended()

    assert seen == ["0", "2"]
    assert place.family.told["status"] == "6"
    assert probe.held


def test_the_end_of_the_server_reads_the_descriptor(place: Place) -> None:
    """A newline that nobody has looked at yet counts."""
    probe = parse("fd:3")
    probe.prepare(place.launch)
    probe.ended()
    assert not probe.held

    os.write(probe.placed[3], b"\n")
    probe.ended()

    assert probe.held
