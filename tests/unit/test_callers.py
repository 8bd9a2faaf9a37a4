"""What must be known of a process before another one stands in for it, also where the system tells little of it."""

from __future__ import annotations

import os
import resource
import socket
from typing import TYPE_CHECKING

from daemonize.posix import callers
from daemonize.posix.sockets import peer_of

if TYPE_CHECKING:
    import pytest


def test_surroundings_stay_the_same_until_something_changes() -> None:
    """A limit that is changed for a moment is seen."""
    before = callers.surroundings()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        assert callers.surroundings() != before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert callers.surroundings() == before


def test_surroundings_without_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc, and without what only Linux has: users and groups are compared all the same."""
    monkeypatch.setattr(callers, "has_proc", lambda: False)
    for name in ("getresuid", "getresgid", "sched_getscheduler"):
        monkeypatch.delattr(os, name)
    before = callers.surroundings()

    assert callers.surroundings() == before
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert callers.surroundings() != before


def test_who_is_at_the_other_end() -> None:
    """Of a UNIX socket: pid and uid."""
    one, other = socket.socketpair()
    with one, other:
        assert peer_of(one) == (os.getpid(), os.getuid())
