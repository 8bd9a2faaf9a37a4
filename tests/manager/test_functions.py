"""A function in a process of its own: what it has, what it says, what it returns or raises."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import (
    ChildDeath,
    Completion,
    MessageChannel,
    ProcessManager,
    RemoteError,
    TaskError,
)
from daemonize.manager.holdings import Holdings
from tests.support import forked, procs
from tests.support.tasks import Poison, completed

if TYPE_CHECKING:
    from collections.abc import Callable

#: Beyond what an administrator allows (socket(7)).
_SO_SNDBUFFORCE = 32


def test_a_result() -> None:
    """With the status."""
    completion = completed(lambda: 42)

    assert (completion.value(), completion.status, completion.signal) == (42, 0, None)
    assert repr(completion) == f"<Completion of {completion.name} (pid {completion.pid}): status 0>"


@pytest.mark.parametrize(
    "task", [lambda: bytearray(50_000_000), [sys.executable, "-c", "bytearray(50_000_000)"]]
)
def test_usage(task: Callable[[], object] | list[str]) -> None:
    """Of resources, where it is asked for; a command has it as well."""
    used = completed(task, usage=True).usage

    assert used
    assert used.ru_maxrss > 50_000  # kilobytes
    assert completed(task).usage is None


def test_more_messages_than_most_kernels_keep() -> None:
    """All that a task has said are told when it has ended, and its result."""
    forked.need_root()
    read, write = os.pipe()

    def task(channel: MessageChannel) -> str:
        with socket.socket(fileno=os.dup(channel.fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 64 << 20)
        for number in range(10_000):
            channel.write(str(number))
        os.close(write)
        return "said"

    heard: list[Any] = []
    ended: list[Completion] = []
    with ProcessManager() as manager:
        manager.create_process(task, ended.append, on_message=heard.append)
        os.close(write)
        assert os.read(read, 1) == b""
        os.close(read)

    assert heard == [[str(number)] for number in range(10_000)]
    assert ended[0].value() == "said"


@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_what_a_task_has_forked_does_not_speak_for_it(ends: str) -> None:
    """It comes to the end of the same function; the result is that of the task."""

    def task() -> str:
        pid = os.fork()
        if pid == 0:
            if ends == "raises":
                raise ValueError
            return "the other's"
        os.waitpid(pid, 0)
        return "the task's"

    assert completed(task).value() == "the task's"


def test_it_runs_in_another_process() -> None:
    """Whose memory is a copy of this one's."""
    changed = []
    completion = completed(lambda: changed.append(1) or os.getpid())

    assert completion.value() == completion.pid != os.getpid()
    assert changed == []


def test_a_function_writes_a_file(tmp_path: Any) -> None:
    """Upstream's first test."""
    completion = completed(lambda: (tmp_path / "file").write_text("written"))

    assert completion.status == 0
    assert (tmp_path / "file").read_text() == "written"


@pytest.mark.parametrize(
    "result", [None, b"", "", 0, False, [], {"a": (1, 2)}, b"x" * (1 << 20), b"x" * ((1 << 20) + 1)]
)
def test_results_of_all_kinds(result: object) -> None:
    """Each is what it was."""
    found = completed(lambda: result).value()

    assert found == result
    assert type(found) is type(result)


def test_large_results_of_many_at_once() -> None:
    """Neither side waits for the other, and no task for another."""
    found: list[int] = []
    with ProcessManager() as manager:
        for number in range(4):
            manager.create_process(
                lambda number=number: bytes([number]) * 50_000_000,
                lambda completion: found.append(completion.value()[-1] + len(completion.value())),
            )
        manager.create_process(lambda: 7, lambda completion: found.append(completion.value()))

    assert found[0] == 7
    assert sorted(found[1:]) == [50_000_000 + number for number in range(4)]


