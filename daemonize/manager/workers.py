"""`Workers`: so many processes of a task are kept running.

A worker ends, `on_end` is told, another one is started: at once, unless it lived so short that this would be to spin.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from daemonize.errors import InvalidState, SetupError, UsageError
from daemonize.manager.tasks import check_callbacks
from daemonize.units import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.manager.manager import ProcessManager
    from daemonize.manager.process import Completion, Process
    from daemonize.manager.tasks import Task


class _Place:
    """What one worker after the other takes. process: the one there is. call: that of the next one, when it is waited for.

    pause: seconds to be waited for the next time; due: when the next one is started (monotonic time).
    """

    def __init__(self) -> None:
        self.process: Process | None = None
        self.call: int | None = None
        self.since = self.due = self.pause = 0.0


class Workers:
    """Keeps `count` processes of a task running on a manager that has been set up: a new one whenever one has ended.

    task: a function or a list of words, and `name` and all other keywords (on_message, grace, memory, ...) are those of
    `ProcessManager.create_process`. on_end: called with the Completion of each that ends, before another is started; it may
    resize and stop. Whoever ends within `SETTLED` seconds is replaced at once the first time, and after a pause then, which
    begins with `FIRST_PAUSE` seconds and is doubled up to `LONGEST_PAUSE`; each has a pause of its own. Where no process can
    be had, that is tried again likewise. The manager's steps do all of this. Its `teardown` stops them, and so does the end
    of a `with` block of theirs or its; `wait_for_all_children` does not wait for them.

    count: how many there are to be. starts: how many have been started. failure: why the last one could not be (SetupError;
    UsageError: what was given is not there any more), or None. is_kept: until `stop`.
    """

    FIRST_PAUSE, LONGEST_PAUSE, SETTLED = 0.1, 10.0, 5.0

    def __init__(
        self,
        manager: ProcessManager,
        task: Task,
        count: int,
        *,
        on_end: Callable[[Completion], object] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        """Start them. Raises UsageError; InvalidState: the manager has not been set up."""
        if not hasattr(manager, "create_process"):
            raise UsageError(f"workers are kept by a ProcessManager, and not by {manager!r}")
        if "on_complete" in options:
            raise UsageError("on_complete is called on_end here: it is told of each worker that ends")
        check_callbacks(on_end=on_end)
        self.count, self.starts = _checked(count), 0
        self.failure: SetupError | UsageError | None = None
        self.is_kept = True
        self._manager, self._task, self._on_end = manager, task, on_end
        self._options = {"name": name, **options}
        self._places: list[_Place] = []
        self._leaving: set[_Place] = set()
        self._held = manager._check()  # noqa: SLF001 (of the same room)
        self._held.keepers.append(self)
        try:
            self._fill()
        except BaseException:
            self.stop()
            raise

    @property
    def processes(self) -> list[Process]:
        """Those that run, or have ended just now; not those that are being ended."""
        return [place.process for place in self._places if place.process]

    @property
    def pids(self) -> list[int]:
        """Of those."""
        return [process.pid for process in self.processes]

    @property
    def pauses(self) -> list[float]:
        """Seconds until each is started that is not running."""
        return [max(place.due - monotonic(), 0) for place in self._places if place.call is not None]

    def resize(self, count: int) -> None:
        """Have so many from now on: more are started, or the last ones are ended. Raises UsageError, InvalidState."""
        count = _checked(count)
        self._check()
        self.count = count
        while len(self._places) > count:
            self._give_up(self._places.pop(), None)
        self._fill()

    def stop(self, grace: float | str | None = None) -> None:
        """Keep them no longer, and end them: SIGTERM, `grace` seconds (None: the task's), SIGKILL. Returns at once.

        Steps take what follows, as `wait` does. A second time does nothing. Raises UsageError, InvalidState.
        """
        seconds = None if grace is None else seconds_of("grace", grace)
        if not self.is_kept:
            return
        self._check()
        self.is_kept, self.count = False, 0
        self._held.keepers.remove(self)
        while self._places:
            self._give_up(self._places.pop(), seconds)

    def wait(self) -> None:
        """Step until somebody has stopped them (a callback, a handler of a signal), and they have ended.

        Raises InvalidState; what `step` raises.
        """
        while self.is_kept or self._leaving:
            self.mend()
            if self.is_kept or self._leaving:
                self._manager.step()

    def mend(self) -> None:
        """For the manager, before a step: take up what the handler of a signal has ended between two lines, if anything.

        Whoever has ended has not been seen off, or nobody takes his place.
        """
        for place in [*self._places, *self._leaving]:
            completion = place.process.completion if place.process else None
            if completion:
                self._ended(place, completion)
            elif not place.process and not self._held.will_call(place.call):
                self._leaving.discard(place)
                if place in self._places:
                    self._start_later(place, 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held.owner == os.getpid():
            self.stop()
            self.wait()

    def _check(self) -> None:
        self._manager._check()  # noqa: SLF001 (of the same room)
        if not self.is_kept:
            raise InvalidState("these workers have been stopped: make others")

    def _fill(self) -> None:
        while len(self._places) < self.count:
            place = _Place()
            self._places.append(place)
            self._start(place, is_first=True)

    def _start(self, place: _Place, *, is_first: bool = False) -> None:
        """is_first: whoever asks for it is told what is wrong with it. Raises UsageError."""
        # A handler of a signal may stop them between any two lines, and the call for it may have been made twice (`mend`).
        if place not in self._places or place.process:
            return
        place.call, place.since = None, monotonic()

        def ended(completion: Completion) -> None:
            self._ended(place, completion)

        try:
            self._take(place, self._manager.create_process(self._task, ended, **self._options))
        except (SetupError, UsageError) as error:
            if is_first and isinstance(error, UsageError):
                self._places.remove(place)
                self.count = len(self._places)
                raise
            self.failure = error
            self._start_later(place, max(place.pause, self.FIRST_PAUSE))
        except BaseException:
            # A handler has raised it, when the worker had been started perhaps.
            for process in self._held.processes.values():
                if process.on_complete is ended:
                    self._take(place, process)
            raise

    def _take(self, place: _Place, process: Process) -> None:
        self._held.kept.add(process.number)
        if place.process is not process:
            place.process = process
            self.starts += 1
        if place not in self._places:
            self._give_up(place, None)

    def _ended(self, place: _Place, completion: Completion) -> None:
        if place.process:
            self._held.kept.discard(place.process.number)
            place.process = None
        self._leaving.discard(place)
        try:
            if self._on_end:
                self._on_end(completion)
        finally:
            if place in self._places:
                self._replace(place)

    def _replace(self, place: _Place) -> None:
        if monotonic() - place.since >= self.SETTLED:
            place.pause = 0.0
        if place.pause:
            self._start_later(place, place.pause)
        else:
            place.pause = self.FIRST_PAUSE
            self._start(place)

    def _start_later(self, place: _Place, seconds: float) -> None:
        place.pause, place.due = min(seconds * 2, self.LONGEST_PAUSE), monotonic() + seconds
        place.call = self._held.call_later(seconds, lambda _: self._start(place))

    def _give_up(self, place: _Place, grace: float | None) -> None:
        if place.call is not None:
            self._held.forget_call(place.call)
        if place.process:
            self._held.kept.discard(place.process.number)
            if place.process.completion is None:
                self._leaving.add(place)
            place.process.stop(grace=grace)


def _checked(count: int) -> int:
    """Raises UsageError."""
    if type(count) is not int or count < 0:
        raise UsageError(f"count is a number of workers, and {count!r} is none")
    return count
