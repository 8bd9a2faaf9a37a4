"""What the tests of the executor share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.executors import Gate

if TYPE_CHECKING:
    from daemonize.posix.fds import Descriptors


@pytest.fixture
def gate(owner: Descriptors) -> Gate:
    """Where tasks of this test wait."""
    return Gate(owner)
