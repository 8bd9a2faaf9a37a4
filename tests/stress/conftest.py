"""What the repeated races share: a loaded machine."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import SHELL

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def burners() -> Iterator[None]:
    """Two processes that compute without end: whoever is woken has to wait for its turn."""
    burning = [subprocess.Popen([SHELL, "-c", "while :; do :; done"]) for _ in range(2)]
    yield
    for process in burning:
        process.kill()
        process.wait()
