"""Workers: so many processes of a task are kept running, whatever becomes of them."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from daemonize import (
    Completion,
    InvalidState,
    MessageChannel,
    ProcessManager,
    SetupError,
    UsageError,
    Workers,
)
from daemonize.manager import starting
from tests.support import forked, procs
from tests.support.tasks import hang, step_until, stubborn


def _pause(manager: ProcessManager) -> float | None:
    """What the loop is asked to wait for."""
    return manager._check().patience(None)


@pytest.mark.parametrize("task", [hang, ["sleep", "1000"]], ids=["function", "command"])
def test_who_is_killed_is_replaced(task: Any) -> None:
    """At once; the others are left alone, and each end is told."""
    ends: list[Completion] = []
    with ProcessManager() as manager, Workers(manager, task, 3, on_end=ends.append, name="web") as workers:
        for round_ in range(1, 4):
            before = workers.pids
            os.kill(before[round_ - 1], signal.SIGKILL)
            step_until(manager, lambda: len(ends) == round_)  # noqa: B023 (called at once)
            after = workers.pids
            assert len(after) == 3
            assert [old == new for old, new in zip(before, after, strict=True)].count(False) == 1
            assert all(procs.alive(pid) for pid in after)
        assert [(end.name, end.signal) for end in ends] == [("web", signal.SIGKILL)] * 3
        assert (workers.count, workers.starts, workers.pauses) == (3, 6, [])

    assert not any(procs.alive(pid) for pid in after)
    assert len(ends) == 6


def test_a_resize() -> None:
    """Up and down, and to none."""
    with ProcessManager() as manager:
        workers = Workers(manager, hang, 1)
        (first,) = workers.pids
        workers.resize(4)
        assert workers.pids[0] == first
        assert len(set(workers.pids)) == 4
        gone = workers.pids[1:]
        workers.resize(1)
        assert workers.pids == [first]
        manager.wait_for_all_children()
        assert not any(procs.alive(pid) for pid in gone)
        assert procs.alive(first)
        workers.resize(0)
        manager.wait_for_all_children()
        assert (workers.pids, workers.starts, manager.process_count, workers.is_kept) == ([], 4, 0, True)


def test_to_stop_leaves_nobody() -> None:
    """Not those either that do not want to end; a second time does nothing, and nothing is started any more."""
    with ProcessManager() as manager:
        ready: list[Any] = []
        workers = Workers(manager, stubborn, 2, on_message=ready.append)
        step_until(manager, lambda: len(ready) == 2)
        pids = workers.pids
        workers.stop(grace="50ms")
        workers.stop()
        assert (workers.pids, workers.count, workers.is_kept) == ([], 0, False)
        workers.wait()
        assert manager.process_count == 0
        assert not any(procs.alive(pid) for pid in pids)
        with pytest.raises(InvalidState, match="these workers have been stopped: make others"):
            workers.resize(1)

    assert workers.starts == 2


def test_who_ends_at_once_does_not_spin() -> None:
    """He is replaced at once, then after pauses that grow; each has his own."""
    with ProcessManager() as manager:
        workers = Workers(manager, lambda: os._exit(3), 2)
        step_until(manager, lambda: len(workers.pauses) == 2)
        assert workers.starts == 4
        assert 0 < max(workers.pauses) <= 0.1
        pause = _pause(manager)
        assert pause is not None
        assert pause <= min(workers.pauses) + 0.01
        longest = 0.0
        while workers.starts < 8:
            manager.step(10)
            longest = max([longest, *workers.pauses])
        assert 0.1 < longest <= 0.4
        workers.stop()
        workers.wait()
        assert _pause(manager) is None


def test_pauses_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """They grow to the longest; who has lived long enough is replaced at once again."""
    monkeypatch.setattr(Workers, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(Workers, "LONGEST_PAUSE", 0.004)
    with ProcessManager() as manager, Workers(manager, lambda: None, 1) as workers:
        found = []
        while workers.starts < 8:
            manager.step(10)
            found += workers.pauses
        assert max(found) <= 0.004
        monkeypatch.setattr(Workers, "SETTLED", 0.0)
        starts = workers.starts
        step_until(manager, lambda: workers.starts >= starts + 3)
        assert workers.pauses == []


def test_control_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: one that counts as settled from the first is replaced again and again, and nothing is waited for."""
    monkeypatch.setattr(Workers, "SETTLED", 0.0)
    with ProcessManager() as manager, Workers(manager, lambda: os._exit(3), 1) as workers:
        while workers.starts < 20:
            manager.step(10)
            assert _pause(manager) is None


