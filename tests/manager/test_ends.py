"""Tasks end: by themselves, in time, by a signal, by force, with their owner; and other people's children are theirs."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import (
    ChildDeath,
    Completion,
    InvalidState,
    MessageChannel,
    ProcessManager,
    StillRunning,
    TaskTimedOut,
)
from daemonize.offspring import mortal
from daemonize.offspring.process import Child
from daemonize.posix import stop
from daemonize.posix.loop import Selectable
from tests.support import forked, procs
from tests.support.child_servers import owned
from tests.support.tasks import completed, hang, step_until, stubborn

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_a_timeout() -> None:
    """Ends that task alone."""
    began = time.monotonic()
    completion = completed(hang, timeout="50ms", name="slow")

    assert time.monotonic() - began < 8
    assert (completion.timed_out, completion.signal) == (True, signal.SIGTERM)
    with pytest.raises(TaskTimedOut, match=r"^slow \(pid \d+\) took longer than 0.05 s: it died of SIGTERM$"):
        completion.value()
    assert isinstance(completion.exception, (ChildDeath, TimeoutError))


@contextlib.contextmanager
def no_descriptors(spare: int = 0) -> Iterator[None]:
    """For this process: whatever opens something is told that too many files are open. spare: so many are to be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        taken: list[int] = []
        with contextlib.suppress(OSError):
            while True:  # what is free below the limit
                taken.append(os.dup(0))
        with pytest.raises(OSError, match="Too many open files"):
            os.listdir("/proc")
        for _ in range(spare):
            os.close(taken.pop(0))
        try:
            yield
        finally:
            for fd in taken:
                os.close(fd)


def test_a_timeout_without_descriptors() -> None:
    """Who is below the tasks cannot be seen then; they are ended in time all the same, and the loop does not spin."""
    ended: list[Completion] = []
    with ProcessManager() as manager:
        for _ in range(2):
            manager.create_process(hang, ended.append, timeout=0.05)
        with no_descriptors():
            step_until(manager, lambda: len(ended) == 2)

    assert [(completion.timed_out, completion.signal) for completion in ended] == [(True, signal.SIGTERM)] * 2


@pytest.mark.parametrize("spare", range(4))
def test_a_stop_without_descriptors(spare: int) -> None:
    """SIGKILL follows as soon as ever, and the loop does not spin until then."""
    ended: list[Completion] = []
    ready: list[object] = []
    with ProcessManager() as manager:
        for _ in range(2):
            manager.create_process(stubborn, ended.append, on_message=ready.append)
        step_until(manager, lambda: len(ready) == 2)
        with no_descriptors(spare):
            used = time.thread_time()
            manager.kill_processes(grace=1.0)
            step_until(manager, lambda: len(ended) == 2)
            used = time.thread_time() - used

    assert [completion.signal for completion in ended] == [signal.SIGKILL] * 2
    assert used < 0.5


def test_a_stop_without_descriptors_of_one_that_may_not_be_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has become another user's: the others are ended all the same."""
    ended: list[Completion] = []
    with ProcessManager() as manager:
        first, _ = (manager.create_process(hang, ended.append) for _ in range(2))
        send = Child.send

        def forbid(child: Child, number: int) -> bool:
            if child is first.child:
                raise PermissionError
            return send(child, number)

        with no_descriptors(), monkeypatch.context() as patch:
            patch.setattr(Child, "send", forbid)
            manager.kill_processes(grace=100)
            step_until(manager, lambda: ended)
            assert manager.process_count == 1
        manager.kill_processes()

    assert [completion.signal for completion in ended] == [signal.SIGTERM] * 2


class _Installs:
    """Unpickled, it installs a handler that raises, and its signal comes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _install, ()


def _install() -> str:
    def handler(_number: int, _frame: object) -> None:
        raise InterruptedError

    signal.signal(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)
    return "arrived"


def test_a_result_that_installs_a_handler() -> None:
    """As one whose module is imported for it may: what that raises comes out of the step, and nothing is lost."""
    ended: list[Completion] = []
    with ProcessManager() as manager:
        manager.create_process(_Installs, ended.append)
        try:
            with pytest.raises(InterruptedError):
                manager.wait_for_all_children()
        finally:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        manager.wait_for_all_children()

    assert [completion.value() for completion in ended] == ["arrived"]


def test_a_handler_raises_when_a_task_is_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever sends it a signal: how it ended is not lost."""
    ended: list[Completion] = []
    wait = os.waitpid

    def handler(_number: int, _frame: object) -> None:
        raise InterruptedError

    def wait_and_be_interrupted(pid: int, options: int) -> Any:
        found = wait(pid, options)
        os.kill(os.getpid(), signal.SIGUSR1)
        return found

    before = signal.signal(signal.SIGUSR1, handler)
    with ProcessManager() as manager:
        task = manager.create_process(lambda: os._exit(7), ended.append)
        assert procs.wait_ended(task.pid)
        with monkeypatch.context() as patch:
            patch.setattr(os, "waitpid", wait_and_be_interrupted)
            with pytest.raises(InterruptedError):
                task.send_signal(signal.SIGTERM)
        signal.signal(signal.SIGUSR1, before)

    assert [completion.status for completion in ended] == [7]


