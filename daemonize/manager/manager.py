"""`ProcessManager`: the owner's side."""

from __future__ import annotations

import os
import sys
import warnings
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from daemonize.errors import InvalidState, SetupError, UsageError
from daemonize.manager import births, tasks
from daemonize.manager.bell import Bell
from daemonize.manager.command import Command
from daemonize.manager.endings import Deadlines, Endings
from daemonize.manager.process import Completion, Process
from daemonize.offspring import forking
from daemonize.posix import prctl, signals, stop
from daemonize.posix.loop import POLLIN, Loop
from daemonize.units import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from daemonize.channel.codec import HasFileno

#: Frames of one task that are taken in one step: then the others have their turn.
_TURN = 16
#: As many as there can be when it has ended: more come from whoever has its descriptor.
_REST = 4096
#: Seconds between two looks whether a child has ended, where the kernel does not tell.
_LOOK = 0.02


class ProcessManager:
    """Starts tasks, each in a process of its own, and waits for them: functions, which are forked, and commands.

    For one thread, and the process that has set it up: only `wakeup` may be called by others. There may be any number of
    managers; none ever waits for a child that is not its own, and no signal is handled. Call `step` again and again, or when
    `fileno` is readable; `on_message` and `on_complete` are called in it.

    A context manager: the end of the block waits for all tasks; if an exception ends it, they are ended first.
    """

    def __init__(self) -> None:
        self._owner = 0
        self._loop = Loop()
        self._processes: dict[int, Process] = {}
        self._marked: dict[int, Process] = {}
        self._due: deque[tuple[Callable[[Any], object] | None, Any, Process | None]] = deque()
        self._deadlines, self._endings = Deadlines(), Endings()
        #: Those that the kernel does not tell of.
        self._blind: dict[int, Process] = {}
        self._bell: Bell | None = None
        self._stepping = False
        self._number = 0

    # -- life -------------------------------------------------------------------------------------------------------------

    def setup(self) -> Self:
        """Open what it needs. Raises InvalidState: it has been set up; SetupError."""
        if self._owner:
            raise InvalidState(
                "this manager has been set up: call teardown() first"
                if self._owner == os.getpid()
                else self._foreign
            )
        with signals.Blocked():
            try:
                self._bell = Bell()
            except OSError as error:
                raise SetupError("set up", "a manager of processes", error) from None
            self._loop = self._bell.loop
            self._owner = os.getpid()
            _all.add(self)
        prctl.prepare()
        return self

    def teardown(self) -> None:
        """Wait for all tasks, and give everything back; a second time does nothing. Raises what `step` raises, then."""
        if not self._owner:
            return
        self._check()
        try:
            self.wait_for_all_children()
        finally:
            if not self._processes:
                self._close()

    def _close(self) -> None:
        with signals.Blocked():
            _all.discard(self)
            self._owner = 0
            self._let_go()

    def _let_go(self) -> None:
        """Also in a forked child, where nothing is unwatched: that would be so in the owner as well."""
        if self._bell:
            self._bell.close()
        for process in self._processes.values():
            process.close()
        self._endings.close()
        self._bell = None
        self._marked, self._deadlines = {}, Deadlines()

    def __enter__(self) -> Self:
        return self.setup()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._owner or self._owner != os.getpid():
            return
        if kind is not None:
            self.kill_processes()
        self.teardown()

    def __del__(self) -> None:
        if self.__dict__.get("_owner") != os.getpid() or sys.is_finalizing():
            return
        warnings.warn("a ProcessManager was not torn down", ResourceWarning, stacklevel=2, source=self)
        self._close()

    @property
    def _foreign(self) -> str:
        return (
            f"this manager is that of process {self._owner}, from which this one was forked: make another one"
        )

    def _check(self) -> None:
        """Raises InvalidState."""
        if not self._owner:
            raise InvalidState(
                "this manager has not been set up: call setup() first, or use it in a with statement"
            )
        if self._owner != os.getpid():
            raise InvalidState(self._foreign)

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
        memory: int | None = None,
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
        memory: bytes of address space (RLIMIT_AS). The rest is for commands: environment: all of it; directory; stdin,
        stdout, stderr: files or descriptors. None: the owner's; a command has no other descriptors.

        Raises UsageError, InvalidState; SetupError, and nothing has been started. A command that cannot be executed is told
        of by its completion.
        """
        self._check()
        callbacks = (
            tasks.checked_callback("on_complete", on_complete),
            tasks.checked_callback("on_message", on_message),
        )
        if callable(task):
            tasks.refuse_for_functions(
                environment=environment, directory=directory, stdin=stdin, stdout=stdout, stderr=stderr
            )
            options = tasks.checked_options(task, name, timeout, grace, memory)
            with_channel = tasks.takes_channel(task)
            threads = forking.has_threads()
            if threads:
                forking.warn(options.name, "task")
            forking.flush(threads=threads)
            birth = lambda: births.of_function(task, options, with_channel=with_channel, threads=threads)  # noqa: E731
            return self._start(birth, options, callbacks)
        words = tasks.checked_words(task)
        options = tasks.checked_options(task, name, timeout, grace, memory)
        streams = tasks.checked_streams(stdin=stdin, stdout=stdout, stderr=stderr)
        environ, path = tasks.checked_environment(environment), tasks.checked_directory(directory)
        command = Command(words, environ, path, streams, memory)
        return self._start(lambda: births.of_command(command), options, callbacks)

    def _start(self, birth: Callable[[], births.Born], options: tasks.Options, callbacks: Any) -> Process:
        with signals.Blocked():
            try:
                child, inbox, command = birth()
            except OSError as error:
                raise SetupError("start", options.name, error) from None
            process = Process(child, inbox, command, options, callbacks, self._end_one)
            try:
                return self._add(process)
            except OSError as error:  # there are limits of what can be watched (epoll(7))
                self._discard(process)
                raise SetupError("watch", options.name, error) from None

    def _discard(self, process: Process) -> None:
        """As if it had never been."""
        for fd in (process.inbox.fileno() if process.inbox else None, process.child.fd):
            if fd is not None:
                self._loop.forget(fd)
        self._forget(process)
        process.send_signal(signals.SIGKILL)
        process.child.wait(stop.KILL_GRACE)
        process.close()

    def _add(self, process: Process) -> Process:
        self._number = number = process.number = self._number + 1
        self._processes[number] = process
        mark = lambda _events: self._marked.__setitem__(number, process)  # noqa: E731
        if process.inbox:
            self._loop.watch(process.inbox.fileno(), POLLIN, mark)
        if process.child.fd is not None:
            self._loop.watch(process.child.fd, POLLIN, mark)
        else:
            self._blind[number] = process
        if process.options.timeout is not None:
            self._deadlines.add(number, process.options.timeout)
        self._set_timer()
        return process

    def _forget(self, process: Process) -> None:
        self._processes.pop(process.number, None)
        self._blind.pop(process.number, None)
        self._deadlines.forget_all_but(self._processes)

    @property
    def process_count(self) -> int:
        """Tasks whose `on_complete` has not been called yet."""
        return len(self._processes)

    @property
    def processes(self) -> list[Process]:
        """Those, in the order they were started."""
        return list(self._processes.values())

    # -- their end --------------------------------------------------------------------------------------------------------

    def kill_processes(self, signal: int = signals.SIGTERM, *, grace: float | str = tasks.GRACE) -> None:
        """Send all tasks, and what is below them, the signal, and SIGKILL when so many seconds have passed; returns at once.

        Steps take what follows. Raises UsageError, InvalidState.
        """
        self._check()
        if signal not in signals.valid():
            raise UsageError(f"there is no signal {signal!r}: write signal.SIGTERM")
        plan = stop.default_plan(seconds_of("grace", grace), int(signal))
        with signals.Blocked():
            self._begin([*self._processes.values()], plan)

    def _end_one(self, process: Process, number: int, grace: float) -> None:
        self._check()
        with signals.Blocked():
            if process.completion is None:
                self._begin([process], stop.default_plan(grace, number))

    def _begin(self, processes: Iterable[Process], plan: Sequence[tuple[int, float]]) -> None:
        living = [process.pid for process in processes if not process.child.look()]
        if living:
            self._endings.begin(self._loop, living, plan)
            self.wakeup()

    def wait_for_all_children(self) -> None:
        """Step until there is no task any more, also of those that callbacks start. Raises what `step` raises, then."""
        self._check()
        self._refuse_within()
        failure: Exception | None = None
        while self._processes or self._endings:
            try:
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
        bell = self._bell
        if bell and self._owner == os.getpid():
            bell.ring()

    def fileno(self) -> int:
        """A descriptor that is readable when `step` has something to do: for selectors, and `loop.add_reader` of asyncio.

        Raises InvalidState; NotPossible: this system has none (epoll and timerfd; without them, call `step`).
        """
        self._check()
        assert self._bell
        fd = self._bell.fileno()
        self._set_timer()
        return fd

    def step(self, timeout: float | str | None = None) -> int:
        """Wait until something happens, at most `timeout` seconds (None: for ever), and call what is to be called.

        Returns how many tasks have completed. What one callback raises does not keep the others from being called: the first
        of them is raised then. What is no Exception (KeyboardInterrupt) is raised at once, and the next step calls the rest.
        Raises InvalidState: in a callback; StillRunning: SIGKILL has not ended somebody.
        """
        self._check()
        patience = None if timeout is None else seconds_of("timeout", timeout)
        self._refuse_within()
        self._stepping = True
        try:
            if not self._due:
                self._loop.run_once(self._patience(patience))
                with signals.Blocked():
                    self._collect()
            return self._call()
        finally:
            self._stepping = False
            if self._due:
                self.wakeup()

    def _patience(self, timeout: float | None) -> float | None:
        """Seconds until something is to be done though nobody tells."""
        waits = [] if timeout is None else [timeout]
        waits += self._deadlines.left(self._processes)
        waits += self._endings.timeouts
        if self._blind:
            waits.append(_LOOK)
        return min(waits, default=None)

    def _set_timer(self) -> None:
        if self._bell and self._bell.tells_time:
            self._bell.set_timer(self._patience(None))

    def _collect(self) -> None:
        """Put down what is to be called: each task's messages, and then its completion."""
        self._take_time()
        marked, self._marked = self._marked, {}
        marked.update(self._blind)
        for process in marked.values():
            self._advance(process)
        self._endings.advance()
        self._set_timer()

    def _take_time(self) -> None:
        for number in self._deadlines.late():
            process = self._processes.get(number)
            if process and not process.collected and not process.child.look():
                process.timed_out = True
                process.stop()

    def _advance(self, process: Process) -> None:
        if process.collected:
            return
        ended = process.child.look()
        if process.inbox:
            messages = process.inbox.take(_REST if ended else _TURN)
            self._due.extend((process.on_message, message, None) for message in messages)
            if process.inbox.ended or ended:
                self._loop.forget(process.inbox.fileno())
        if ended:
            process.collected = True
            if process.child.fd is not None:
                self._loop.forget(process.child.fd)
            self._due.append((process.on_complete, process.complete(), process))

    def _call(self) -> int:
        count = 0
        errors: list[Exception] = [*self._endings.failures()]
        while self._due:
            callback, what, process = self._due[0]
            if process:
                count += 1
                process.completion = what
                self._forget(process)
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


_all: weakref.WeakSet[ProcessManager] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked child: neither the managers nor their tasks are its own."""
    for manager in list(_all):
        manager._let_go()  # noqa: SLF001 (of the same make)


os.register_at_fork(after_in_child=_let_go)
