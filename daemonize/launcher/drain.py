"""The drain: copies a pipe that somebody still holds to the daemon's log, until end of file.

    wrapper ── fork ── (fork, exits) ── drain ◀── pipe ── whoever still holds it
       │ exits                             └──▶ log

Without it the server would die of SIGPIPE at its next word after the wrapper has gone. It is a sibling, never the server's
parent, in a session of its own, and holds nothing but the pipes and the logs. A full disk, or a slow reader of a fifo,
costs words, not the server.
"""

from __future__ import annotations

import os

from daemonize.posix import fds, signals
from daemonize.posix.child import answer_of, fork_alone
from daemonize.posix.loop import POLLIN, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

_CHUNK = 65536


def start(pipes: Sequence[tuple[int, int]]) -> int:
    """Leave a drain behind for (read end, log) descriptors; returns its pid. Raises OSError."""
    logs = dict(pipes)
    return leave({*logs, *logs.values()}, lambda: _copy_all(logs))


def leave(kept: Collection[int], work: Callable[[], None], ignored: Iterable[int] = ()) -> int:
    """Leave a process behind that does `work` and exits; returns its pid. Raises OSError.

    kept: the descriptors it has besides 0, 1 and 2. ignored: signals that do not end it. Forked twice: the caller of
    `launch()` must not have to reap it one day.
    """
    answer = answer_of(lambda write: _fork_again(write, kept, work, ignored))
    if not answer:
        raise OSError(11, "the drain could not be forked")
    return int(answer)


def _fork_again(write: int, kept: Collection[int], work: Callable[[], None], ignored: Iterable[int]) -> None:
    """The middle process, and the drain in it. Never returns."""
    try:
        os.setsid()
        if fork_alone() == 0:
            signals.set_defaults()
            for number in (signals.SIGPIPE, signals.SIGXFSZ, *ignored):
                signals.ignore(number)  # a log that cannot be written to is an error, and no more
            signals.restore_mask(())
            fds.point_at_null(0, 1, 2)
            # First: a copy of a write end would delay an end of file in the wrapper.
            fds.sweep({*kept, write})
            os.write(write, b"%d" % os.getpid())
            os.close(write)
            work()
    finally:
        os._exit(0)


def _copy_all(logs: dict[int, int]) -> None:
    loop = Loop()
    for source, log in logs.items():
        os.set_blocking(source, True)
        os.set_blocking(log, False)  # a fifo whose reader is slow must not hold the server up
        loop.watch(source, POLLIN, lambda _events, source=source: _copy(loop, logs, source))  # type: ignore[misc]
    while logs:
        loop.run_once(None)


def _copy(loop: Loop, logs: dict[int, int], source: int) -> None:
    data = os.read(source, _CHUNK)
    if not data:
        loop.forget(source)
        os.close(logs.pop(source))
        os.close(source)
        return
    try:
        fds.write_all(logs[source], data)
    except OSError:
        pass  # the disk is full: go on reading, the server must not notice
