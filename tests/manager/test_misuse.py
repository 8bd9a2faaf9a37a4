"""What cannot be used is refused in one line, before anything is started; what fails is told, and nothing is left."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import resource
import signal
import subprocess
from typing import Any

import pytest

from daemonize import InvalidState, ProcessManager, SetupError, UsageError, Workers
from daemonize.posix.loop import Selectable
from tests.support.tasks import completed, hang


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (None, {}, "a task is a function, or a list of words such as ['sleep', '1'], and not None"),
        ("sleep 1", {}, "a task is a function, or a list of words"),
        (7, {}, "a task is a function, or a list of words"),
        ({"sleep"}, {}, "a task is a function, or a list of words"),
        ([], {}, "a command has a name"),
        ([""], {}, "a command has a name"),
        (["sleep", 1], {}, "the words of a command are text, bytes or paths, and not ['sleep', 1]"),
        (["a\0b"], {}, "no word of a command can have a NUL"),
        (lambda a, b: (a, b), {}, "wants a, b: use functools.partial, or a lambda"),
        (lambda *, key: key, {}, "wants key: use functools.partial"),
        (
            asyncio.sleep,
            {},
            "a task is a function, and sleep is a coroutine function: give one that calls asyncio.run",
        ),
        (functools.partial(asyncio.sleep, 1), {}, "is a coroutine function"),
        (print, {"on_complete": 1}, "on_complete is called, and 1 cannot be"),
        (print, {"on_message": "x"}, "on_message is called, and 'x' cannot be"),
        (print, {"timeout": 0}, "timeout must be more than 0 seconds"),
        (print, {"timeout": -1}, "timeout must be more than 0 seconds"),
        (print, {"timeout": "soon"}, "'soon' is not a duration"),
        (print, {"timeout": []}, "timeout must be more than 0 seconds"),
        (print, {"grace": -1}, "grace must be 0 or more seconds"),
        (print, {"memory": 0}, "memory is a number of bytes, text such as '512M', or None, and not 0"),
        (print, {"memory": "0"}, "memory is a number of bytes, text such as '512M', or None, and not '0'"),
        (print, {"memory": -1}, "memory is a number of bytes, text such as '512M', or None, and not -1"),
        (print, {"memory": "1 GB"}, "'1 GB' is not an amount; write 1024, 64K, 512M, 2G or unlimited"),
        (print, {"memory": 1 << 63}, "or None, and not 9223372036854775808"),
        (print, {"memory": True}, "memory is a number of bytes"),
        (print, {"name": 5}, "the name of a task is text, and 5 is not"),
        (print, {"stdout": 1}, "stdout is for commands"),
        (print, {"environment": {}}, "environment is for commands"),
        (["true"], {"environment": 5}, "environment is a mapping of names to values"),
        (["true"], {"environment": {"A": 5}}, "names and values of the environment are text"),
        (["true"], {"environment": {"A=B": "c"}}, "'A=B' cannot be the name of a variable"),
        (
            ["true"],
            {"environment": {"A": "b\0"}},
            "'A' cannot be the name of a variable, or its value has a NUL",
        ),
        (["true"], {"directory": 5}, "directory is a path, and 5 is none"),
        (["true"], {"directory": ""}, "directory is a path"),
        (["true"], {"directory": "\ud800"}, "directory is a path"),
        (
            ["true"],
            {"stdout": "file"},
            "stdout: an open file, or the number of one, is wanted, and not 'file'",
        ),
        (
            ["true"],
            {"stdout": subprocess.DEVNULL},
            "stdout: an open file, or the number of one, is wanted, and -3 is none",
        ),
        (["true"], {"stdout": 999_999}, "stdout: descriptor 999999 is not open"),
    ],
)
def test_what_cannot_be_used(task: Any, options: dict[str, Any], words: str) -> None:
    """Is named; nothing is started."""
    with ProcessManager() as manager:
        with pytest.raises(UsageError) as caught:
            manager.create_process(task, **options)
        assert manager.process_count == 0

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", [lambda m: m.step(-1), lambda m: m.step("x"), lambda m: m.kill_processes(99),
                                  lambda m: m.kill_processes("TERM"), lambda m: m.kill_processes([]),
                                  lambda m: m.create_process(print).stop(grace="soon"),
                                  lambda m: m.kill_processes(grace=-1)])  # fmt: skip
def test_arguments_of_other_calls(call: Any) -> None:
    """Likewise."""
    with ProcessManager() as manager, pytest.raises(UsageError):
        call(manager)


def test_arguments_of_a_process_and_of_workers() -> None:
    """Likewise; a time may be text."""
    with ProcessManager() as manager:
        process = manager.create_process(signal.pause)
        for call in (lambda: process.send_signal("TERM"), lambda: process.stop(grace=-1), lambda: Workers(None, print, 1),  # type: ignore[arg-type]
                     lambda: Workers(manager, print, 1, on_complete=print)):  # fmt: skip
            with pytest.raises(UsageError):
                call()
        process.stop(grace="5s")


def test_a_manager_that_is_not_set_up() -> None:
    """Says so, whatever it is asked; a wake-up of nobody does nothing."""
    manager = ProcessManager()
    for call in (manager.step, manager.fileno, manager.kill_processes, manager.wait_for_all_children,
                 lambda: manager.create_process(print)):  # fmt: skip
        with pytest.raises(InvalidState, match="is not set up"):
            call()
    manager.wakeup()
    manager.teardown()
    assert (manager.process_count, manager.processes) == (0, [])


def _plain() -> int:
    return 1


class _Callable:
    def __call__(self, channel: Any) -> str:
        return type(channel).__name__


@pytest.mark.parametrize(
    ("task", "result"),
    [
        (_plain, 1),
        (lambda n=5: n, 5),
        (lambda *args: args, ()),
        (lambda **options: options, {}),
        (lambda channel: type(channel).__name__, "MessageChannel"),
        (lambda channel, n=2: (type(channel).__name__, n), ("MessageChannel", 2)),
        (functools.partial(max, [1, 2]), 2),
        (functools.partial(lambda n, channel: (n, type(channel).__name__), 3), (3, "MessageChannel")),
        (_Callable(), "MessageChannel"),
        (dict, {}),
        ("text".upper, "TEXT"),
    ],
)
def test_who_gets_a_channel(task: Any, result: object) -> None:
    """Whoever has to be given an argument, and nobody else."""
    assert completed(task).value() == result


def test_no_descriptors_left() -> None:
    """Nothing is started then, nothing is left, and it may be tried again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ProcessManager() as manager:
        highest = os.dup(0)
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            for task in (_plain, ["true"]):
                with pytest.raises(SetupError, match="Too many open files"):
                    manager.create_process(task)
            with pytest.raises(SetupError, match="cannot set up a manager of processes: Too many open files"):
                ProcessManager().setup()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        found: list[Any] = []
        manager.create_process(_plain, found.append)

    assert found[0].value() == 1


