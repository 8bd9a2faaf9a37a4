"""One task of a `ProcessManager`, as its owner sees it, and how it ended."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

from daemonize.manager.tasks import checked_signal
from daemonize.manager_errors import ChildDeath, TaskError, TaskTimedOut
from daemonize.offspring import failures
from daemonize.posix import frames, signals
from daemonize.posix.blocked import Blocked
from daemonize.units import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.manager.command import Command
    from daemonize.manager.holdings import Holdings
    from daemonize.manager.inbox import Inbox
    from daemonize.manager.tasks import Options
    from daemonize.offspring.process import Child


class Completion:
    """How a task ended. name, pid: of it.

    status: its exit status, 128+N if it died of signal N, 127 or 126 of a command that could not be executed; None: somebody
    else has reaped it. signal: that signal, or None. usage: of resources, where it is asked for (getrusage(2); the memory
    that it had from its owner counts). timed_out: whether it was ended because its time was over.
    result: what the function returned. exception: None where it returned, and for a command that was executed; else what
    the function raised, its cause a TaskError with the traceback; TaskError where that cannot be had; ChildDeath,
    TaskTimedOut; NotExecuted.
    """

    def __init__(self, process: Process) -> None:
        child = process.child
        self.name, self.pid = process.name, process.pid
        self.status, self.signal, self.usage = child.status, child.died_of, child.usage
        self.timed_out = process.timed_out
        self.result: Any = None
        self.exception: Exception | None = None

    def value(self) -> Any:
        """The result. Raises the exception, if there is one."""
        if self.exception is not None:
            raise self.exception
        return self.result

    def __repr__(self) -> str:
        how = repr(self.exception) if self.exception else f"status {self.status}"
        return f"<Completion of {self.name} (pid {self.pid}): {how}>"


class Process:
    """A task that has been started. name; pid. timed_out: it is being ended, or was, because its time was over.

    completion: None until `on_complete` is called, or would be.
    """

    #: Given to it when it is born (starting.py).
    child: Child
    pid: int
    inbox: Inbox | None
    command: tuple[Command, int] | None

    def __init__(
        self,
        name: str,
        options: Options,
        callbacks: tuple[Callable[[Completion], object] | None, Callable[[Any], object] | None],
        number: int,
        held: Holdings,
    ) -> None:
        self.name, self.options, self.number = name, options, number
        self.on_complete, self.on_message = callbacks
        self.timed_out = self.collected = False
        self.completion: Completion | None = None
        self._held = held

    def mark(self, _events: int) -> None:
        """For the loop: something has come of it."""
        self._held.marked[self.number] = self

    def send_signal(self, number: int) -> bool:
        """False: it has ended, or this is not its owner. Raises UsageError; PermissionError: it is another user's by now."""
        checked = checked_signal(number)
        with Blocked():  # it may reap it
            return self.child.send(checked)

    def stop(self, *, grace: float | str | None = None) -> None:
        """SIGTERM, `grace` seconds (None: its own), SIGKILL, to it and to what is below it; returns at once.

        A step of the manager takes what follows, and calls `on_complete`. Raises UsageError; InvalidState: elsewhere than in
        its owner.
        """
        seconds = self.options.grace if grace is None else seconds_of("grace", grace)
        self._held.end(self, 15, seconds)

    @property
    def descriptors(self) -> list[int]:
        """All that its owner has of it."""
        found = [self.inbox.fd] if self.inbox else []
        if self.command:
            found.append(self.command[1])
        if self.child.fd is not None:
            found.append(self.child.fd)
        return found

    def complete(self) -> Completion:
        """When it has ended, and what it said has been taken: how."""
        completion, inbox = Completion(self), self.inbox
        if self.command:
            self._note_command(completion, *self.command)
        elif inbox is None or inbox.told is None:
            completion.exception = self._death(completion)
            completion.exception.__cause__ = inbox.broken if inbox else None
        elif inbox.told != frames.TOLD_NOTHING:
            self._take_told(completion, *inbox.told)
        return completion

    def _note_command(self, completion: Completion, command: Command, report: int) -> None:
        failure = command.failure(report)
        if failure:
            completion.exception, completion.status = failure, failure.exit_status
        elif self.timed_out:
            completion.exception = self._death(completion)

    def _take_told(self, completion: Completion, kind: bytes, body: bytes) -> None:
        """In `Blocked`."""
        # What is called by unpickling may install handlers, which are not to come in here either.
        signals.block_all()
        if kind == frames.FAILURE:
            completion.exception = _failure(self.name, body)
            return
        try:
            completion.result = pickle.loads(body) if body else None  # noqa: S301 (our own child)
        except BaseException as error:  # noqa: BLE001 (whatever its class does)
            completion.exception = TaskError(self.name, *_words_of(error))
            completion.exception.__cause__ = error

    def _death(self, completion: Completion) -> ChildDeath:
        facts = self.name, self.pid, completion.status, completion.signal
        return TaskTimedOut(*facts, self.options.timeout or 0) if self.timed_out else ChildDeath(*facts)

    def close(self) -> None:
        """Give everything back."""
        if self.inbox:
            self.inbox.close()
        if self.command:
            os.close(self.command[1])
        self.inbox = self.command = None
        self.child.close()

    def __repr__(self) -> str:
        return f"<task {self.name} (pid {self.pid}){'' if self.completion is None else ', ended'}>"


def _failure(name: str, body: bytes) -> Exception:
    failed = failures.unpacked(body)
    told = TaskError(name, failed.type, failed.text, failed.traceback)
    failures.noted(told, ("in the task", failed.traceback))
    if failed.exception is None:
        return told
    # Its class may forbid it, as that of a frozen dataclass does.
    BaseException.__dict__["__cause__"].__set__(failed.exception, told)
    return failed.exception


def _words_of(error: BaseException) -> tuple[str, str]:
    from daemonize.channel import codec

    return codec.type_of(error), f"{codec.text_of(error)} (its result cannot be read here)"
