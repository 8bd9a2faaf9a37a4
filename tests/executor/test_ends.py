"""Futures are cancelled, executors shut down, killed, forgotten: each future is resolved, and no process is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import ChildDeath, ForkExecutor, InvalidState, ProcessManager, progress
from tests.support import forked, procs
from tests.support.tasks import hang

if TYPE_CHECKING:
    from tests.support.executors import Gate


#: The warning is shown elsewhere (test_faults.py).
BESIDE_THREADS = pytest.mark.filterwarnings("ignore:.*while other threads live:RuntimeWarning")


def test_a_pending_future_is_cancelled(gate: Gate) -> None:
    """It never runs; whoever waits is told at once; a second time is no news."""
    called: list[Any] = []
    with ForkExecutor(1) as executor:
        executor.submit(gate.wait)
        gate.arrived()
        future = executor.submit(gate.wait)
        future.add_done_callback(called.append)

        assert (future.cancel(), future.cancel(), future.cancelled(), future.running()) == (True,) * 3 + (
            False,
        )
        assert called == [future]
        assert futures.wait([future], 0).done == {future}
        with pytest.raises(futures.CancelledError):
            future.result(0)
        gate.let_go()
    assert gate.empty


@BESIDE_THREADS
def test_a_running_future_is_cancelled(gate: Gate) -> None:
    """At once, for those who wait and for callbacks; its process is ended, and what is below it; its place is free then."""
    called: list[Any] = []
    with ForkExecutor(1, grace=0.05) as executor:
        future = executor.submit(_with_child, gate)
        pids = gate.arrived(2)
        waiting = threading.Thread(target=lambda: called.append(next(futures.as_completed([future], 30))))
        waiting.start()
        future.add_done_callback(called.append)
        next_one = executor.submit(lambda: [procs.alive(pid) for pid in pids])

        assert future.running()
        assert (future.cancel(), future.cancelled(), future.cancel()) == (True, True, True)
        waiting.join()
        assert called == [future] * 2
        assert next_one.result(30) == [False, False]


def _with_child(gate: Gate) -> None:
    if os.fork() == 0:
        gate.wait()
        os._exit(0)
    gate.wait_stubbornly()


def test_a_finished_future_is_not_cancelled() -> None:
    """As in the standard library."""
    with ForkExecutor() as executor:
        future = executor.submit(int)
        future.result(30)

        assert (future.cancel(), future.cancelled(), future.result()) == (False, False, 0)


def test_a_callback_cancels_another(gate: Gate) -> None:
    """In the thread of the executor."""
    with ForkExecutor(2) as executor:
        other = executor.submit(hang)
        one = executor.submit(gate.wait)
        gate.arrived()
        one.add_done_callback(lambda _: other.cancel())
        gate.let_go()
        futures.wait([one, other], 30)

        assert other.cancelled()


def test_no_progress_after_a_cancel(gate: Gate) -> None:
    """A future that is cancelled is done."""
    heard: list[Any] = []

    def task() -> None:
        gate.wait()
        progress(1)
        gate.wait()

    def tell(future: Any, value: Any) -> None:
        heard.append((value, future.done()))

    with ForkExecutor(1, on_progress=tell, grace=5) as executor:
        future = executor.submit(task)
        gate.arrived()
        future.cancel()

    assert heard == []


# --- asyncio ---------------------------------------------------------------------------------------------------------


def test_in_asyncio(gate: Gate) -> None:
    """A loop waits for it; what is cancelled there is ended."""

    async def main(executor: ForkExecutor) -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(executor, pow, 2, 8) == 256
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(executor.options(timeout=30), lambda: 1 // 0)
        running = loop.run_in_executor(executor, gate.wait)
        (pid,) = gate.arrived()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.wrap_future(executor.submit(abs, -3)) == 3
        assert not procs.alive(pid)

    with ForkExecutor(1) as executor:
        asyncio.run(main(executor))


# --- shutdown --------------------------------------------------------------------------------------------------------


@BESIDE_THREADS
def test_shutdown_waits(gate: Gate) -> None:
    """Upstream's: join does not return early; what was queued is done first; afterwards nothing is taken."""
    executor = ForkExecutor(1)
    found = [executor.submit(gate.wait) for _ in range(2)]
    joined: list[bool] = []
    joins = threading.Thread(
        target=lambda: (executor.shutdown(), joined.append(all(f.done() for f in found)))
    )
    gate.arrived()
    executor.shutdown(wait=False)
    joins.start()
    with pytest.raises(InvalidState, match=r"^cannot schedule new futures after shutdown$"):
        executor.submit(int)
    assert not joined
    gate.let_go()
    pids = gate.arrived()
    assert not joined
    gate.let_go()
    joins.join()

    assert joined == [True]
    assert found[1].result(0) in pids
    assert procs.children(os.getpid()) == []
    executor.shutdown()