def test_a_large_result_when_the_bell_is_full() -> None:
    """The task waits until it can ask to be heard."""
    found: list[int] = []
    with ProcessManager() as manager:
        for _ in range(10_000):
            manager.wakeup()
        for _ in range(3):
            manager.create_process(
                lambda: b"x" * 3_000_000, lambda completion: found.append(len(completion.value()))
            )

    assert found == [3_000_000] * 3


def test_a_handler_raises_when_a_task_asks_to_be_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is heard all the same: it asks once."""
    listen = Holdings._listen

    def interrupted(held: Holdings) -> None:
        signal.raise_signal(signal.SIGALRM)
        listen(held)

    def raises(*_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(Holdings, "_listen", interrupted)
    before = signal.signal(signal.SIGALRM, raises)
    found: list[int] = []
    try:
        with ProcessManager() as manager:
            manager.create_process(
                lambda: b"x" * 3_000_000, lambda completion: found.append(len(completion.value())), timeout=20
            )
            with pytest.raises(InterruptedError):
                manager.step()
    finally:
        signal.signal(signal.SIGALRM, before)

    assert found == [3_000_000]


def test_a_task_is_not_heard_before_its_end() -> None:
    """Unless it has a channel, or much to say: the owner wakes once for it."""
    with ProcessManager() as manager:
        manager.create_process(lambda: 1)
        assert manager.step() == 1
        manager.create_process(lambda: bytes(3_000_000))
        assert manager.step() == 0


def test_sockets_have_a_default_timeout() -> None:
    """Neither the owner nor a task has to do with it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(0.001)
    try:
        found = completed(lambda: bytes(5_000_000))
    finally:
        socket.setdefaulttimeout(before)

    assert len(found.value()) == 5_000_000


def test_an_exception() -> None:
    """Is the one that was raised, its cause the traceback of the other process, without a line of ours."""

    def fails() -> None:
        raise KeyError("missing")

    completion = completed(fails)

    assert completion.status == 1
    with pytest.raises(KeyError, match="missing") as caught:
        completion.value()
    cause = caught.value.__cause__
    assert isinstance(cause, TaskError)
    assert str(cause).endswith("fails raised KeyError: 'missing'")
    assert "in fails" in cause.traceback
    assert "body.py" not in cause.traceback
    assert "in fails" in "".join(traceback.format_exception(caught.value))


def test_an_exception_that_cannot_be_had_here() -> None:
    """As it cannot be pickled, or would not be the program's own: its type, text and traceback are told."""

    class Local(Exception):
        pass

    def fails(error: BaseException) -> Any:
        def task() -> None:
            raise error

        return completed(task).exception

    for error, kind in ((Local("text"), "Local"), (KeyboardInterrupt("text"), "KeyboardInterrupt")):
        found = fails(error)
        assert isinstance(found, TaskError)
        assert found.type.endswith(kind)
        assert (found.text, "in task" in found.traceback) == ("text", True)


@dataclasses.dataclass(frozen=True)
class _Unalterable(Exception):
    pass


def test_an_exception_that_cannot_be_altered() -> None:
    """It has its cause all the same, and the task completes."""

    def fails() -> None:
        raise _Unalterable

    error = completed(fails).exception

    assert type(error) is _Unalterable
    assert isinstance(error.__cause__, TaskError)


def test_a_result_that_cannot_be_pickled() -> None:
    """Is the task's own failure, which says that it is the result."""
    completion = completed(threading.Lock)

    assert completion.status == 1
    with pytest.raises(TypeError, match="pickle") as caught:
        completion.value()
    assert caught.value.__notes__[0] == "what the task returned, a lock, cannot be pickled"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_result_that_cannot_be_read(error: type[BaseException]) -> None:
    """Is no failure of the owner's, whatever it raises there."""
    completion = completed(functools.partial(Poison, error))

    assert completion.status == 0
    with pytest.raises(TaskError, match=f"{error.__name__}: poison"):
        completion.value()


