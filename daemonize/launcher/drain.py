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
    from collections.abc import Sequence

_CHUNK = 65536


def start(pipes: Sequence[tuple[int, int]]) -> int:
    """Leave a drain behind for (read end, log) descriptors; returns its pid. Raises OSError.

    Forked twice: the caller of `launch()` must not have to reap it one day.
    """
    answer = answer_of(lambda write: _fork_again(write, pipes))
    if not answer:
        raise OSError(11, "the drain could not be forked")
    return int(answer)


def _fork_again(write: int, pipes: Sequence[tuple[int, int]]) -> None:
    """The middle process, and the drain in it. Never returns."""
    try:
        os.setsid()
        if fork_alone() == 0:
            _drain(write, pipes)
    finally:
        os._exit(0)


def _drain(write: int, pipes: Sequence[tuple[int, int]]) -> None:
    signals.set_defaults()
    for number in (signals.SIGPIPE, signals.SIGXFSZ):
        signals.ignore(number)  # a log that cannot be written to is an error, and no more
    signals.restore_mask(())
    loop = Loop()
    logs = dict(pipes)
    fds.point_at_null(0, 1, 2)
    os.write(write, b"%d" % os.getpid())
    fds.sweep({*logs, *logs.values()})
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
