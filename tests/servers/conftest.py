"""What the tests of real servers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import users

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.family import Family


@pytest.fixture
def place(servers: Family) -> Iterator[str]:
    """A directory in which everybody can make files; whoever uses it has ended before it is removed."""
    with users.open_directory() as path:
        yield path
        servers.end()
