"""Messages to a service manager that does not always read, and is not always there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daemonize.launcher.outbox import Outbox
from daemonize.posix.loop import Loop
from tests.support.manager import Manager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Telling:
    """An outbox in its loop, and what it complained of."""

    def __init__(self, manager: Manager) -> None:
        self.loop, self.said = Loop(), list[str]()
        self.outbox = Outbox(self.loop, manager.address.encode(), self.said.append)

    def turn(self) -> None:
        """One round of the loop: whatever can be sent is."""
        self.loop.run_once(0)


@pytest.fixture
def manager() -> Iterator[Manager]:
    """Nobody reads what is not asked for here."""
    with Manager() as found:
        yield found


@pytest.fixture
def telling(manager: Manager) -> Iterator[Telling]:
    """Somebody who tells it."""
    found = Telling(manager)
    yield found
    found.outbox.close()


def test_what_is_sent_at_once(telling: Telling, manager: Manager) -> None:
    """Where there is room nothing waits."""
    assert telling.outbox.send(b"READY=1", b"STATUS=up")
    assert manager.rest() == [{"READY": "1", "STATUS": "up"}]
    assert not telling.outbox.send()
    assert (manager.rest(), telling.said, telling.outbox.is_full) == ([], [], False)


def test_a_manager_that_does_not_read(telling: Telling, manager: Manager) -> None:
    """What is said once waits, in its order; words are dropped; nobody is held up, and one complaint is enough."""
    count = manager.fill()
    for _ in range(1000):
        assert not telling.outbox.send(b"STATUS=busy", words=True)
    assert not telling.outbox.is_full
    assert not telling.outbox.send(b"RELOADING=1")
    assert not telling.outbox.send(b"STATUS=busy", words=True)
    assert not telling.outbox.send(b"READY=1")
    telling.turn()
    assert telling.outbox.is_full

    assert manager.rest() == [{"FILL": "1"}] * count
    telling.turn()
    assert manager.rest() == [{"RELOADING": "1"}, {"READY": "1"}]
    assert telling.outbox.send(b"STATUS=idle", words=True)
    assert manager.rest() == [{"STATUS": "idle"}]
    assert len(telling.said) == 1
    telling.turn()  # nothing is watched any more
    assert not telling.outbox.is_full


def test_what_waits_has_an_end(telling: Telling, manager: Manager) -> None:
    """A server that never stops does not fill our memory; what came first is kept."""
    manager.fill()
    for number in range(1000):
        telling.outbox.send(b"X=%d" % number)
    manager.rest()
    found = []
    while telling.outbox.is_full:
        telling.turn()
        found += [message["X"] for message in manager.rest()]
    assert found == [str(number) for number in range(64)]


def test_what_is_no_longer_true_is_not_sent(telling: Telling, manager: Manager) -> None:
    """READY=1 of a server that has ended; what it said of its end is sent, if there is room."""
    manager.fill()
    telling.outbox.send(b"READY=1", b"MAINPID=1")
    telling.outbox.send(b"STATUS=READY=1 was said")
    telling.outbox.send(b"EXIT_STATUS=3")
    manager.rest()
    telling.outbox.withdraw(b"READY=1")
    telling.outbox.close()
    assert manager.rest() == [{"STATUS": "READY=1 was said"}, {"EXIT_STATUS": "3"}]


def test_control_what_is_true_is_sent_at_the_end(telling: Telling, manager: Manager) -> None:
    """If there is room by then."""
    manager.fill()
    telling.outbox.send(b"READY=1", b"MAINPID=1")
    manager.rest()
    telling.outbox.close()
    assert manager.rest() == [{"READY": "1", "MAINPID": "1"}]


def test_a_manager_that_is_started_anew(tmp_path: Path) -> None:
    """Nobody hears what is said while it is away, of which one complaint tells; then it is found again."""
    with Manager(tmp_path) as manager:
        telling = Telling(manager)
        assert telling.outbox.send(b"STATUS=first")
        assert manager.rest() == [{"STATUS": "first"}]
    assert not telling.outbox.send(b"READY=1")
    assert not telling.outbox.send(b"READY=1")
    assert (len(telling.said), telling.outbox.is_full) == (1, False)
    with Manager(tmp_path) as manager:
        assert telling.outbox.send(b"STATUS=second")
        assert manager.rest() == [{"STATUS": "second"}]
        telling.outbox.close()


def test_a_manager_that_goes_while_something_waits(tmp_path: Path) -> None:
    """What waits for it is given up."""
    with Manager(tmp_path) as manager:
        telling = Telling(manager)
        telling.outbox.send(b"STATUS=first")
        manager.fill()
        telling.outbox.send(b"READY=1")
    telling.turn()
    telling.turn()
    assert not telling.outbox.is_full
    telling.outbox.close()


def test_nobody() -> None:
    """Without an address nothing is sent, and nothing said."""
    said: list[str] = []
    outbox = Outbox(Loop(), b"", said.append)
    assert not outbox.send(b"READY=1")
    outbox.close()
    assert said == []