def test_descriptors_are_back_before_a_task_has_ended() -> None:
    """Then all that is below it is found and ended, too."""
    ended: list[Completion] = []
    with ProcessManager() as manager:
        shell = manager.create_process(["sh", "-c", "trap '' TERM; sleep 100 & wait; wait"], ended.append)
        procs.eventually(lambda: _has_one_child(shell.pid))
        below = procs.children(shell.pid)[0].pid
        with no_descriptors():
            shell.stop(grace=0.5)
            manager.step(0.15)
            assert not ended
        manager.wait_for_all_children()

    assert ended[0].signal == signal.SIGKILL
    assert procs.wait_ended(below, 0)


def test_sigkill_is_due_while_there_are_no_descriptors() -> None:
    """It is sent: whom it is for is known."""
    ended: list[Completion] = []
    with ProcessManager() as manager:
        ready: list[Any] = []
        task = manager.create_process(stubborn, ended.append, on_message=ready.append)
        step_until(manager, lambda: ready)
        task.stop(grace=0.05)
        with no_descriptors():
            step_until(manager, lambda: ended)

    assert ended[0].signal == signal.SIGKILL


def test_sigkill_for_all_without_descriptors() -> None:
    """Also for those that are being ended already, with patience."""
    ended: list[Completion] = []
    with ProcessManager() as manager:
        ready: list[Any] = []
        tasks = [manager.create_process(stubborn, ended.append, on_message=ready.append) for _ in range(2)]
        step_until(manager, lambda: len(ready) == 2)
        tasks[0].stop(grace=1000)
        with no_descriptors():
            manager.kill_processes(signal.SIGKILL)
            step_until(manager, lambda: len(ended) == 2)

    assert [completion.signal for completion in ended] == [signal.SIGKILL] * 2


def test_a_handler_raises_when_a_plan_lets_go_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is half done: the manager does not wake up for it again and again, and has its descriptors back."""

    def handler(_number: int, _frame: object) -> None:
        raise InterruptedError

    before, descriptors = signal.signal(signal.SIGUSR1, handler), procs.descriptors(os.getpid())
    drop, forget = stop.Stop._drop, Selectable.forget

    def forget_and_be_interrupted(loop: Selectable, fd: int) -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGUSR1)
        forget(loop, fd)

    def drop_and_be_interrupted(plan: stop.Stop, key: tuple[int, int]) -> None:
        monkeypatch.setattr(Selectable, "forget", forget_and_be_interrupted)
        drop(plan, key)

    with ProcessManager() as manager:
        ready: list[Any] = []
        task = manager.create_process(stubborn, on_message=ready.append)
        step_until(manager, lambda: ready)
        task.stop(grace=0.0)
        monkeypatch.setattr(stop.Stop, "_drop", drop_and_be_interrupted)
        with pytest.raises(InterruptedError):
            manager.wait_for_all_children()
        manager.wait_for_all_children()
        assert manager._check().patience(None) is None
        assert manager.step(0.01) == 0
    signal.signal(signal.SIGUSR1, before)

    assert procs.descriptors(os.getpid()) == descriptors


def _has_one_child(pid: int) -> None:
    assert len(procs.children(pid)) == 1


def test_a_timeout_that_is_not_reached() -> None:
    """Is of no account."""
    completion = completed(lambda: 1, timeout=1000)

    assert (completion.value(), completion.timed_out) == (1, False)


def test_a_task_that_ends_in_time_though_it_is_told() -> None:
    """Its result is its result, and that its time was over is told."""

    def task(channel: MessageChannel) -> str:
        def leave(_number: int, _frame: object) -> None:
            raise InterruptedError

        signal.signal(signal.SIGTERM, leave)
        try:
            hang()
        except InterruptedError:
            return "saved"

    completion = completed(task, timeout=0.2)

    assert (completion.result, completion.timed_out) == ("saved", True)


def test_sigterm_that_is_ignored_is_followed_by_sigkill() -> None:
    """Of `stop`, of `kill_processes`, and of a timeout."""
    found: list[Completion] = []
    with ProcessManager() as manager:
        ready: list[Any] = []
        tasks = [
            manager.create_process(stubborn, found.append, on_message=ready.append, grace=0.1)
            for _ in range(3)
        ]
        step_until(manager, lambda: len(ready) == 3)
        tasks[0].stop()
        step_until(manager, lambda: len(found) == 1)
        assert found[0].pid == tasks[0].pid
        manager.kill_processes(grace=0.1)
        manager.wait_for_all_children()

    assert [completion.signal for completion in found] == [signal.SIGKILL] * 3
    assert all(process.completion for process in tasks)


def test_kill_processes_sends_what_it_is_told() -> None:
    """SIGTERM if nothing; tasks that are created later are left alone."""
    found: list[Completion] = []
    with ProcessManager() as manager:
        for _ in range(3):
            manager.create_process(hang, found.append)
        manager.kill_processes(signal.SIGQUIT)
        manager.create_process(lambda: 1, found.append)

    assert [completion.signal for completion in found if completion.exception] == [signal.SIGQUIT] * 3
    assert [completion.result for completion in found if not completion.exception] == [1]


def test_what_is_below_a_task_ends_with_it() -> None:
    """If it is stopped."""
    heard: list[Any] = []

    def parent(channel: MessageChannel) -> None:
        channel.write(str(subprocess.Popen(["sleep", "1000"]).pid))
        hang()

    with ProcessManager() as manager:
        task = manager.create_process(parent, on_message=heard.append)
        step_until(manager, lambda: heard)
        task.stop()
    ((child,),) = heard

    assert procs.wait_ended(int(child))


def test_who_survives_sigkill_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, nobody sends it."""
    with ProcessManager() as manager:
        ready: list[Any] = []
        task = manager.create_process(stubborn, on_message=ready.append)
        step_until(manager, lambda: ready)
        with monkeypatch.context() as patched:
            patched.setattr(stop, "default_plan", lambda grace, first=15: ((first, grace),))
            task.stop(grace=0.05)
        with pytest.raises(StillRunning, match=f"pid {task.pid}"):
            step_until(manager, lambda: False)
        assert manager.process_count == 1
        assert task.send_signal(signal.SIGKILL)