@pytest.mark.parametrize(
    ("end", "status", "number"),
    [
        (lambda: os._exit(3), 3, None),
        (lambda: os._exit(0), 0, None),
        (lambda: sys.exit(4), 4, None),
        (sys.exit, 0, None),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 137, signal.SIGKILL),
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130, signal.SIGINT),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, signal.SIGTERM),
    ],
)
def test_a_death(end: Any, status: int, number: int | None) -> None:
    """Without a result, also with status 0, and of that task alone."""
    found: list[Completion] = []
    with ProcessManager() as manager:
        manager.create_process(end, found.append, name="dies")
        manager.create_process(lambda: 1, found.append, name="lives")
    found.sort(key=lambda completion: completion.name)
    dead, living = found

    assert living.value() == 1
    assert (dead.status, dead.signal) == (status, number)
    with pytest.raises(ChildDeath, match=rf"^dies \(pid {dead.pid}\) gave no result: it "):
        dead.value()


def test_a_hundred_that_do_nothing() -> None:
    """Exhaust nothing: the guards look."""
    with ProcessManager() as manager:
        for _ in range(100):
            manager.create_process(lambda: None)
            manager.wait_for_all_children()

    assert manager.process_count == 0


# --- messages --------------------------------------------------------------------------------------------------------


def test_messages_come_before_the_completion() -> None:
    """All of them, in their order, each as what it was; an error is a message, too."""
    heard: list[Any] = []

    def task(channel: MessageChannel) -> str:
        channel.write("a", "b")
        channel.write_scalar(b"bytes")
        channel.write_json({"key": 1})
        channel.write_error(ValueError("no"))
        with open("/etc/passwd") as file:
            channel.send_io(file)
        return "done"

    with ProcessManager() as manager:
        manager.create_process(
            task, lambda completion: heard.append(completion.value()), on_message=heard.append
        )
    *texts, error, fd, result = heard
    with os.fdopen(fd) as file:
        name = file.readline()

    assert texts == [["a", "b"], b"bytes", {"key": 1}]
    assert isinstance(error, RemoteError)
    assert "root" in name
    assert result == "done"


def test_messages_that_nobody_wants() -> None:
    """Are thrown away, and their descriptors closed: the guards look."""

    def task(channel: MessageChannel) -> int:
        for _ in range(100):
            channel.write("x" * 10_000)
            channel.send_io(0)
        return 1

    assert completed(task).value() == 1


def test_the_channel_may_be_closed() -> None:
    """The result is told all the same."""

    def task(channel: MessageChannel) -> int:
        with channel:
            channel.write("closed now")
        return 5

    assert completed(task).value() == 5


@pytest.mark.parametrize("result", [None, b"x" * 10_000_000])
def test_a_thread_of_a_task_goes_on_writing(result: object) -> None:
    """It ends with the task, and not in the middle of the result."""

    def task(channel: MessageChannel) -> object:
        begun = threading.Event()

        def writes() -> None:
            while True:
                channel.write("x" * 100_000)
                begun.set()

        threading.Thread(target=writes, daemon=True).start()
        begun.wait()
        return result

    assert [completed(task).value() for _ in range(5)] == [result] * 5


def test_ten_large_answers() -> None:
    """Upstream's: of 64 KiB each."""
    heard: list[bytes] = []

    def task(channel: MessageChannel) -> None:
        for number in range(10):
            channel.write_scalar(bytes([number]) * 65536)

    completed(task, on_message=heard.append)
    assert heard == [bytes([number]) * 65536 for number in range(10)]


@pytest.mark.parametrize(
    "part", [b"L", b"L\0\0\0\x09", b"L\0\0\0\x09abc", b"R\0\0\0\x09abc", b"P\0\0\0\x01a", b"L\0\0\0\x02ab"]
)
def test_a_child_killed_in_mid_message(part: bytes) -> None:
    """Is an error of that child alone, and nobody waits for the rest."""

    def task(channel: MessageChannel) -> None:
        channel.write("whole")
        os.write(channel.fileno(), part)
        os.kill(os.getpid(), signal.SIGKILL)

    heard: list[Any] = []
    completion = completed(task, on_message=heard.append)

    assert heard == [["whole"]]
    assert completion.signal == signal.SIGKILL
    with pytest.raises(ChildDeath):
        completion.value()