def test_shutdown_with_cancel_futures(gate: Gate) -> None:
    """What runs goes on, what waits is cancelled; what had its turn when it was submitted counts as running."""
    executor = ForkExecutor(2)
    found = [executor.submit(gate.wait) for _ in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    gate.let_go(2)  # not before: others would have their turn
    executor.shutdown()

    assert [future.cancelled() for future in found] == [False] * 2 + [True] * 3
    assert [future.result(0) for future in found[:2]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_hard_shutdown_releases_every_future(number: int, gate: Gate) -> None:
    """Of upstream's faults: none is left hanging. SIGKILL follows SIGTERM. Negative control: who is there is stubborn."""
    executor = ForkExecutor(2, grace=0.1)
    found = [executor.submit(gate.wait_stubbornly) for _ in range(6)]
    pids = gate.arrived(2)
    for pid in pids:
        procs.send(pid, signal.SIGTERM)
    assert all(procs.alive(pid) for pid in pids)
    if number == signal.SIGTERM:
        executor.terminate_workers()
    else:
        executor.kill_workers()
    with pytest.raises(InvalidState, match="after shutdown"):
        executor.submit(int)
    executor.shutdown()

    assert [future.cancelled() for future in found] == [False] * 2 + [True] * 4
    for future in found[:2]:
        error = future.exception(0)
        assert isinstance(error, ChildDeath)
        assert error.signal == signal.SIGKILL
    assert gate.empty


def test_what_ends_without_having_begun() -> None:
    """Every way to end an executor that has no thread does nothing."""
    for end in (ForkExecutor.shutdown, ForkExecutor.kill_workers, ForkExecutor.terminate_workers):
        executor = ForkExecutor()
        end(executor)
        executor.shutdown(cancel_futures=True)
        with pytest.raises(RuntimeError):
            executor.submit(int)


def test_an_exception_in_the_block_waits_all_the_same(gate: Gate) -> None:
    """As in the standard library."""
    with pytest.raises(LookupError), ForkExecutor() as executor:  # noqa: PT012
        future = executor.submit(gate.wait)
        gate.let_go()
        raise LookupError

    assert future.done()


def test_a_callback_cannot_wait_for_its_own_executor() -> None:
    """It is told, and the executor is shut down."""
    found: list[str] = []

    def end(_: Any) -> None:
        try:
            executor.shutdown()
        except InvalidState as error:
            found.append(str(error))

    with ForkExecutor() as executor:
        executor.submit(int).add_done_callback(end)

    assert found == ["a callback cannot wait for its own executor: call shutdown(wait=False)"]


def test_an_executor_that_is_forgotten(gate: Gate) -> None:
    """Its work is done, and its thread ends: nothing is left. So it is if it has done all before."""
    before = set(threading.enumerate())
    idle = ForkExecutor()
    idle.submit(int).result(30)
    executor = ForkExecutor(1)
    found = [executor.submit(gate.wait) for _ in range(2)]
    threads = set(threading.enumerate()) - before
    assert len(threads) == 2
    del executor, idle
    gc.collect()
    gate.let_go(2)
    for thread in threads:
        thread.join(30)

    assert not any(thread.is_alive() for thread in threads)
    assert all(future.result(0) for future in found)


@BESIDE_THREADS
def test_the_owner_is_killed(gate: Gate) -> None:
    """Its tasks are, too, by the kernel, whatever they block; not when a thread ends that has submitted them."""

    def deaf() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        gate.wait()

    def owner() -> None:
        executor = ForkExecutor(2)
        submits = threading.Thread(target=lambda: executor.submit(gate.wait))
        submits.start()
        submits.join()
        executor.submit(deaf)
        hang()

    with ForkExecutor(1) as outer:
        outer_future = outer.submit(owner)
        pids = gate.arrived(2)
        assert all(procs.alive(pid) for pid in pids)
        (parent,) = {procs.stat(pid).ppid for pid in pids}  # type: ignore[union-attr]
        procs.send(parent, signal.SIGKILL)

        assert isinstance(outer_future.exception(30), ChildDeath)
        assert all(procs.wait_ended(pid) for pid in pids)


def test_a_forked_child_is_not_the_executor(gate: Gate) -> None:
    """Neither a task nor any other: submit says so; to leave its block there ends nothing."""
    words = (
        f"this executor is that of process {os.getpid()}, from which this one was forked: make another one"
    )

    def elsewhere() -> list[str]:
        found = []
        for call in (lambda: executor.submit(int), executor.kill_workers, executor.terminate_workers):
            try:
                call()
            except InvalidState as error:
                found.append(str(error))
        executor.shutdown()
        return found

    with ForkExecutor(2) as executor:
        waits = executor.submit(gate.wait)
        gate.arrived()
        assert executor.submit(elsewhere).result(30) == [words] * 3
        pid = os.fork()
        if pid == 0:
            os._exit(0 if elsewhere() == [words] * 3 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert not waits.done()
        gate.let_go()


def test_a_callback_cannot_wait_for_a_task(gate: Gate) -> None:
    """Of its own executor: it says so, at once, and does not wait for ever; with a time-out it may try."""
    found: list[str] = []
    over = threading.Event()

    def wait(_future: object) -> None:
        for wait in (executor.submit(int).result, executor.submit(int).exception):
            try:
                wait()
            except InvalidState as error:
                found.append(str(error))
        with contextlib.suppress(TimeoutError):
            executor.submit(int).result(0)
        over.set()

    with ForkExecutor(1) as executor:
        executor.submit(gate.wait).add_done_callback(wait)
        gate.let_go()
        assert over.wait(30)

    assert found == ["a callback cannot wait for a task of its own executor: give that a callback, too"] * 2


def test_nothing_waits_for_a_grace_when_all_are_killed(gate: Gate) -> None:
    """Nor what a task has left that was cancelled before."""

    def leaves() -> None:
        if os.fork() == 0:
            gate.wait_stubbornly()
        gate.wait()

    with ForkExecutor(1, grace=1000) as executor:
        future = executor.submit(leaves)
        pids = gate.arrived(2)
        future.cancel()
        executor.kill_workers()
        executor.shutdown()

    assert not any(map(procs.alive, pids))


def test_what_a_callback_has_started_outlives_the_executor() -> None:
    """It is not a task: the kernel does not end it with the thread that has forked it.

    In another process: a thread that forks commands stays in it.
    """
    assert forked.call(_what_a_callback_has_started) == [False, False]


def _what_a_callback_has_started() -> list[bool]:
    manager, found = ProcessManager().setup(), []

    def start(_: Any) -> None:
        found.append(manager.create_process(hang))
        found.append(manager.create_process(["sleep", "1000"]))

    with ForkExecutor(1) as executor:
        executor.submit(int).add_done_callback(start)
    ended = [procs.wait_ended(process.pid, 0.2) for process in found]
    manager.kill_processes(signal.SIGKILL)
    manager.teardown()
    return ended


def test_a_command_that_a_task_has_started_ends_with_it(gate: Gate) -> None:
    """If it is cancelled."""
    heard: list[int] = []
    said = threading.Event()

    def task() -> None:
        progress(subprocess.Popen(["sleep", "1000"]).pid)
        hang()

    with ForkExecutor(1, on_progress=lambda _, pid: (heard.append(pid), said.set())) as executor:
        future = executor.submit(task)
        assert said.wait(30)
        future.cancel()

    assert procs.wait_ended(heard[0])