def test_a_signal_for_a_task_that_has_ended() -> None:
    """Goes to nobody."""
    with ProcessManager() as manager:
        task = manager.create_process(lambda: None)
        manager.wait_for_all_children()
        assert not task.send_signal(signal.SIGKILL)
        task.stop()
        assert task.completion
        assert repr(task).endswith(f"(pid {task.pid}), ended>")


def test_an_exception_in_the_block_ends_the_tasks() -> None:
    """And is what is raised."""
    with pytest.raises(LookupError, match=r"^mine$"), ProcessManager() as manager:  # noqa: PT012
        task = manager.create_process(hang)
        raise LookupError("mine")

    assert task.completion
    assert task.completion.signal == signal.SIGTERM


def test_a_ctrl_c_at_the_end_of_the_block() -> None:
    """It ends the wait, and the tasks with it, as one within the block does: each is told, and nothing is left."""
    ended: list[Completion] = []
    manager = ProcessManager()

    def task(channel: MessageChannel) -> None:
        channel.write("ready")
        hang()

    def interrupt(_message: object) -> None:
        raise KeyboardInterrupt

    tasks = []
    with pytest.raises(KeyboardInterrupt), manager:
        tasks += [
            manager.create_process(task, ended.append, on_message=interrupt),
            manager.create_process(hang, ended.append),
        ]

    assert len(ended) == 2
    assert not any(procs.alive(process.pid) for process in tasks)
    with pytest.raises(InvalidState, match="is not set up"):
        manager.step()


def test_a_ctrl_c_when_only_what_a_task_has_left_is_being_ended() -> None:
    """That is ended, too: the task itself has gone."""

    def task(channel: MessageChannel) -> None:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            channel.write(str(os.getpid()))
        hang()

    heard: list[Any] = []

    def interrupt(_completion: Completion) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ProcessManager() as manager:  # noqa: PT012
        leaves = manager.create_process(task, interrupt, on_message=heard.append)
        step_until(manager, lambda: heard)
        leaves.stop(grace="100ms")
    ((left,),) = heard

    assert procs.wait_ended(int(left), 0)


def test_teardown_waits() -> None:
    """For what is there, and for what callbacks start; it can be set up again."""
    found: list[object] = []
    manager = ProcessManager().setup()
    with pytest.raises(InvalidState, match="has been set up"):
        manager.setup()
    manager.create_process(
        lambda: 1,
        lambda _: manager.create_process(lambda: 2, lambda completion: found.append(completion.value())),
    )
    manager.teardown()
    manager.teardown()
    with manager:
        manager.create_process(lambda: 3, lambda completion: found.append(completion.value()))

    assert found == [2, 3]
    with pytest.raises(InvalidState, match="is not set up"):
        manager.step()


# --- other people's children -----------------------------------------------------------------------------------------


