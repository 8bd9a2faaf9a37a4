"""`ProcessManager`: the owner's side."""

from __future__ import annotations

import os
import sys
import warnings
from collections import deque
from types import FunctionType
from typing import TYPE_CHECKING, Any, Self

from daemonize.errors import InvalidState, SetupError
from daemonize.manager import starting, tasks
from daemonize.manager.holdings import Holdings, foreign
from daemonize.manager.process import Process
from daemonize.posix import signals, stop
from daemonize.posix.blocked import Blocked
from daemonize.units import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemonize.channel.codec import HasFileno
    from daemonize.manager import births
    from daemonize.manager.command import Command
    from daemonize.manager.process import Completion

#: Frames of one task that are taken in one step: then the others have their turn.
_TURN = 16
#: What a function is given of what is for commands.
_NOTHING = (None,) * 5


class ProcessManager:
    """Starts tasks, each in a process of its own, and waits for them: functions, which are forked, and commands.

    For one thread, and the process that has set it up: only `wakeup` may be called by others. There may be any number of
    managers; none ever waits for a child that is not its own, and no signal is handled. Call `step` again and again, or when
    `fileno` is readable; `on_message` and `on_complete` are called in it.

    A context manager: the end of the block waits for all tasks; if an exception ends it, or that wait, they are ended first.
    """

    def __init__(self) -> None:
        self._owner = 0
        self._held: Holdings | None = None
        self._due: deque[tuple[Callable[[Any], object] | None, Any, Process | None]] = deque()
        self._stepping = False
        self._number = 0

    # -- life -------------------------------------------------------------------------------------------------------------

    def setup(self) -> Self:
        """Open what it needs. Raises InvalidState: it has been set up; SetupError."""
        if self._owner:
            raise InvalidState(
                "this manager has been set up: call teardown() first"
                if self._owner == os.getpid()
                else foreign(self._owner)
            )
        with Blocked():
            try:
                self._held = Holdings()
            except OSError as error:
                raise SetupError("set up", "a manager of processes", error) from None
            self._owner = os.getpid()
        return self

    def teardown(self) -> None:
        """Wait for all tasks, and give everything back; a second time does nothing. Raises what `step` raises, then.

        `Workers` are stopped first.
        """
        if not self._owner:
            return
        held = self._check()
        self._refuse_within()
        try:
            self._wait(held, stops_keepers=True)
        finally:
            if not (held.processes or held.endings.plans):
                self._close()

    def _close(self) -> None:
        with Blocked():
            held, self._held, self._owner = self._held, None, 0
            if held:
                held.close()

    def __enter__(self) -> Self:
        return self.setup()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._owner or self._owner != os.getpid():
            return
        try:
            if kind is not None:
                self.kill_processes()
            self.teardown()
        except BaseException:
            # Not a callback's, which is raised when all is over: a Ctrl-C has ended the wait at the end of the block.
            if self._held:
                self.kill_processes()
                self.teardown()
            raise

    def __del__(self) -> None:
        if self.__dict__.get("_owner") != os.getpid() or sys.is_finalizing():
            return
        warnings.warn("a ProcessManager was not torn down", ResourceWarning, stacklevel=2, source=self)
        self._close()

    def _check(self) -> Holdings:
        """Raises InvalidState."""
        if not self._held:
            raise InvalidState(
                "this manager is not set up, or was torn down: call setup(), or use it in a with statement"
            )
        if self._owner != os.getpid():
            raise InvalidState(foreign(self._owner))
        return self._held

    # -- tasks ------------------------------------------------------------------------------------------------------------

    def create_process(
        self,
        task: tasks.Task,
        on_complete: Callable[[Completion], object] | None = None,
        *,
        on_message: Callable[[Any], object] | None = None,
        name: str | None = None,
        timeout: float | str | None = None,
        grace: float | str = tasks.GRACE,
        memory: int | str | None = None,
        usage: bool = False,
        environment: Mapping[str, str] | None = None,
        directory: tasks.Path | None = None,
        stdin: HasFileno | int | None = None,
        stdout: HasFileno | int | None = None,
        stderr: HasFileno | int | None = None,
    ) -> Process:
        """Start a task, at once. A function is forked, and has all that its owner has; a list of words is executed.

        A function that has to be given an argument gets a `MessageChannel`, on which it may write. on_message: called with
        each message: list[str], bytes, dict; int: a descriptor, which is the caller's to close; RemoteError,
        DescriptorsLost. Without it, they are thrown away. on_complete: called with the Completion, once, after them.
        name: for people. timeout: seconds, or text such as "5s", until it is ended: SIGTERM, `grace` seconds, SIGKILL.
        memory: bytes of address space (RLIMIT_AS), or text such as "512M". usage: whether the Completion tells what it used
        of resources. The rest is for commands: environment: all of it; directory; stdin, stdout, stderr: files or
        descriptors. None: the owner's; a command has no other descriptors.

        Raises UsageError, InvalidState; SetupError, and nothing has been started. A command that cannot be executed is told
        of by its completion.
        """
        # There are few calls on the way of most tasks (births.py).
        held = self._held
        if held is None or self._owner != os.getpid():
            held = self._check()
        for callback in (on_complete, on_message):
            if callback is not None and not callable(callback):
                tasks.check_callbacks(on_complete=on_complete, on_message=on_message)  # type: ignore[unreachable]
        usual = timeout is None and grace == tasks.GRACE and memory is None and not usage
        options = tasks.DEFAULTS if usual else tasks.checked_options(timeout, grace, memory, usage)
        order: births.Function | Command
        if callable(task):
            for_commands = environment, directory, stdin, stdout, stderr
            if for_commands != _NOTHING:
                tasks.refuse_for_functions(*for_commands)
            plain = name is None and type(task) is FunctionType
            name = task.__qualname__ if plain else tasks.checked_name(task, name)
            order = starting.function(task, name, options)
        else:
            words = tasks.checked_words(task)
            name = tasks.checked_name(task, name)
            order = starting.command(words, options, environment, directory, (stdin, stdout, stderr))
        with Blocked():
            process = Process(name, options, (on_complete, on_message), self._number + 1, held)
            starting.start(order, process, held)
            self._number += 1
        return process

    @property
    def is_busy(self) -> bool:
        """Whether there are tasks, or what they have left is being ended; those that `Workers` keep running do not count."""
        return bool(self._held and self._held.waits_for_tasks)

    @property
    def process_count(self) -> int:
        """Tasks whose `on_complete` has not been called yet."""
        return len(self._held.processes) if self._held else 0

    @property
    def processes(self) -> list[Process]:
        """Those, in the order they were started."""
        return list(self._held.processes.values()) if self._held else []

    # -- their end --------------------------------------------------------------------------------------------------------

    def kill_processes(self, signal: int = signals.SIGTERM, *, grace: float | str = tasks.GRACE) -> None:
        """Send all tasks, and what is below them, the signal, and SIGKILL when so many seconds have passed; returns at once.

        Steps take what follows. Raises UsageError, InvalidState.
        """
        held = self._check()
        number = tasks.checked_signal(signal)
        plan = stop.default_plan(seconds_of("grace", grace), number)
        with Blocked():
            if number == signals.SIGKILL:
                held.endings.hurry()
            held.begin([*held.processes.values()], plan)

    def wait_for_all_children(self) -> None:
        """Step until there is no task any more, also of those that callbacks start. Raises what `step` raises, then.

        Those that `Workers` keep running do not count, until these are stopped.
        """
        held = self._check()
        self._refuse_within()
        self._wait(held)

    def _wait(self, held: Holdings, *, stops_keepers: bool = False) -> None:
        """stops_keepers: also those that callbacks make meanwhile."""
        failure: Exception | None = None
        while held.waits_for_tasks or (stops_keepers and held.keepers):
            try:
                if stops_keepers and held.keepers:
                    held.keepers[-1].stop()
                else:
                    self.step()
            except Exception as error:  # noqa: BLE001 (a callback's: the others are waited for all the same)
                failure = failure or error
        if failure:
            raise failure

    def _refuse_within(self) -> None:
        if self._stepping:
            raise InvalidState(
                "this manager is in the middle of a step: neither a callback nor another thread can take one"
            )

    # -- the loop ---------------------------------------------------------------------------------------------------------

    def wakeup(self) -> None:
        """Let the step that runs, or the next one, return. For any thread, and for signal handlers."""
        held = self._held
        if held and self._owner == os.getpid():
            held.bell.ring()

    def fileno(self) -> int:
        """A descriptor that is readable when `step` has something to do: for selectors, and `loop.add_reader` of asyncio.

        Raises InvalidState; NotPossible: this system has none (epoll and timerfd; without them, call `step`).
        """
        return self._check().fileno()

    def step(self, timeout: float | str | None = None) -> int:
        """Wait until something happens, at most `timeout` seconds (None: for ever), and call what is to be called.

        Returns how many tasks have completed. What one callback raises does not keep the others from being called: the first
        of them is raised then. What is no Exception (KeyboardInterrupt) is raised at once, and the next step calls the rest.
        Raises InvalidState: in a callback; StillRunning: SIGKILL has not ended somebody.
        """
        held = self._held
        if held is None or self._owner != os.getpid():
            held = self._check()
        patience = None if timeout is None else seconds_of("timeout", timeout)
        if self._stepping:
            self._refuse_within()
        self._stepping = True
        try:
            if not self._due:
                for keeper in held.keepers:
                    keeper.mend()
                if held.deadlines.heap or held.endings.plans or held.blind or held.timers.heap:
                    patience = held.patience(patience)
                held.loop.run_once(patience)
                with Blocked():
                    self._collect(held)
            return self._call(held)
        finally:
            self._stepping = False
            if self._due:
                self.wakeup()

    def _collect(self, held: Holdings) -> None:
        """Put down what is to be called: each task's messages, and then its completion."""
        if held.deadlines.heap:
            self._take_time(held)
        marked = [*held.marked.values()]
        for process in marked:
            del held.marked[process.number]
        if held.blind:
            marked += held.blind.values()
        for process in marked:
            self._advance(process, held)
        if held.endings.plans:
            held.endings.advance()
        if held.timers.heap:
            self._due.extend((function, None, None) for function in held.take_calls())
        if held.bell.timer is not None:
            held.set_timer()

    def _take_time(self, held: Holdings) -> None:
        for number in held.deadlines.late():
            process = held.processes.get(number)
            if process and not process.collected and not process.child.look():
                process.timed_out = True
                process.stop()

    def _advance(self, process: Process, held: Holdings) -> None:
        if process.collected:
            return
        ended = process.child.look()
        if process.inbox:
            for message in process.inbox.take(None if ended else _TURN):
                self._due.append((process.on_message, message, None))
            if process.inbox.heard and (process.inbox.ended or ended):
                held.loop.forget(process.inbox.fd)
        if ended:
            process.collected = True
            if process.child.fd is not None:
                held.loop.forget(process.child.fd)
            try:
                completion = process.complete()
            finally:
                held.release(process)
            self._due.append((process.on_complete, completion, process))

    def _call(self, held: Holdings) -> int:
        count = 0
        errors: list[Exception] = [*held.endings.failures()] if held.endings.survivors else []
        while self._due:
            callback, what, process = self._due[0]
            if process:
                count += 1
                process.completion = what
                held.processes.pop(process.number, None)
                if held.kept:
                    held.kept.discard(process.number)
                if held.blind or held.deadlines.heap:
                    held.forget(process)
            # No handler of a signal comes between this line and the callback: what one raises is the callback's.
            del self._due[0]
            try:
                if callback:
                    callback(what)
                elif isinstance(what, int):
                    os.close(what)
            except Exception as error:  # noqa: BLE001 (the others are called all the same)
                errors.append(error)
        if errors:
            if len(errors) > 1:
                errors[0].add_note(f"{len(errors) - 1} more callbacks of the same step raised something")
            raise errors[0]
        return count
