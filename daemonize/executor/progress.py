"""What a task says while it works."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemonize.channel import MessageChannel

#: In a task that somebody listens to: its pid, and where it speaks. A child that it forks is not that task.
_task: tuple[int, MessageChannel] | None = None


def progress(value: object) -> None:
    """In a task of a `ForkExecutor`: have its `on_progress` called with the future and a copy of this (pickle).

    Of any thread of the task. Nothing happens outside of a task, and where nobody listens: the same function runs on other
    executors, too. Raises what pickle raises, and ChannelError.
    """
    if _task and _task[0] == os.getpid():
        _task[1].write_scalar(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def begin(channel: MessageChannel | None) -> None:
    """In a task, before its function is called. None: nobody listens."""
    global _task  # noqa: PLW0603 (of this process)
    _task = (os.getpid(), channel) if channel else None
