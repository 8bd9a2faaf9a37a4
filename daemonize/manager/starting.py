"""Tasks are started: what was asked for is checked, brought into the world, and watched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemonize.errors import SetupError
from daemonize.manager import births, tasks
from daemonize.manager.command import Command
from daemonize.offspring import forking
from daemonize.posix import signals, stop
from daemonize.posix.loop import POLLIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemonize.channel.codec import HasFileno
    from daemonize.manager.holdings import Holdings
    from daemonize.manager.process import Process


def function(task: Callable[..., Any], name: str, options: tasks.Options) -> births.Function:
    """What is to be forked. Raises UsageError."""
    with_channel = tasks.takes_channel(task)
    threads = forking.has_threads()
    if threads:
        forking.warn(name, "task")
    forking.flush(threads=threads)
    return births.Function(task, options.memory, with_channel, threads)


def command(
    words: list[bytes],
    options: tasks.Options,
    environment: Mapping[str, str] | None,
    directory: tasks.Path | None,
    streams: Sequence[HasFileno | int | None],
) -> Command:
    """What is to be executed. Raises UsageError."""
    found = tasks.checked_streams(*streams)
    environ, path = tasks.checked_environment(environment), tasks.checked_directory(directory)
    return Command(words, environ, path, found, options.memory)


def start(order: births.Function | Command, process: Process, held: Holdings) -> None:
    """In `Blocked`; the process has been made before the fork. Raises SetupError: nothing has been started."""
    try:
        child, process.inbox, process.command = order.bear(held)
    except OSError as error:
        raise SetupError("start", process.name, error) from None
    process.child, process.pid = child, child.pid
    inbox, number, fd = process.inbox, process.number, child.fd
    if inbox:
        held.fds.add(inbox.fd)
    if process.command:
        held.fds.add(process.command[1])
    held.processes[number] = process
    try:
        if inbox and inbox.heard:
            held.loop.watch(inbox.fd, POLLIN, process.mark)
        if fd is not None:
            held.fds.add(fd)
            held.loop.watch(fd, POLLIN, process.mark)
        else:
            held.blind[number] = process
    except OSError as error:  # there are limits of what can be watched (epoll(7))
        _discard(process, held)
        raise SetupError("watch", process.name, error) from None
    if process.options is not tasks.DEFAULTS:
        child.measured = process.options.usage
        if process.options.timeout is not None:
            held.deadlines.add(number, process.options.timeout)
    if held.bell.timer is not None:
        held.set_timer()


def _discard(process: Process, held: Holdings) -> None:
    """As if it had never been."""
    for fd in process.descriptors:
        held.loop.forget(fd)
    held.processes.pop(process.number, None)
    held.forget(process)
    process.send_signal(signals.SIGKILL)
    process.child.wait(stop.KILL_GRACE)
    held.release(process)
