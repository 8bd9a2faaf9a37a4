"""A command in a process of its own: what is executed, with what, and why it was not."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import NotExecuted, ProcessManager, TaskTimedOut
from daemonize.posix import child
from tests.support import forked, procs
from tests.support.tasks import completed, step_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("words", "status", "number"),
    [
        (["true"], 0, None),
        (["sh", "-c", "exit 7"], 7, None),
        (["sh", "-c", "kill -KILL $$"], 137, signal.SIGKILL),
        ([b"sh", b"-c", "exit 255"], 255, None),
    ],
)
def test_a_status(words: list[Any], status: int, number: int | None) -> None:
    """Is no exception: a command says what it means by it."""
    completion = completed(words)

    assert (completion.status, completion.signal, completion.exception) == (status, number, None)
    assert completion.value() is None
    assert completion.name == os.fsdecode(words[0])


def test_it_is_killed_before_it_says_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """And another thread has forked meanwhile: nobody waits for the end of what that has forked."""
    others = contextlib.ExitStack()

    def fork(*_: Any) -> int:
        others.enter_context(forked.holding(lambda: None))
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return pid

    monkeypatch.setattr(child, "fork", fork)
    with others:
        completion = completed(["true"])

    assert (completion.signal, completion.exception) == (signal.SIGKILL, None)


def test_what_cannot_be_executed(tmp_path: Path) -> None:
    """Is told by the completion, with the status that a shell would give it."""
    (tmp_path / "plain").write_text("text")
    (tmp_path / "odd").write_text("#!/no/such/interpreter\n")
    (tmp_path / "odd").chmod(0o755)
    for word, status, text in (
        ("no-such-command", 127, "cannot execute no-such-command: command not found"),
        (tmp_path / "plain", 126, f"cannot execute {tmp_path}/plain: Permission denied"),
        (
            tmp_path / "odd",
            126,
            f"cannot execute {tmp_path}/odd: the interpreter of its #! line",
        ),
    ):
        completion = completed([word])
        error = completion.exception
        assert isinstance(error, NotExecuted)
        assert error.exit_status == completion.status == status
        assert str(error).startswith(text)
        assert error.command == [os.fspath(word)]
    error = completed(["true"], directory=tmp_path / "none").exception
    assert isinstance(error, NotExecuted)
    assert str(error) == f"cannot start true: directory {tmp_path}/none: No such file or directory"


def test_streams_environment_and_directory(tmp_path: Path) -> None:
    """Are what was asked for."""
    with (
        open(tmp_path / "out", "w") as out,
        open(tmp_path / "err", "w") as err,
        open("/etc/hostname") as stdin,
    ):
        completed(
            ["sh", "-c", "read LINE; echo $LINE $WORD; pwd; echo err >&2"],
            environment={"WORD": "said", "PATH": os.environ["PATH"]},
            directory=tmp_path,
            stdin=stdin,
            stdout=out,
            stderr=err.fileno(),
        )
    with open("/etc/hostname") as file:
        name = file.readline().strip()

    assert (tmp_path / "out").read_text() == f"{name} said\n{tmp_path}\n"
    assert (tmp_path / "err").read_text() == "err\n"


def test_streams_that_change_places(capfd: pytest.CaptureFixture[str]) -> None:
    """The owner's stderr may be the command's stdout, and the other way about."""
    completed(["sh", "-c", "echo out; echo err >&2"], stdout=2, stderr=1)
    said = capfd.readouterr()

    assert (said.out, said.err) == ("err\n", "out\n")


def test_a_command_has_no_other_descriptor() -> None:
    """Also none that would be inherited. Its signals have their defaults."""
    secret = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        with ProcessManager() as manager:
            task = manager.create_process(["sleep", "1000"])
            procs.eventually(lambda: _sleeps(task.pid))
            found, status = procs.descriptors(task.pid), procs.status(task.pid)
            task.stop()
    finally:
        os.close(secret)

    assert set(found) == {0, 1, 2}
    assert (int(status["SigIgn"], 16) & ~procs.GLIBC_SIGNALS, int(status["SigBlk"], 16)) == (0, 0)


def _sleeps(pid: int) -> None:
    """Before that, it opens libraries."""
    assert procs.command_line(pid) == "sleep 1000"
    assert procs.status(pid)["State"].startswith("S")


def test_a_timeout_of_a_command() -> None:
    """Is an exception."""
    completion = completed(["sleep", "1000"], timeout=0.05)

    assert isinstance(completion.exception, TaskTimedOut)
    assert completion.signal == signal.SIGTERM


@pytest.mark.parametrize(
    ("memory", "most"),
    [(1 << 30, f"{1 << 20}"), ("1G", f"{1 << 20}"), ("unlimited", "unlimited"), (None, "unlimited")],
)
def test_a_memory_limit_of_a_command(memory: int | str | None, most: str) -> None:
    """Of its own."""
    read, write = os.pipe()
    completed(["sh", "-c", "ulimit -v"], memory=memory, stdout=write)
    os.close(write)
    with os.fdopen(read) as said:
        assert said.read() == f"{most}\n"


def test_a_command_and_what_is_below_it_end() -> None:
    """If it is stopped."""
    read, write = os.pipe()
    found: list[Any] = []
    with ProcessManager() as manager:
        task = manager.create_process(["sh", "-c", "sleep 1000 & echo $!; wait"], found.append, stdout=write)
        os.close(write)
        with os.fdopen(read) as said:
            below = int(said.readline())
        task.stop()
        step_until(manager, lambda: found)

    assert procs.wait_ended(below)
