"""The server's environment: what an outer manager said to us must not be answered by the server in our name."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Removed when it comes from outside: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3), s6 and dinit, our own.
_REMOVED = frozenset((b"NOTIFY_SOCKET", b"NOTIFY_FD", b"MAINPID"))
_REMOVED_PREFIXES = (b"WATCHDOG_", b"LISTEN_", b"DAEMONIZE_")


def caller_environment() -> dict[bytes, bytes]:
    """The environment as it is now, as bytes."""
    return dict(os.environb)


def server_environment(
    outer: Mapping[bytes, bytes], added: Mapping[bytes, bytes], own: Mapping[bytes, bytes], *, clear: bool
) -> dict[bytes, bytes]:
    """Outer without what is removed (nothing of it with `clear`), then our own variables, then those the user gave."""
    kept = {} if clear else unmanaged(outer)
    return {**kept, **own, **added}


def unmanaged(outer: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Without what a manager said to whoever has this environment."""
    return {
        name: value
        for name, value in outer.items()
        if name not in _REMOVED and not name.startswith(_REMOVED_PREFIXES)
    }