def test_no_process_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again later, also at the beginning."""
    start, refused = starting.start, iter(range(3))

    def refuses(*arguments: Any) -> Any:
        if next(refused, None) is not None:
            raise SetupError("start", "a worker", BlockingIOError(11, "Resource temporarily unavailable"))
        return start(*arguments)

    monkeypatch.setattr(starting, "start", refuses)
    with ProcessManager() as manager, Workers(manager, hang, 2) as workers:
        assert (workers.pids, len(workers.pauses)) == ([], 2)
        assert "Resource temporarily unavailable" in str(workers.failure)
        step_until(manager, lambda: len(workers.pids) == 2)
        assert workers.starts == 2


def test_the_end_of_the_manager() -> None:
    """Stops them: it does not wait for those that never end, and starts no more, also when an exception ends it."""
    for error in (None, LookupError):
        try:
            with ProcessManager() as manager:
                workers = Workers(manager, hang, 2)
                pids = workers.pids
                manager.wait_for_all_children()
                if error:
                    raise error
        except LookupError:
            assert error
        assert not any(procs.alive(pid) for pid in pids)
        assert (workers.starts, workers.is_kept) == (2, False)


def test_other_tasks_are_waited_for() -> None:
    """While they are kept."""
    found: list[Any] = []
    with ProcessManager() as manager, Workers(manager, hang, 1):
        manager.create_process(lambda: 5, lambda completion: found.append(completion.value()))
        manager.wait_for_all_children()
        assert found == [5]


def test_callbacks_resize_and_stop() -> None:
    """Whoever was told of is not replaced then."""
    with ProcessManager() as manager:

        def end(_completion: Completion) -> None:
            if workers.count == 2:
                workers.resize(1)
            else:
                workers.stop()

        workers = Workers(manager, lambda channel: channel.read(), 2, on_end=end)
        for process in workers.processes:
            process.send_signal(signal.SIGKILL)
        workers.wait()
        assert manager.process_count == 0
    assert workers.starts in (2, 3)


def test_a_callback_that_raises() -> None:
    """Its exception is that of the step, and the worker is replaced."""

    def end(_completion: Completion) -> None:
        raise LookupError

    manager = ProcessManager().setup()
    workers = Workers(manager, hang, 1, on_end=end)
    (pid,) = workers.pids
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(LookupError):
        step_until(manager, lambda: False)
    assert len(workers.pids) == 1
    with pytest.raises(LookupError):
        manager.teardown()


def test_a_handler_of_a_signal_stops_them() -> None:
    """As a server would."""
    with ProcessManager() as manager:
        workers = Workers(manager, hang, 2)
        before = signal.signal(signal.SIGALRM, lambda *_: workers.stop())
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            workers.wait()
        finally:
            signal.signal(signal.SIGALRM, before)
        assert manager.process_count == 0


def test_a_handler_of_a_signal_resizes_them_in_a_resize() -> None:
    """No place is taken twice."""

    class Interrupted(list[Any]):
        def append(self, place: Any) -> None:
            super().append(place)
            signal.raise_signal(signal.SIGALRM)

    with ProcessManager() as manager:
        workers = Workers(manager, hang, 1)
        workers._places = Interrupted(workers._places)
        before = signal.signal(signal.SIGALRM, lambda *_: workers.resize(1))
        try:
            workers.resize(2)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert (workers.starts, workers.count, manager.process_count) == (1, 1, 1)


def test_in_an_asyncio_loop() -> None:
    """The pauses are waited for by the descriptor."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        with ProcessManager() as manager:
            enough: asyncio.Future[int] = loop.create_future()

            def end(_completion: Completion) -> None:
                if workers.starts == 4 and not enough.done():
                    enough.set_result(workers.starts)

            loop.add_reader(manager, lambda: manager.step(0))
            workers = Workers(manager, lambda: os._exit(3), 1, on_end=end)
            starts = await enough
            loop.remove_reader(manager)
        return starts

    assert asyncio.run(asyncio.wait_for(main(), 20)) == 4


def test_misuse() -> None:
    """Is named."""
    with pytest.raises(InvalidState, match="is not set up"):
        Workers(ProcessManager(), hang, 1)
    with ProcessManager() as manager:
        for count in (-1, 1.5, True, "2"):
            with pytest.raises(UsageError, match="count is a number of workers"):
                Workers(manager, hang, count)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="on_end is called, and 5 cannot be"):
            Workers(manager, hang, 1, on_end=5)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="a task is a function"):
            Workers(manager, "sleep 1", 1)
        with pytest.raises(UsageError, match="'soon' is not a duration"):
            Workers(manager, hang, 0).stop(grace="soon")
        assert manager.process_count == 0


def test_a_forked_child_has_no_part_in_them() -> None:
    """It cannot stop them, and the end of their block does nothing there."""

    def elsewhere() -> list[str]:
        found = []
        for call in (workers.stop, lambda: workers.resize(5)):
            try:
                call()
            except InvalidState as error:
                found.append(str(error))
        workers.__exit__()
        return found

    with ProcessManager() as manager, Workers(manager, hang, 1) as workers:
        answers = forked.call(elsewhere)
        assert len(answers) == 2
        assert "was forked" in answers[0]
        assert all(procs.alive(pid) for pid in workers.pids)


