"""A copy of its owner is made a process that stands for itself; the child's side."""

from __future__ import annotations

import io
import resource
import signal
import sys
from typing import Any

#: What must not be finalized here: its descriptors have been closed, and their numbers may be another's.
_inherited: list[object] = []


def is_in_event_loop() -> bool:
    """In the owner: whether `leave_event_loop` has more to do than with the descriptor."""
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or not hasattr(asyncio, "_get_running_loop"):
        return False
    return (
        asyncio._get_running_loop() is not None  # noqa: SLF001 (as below)
        or getattr(asyncio.events, "_event_loop_policy", None) is not None
    )


def leave_event_loop() -> None:
    """The owner may be in one: it is none of ours, nor is the descriptor that tells it of signals."""
    signal.set_wakeup_fd(-1)
    asyncio: Any = sys.modules.get("asyncio")
    if asyncio is None or not hasattr(asyncio, "_get_running_loop"):
        return
    _inherited.append(asyncio._get_running_loop())  # noqa: SLF001 (for those who make loops)
    asyncio._set_running_loop(None)  # noqa: SLF001 (likewise)
    policy: Any = getattr(asyncio.events, "_event_loop_policy", None)
    if local := getattr(policy, "_local", None):
        _inherited.append(local)
        policy._local = type(local)()  # noqa: SLF001 (as asyncio does itself from 3.12 on)


def free_imports() -> None:
    """Where another thread may have been importing a module: whoever imports that here is not to wait for that thread.

    He finds as much of it as there was, as in a circular import.
    """
    locks: Any = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", None)
    if isinstance(locks, dict):
        locks.clear()


def seed() -> None:
    """Random generators anew. Python has done that for its own."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def streams_there_are() -> tuple[io.TextIOWrapper | None, io.TextIOWrapper | None]:
    """As `streams`, but for what the owner has none of: it was started without, and 1 or 2 may be anything."""
    return (
        None if sys.stdout is None else _stream(sys.stdout, 1, "strict"),
        None if sys.stderr is None else _stream(sys.stderr, 2, "backslashreplace"),
    )


def streams() -> tuple[io.TextIOWrapper, io.TextIOWrapper]:
    """For a child: stdout and stderr without a buffer. Made in the owner, whose memory it need not copy for that."""
    return _stream(sys.stdout, 1, "strict"), _stream(sys.stderr, 2, "backslashreplace")


def _stream(old: Any, number: int, errors: str) -> io.TextIOWrapper:
    encoding, errors = getattr(old, "encoding", None) or "utf-8", getattr(old, "errors", None) or errors
    raw: Any = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding=encoding, errors=errors, write_through=True)


def take_streams(new: tuple[io.TextIOWrapper | None, io.TextIOWrapper | None], *, threads: bool) -> None:
    """What the owner had buffered stays in the old ones.

    They are not touched where another thread may have used them at the fork: their locks would be held for ever.
    """
    for name, stream in zip(("stdout", "stderr"), new, strict=True):
        old = getattr(sys, name)
        _inherited.append(old)
        if isinstance(old, io.TextIOWrapper) and not threads:
            old.reconfigure(line_buffering=True)  # for whoever has kept it, as logging does
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def status_of(error: SystemExit) -> int:
    """The exit status that Python gives it; text is shown."""
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)  # noqa: T201 (as Python does)
    return 1


def limit_memory(size: int) -> None:
    """Of this process and its children, in bytes of address space. Raises OSError."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
