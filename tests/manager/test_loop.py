"""The owner's loop: steps, wake-ups, callbacks that raise, selectors, asyncio, and systems that have less."""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import signal
import threading
import time
from typing import Any

import pytest

from daemonize import (
    Completion,
    InvalidState,
    MessageChannel,
    NotPossible,
    ProcessManager,
    TaskTimedOut,
)
from daemonize.offspring import process
from daemonize.posix import prctl
from tests.support.tasks import hang, step_until


def test_a_step_has_its_time() -> None:
    """And not more: nothing happens, nothing is called."""
    with ProcessManager() as manager:
        assert manager.step(0) == 0
        task = manager.create_process(hang)
        began = time.monotonic()
        assert manager.step("20ms") == 0
        assert 0.015 < time.monotonic() - began < 5
        assert (manager.process_count, manager.processes) == (1, [task])
        task.stop()
        while manager.process_count:
            done = manager.step()
        assert done == 1


def test_wakeup_from_another_thread() -> None:
    """The step returns, also one that begins later; as often as it is called."""
    with ProcessManager() as manager:
        thread = threading.Thread(target=manager.wakeup)
        thread.start()
        assert manager.step(30) == 0
        thread.join()
        for _ in range(10_000):
            manager.wakeup()
        began = time.monotonic()
        manager.step(30)
        assert time.monotonic() - began < 25
    manager.wakeup()


def test_wakeup_from_a_signal_handler() -> None:
    """Whenever it comes."""
    with ProcessManager() as manager:
        before = signal.signal(signal.SIGALRM, lambda *_: manager.wakeup())
        timer = signal.setitimer(signal.ITIMER_REAL, 0.05)
        began = time.monotonic()
        try:
            manager.step(30)
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 25


def test_a_callback_that_raises_loses_no_other() -> None:
    """All are called, the first exception is raised; also by the end of the block."""
    found: list[int] = []

    def raising(completion: Completion) -> None:
        found.append(completion.value())
        raise LookupError(str(completion.value()))

    with pytest.raises(LookupError), ProcessManager() as manager:  # noqa: PT012
        for number in range(5):
            manager.create_process(lambda number=number: number, raising)

    assert sorted(found) == [0, 1, 2, 3, 4]
    assert manager.process_count == 0


def test_an_interrupt_loses_no_completion() -> None:
    """KeyboardInterrupt in a callback is raised at once, and what is left comes with the next step."""
    found: list[Any] = []

    def interrupt(message: Any) -> None:
        found.append(message)
        raise KeyboardInterrupt

    with ProcessManager() as manager:
        manager.create_process(lambda channel: channel.write("a"), found.append, on_message=interrupt)
        with pytest.raises(KeyboardInterrupt):
            step_until(manager, lambda: False)
        manager.wait_for_all_children()

    assert found[0] == ["a"]
    assert isinstance(found[1], Completion)
    assert len(found) == 2


@pytest.mark.parametrize("microseconds", [0, 50, 200, 500, 1000, 2000, 4000])
def test_a_handler_that_raises_at_any_moment(microseconds: int) -> None:
    """Nothing is lost: each task that has been started completes once, and there are no more than there were."""

    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    found: list[Completion] = []
    manager = ProcessManager().setup()
    before = signal.signal(signal.SIGALRM, interrupt)
    timers = signal.getitimer(signal.ITIMER_REAL)
    try:
        for _ in range(20):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + microseconds / 1e6)
                manager.create_process(lambda: None, found.append)
                manager.step(0.01)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timers)
        signal.signal(signal.SIGALRM, before)
    manager.teardown()

    assert len(found) == len({completion.pid for completion in found}) == manager._number
    assert len(found) <= 20


def test_a_step_within_a_step_is_refused() -> None:
    """A callback may create tasks, and not wait for them."""
    found: list[str] = []

    def callback(_completion: Completion) -> None:
        for call in (manager.step, manager.wait_for_all_children):
            try:
                call()
            except InvalidState as error:
                found.append(str(error))
        manager.create_process(lambda: None, lambda _: found.append("later"))

    with ProcessManager() as manager:
        manager.create_process(lambda: None, callback)

    assert found[2:] == ["later"]
    assert "in the middle of a step" in found[0]
    assert found[0] == found[1]


# --- others' loops ---------------------------------------------------------------------------------------------------


def test_in_a_selector() -> None:
    """Beside other things: it is readable when there is something to do, and only then."""
    found: list[Any] = []
    with ProcessManager() as manager, selectors.DefaultSelector() as selector:
        selector.register(manager, selectors.EVENT_READ)
        assert selector.select(0) == []
        manager.create_process(lambda channel: channel.write("said"), found.append, on_message=found.append)
        while len(found) < 2:
            assert selector.select(10)
            manager.step(0)
        assert selector.select(0) == []
        manager.create_process(hang, found.append, timeout=0.05, grace=0.05)
        while len(found) < 3:
            assert selector.select(10)
            manager.step(0)
        assert selector.select(0) == []

    assert found[0] == ["said"]
    assert isinstance(found[2].exception, TaskTimedOut)


def test_in_an_asyncio_loop() -> None:
    """While it does other things; escalation included."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        with ProcessManager() as manager:
            loop.add_reader(manager, lambda: manager.step(0))
            futures = [loop.create_future() for _ in range(5)]
            for number, future in enumerate(futures):
                manager.create_process(lambda number=number: number, future.set_result)
            killed = loop.create_future()

            def deaf(channel: MessageChannel) -> None:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                channel.write("deaf")
                hang()

            heard = loop.create_future()
            task = manager.create_process(deaf, killed.set_result, on_message=heard.set_result)
            await heard
            task.stop(grace=0.05)
            values = [(await future).value() for future in futures]
            values.append((await killed).signal)
            loop.remove_reader(manager)
        return values

    assert asyncio.run(asyncio.wait_for(main(), 20)) == [0, 1, 2, 3, 4, signal.SIGKILL]


# --- systems that have less ------------------------------------------------------------------------------------------


def test_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends are looked for; a selector is told of them as well."""
    monkeypatch.setattr(process, "pidfd_open", lambda _pid: None)
    found: list[Any] = []
    with ProcessManager() as manager:
        manager.create_process(lambda: os._exit(3), found.append)
        step_until(manager, lambda: found)
        poll = select.poll()
        poll.register(manager, select.POLLIN)
        manager.create_process(lambda: os._exit(4), found.append)
        manager.create_process(["sh", "-c", "exit 5"], found.append)
        while len(found) < 3:
            assert poll.poll(10_000)
            manager.step(0)
        task = manager.create_process(hang, found.append)
        task.send_signal(signal.SIGUSR1)

    assert sorted(completion.status for completion in found) == [3, 4, 5, 138]


def test_without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but `fileno` works."""
    monkeypatch.delattr(select, "epoll")
    found: list[Any] = []
    with ProcessManager() as manager:
        manager.create_process(lambda: 1, lambda completion: found.append(completion.value()))
        manager.create_process(hang, found.append, timeout=0.05)
        with pytest.raises(NotPossible, match="has no descriptor on this system: call step"):
            manager.fileno()

    assert found[0] == 1
    assert found[1].timed_out


def test_without_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor can be had that would be readable in time."""
    monkeypatch.setattr(prctl, "timer", lambda: None)
    with ProcessManager() as manager, pytest.raises(NotPossible):
        manager.fileno()