def test_a_child_killed_in_mid_message_while_another_process_holds_its_end() -> None:
    """No end of file comes then; its death is told by the kernel."""
    held, hold = os.pipe()

    def task(channel: MessageChannel) -> None:
        if os.fork() == 0:
            os.close(hold)
            os.read(held, 1)
            os._exit(0)
        os.write(channel.fileno(), b"L\0\0\0\x09abc")
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        assert completed(task).signal == signal.SIGKILL
    finally:
        os.close(hold)
        os.close(held)


def test_nonsense_is_an_error_of_that_child_alone() -> None:
    """It does not keep the owner, nor wait for somebody who reads more of it."""

    def task(channel: MessageChannel) -> int:
        os.write(channel.fileno(), b"nonsense, and more of it")
        channel.write_scalar(bytes(10_000_000))
        return 1

    completion = completed(task)

    assert isinstance(completion.exception, ChildDeath)
    assert "is no message" in str(completion.exception.__cause__)


# --- a process of its own --------------------------------------------------------------------------------------------


def test_signals_are_reset() -> None:
    """Whatever the owner handles, ignores or blocks, but what Python ignores, and what C has a handler for."""
    handlers = {
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        found = completed(lambda: procs.status(os.getpid())).value()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)

    pythons = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    python = 1 << (signal.SIGUSR1 - 1) | 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1)
    assert (
        int(found["SigBlk"], 16),
        int(found["SigIgn"], 16) & ~procs.GLIBC_SIGNALS,
        int(found["SigCgt"], 16) & python,
    ) == (
        0,
        pythons,
        0,
    )