def test_other_children_are_left_alone() -> None:
    """One that ends meanwhile is its parent's to reap, with its status; subprocess goes on."""
    other = os.fork()
    if other == 0:
        os._exit(7)
    procs.wait_ended(other)
    with subprocess.Popen(["true"]) as process, ProcessManager() as manager:
        for _ in range(5):
            manager.create_process(lambda: None)

    assert process.wait() == 0
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 7


def test_two_managers() -> None:
    """Each has its own tasks, and nobody waits for the other's."""
    found: list[str] = []
    with ProcessManager() as one:
        waits = one.create_process(hang, lambda _: found.append("one"))
        with ProcessManager() as two:
            two.create_process(lambda: 1, lambda _: found.append("two"))
        assert (one.process_count, two.process_count) == (1, 0)
        waits.stop()

    assert found == ["two", "one"]


def test_somebody_else_reaps_a_task() -> None:
    """os.wait() of the owner's own: its status is not known then, and nothing else goes wrong."""
    found: list[Completion] = []
    with ProcessManager() as manager:
        task = manager.create_process(lambda: "told", found.append, usage=True)
        manager.create_process(lambda: os._exit(3), found.append)
        assert task.pid in {os.wait()[0] for _ in range(2)}
    (told,) = (completion for completion in found if completion.pid == task.pid)
    (dead,) = (completion for completion in found if completion.pid != task.pid)

    assert (told.status, told.usage, told.value()) == (None, None, "told")
    assert isinstance(dead.exception, ChildDeath)
    assert "gave no result: it ended" in str(dead.exception)


def test_the_kernel_reaps_the_tasks() -> None:
    """SIGCHLD is ignored."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        completion = completed(lambda: 1)
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert (completion.status, completion.value()) == (None, 1)


def test_kill_at_random_moments() -> None:
    """Each completes once, with a result or a death."""
    import random

    found: list[Completion] = []
    generator = random.Random(5)
    with ProcessManager() as manager:
        for _ in range(60):
            task = manager.create_process(lambda: b"x" * 2_000_000, found.append)
            end = time.monotonic() + generator.random() * 0.01
            while time.monotonic() < end:
                manager.step(max(end - time.monotonic(), 0))
            task.send_signal(signal.SIGKILL)

    assert len(found) == 60
    for completion in found:
        assert completion.result or completion.signal == signal.SIGKILL
        assert (completion.exception is None) is (completion.result is not None)


# --- the owner's end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [hang, ["sleep", "1000"]], ids=["function", "command"])
@pytest.mark.parametrize("thread", [False, True])
def test_tasks_die_with_their_owner(task: Any, *, thread: bool) -> None:
    """Of whatever that ends; whichever thread has forked them."""

    def start(channel: MessageChannel) -> None:
        manager = ProcessManager().setup()

        def create() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                process = manager.create_process(task)
            channel.write(str(process.pid))
            hang()

        if thread:
            threading.Thread(target=create, daemon=True).start()
            hang()
        create()

    with owned(start) as (owner, channel):
        (pid,) = channel.read() or ("",)
        os.kill(owner, signal.SIGKILL)
        assert procs.wait_ended(int(pid))


def test_control_tasks_that_do_not_die(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where they are not told of it, they live on."""

    def start(channel: MessageChannel) -> None:
        mortal._killed[:] = [lambda: False]
        channel.write(str(ProcessManager().setup().create_process(hang).pid))
        hang()

    with owned(start) as (owner, channel):
        (pid,) = channel.read() or ("",)
        os.kill(owner, signal.SIGKILL)
        assert procs.wait_ended(owner)
        assert not procs.wait_ended(int(pid), timeout=0.3)
        procs.send(int(pid), signal.SIGKILL)
        assert procs.wait_ended(int(pid))


@pytest.mark.filterwarnings("ignore:.*while other threads live:RuntimeWarning")
@pytest.mark.parametrize("task", [hang, ["sleep", "1000"]], ids=["function", "command"])
def test_a_thread_that_forks_and_ends_kills_nobody(task: Any) -> None:
    """The kernel says that the parent has ended: it has not."""

    def forks() -> tuple[bool, int | None]:
        with ProcessManager() as manager:
            started: list[Any] = []
            thread = threading.Thread(target=lambda: started.append(manager.create_process(task)))
            thread.start()
            thread.join()
            (process,) = started
            ended = procs.wait_ended(process.pid, timeout=0.3)
            process.stop()
        return ended, process.completion.signal

    # In a process of its own: the thread that forks commands for others stays.
    assert forked.call(forks) == (False, signal.SIGTERM)


def test_an_owner_that_just_exits() -> None:
    """Its tasks end."""
    script = (
        "import signal\nfrom daemonize import ProcessManager\n"
        "print(ProcessManager().setup().create_process(signal.pause).pid, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=30
    )

    assert procs.wait_ended(int(done.stdout))
