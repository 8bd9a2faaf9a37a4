"""A lock between processes, and between threads: one has it at a time, and it is free again however he ends."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import daemonize
from daemonize import (
    Completion,
    DaemonizeError,
    FileLock,
    InvalidState,
    LockTaken,
    MessageChannel,
    ProcessManager,
    SetupError,
    UsageError,
    file_lock,
)
from tests.support import forked, procs
from tests.support.tasks import hang, step_until

if TYPE_CHECKING:
    from pathlib import Path


#: Locks of children that hold them to their ends.
_kept: list[FileLock] = []


def _is_free(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return True
    except LockTaken:
        return False


def test_one_at_a_time(tmp_path: Path) -> None:
    """It is there, it is had, it is free again, and the file stays as it is."""
    path = tmp_path / "lock"
    lock = FileLock(path)
    assert (lock.is_held, lock.path, lock.timeout) == (False, str(path), None)
    with lock as entered:
        assert entered is lock
        with pytest.raises(LockTaken, match=r"is held by this process, by another FileLock$"):
            FileLock(path).acquire(0)
        assert lock.is_held
        assert not _is_free(path)
        assert repr(lock) == f"<FileLock {path}, held>"
    assert not lock.is_held
    assert _is_free(path)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"", 0o600)


def test_a_hundred_processes(tmp_path: Path) -> None:
    """Never hold it together; some are killed while they have it."""
    path, inside = tmp_path / "lock", mmap.mmap(-1, 1)

    def task(number: int) -> int:
        with FileLock(path):
            assert inside[0] == 0
            inside[0] = 1
            os.sched_yield()
            inside[0] = 0
            if number % 7 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return number

    ends: list[Completion] = []
    with ProcessManager() as manager:
        for number in range(100):
            manager.create_process(lambda number=number: task(number), ends.append)
    inside.close()

    assert sorted(end.result for end in ends if end.signal is None) == [n for n in range(100) if n % 7]
    assert [end.exception for end in ends if end.signal is None and end.exception] == []
    assert _is_free(path)


def test_control_a_hundred_processes_without_it(tmp_path: Path) -> None:
    """Negative control: where each has a lock of his own, they are inside together."""
    inside = mmap.mmap(-1, 2)

    def task(number: int) -> bool:
        with FileLock(tmp_path / f"lock{number}"):
            inside[number] = 1
            procs.eventually(lambda: inside[1 - number])
        return True

    ends: list[bool] = []
    with ProcessManager() as manager:
        for number in range(2):
            manager.create_process(lambda number=number: task(number), lambda end: ends.append(end.value()))
    inside.close()

    assert ends == [True, True]


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    """By one object as by two."""
    shared = FileLock(tmp_path / "lock")
    inside, most = 0, 0

    def work(lock: FileLock) -> None:
        nonlocal inside, most
        for _ in range(20):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    locks = [shared, shared, shared, FileLock(tmp_path / "lock")]
    threads = [threading.Thread(target=work, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1
    assert not shared.is_held


def test_it_is_not_had_twice(tmp_path: Path) -> None:
    """By one thread: that is an error, and not a deadlock; nor given back twice."""
    lock = FileLock(tmp_path / "lock")
    for another in (lock, FileLock(tmp_path / "lock"), FileLock(tmp_path / "." / "lock")):
        with (
            lock,
            pytest.raises(InvalidState, match=r"this thread has the lock .* already: release it first"),
        ):
            another.acquire()
    with pytest.raises(InvalidState, match="is not held here: acquire it first"):
        lock.release()


def test_who_has_it_is_named(tmp_path: Path) -> None:
    """By whoever does not wait, or not longer."""
    path = tmp_path / "lock"

    def hold() -> int:
        _kept.append(FileLock(path))
        _kept[-1].acquire()
        return os.getpid()

    with forked.holding(hold) as (pid, _):
        began = time.monotonic()
        with pytest.raises(LockTaken) as caught:
            FileLock(path, timeout="50ms").acquire()
        assert time.monotonic() - began >= 0.05
        error = caught.value
        assert (error.pid, error.path, error.timeout, error.exit_status) == (pid, str(path), 0.05, 124)
        assert str(error) == (
            f"the lock {path} is held by {error.name} (pid {pid}), and was when 0.05 s had been waited for"
        )
        with pytest.raises(LockTaken, match=r"is held by .* \(pid \d+\)$"):
            FileLock(path, timeout=5).acquire(timeout=0)
        with pytest.raises(TimeoutError):
            FileLock(path).acquire(timeout=0.001)

    assert isinstance(error, DaemonizeError)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    assert (type(copy), str(copy)) == (LockTaken, str(error))
    assert (
        str(LockTaken("/l", 0)) == "the lock /l is held by somebody whom the kernel does not tell this user"
    )
    assert _is_free(path)


def test_a_holder_that_is_killed(tmp_path: Path) -> None:
    """Lets go of it, though a child of his lives on; whoever waits gets it."""
    path = tmp_path / "lock"

    def task(channel: MessageChannel) -> None:
        lock = FileLock(path)
        lock.acquire()
        pid = os.fork()
        if pid == 0:
            hang()
        channel.write(str(pid))
        hang()

    heard: list[Any] = []
    with ProcessManager() as manager:
        holder = manager.create_process(task, on_message=heard.append)
        step_until(manager, lambda: heard)
        got: list[float] = []

        def wait() -> None:
            with FileLock(path):
                got.append(1)

        waits = threading.Thread(target=wait)
        waits.start()
        assert not _is_free(path)
        holder.send_signal(signal.SIGKILL)
        waits.join(10)
        ((grandchild,),) = heard
        assert procs.alive(int(grandchild))
        procs.send(int(grandchild), signal.SIGKILL)

    assert got


def test_a_forked_child_does_not_hold_it(tmp_path: Path) -> None:
    """Neither it nor the end of the block there lets go of it; the child may have it when it is free."""
    path = tmp_path / "lock"
    with FileLock(path) as lock:

        def elsewhere() -> list[Any]:
            before = lock.is_held, set(procs.descriptors(os.getpid()).values())
            lock.__exit__()
            with pytest.raises(InvalidState):
                lock.release()
            return [before[0], str(path) in before[1], _is_free(path)]

        assert forked.call(elsewhere) == [False, False, False]
        assert lock.is_held
        assert not _is_free(path)
    assert forked.call(lambda: lock.acquire() or lock.is_held)


def test_control_a_child_that_knows_nothing_of_it(tmp_path: Path) -> None:
    """Negative control: a copy of the descriptor that is not closed holds the lock, when its owner has ended."""
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    file_lock._open.clear()
    with forked.holding(lambda: None):
        held, lock._held = lock._held, None
        assert held
        held[2].close()
        file_lock._holders.clear()
        assert not _is_free(tmp_path / "lock")
    assert _is_free(tmp_path / "lock")


def test_what_is_released_is_free_whoever_has_a_copy(tmp_path: Path) -> None:
    """As a command has that another thread starts, until it is executed."""
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    file_lock._open.clear()
    with forked.holding(lambda: None):
        lock.release()
        assert _is_free(tmp_path / "lock")


def test_a_thread_is_not_taken_for_one_that_has_ended(tmp_path: Path) -> None:
    """Though it has its number."""
    lock = FileLock(tmp_path / "lock")
    numbers: list[int] = []
    waits: list[bool] = []

    def have() -> None:
        numbers.append(threading.get_ident())
        lock.acquire()

    def wait() -> None:
        numbers.append(threading.get_ident())
        FileLock(tmp_path / "lock")._refuse_twice()  # it would raise InvalidState
        waits.append(True)

    for function in (have, wait):
        thread = threading.Thread(target=function)
        thread.start()
        thread.join()
    assert numbers[0] == numbers[1], "the control: the number is another's"
    assert waits
    lock.release()


def test_a_command_does_not_hold_it(tmp_path: Path) -> None:
    """Nothing is inherited by whoever is executed."""
    path = tmp_path / "lock"
    with FileLock(path):
        command = subprocess.Popen(["sleep", "1000"], close_fds=False)
    try:
        assert _is_free(path)
    finally:
        command.kill()
        command.wait()


@pytest.mark.parametrize("timeout", [None, 30])
def test_handlers_of_signals_get_through(tmp_path: Path, timeout: float | None) -> None:
    """What one raises ends the wait; what does not, does not."""
    path = tmp_path / "lock"
    calls = []

    def handler(_number: int, _frame: object) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt

    def hold() -> None:
        _kept.append(FileLock(path))
        _kept[-1].acquire()

    lock = FileLock(path, timeout=timeout)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with forked.holding(hold):
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            with pytest.raises(KeyboardInterrupt):
                lock.acquire()
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert not lock.is_held
    assert len(calls) >= 3


@pytest.mark.parametrize("timeout", [None, 0])
def test_a_handler_raises_at_any_line(tmp_path: Path, timeout: float | None) -> None:
    """The lock is had, and can be released, or it is free; a forked child closes nothing else."""
    path, tracer = tmp_path / "lock", sys.gettrace()
    ours = os.path.dirname(daemonize.__file__)
    raised, left = [0], [0]

    def trace(frame: Any, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(ours):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(signal.SIGALRM)
        return trace

    def handler(*_: Any) -> None:
        raised[0] += 1
        raise LookupError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for line in range(1, 1000):
            lock, raised[0], left[0] = FileLock(path, timeout=timeout), 0, line
            sys.settrace(trace)
            try:
                lock.acquire()
                lock.release()
            except LookupError:
                pass
            finally:
                sys.settrace(tracer)
            if lock.is_held:
                lock.release()
            assert _is_free(path), line
            assert not file_lock._open, line
            if not raised[0]:
                break
    finally:
        signal.signal(signal.SIGALRM, before)

    assert 50 < line < 999


def test_a_wait_without_a_timeout_does_not_look(tmp_path: Path) -> None:
    """It sleeps in flock(2)."""
    path = tmp_path / "lock"
    heard: list[Any] = []

    def task(channel: MessageChannel) -> bool:
        channel.write("waits")
        with FileLock(path) as lock:
            return lock.is_held

    values: list[Any] = []
    with ProcessManager() as manager:
        with FileLock(path):
            waits = manager.create_process(
                task, lambda end: values.append(end.value()), on_message=heard.append
            )
            step_until(manager, lambda: heard)
            procs.eventually(lambda: b"lock" in procs.read(f"/proc/{waits.pid}/wchan"))
        manager.wait_for_all_children()

    assert values == [True]


def test_a_file_that_is_removed_meanwhile(tmp_path: Path) -> None:
    """Whoever gets its lock has none: the path is what counts."""
    path = tmp_path / "lock"
    with FileLock(path):
        path.unlink()
        with FileLock(path, timeout=0) as other:
            assert other.is_held
            assert path.exists()


def test_a_lock_that_nobody_releases(tmp_path: Path) -> None:
    """Is free again when it is collected, with a warning."""
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    with pytest.warns(ResourceWarning, match=r"^<FileLock .*, held> was not released$"):  # noqa: PT031
        del lock
        gc.collect()
    assert _is_free(tmp_path / "lock")


def test_others_that_use_flock(tmp_path: Path) -> None:
    """Are excluded, too: flock(1), for one."""
    path = tmp_path / "lock"
    with FileLock(path), open(path) as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_cannot_be_a_lock(tmp_path: Path) -> None:
    """Is named, and nothing is left open."""
    for path in (5, None, "", "a\0b", "\ud800"):
        with pytest.raises(UsageError, match="path is that of a file, and not"):
            FileLock(path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is not a duration"):
        FileLock(tmp_path / "lock", timeout="soon")
    with pytest.raises(UsageError):
        FileLock(tmp_path / "lock").acquire(timeout="soon")
    for missing in (tmp_path, tmp_path / "none" / "lock"):
        with pytest.raises(SetupError, match="cannot lock "):
            FileLock(missing).acquire()


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is that of the directory that there was when it was made."""
    monkeypatch.chdir(tmp_path)
    lock = FileLock(b"lock")
    monkeypatch.chdir("/")
    with lock:
        assert not _is_free(tmp_path / "lock")


def test_forks_while_threads_open_files(tmp_path: Path) -> None:
    """No child has a copy that it does not know of: whenever it is forked, none of its descriptors is one of a lock."""
    path, over = tmp_path / "lock", threading.Event()

    def work() -> None:
        while not over.is_set():
            with FileLock(path):
                pass

    def look() -> bool:
        return any(target.startswith(str(path)) for target in procs.descriptors(os.getpid()).values())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert not any(forked.call(look) for _ in range(50))
    finally:
        over.set()
        thread.join()


def test_it_is_free_at_the_end_of_the_program(tmp_path: Path) -> None:
    """Also if nobody gives it back."""
    path = tmp_path / "lock"
    program = (
        f"import daemonize; lock = daemonize.FileLock({str(path)!r}); lock.acquire(); print(lock.is_held)"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"True\n"
    )
    assert _is_free(path)
