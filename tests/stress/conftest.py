"""What the tests of the command share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.family import Family
from tests.support.programs import Trigger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
