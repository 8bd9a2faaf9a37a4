"""What the repeated races share: a loaded machine."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.family import Family
from tests.support.programs import SHELL

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@pytest.fixture(scope="module")
def burners() -> Iterator[None]:
    """Two processes that compute without end: whoever is woken has to wait for its turn."""
    burning = [subprocess.Popen([SHELL, "-c", "while :; do :; done"]) for _ in range(2)]
    yield
    for process in burning:
        process.kill()
        process.wait()


@pytest.fixture
def family() -> Family:
    """The processes of this test."""
    return Family()
