"""Fixtures for tests that launch servers, as a pytest plugin."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from daemonize.offspring import forking
from daemonize.posix.fds import Descriptors
from tests.support.family import Family
from tests.support.programs import Trigger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def dispositions() -> Iterator[None]:
    """No signal is ignored by the caller, though the tests run under nohup(1) or in the background of a script."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def owner() -> Iterator[Descriptors]:
    """Whose descriptors are closed after the test."""
    owner = Descriptors()
    yield owner
    owner.close()


@pytest.fixture
def family() -> Family:
    """The processes of this test. What a test expects to be left running it ends itself (`family.end()`)."""
    return Family()


@pytest.fixture
def servers(family: Family) -> Iterator[Family]:
    """The same, for tests that leave a ready server running: it is ended after the test."""
    yield family
    family.end()


@pytest.fixture
def trigger(tmp_path: Path) -> Iterator[Trigger]:
    """Holds a program back until the test releases it."""
    with Trigger(tmp_path) as held:
        yield held


@pytest.fixture
def unwarned() -> Iterator[None]:
    """As in a process in which nobody has been warned of threads."""
    forking.warned.clear()
    yield
    forking.warned.clear()