def test_messages(tmp_path: Any) -> None:
    """And whatever else `create_process` takes."""
    found: list[Any] = []

    def task(channel: MessageChannel) -> None:
        channel.write(os.getcwd())
        hang()

    with ProcessManager() as manager:
        workers = Workers(manager, task, 2, on_message=found.append, grace=0.5)
        step_until(manager, lambda: len(found) == 2)
        shell = Workers(manager, ["sh", "-c", "echo > here; exec sleep 1000"], 1, directory=tmp_path)
        procs.eventually((tmp_path / "here").exists)
        workers.stop()
        shell.stop()


class _Interrupting(ProcessManager):
    """Where a handler of a signal raises just when a task has been started; after so many."""

    def __init__(self, spared: int) -> None:
        super().__init__()
        self.spared = spared

    def create_process(self, *arguments: Any, **options: Any) -> Any:
        process = super().create_process(*arguments, **options)
        self.spared -= 1
        if self.spared < 0:
            raise KeyboardInterrupt
        return process


def test_a_handler_that_raises_when_they_are_made() -> None:
    """All that have been started are stopped."""
    with _Interrupting(2) as manager:
        with pytest.raises(KeyboardInterrupt):
            Workers(manager, hang, 5)
        started = manager.processes
        manager.wait_for_all_children()

    assert len(started) == 3
    assert not any(procs.alive(process.pid) for process in started)


def test_a_handler_that_raises_when_one_is_replaced() -> None:
    """The new one is the workers' all the same: it is stopped with them."""
    with _Interrupting(1) as manager, Workers(manager, hang, 1) as workers:
        (first,) = workers.pids
        os.kill(first, signal.SIGKILL)
        with pytest.raises(KeyboardInterrupt):
            step_until(manager, lambda: workers.starts == 2)
        (second,) = workers.pids
        assert second != first
        assert procs.alive(second)

    assert not procs.alive(second)


@pytest.mark.parametrize("name", ["_ended", "_replace", "_start", "_take"])
def test_a_handler_that_raises_as_one_is_seen_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first line of what follows: the place is taken all the same, and nobody is counted who has ended."""
    real = getattr(Workers, name)

    def interrupted(*arguments: Any, **options: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with ProcessManager() as manager:
        workers = Workers(manager, hang, 2)
        monkeypatch.setattr(Workers, name, interrupted)
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.raises(KeyboardInterrupt):
            step_until(manager, lambda: False)
        assert getattr(Workers, name) is real
        step_until(manager, lambda: len([pid for pid in workers.pids if procs.alive(pid)]) == 2)
        other = manager.create_process(lambda: None)
        manager.wait_for_all_children()
        assert other.completion
        workers.stop()
        workers.wait()
        assert manager.process_count == 0


def test_a_handler_that_raises_as_the_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first line of the start that was waited for: it is started all the same, and once."""
    monkeypatch.setattr(Workers, "FIRST_PAUSE", 0.01)

    def interrupted(*_: Any, **_options: Any) -> None:
        patch.undo()
        raise KeyboardInterrupt

    with ProcessManager() as manager, pytest.MonkeyPatch.context() as patch:
        workers = Workers(manager, hang, 1)
        os.kill(workers.pids[0], signal.SIGKILL)
        step_until(manager, lambda: workers.starts == 2)  # at once, the first time
        os.kill(workers.pids[0], signal.SIGKILL)
        step_until(manager, lambda: workers.pauses)
        patch.setattr(Workers, "_start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            step_until(manager, lambda: False)
        step_until(manager, lambda: workers.starts == 3)
        assert (len(workers.pids), manager.process_count, workers.pauses) == (1, 1, [])
        workers.stop()


def test_a_handler_that_raises_as_the_last_one_is_seen_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for them is not kept waiting."""

    def interrupted(_workers: Workers, *_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with ProcessManager() as manager:
        workers = Workers(manager, hang, 1)
        workers.stop()
        monkeypatch.setattr(Workers, "_ended", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workers.wait()
        workers.wait()


def test_those_that_a_callback_makes_as_the_manager_is_torn_down() -> None:
    """Are stopped, too."""
    made: list[Workers] = []
    manager = ProcessManager().setup()
    manager.create_process(lambda: None, lambda _: made.append(Workers(manager, hang, 2)))
    manager.teardown()

    assert not made[0].is_kept
    assert manager.process_count == 0


def test_one_that_cannot_be_replaced_as_it_was_asked_for() -> None:
    """Its descriptor has been closed meanwhile: that is told, and tried again; of others, whoever asks is told."""
    with ProcessManager() as manager, open(os.devnull, "wb") as null:
        file = os.dup2(null.fileno(), 300)
        workers = Workers(manager, ["sleep", "1000"], 1, stdout=file)
        os.close(file)
        os.kill(workers.pids[0], signal.SIGKILL)
        step_until(manager, lambda: workers.failure)
        assert isinstance(workers.failure, UsageError)
        assert (workers.count, len(workers.pauses)) == (1, 1)
        with pytest.raises(UsageError, match="is not open"):
            workers.resize(2)
        assert workers.count == 1

        os.dup2(null.fileno(), file)
        step_until(manager, lambda: workers.pids)
        os.close(file)
        assert (workers.starts, workers.pauses) == (2, [])