@pytest.mark.parametrize("task", [lambda _channel: hang(), ["sleep", "1000"]], ids=["function", "command"])
@pytest.mark.parametrize("which", [0, 1])
def test_what_cannot_be_watched(monkeypatch: pytest.MonkeyPatch, task: Any, which: int) -> None:
    """Is ended: a task that nobody would hear of is none. which: of the descriptors of a task."""
    watch, count = Selectable.watch, iter(range(10))

    def refuses(loop: Selectable, fd: int, events: int, callback: Any) -> None:
        if next(count) == (which if callable(task) else 0):
            raise OSError(28, "No space left on device")
        watch(loop, fd, events, callback)

    with ProcessManager() as manager:
        with monkeypatch.context() as patched:
            patched.setattr(Selectable, "watch", refuses)
            with pytest.raises(SetupError, match=r"cannot watch .*: No space left on device"):
                manager.create_process(task)
        assert manager.process_count == 0
        assert manager.step(0) == 0


def test_a_manager_that_nobody_tears_down() -> None:
    """Gives its descriptors back when it is collected, with a warning."""
    manager = ProcessManager().setup()
    with pytest.warns(ResourceWarning, match=r"^a ProcessManager was not torn down$"):  # noqa: PT031
        del manager
        gc.collect()


def test_no_process_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same."""
    from daemonize.posix import child

    def fails() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(child, "fork_alone", fails)
    monkeypatch.setattr("daemonize.offspring.forking.fork_alone", fails)
    with ProcessManager() as manager:
        for task in (_plain, ["true"]):
            with pytest.raises(SetupError, match="Resource temporarily unavailable"):
                manager.create_process(task)
        assert manager.process_count == 0
