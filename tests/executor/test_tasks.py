"""A task of an executor: what it has, what it returns or raises, how it dies; and other people's children are theirs."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from concurrent import futures
from typing import Any

import pytest

from daemonize import ChildDeath, ForkExecutor, TaskError, TaskTimedOut, UsageError
from tests.support import procs
from tests.support.tasks import Poison, hang


def test_a_result() -> None:
    """Of a function with arguments, and keywords of any name."""
    with ForkExecutor() as executor:
        future = executor.submit(lambda *args, **kwargs: (args, kwargs), 1, self=2, fn=3, timeout=4)

        assert future.result(30) == ((1,), {"self": 2, "fn": 3, "timeout": 4})
        assert isinstance(future, futures.Future)


class _Answers:
    """For whatever it is asked for; as a proxy does (xmlrpc.client)."""

    def __getattr__(self, name: str) -> Any:
        if name == "__qualname__":
            return self
        raise RuntimeError(name)

    def __call__(self) -> int:
        return 42


def test_a_function_without_a_name() -> None:
    """Which has attributes as it likes."""
    with ForkExecutor() as executor:
        assert executor.submit(_Answers()).result(30) == 42


def test_it_runs_in_another_process() -> None:
    """Upstream's: whose memory is a copy of this one's; a result is 42, and ready."""
    changed: list[int] = []
    with ForkExecutor() as executor:
        pid = executor.submit(lambda: changed.append(1) or os.getpid())
        answer = executor.submit(lambda: 42)

        assert pid.result(30) != os.getpid()
        assert answer.result(30) == 42
        assert answer.done()
    assert changed == []


def test_a_worker_writes_a_file(tmp_path: Any) -> None:
    """Upstream's first test."""
    with ForkExecutor() as executor:
        executor.submit((tmp_path / "file").write_text, "written")

    assert (tmp_path / "file").read_text() == "written"


def test_nothing_is_pickled_but_the_result() -> None:
    """A lock, a generator, a local function that has both: a task gets them as they are."""
    numbers, lock = iter(range(5)), threading.Lock()

    def total(add: Any) -> int:
        with lock:
            return int(sum(numbers) + add())

    with ForkExecutor() as executor:
        assert executor.submit(total, lambda: 1).result(30) == 11
        with pytest.raises(TypeError, match="pickle"):
            executor.submit(lambda: lock).result(30)
    assert list(numbers) == [0, 1, 2, 3, 4]


def test_a_hundred_that_do_nothing() -> None:
    """Upstream's: exhaust nothing. The guards look."""
    with ForkExecutor() as executor:
        found = [executor.submit(int) for _ in range(100)]

    assert [future.result(0) for future in found] == [0] * 100


def test_ten_large_answers() -> None:
    """Upstream's: of 64 KiB each; and one of some megabytes."""
    with ForkExecutor() as executor:
        sizes = [65536] * 10 + [5_000_001]
        found = list(executor.map(lambda number: bytes([number % 256]) * sizes[number], range(11)))

    assert found == [bytes([number]) * size for number, size in enumerate(sizes)]


def test_an_exception() -> None:
    """Is the one that was raised, its cause the traceback of the other process, without a line of ours."""

    def fails(number: int) -> None:
        raise KeyError(number)

    with ForkExecutor() as executor:
        single, chunk = executor.submit(fails, 1), executor.map(fails, [2, 3], chunksize=2)
        for number, call in ((1, single.result), (2, functools.partial(next, chunk))):
            with pytest.raises(KeyError, match=str(number)) as caught:
                call()
            cause = caught.value.__cause__
            assert isinstance(cause, TaskError)
            assert str(cause).endswith(f"fails raised KeyError: {number}")
            assert "in fails" in "".join(traceback.format_exception(caught.value))
            assert os.path.dirname(sys.modules[ForkExecutor.__module__].__file__ or "") not in cause.traceback


@pytest.mark.parametrize(
    ("end", "status", "number"),
    [
        (functools.partial(os._exit, 3), 3, None),
        (functools.partial(os._exit, 0), 0, None),
        (lambda: sys.exit(4), 4, None),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 137, signal.SIGKILL),
        (lambda: os.kill(os.getpid(), signal.SIGUSR1), 138, signal.SIGUSR1),
    ],
)
def test_a_death(end: Any, status: int, number: int | None) -> None:
    """Upstream's: a worker that exits leaves the scheduler alive. It is a ChildDeath of that task alone."""
    with ForkExecutor(2) as executor:
        before, dead, after = executor.submit(int), executor.submit(end), executor.submit(int)

        error = dead.exception(30)
        assert isinstance(error, ChildDeath)
        assert (error.status, error.signal) == (status, number)
        assert (before.result(30), after.result(30), executor.submit(int).result(30)) == (0, 0, 0)


