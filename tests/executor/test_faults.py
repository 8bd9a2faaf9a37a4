"""What fails around the tasks: forks, threads, the executor itself. No future is lost."""

from __future__ import annotations

import errno
import os
import queue
import resource
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import ExecutorFailed, ForkExecutor, SetupError, Simple, StillRunning
from daemonize.executor.dispatcher import Dispatcher
from daemonize.executor.future import Future
from daemonize.manager import births
from daemonize.manager.manager import ProcessManager
from daemonize.offspring import forking
from daemonize.posix import stop
from daemonize.posix.identity import has_sleeper
from tests.support import procs
from tests.support.tasks import hang
from tests.support.threads import another_thread

if TYPE_CHECKING:
    from tests.support.executors import Gate


def failing_forks(monkeypatch: pytest.MonkeyPatch, answers: list[int]) -> None:
    """Each fork fails with the next of these (errno); 0: it works; afterwards all do."""
    real = births.Function.bear

    def fork(*args: Any, **options: Any) -> Any:
        number = answers.pop(0) if answers else 0
        if number:
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    monkeypatch.setattr(births.Function, "bear", fork)


def those_put_back(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[Future]:
    """Futures that could not start, as soon as each is in its place again."""
    real, found = Future.put_back, queue.SimpleQueue[Future]()

    def put_back(future: Future) -> bool:
        done = real(future)
        found.put(future)
        return done

    monkeypatch.setattr(Future, "put_back", put_back)
    return found


def test_a_fork_fails_while_others_run(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again when one has ended, and in order; nobody hears of it."""
    failing_forks(monkeypatch, [0, errno.EAGAIN, errno.EMFILE])
    put_back = those_put_back(monkeypatch)
    with ForkExecutor(3) as executor:
        found = [executor.submit(gate.wait) for _ in range(3)]
        gate.arrived()
        assert put_back.get(timeout=30) is found[1]
        assert [future.running() for future in found[1:]] == [False, False]
        gate.let_go()
        found[0].result(30)
        # It fails once more, when nobody runs: then it is an error.
        with pytest.raises(SetupError, match=r"^cannot start Gate\.wait: Too many open files$"):
            found[1].result(30)
        gate.arrived()
        gate.let_go()

    assert found[2].result(0)


def test_a_future_that_could_not_start_is_cancelled(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never does."""
    failing_forks(monkeypatch, [0, errno.EAGAIN])
    put_back = those_put_back(monkeypatch)
    with ForkExecutor(2) as executor:
        executor.submit(gate.wait)
        gate.arrived()
        late, last = executor.submit(gate.wait), executor.submit(int)
        assert put_back.get(timeout=30) is late
        assert late.cancel()
        gate.let_go()
        assert last.result(30) == 0
    assert gate.empty


def test_descriptors_run_out(gate: Gate) -> None:
    """Really: as many as can be run at a time, and each has its result."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ForkExecutor(strategy=Simple()) as executor:
        executor.submit(int).result(30)
        highest = max(procs.descriptors(os.getpid()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 12, hard))
        try:
            found = [executor.submit(gate.wait) for _ in range(12)]
            gate.arrived(2)
            gate.let_go(12)
            gate.arrived(10)
            pids = [future.result(30) for future in found]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert len(set(pids)) == 12


def test_there_can_be_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is queued, and nothing left open; later there may be one."""
    executor = ForkExecutor()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(
            SetupError, match="cannot start the thread of an executor: no thread can be started"
        ):
            executor.submit(int)
    assert executor.submit(int).result(30) == 0
    executor.shutdown()


@pytest.mark.parametrize("where", ["strategy", "step"])
def test_the_executor_fails(where: str, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every future gets the error; what runs is ended; nothing is taken any more."""
    broken = threading.Event()
    real = ProcessManager.step

    class Brittle:
        def may_start(self, running: int) -> bool:
            if broken.is_set() and where == "strategy":
                raise LookupError("broken")
            return running < 1

    def step(manager: ProcessManager, timeout: Any = None) -> int:
        if broken.is_set() and where == "step":
            raise LookupError("broken")
        return real(manager, timeout)

    monkeypatch.setattr(ProcessManager, "step", step)
    executor = ForkExecutor(strategy=Brittle())
    found = [executor.submit(gate.wait) for _ in range(3)]
    (pid,) = gate.arrived()
    broken.set()
    found[2].cancel()
    for future in found[:2]:
        with pytest.raises(
            ExecutorFailed,
            match=r"^the executor has failed \(LookupError: broken\), and its tasks were ended: make another",
        ):
            future.result(30)
        assert isinstance(future.exception().__cause__, LookupError)  # type: ignore[union-attr]
    with pytest.raises(ExecutorFailed):
        executor.submit(int)
    executor.shutdown()

    assert found[2].cancelled()
    assert not procs.alive(pid)


def test_who_survives_sigkill(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, nobody sends it: the future that was to be killed has the error, and shutdown waits for the process."""
    executor = ForkExecutor(1)
    future = executor.submit(gate.wait_stubbornly)
    (pid,) = gate.arrived()
    monkeypatch.setattr(stop, "default_plan", lambda *_: ((15, 0.05),))
    executor.kill_workers()

    with pytest.raises(StillRunning, match=f"pid {pid}"):
        future.result(30)
    assert procs.alive(pid)
    gate.let_go()
    executor.shutdown()
    assert not procs.alive(pid)


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unwarned")
def test_nobody_is_warned_of_ours() -> None:
    """Neither of the main thread nor of executors', beside which tasks are forked all the time. Warnings are errors here."""
    with ForkExecutor(2) as one, ForkExecutor(2) as two, ProcessManager() as manager:
        for _ in range(5):
            one.submit(int)
            two.submit(int)
            manager.create_process(lambda: None)
            manager.wait_for_all_children()


@pytest.mark.usefixtures("unwarned")
def test_a_thread_of_ours_that_has_not_begun_warns_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ours from the moment it lives."""
    begins, run = threading.Event(), Dispatcher._run
    monkeypatch.setattr(Dispatcher, "_run", lambda self: begins.wait(30) and run(self))
    with ForkExecutor() as executor:
        try:
            executor.submit(int)
            executor.submit(int)
        finally:
            begins.set()


@pytest.mark.usefixtures("unwarned")
def test_a_thread_that_has_been_joined_warns_nobody() -> None:
    """It may still be on its way out, while one of ours sleeps, which is not taken for it."""
    assert ForkExecutor().submit(_sleepers).result(30) == (True, False)
    with ForkExecutor() as executor:
        executor.submit(int).result(30)
        for _ in range(50):
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
            forking.warn("task", "task")
        executor.submit(int).result(30)


def _sleepers() -> tuple[bool, bool]:
    """In a task: whether a thread waits, and one besides that."""
    over = threading.Event()
    threading.Thread(target=over.wait, daemon=True).start()
    while not has_sleeper(os.getpid()):
        os.sched_yield()
    return has_sleeper(os.getpid()), has_sleeper(os.getpid(), 1)


@pytest.mark.usefixtures("unwarned")
def test_other_threads_are_warned_of_once() -> None:
    """At the caller's line."""
    said = pytest.warns(RuntimeWarning, match="is started by fork")
    with another_thread(), said as caught, ForkExecutor() as executor:
        for _ in range(2):
            executor.options(name="threaded").submit(int)

    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message).startswith("threaded is started by fork(2) while other threads live")


def test_a_task_prints_though_the_main_thread_has_the_lock() -> None:
    """Of stdout, which is a pipe that nobody reads: the task's own words go to a file."""
    script = (
        "import os, sys, threading\nfrom daemonize import ForkExecutor\n"
        "def task():\n    os.dup2(3, 1)\n    print('printed')\n    return 'over'\n"
        "executor = ForkExecutor()\nexecutor.submit(int).result()\n"
        "def tell():\n    os.write(4, str(executor.submit(task).result()).encode())\n    os.write(4, b'.')\n"
        "future = executor.submit(int)\n"
        "blocked, fd = threading.Event(), os.dup(1)\n"
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: tell())\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\n"
        "os.write(4, b'full ')\nsys.stdout.write('x' * 1_000_000)\nsys.stdout.flush()\n"
    )
    read, write = os.pipe()
    said, say = os.pipe()
    try:
        # Descriptors 3 and 4 of the other.
        command = f'exec {sys.executable} -c "$0" 3>&{write} 4>&{say}'
        with subprocess.Popen(
            ["bash", "-c", command, script], stdout=subprocess.PIPE, pass_fds=(write, say)
        ) as process:
            found = b""
            while not found.endswith(b"."):
                assert procs.readable(said), found
                found += os.read(said, 100)
            out, _ = process.communicate()
        assert found == b"full over."
        assert os.read(read, 100) == b"printed\n"
        assert len(out) == 1_000_000
    finally:
        for fd in (read, write, said, say):
            os.close(fd)


@pytest.mark.parametrize("streams", [(1,), (2,), (0, 1), (0, 1, 2)])
def test_a_program_without_standard_streams(streams: tuple[int, ...]) -> None:
    """What a task prints is lost, as it is in the program itself; it does not go where its result goes."""
    script = (
        "import os, sys\nfrom daemonize import ForkExecutor, progress\n"
        "def task():\n    print('lost')\n    print('lost', file=sys.stderr)\n    progress(1)\n    return 'over'\n"
        "with ForkExecutor(on_progress=print) as executor:\n"
        "    os.write(9, executor.submit(task).result().encode())\n"
    )
    read, write = os.pipe()

    def close() -> None:
        os.dup2(write, 9)
        for fd in streams:
            os.close(fd)

    try:
        subprocess.run(
            [sys.executable, "-c", script], preexec_fn=close, close_fds=False, timeout=30, check=True
        )
        os.close(write)
        said = os.read(read, 100)
    finally:
        os.close(read)

    assert said == b"over"


def test_a_result_that_there_is_no_memory_for() -> None:
    """It is that future's fault alone."""
    script = (
        "import resource\nfrom daemonize import ChildDeath, ForkExecutor\n"
        "def large():\n    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n    return bytes(300_000_000)\n"
        "with ForkExecutor(2) as executor:\n"
        "    executor.submit(int).result()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (400_000_000, -1))\n"
        "    futures = [executor.submit(int), executor.submit(large), executor.submit(int)]\n"
        "    try:\n        futures[1].result()\n"
        "    except ChildDeath as error:\n        print(type(error.__cause__).__name__)\n"
        "    print(futures[0].result(), futures[2].result(), executor.submit(int).result())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=True)

    assert done.stdout.decode().split() == ["MemoryError", "0", "0", "0"]


def test_a_module_that_another_thread_imports() -> None:
    """Is found by a task as far as it has come. Negative control: who waits for its lock does so for ever."""
    script = (
        "import os, sys, threading\nfrom daemonize import ForkExecutor\n"
        "executor = ForkExecutor(timeout=20)\n"
        "sys.path.insert(0, os.getcwd())\nhere, say = os.pipe()\nhold, free = os.pipe()\n"
        "def task():\n    import slow\n    return slow.first, hasattr(slow, 'last')\n"
        "def ask():\n    os.read(here, 1)\n    found.append(executor.submit(task).exception() or 'found')\n"
        "    os.write(free, b'.')\n"
        "found = []\nthread = threading.Thread(target=ask)\nthread.start()\nimport builtins\n"
        "builtins.pipes = say, hold\nimport slow\nthread.join()\nprint(found, slow.last)\n"
    )
    module = "import os\nfirst = 1\nos.write(pipes[0], b'.')\nos.read(pipes[1], 1)\nlast = 2\n"
    for control in ("", "from daemonize.offspring import settling\nsettling.free_imports = lambda: None\n"):
        with_timeout = script.replace("timeout=20", "timeout=0.5" if control else "timeout=20")
        found = _in_directory(module, control + with_timeout)
        assert found == (b"['found'] 2\n" if not control else found)
        assert (b"TaskTimedOut" in found) == bool(control)


def _in_directory(module: str, script: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "slow.py"), "w") as file:
            file.write(module)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            cwd=directory,
            check=True,
            capture_output=True,
            timeout=50,
        )
    return done.stdout


def test_hang_is_what_it_says() -> None:
    """Negative control of the tests that end tasks: left alone, it runs."""
    with ForkExecutor(timeout=0.2) as executor:
        assert isinstance(executor.submit(hang).exception(30), TimeoutError)