def test_what_is_buffered_is_said_once() -> None:
    """By the owner; what the task prints is not lost; what runs at exit is the owner's."""
    script = (
        "import atexit, sys\nfrom daemonize import ProcessManager\natexit.register(lambda: print('at exit'))\n"
        "print('buffered', end=' ')\n"
        "with ProcessManager() as manager: manager.create_process(lambda: print('said'))\nprint('over')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=30)

    assert done.stdout == b"buffered said\nover\nat exit\n"
    assert done.stderr == b""


def test_random_numbers_differ() -> None:
    """From those of other tasks."""
    assert len({completed(random.random).value() for _ in range(3)}) == 3


def test_a_task_does_not_have_what_the_manager_has() -> None:
    """Nor what it has for other tasks: sockets, pidfds, its own; but for the end of its bell at which a task asks."""
    sockets: list[set[str]] = []

    def held() -> set[str]:
        return {target for fd, target in procs.descriptors(os.getpid()).items() if fd > 2}

    before = held()
    with ProcessManager() as manager:
        manager.fileno()
        other = manager.create_process(signal.pause)
        manager.create_process(held, lambda completion: sockets.append(completion.value()))
        while not sockets:
            manager.step()
        other.send_signal(signal.SIGKILL)

    (found,) = sockets
    assert len(found - before) == 2


def test_a_task_does_not_have_what_ends_others() -> None:
    """Nor what other managers have, that are told of after the one that ends somebody."""
    found: list[list[str]] = []

    def held() -> list[str]:
        return [target for fd, target in procs.descriptors(os.getpid()).items() if fd > 2]

    before = held()
    with ProcessManager() as first, ProcessManager() as second:
        for manager in (first, second):
            manager.create_process(signal.pause)
            manager.kill_processes(signal.SIGWINCH)
        for manager in (first, second):
            manager.create_process(held, lambda completion: found.append(completion.value()))
        while len(found) < 2:
            first.step(0.01)
            second.step(0.01)
        for manager in (first, second):
            manager.kill_processes(signal.SIGKILL)

    assert [len(ours) - len(before) for ours in found] == [2, 2]


def test_what_a_task_opens_stays_open_in_its_children() -> None:
    """Its descriptors have the numbers that were those of managers: they are closed once."""

    def task() -> list[int]:
        first, second = os.pipe(), os.pipe()
        grandchild = forked.call(lambda: [os.fstat(fd).st_ino for fd in (*first, *second)])
        assert grandchild == [os.fstat(fd).st_ino for fd in (*first, *second)]
        with ProcessManager() as own:
            own.create_process(lambda: 1)
        return grandchild

    with ProcessManager(), ProcessManager():
        assert len(completed(task).value()) == 4


def test_a_forked_child_is_not_the_manager() -> None:
    """Neither a task nor any other; the manager's own tasks go on."""
    with ProcessManager() as manager:

        def elsewhere() -> list[str]:
            found = []
            for call in (
                manager.step,
                manager.setup,
                manager.teardown,
                lambda: manager.create_process(print),
            ):
                try:
                    call()
                except Exception as error:  # noqa: BLE001
                    found.append(f"{type(error).__name__}: {error}")
            manager.wakeup()
            with pytest.raises(RuntimeError):
                manager.kill_processes()
            return found

        answers: list[list[str]] = []
        manager.create_process(elsewhere, lambda completion: answers.append(completion.value()))
        manager.create_process(lambda: 1)

    words = f"InvalidState: this manager is that of process {os.getpid()}, from which this one was forked: make another one"
    assert answers == [[words] * 4]


def test_a_manager_in_a_task() -> None:
    """May be another one, that starts tasks of its own."""

    def outer() -> int:
        return int(completed(lambda: 6).value()) * 7

    assert completed(outer).value() == 42


def test_a_task_with_an_event_loop_of_its_own() -> None:
    """The owner is in one."""

    async def owner() -> Any:
        return completed(lambda: asyncio.run(asyncio.sleep(0, "slept"))).value()

    assert asyncio.run(owner()) == "slept"


def test_sockets_of_the_owner_are_there() -> None:
    """A function has what its owner has."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        completed(lambda: theirs.send(b"said"))
        assert ours.recv(10) == b"said"


def test_a_memory_limit() -> None:
    """Of that task alone. Negative control: without it, there is enough."""
    for memory in (200_000_000, None):
        completion = completed(lambda: len(bytearray(600_000_000)), memory=memory)
        if memory:
            assert isinstance(completion.exception, MemoryError)
        else:
            assert completion.value() == 600_000_000


@pytest.mark.filterwarnings("ignore:.*while other threads live:RuntimeWarning")
def test_beside_a_thread_that_writes() -> None:
    """It has the lock of stdout: the task prints all the same."""
    read, write = os.pipe()
    answer, say = os.pipe()
    stuck = os.fdopen(write, "w")
    before, thread = sys.stdout, threading.Thread(target=lambda: stuck.write("x" * 1_000_000))

    def prints() -> None:
        os.dup2(say, 1)
        print("printed")  # noqa: T201 (the subject)

    thread.start()
    poll = select.poll()
    poll.register(write, select.POLLOUT)
    while poll.poll(0):
        os.sched_yield()
    sys.stdout = stuck
    try:
        completion = completed(prints)
    finally:
        sys.stdout = before
        os.close(say)
        with os.fdopen(read, "rb") as reader:
            count, done = [0], threading.Event()
            counter = threading.Thread(target=lambda: (count.__setitem__(0, len(reader.read())), done.set()))
            counter.start()
            thread.join()
            stuck.close()
            counter.join()

    assert (completion.status, count) == (0, [1_000_000])
    with os.fdopen(answer) as said:
        assert said.read() == "printed\n"


def test_a_fork_beside_threads_warns_once() -> None:
    """At the caller's line."""
    from daemonize.offspring import forking

    forking.warned.clear()
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with pytest.warns(RuntimeWarning, match="is started by fork") as caught, ProcessManager() as manager:  # noqa: PT031
            for _ in range(2):
                manager.create_process(lambda: None, name="threaded")
    finally:
        over.set()
        thread.join()
        forking.warned.clear()

    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message).startswith("threaded is started by fork(2) while other threads live")