def test_a_child_killed_in_mid_result() -> None:
    """Is a ChildDeath, and nobody waits for the rest."""
    from daemonize.manager import body

    def dies() -> bytes:
        def tell(birth: Any, kind: bytes, told: bytes) -> None:
            birth.bell.ask()
            birth.sock.sendall(kind + (len(told)).to_bytes(4, "big") + told[: len(told) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        body._tell = tell
        return bytes(3_000_000)

    with ForkExecutor(1) as executor:
        error = executor.submit(dies).exception(30)

        assert isinstance(error, ChildDeath)
        assert error.signal == signal.SIGKILL
        assert executor.submit(int).result(30) == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_result_that_cannot_be_read(error: type[BaseException]) -> None:
    """Is that future's error alone."""
    with ForkExecutor() as executor:
        with pytest.raises(TaskError, match=f"{error.__name__}: poison"):
            executor.submit(Poison, error).result(30)
        assert executor.submit(int).result(30) == 0


# --- options ---------------------------------------------------------------------------------------------------------


def test_a_timeout() -> None:
    """Of the executor's tasks, or of some; of those alone."""
    with ForkExecutor(timeout="50ms") as executor:
        late, patient = (
            executor.submit(hang),
            executor.options(timeout=None, name="n").submit(time.sleep, 0.1),
        )
        with pytest.raises(
            TaskTimedOut, match=r"^hang \(pid \d+\) took longer than 0.05 s: it died of SIGTERM$"
        ):
            late.result(30)
        assert patient.result(30) is None
        named = executor.options(name="slow").options(timeout=0.01).submit(hang)
        with pytest.raises(TaskTimedOut, match=r"^slow "):
            named.result(30)


@pytest.mark.parametrize("memory", [200_000_000, "200M"])
def test_a_memory_limit(memory: int | str) -> None:
    """Of that task alone. Negative control: without it, there is enough."""
    with ForkExecutor() as executor:
        limited = executor.options(memory=memory).submit(bytearray, 600_000_000)
        free = executor.submit(lambda: len(bytearray(600_000_000)))

        assert isinstance(limited.exception(30), MemoryError)
        assert free.result(30) == 600_000_000


def test_a_view_keeps_its_executor() -> None:
    """And may map, and shut it down."""
    view = ForkExecutor(1).options(timeout=100)
    assert list(view.map(abs, [-1, -2, -3], chunksize=2)) == [1, 2, 3]
    view.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        view.submit(int)


def test_a_proxy() -> None:
    """Its methods run elsewhere, in a copy; what is no method is refused."""
    numbers = [3, 1, 2]
    with ForkExecutor() as executor:
        proxy = executor.proxy(numbers)

        assert proxy.index(2).result(30) == 2
        assert proxy.sort(reverse=True).result(30) is None
        assert numbers == [3, 1, 2]
        assert repr(proxy) == "<proxy of [3, 1, 2]>"
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = proxy.nothing
        with pytest.raises(UsageError, match="real is none"):
            _ = executor.proxy(1).real
        with pytest.raises(UsageError, match="x would be set nowhere"):
            proxy.x = 1
        with pytest.raises(ChildDeath, match=r"^Tool\.fall "):
            executor.proxy(Tool()).fall().result(30)


class Tool:
    """Has a method."""

    def fall(self) -> None:
        """Die."""
        os._exit(1)


# --- map -------------------------------------------------------------------------------------------------------------


def test_map_in_chunks_forks_less() -> None:
    """So many calls in each process, in order, of the shortest of the rows."""
    with ForkExecutor() as executor:
        pids = list(executor.map(lambda number: (number, os.getpid()), range(10), chunksize=4))
        short = list(executor.map(lambda one, two: one + two, [1, 2, 3], [10, 20], chunksize=5))

    assert [number for number, _ in pids] == list(range(10))
    assert [len({pid for _, pid in pids[start : start + 4]}) for start in (0, 4, 8)] == [1, 1, 1]
    assert len({pid for _, pid in pids}) == 3
    assert short == [11, 22]


def test_map_is_left_early() -> None:
    """Who takes no more of it ends what runs for it. In time, it is a TimeoutError."""
    with ForkExecutor(2) as executor:
        rows = executor.map(lambda _: hang(), range(3), timeout=0.05)
        with pytest.raises(TimeoutError):
            next(rows)


def test_map_keeps_no_result() -> None:
    """That it has handed out."""
    with ForkExecutor() as executor:
        for chunksize in (1, 2):
            for result in executor.map(lambda _: Kept(), range(4), chunksize=chunksize):
                seen = weakref.ref(result)
                del result
                assert seen() is None


class Kept:
    """Something that can be referred to weakly."""


def test_what_has_been_started_is_not_kept() -> None:
    """Neither function nor arguments, when nobody has the future."""
    collected = threading.Event()
    kept = Kept()
    weakref.finalize(kept, collected.set)
    with ForkExecutor() as executor:
        executor.submit(id, kept)
        del kept
        assert collected.wait(30)


# --- beside others ---------------------------------------------------------------------------------------------------


def test_other_children_are_left_alone() -> None:
    """One that ends meanwhile is its parent's to reap, with its status; subprocess goes on."""
    other = os.fork()
    if other == 0:
        os._exit(7)
    procs.wait_ended(other)
    with subprocess.Popen(["sh", "-c", "exit 6"]) as process, ForkExecutor() as executor:
        assert list(executor.map(abs, range(5))) == list(range(5))

    assert process.wait() == 6
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 7


def test_two_executors(gate: Any) -> None:
    """Nobody waits for the other's tasks."""
    with ForkExecutor(1) as one, ForkExecutor(1) as two:
        waits = one.submit(gate.wait)
        gate.arrived()
        assert two.submit(int).result(30) == 0
        two.shutdown()
        assert not waits.done()
        gate.let_go()


def test_an_executor_in_a_task() -> None:
    """A new one works."""

    def outer() -> int:
        with ForkExecutor(2) as executor:
            return sum(executor.map(abs, [-1, -2, -3]))

    with ForkExecutor(1) as executor:
        assert executor.submit(outer).result(30) == 6
