"""One throw-away systemd for all tests here; each test finds it without units, and leaves it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import namespaces, systemd

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def booted() -> Iterator[systemd.Systemd]:
    """A system manager."""
    namespaces.sweep()
    if reason := systemd.unavailable():
        pytest.skip(reason)
    manager = systemd.Systemd()
    yield manager
    manager.close()


@pytest.fixture(scope="session")
def booted_user(booted: systemd.Systemd) -> systemd.Manager:
    """The user manager of an ordinary user, under that system manager."""
    return booted.user_manager()


@pytest.fixture
def system_manager(booted: systemd.Systemd) -> Iterator[systemd.Manager]:
    """The system manager."""
    yield booted
    booted.clear()


@pytest.fixture
def user_manager(booted_user: systemd.Manager) -> Iterator[systemd.Manager]:
    """The user manager."""
    yield booted_user
    booted_user.clear()


@pytest.fixture(params=["system", "user"])
def manager(
    request: pytest.FixtureRequest, system_manager: systemd.Manager, user_manager: systemd.Manager
) -> systemd.Manager:
    """Each of both."""
    return user_manager if request.param == "user" else system_manager
