"""What a task says while it works."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

import daemonize
from daemonize import ForkExecutor, progress

if TYPE_CHECKING:
    from tests.support.executors import Gate


def speaks(*values: Any) -> str:
    """A task."""
    for value in values:
        progress(value)
    return "done"


def test_in_order_and_before_the_result() -> None:
    """Of any kind and size; each while the future runs."""
    heard: list[Any] = []
    values = (1, None, {"a": (b"b", [2.5])}, "x" * 3_000_000, *range(500))
    with ForkExecutor(
        on_progress=lambda future, value: heard.append((future, value, future.running()))
    ) as executor:
        future = executor.submit(speaks, *values)
        future.add_done_callback(lambda _: heard.append("done"))

    assert heard == [*((future, value, True) for value in values), "done"]


def test_it_comes_while_the_task_works(gate: Gate) -> None:
    """And not with its end."""
    said = threading.Event()

    def task() -> None:
        progress("here")
        gate.wait()

    with ForkExecutor() as executor:
        future = executor.options(on_progress=lambda *_: said.set()).submit(task)
        assert said.wait(30)
        assert not future.done()
        gate.let_go()


def test_outside_of_a_task() -> None:
    """It does nothing; nor where nobody listens, nor in a child of a task, nor in another executor's task in there."""
    heard: list[Any] = []

    def task() -> None:
        with ForkExecutor() as inner:
            inner.submit(progress, "inner").result(30)
        pid = os.fork()
        if pid == 0:
            progress("child")
            os._exit(0)
        os.waitpid(pid, 0)
        progress("task")

    progress("outside")
    with ForkExecutor(on_progress=lambda _, value: heard.append(value)) as executor:
        executor.options(on_progress=None).submit(speaks, threading.Lock()).result(30)
        executor.submit(task).result(30)

    assert heard == ["task"]


def test_threads_of_a_task() -> None:
    """May speak at once: nothing is torn."""
    heard: list[Any] = []

    def task() -> None:
        threads = [threading.Thread(target=speaks, args=["x" * 200_000] * 5) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with ForkExecutor(on_progress=lambda _, value: heard.append(value)) as executor:
        executor.submit(task).result(30)

    assert heard == ["x" * 200_000] * 20


def test_a_thread_speaks_when_the_function_returns() -> None:
    """What it is just saying, and the result: both are whole."""

    def task() -> int:
        speaking = threading.Event()

        def speak() -> None:
            speaking.set()
            while True:
                progress(b"x" * 5_000_000)

        threading.Thread(target=speak, daemon=True).start()
        speaking.wait()
        return 42

    heard: list[bytes] = []
    with ForkExecutor(
        1, on_progress=lambda _, value: heard.append(value[:1] * (len(value) == 5_000_000))
    ) as executor:
        results = [future.result() for future in [executor.submit(task) for _ in range(10)]]

    assert results == [42] * 10
    assert set(heard) <= {b"x"}


def test_what_cannot_be_pickled() -> None:
    """Is the task's own failure, at its line."""
    with ForkExecutor(on_progress=print) as executor, pytest.raises(TypeError, match="pickle"):
        executor.submit(speaks, threading.Lock()).result(30)


@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt])
def test_what_callbacks_raise(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """Of progress and of the end: logged, as the standard library does, and harms nobody."""

    def fails(*_: Any) -> None:
        raise error("mine")

    told: list[Any] = []
    with ForkExecutor(1, on_progress=fails) as executor:
        future = executor.submit(speaks, 1, 2)
        future.add_done_callback(fails)
        future.add_done_callback(told.append)
        waiting = executor.submit(speaks)

    assert future.result(0) == waiting.result(0) == "done"
    assert told == [future]
    assert [record.name for record in caplog.records] == ["concurrent.futures"] * 3
    assert all("exception calling callback for <Future" in record.message for record in caplog.records)
    assert all("mine" in str(record.exc_info and record.exc_info[1]) for record in caplog.records)


def test_it_is_public() -> None:
    """A name of the package's, though there are modules of that name."""
    assert daemonize.progress is progress
    assert callable(progress)
