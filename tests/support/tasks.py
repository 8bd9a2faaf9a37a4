"""Tasks for the tests of the manager: one at a time, and many that end in any way there is."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING, Any

from daemonize import Completion, MessageChannel, ProcessManager

if TYPE_CHECKING:
    from collections.abc import Callable

#: How a task of a storm can end.
WAYS = ("return", "large", "raise", "exit", "signal", "killed")


def completed(task: Any, **options: Any) -> Completion:
    """How it ended."""
    found: list[Completion] = []
    with ProcessManager() as manager:
        manager.create_process(task, found.append, **options)
    (completion,) = found
    return completion


def hang() -> None:
    """Until somebody ends it."""
    while True:
        signal.pause()


def stubborn(channel: MessageChannel) -> None:
    """SIGTERM does not end it; it says when that is so."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.write("ready")
    hang()


def step_until(manager: ProcessManager, holds: Callable[[], object]) -> None:
    """Again and again."""
    while not holds():
        manager.step(10)


class Storm:
    """Tasks with random exits, signals and messages, so many at once; everything that is told of them is put down."""

    def __init__(self, count: int, at_once: int, seed: int) -> None:
        self._random, self._count, self._at_once = random.Random(seed), count, at_once
        self.faults: list[str] = []
        self.ended = 0

    def run(self) -> None:
        """Return when each has completed."""
        with ProcessManager() as manager:
            for number in range(self._count):
                while manager.process_count >= self._at_once:
                    manager.step()
                self._create(manager, number)

    def _create(self, manager: ProcessManager, number: int) -> None:
        messages = self._random.randrange(4)
        way = self._random.choice(WAYS)
        heard: list[Any] = []
        done: list[Completion] = []

        def task(channel: MessageChannel) -> Any:
            for turn in range(messages):
                channel.write(str(number), str(turn))
            return leave(way, number)

        def complete(completion: Completion) -> None:
            done.append(completion)
            self.ended += 1
            if len(done) > 1:
                self.faults.append(f"{number} completed {len(done)} times")
            if heard != [[str(number), str(turn)] for turn in range(messages)]:
                self.faults.append(f"{number} said {heard} of {messages}")
            if not _is_right(completion, way, number):
                self.faults.append(f"{number} was to {way}: {completion!r}")

        def listen(message: Any) -> None:
            heard.append(message)
            if done:
                self.faults.append(f"{number} spoke when it had completed")

        manager.create_process(task, complete, on_message=listen, usage=number % 2 == 0)


def leave(way: str, number: int) -> Any:
    """End in a way of a storm, as the task of this number."""
    if way == "raise":
        raise LookupError(str(number))
    if way == "exit":
        os._exit(number % 256)
    if way in ("signal", "killed"):
        os.kill(os.getpid(), signal.SIGKILL if way == "killed" else signal.SIGUSR1)
    return bytes(300_000) if way == "large" else number


def _is_right(completion: Completion, way: str, number: int) -> bool:
    ends = {
        "return": (0, None),
        "large": (0, None),
        "raise": (1, None),
        "exit": (number % 256, None),
        "signal": (138, signal.SIGUSR1),
        "killed": (137, signal.SIGKILL),
    }
    if (completion.status, completion.signal) != ends[way] or bool(completion.usage) != (number % 2 == 0):
        return False
    if way in ("return", "large"):
        return bool(completion.value() == (number if way == "return" else bytes(300_000)))
    return type(completion.exception).__name__ == ("LookupError" if way == "raise" else "ChildDeath")


class Poison:
    """Raises when it is read."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return _raise, (self.error,)


def _raise(error: type[BaseException]) -> None:
    raise error("poison")
