"""The intermediate parent: the server's parent during start-up. Small, and without policy.

    wrapper ──control──▶ intermediate parent ──fork──▶ server
            ◀──events──          (setsid, child subreaper: adopts what the server leaves behind)

On `events` it says, one line each:

    forked PID             the server exists
    failed STAGE ERRNO     it could not be forked, or we could not become its parent
    blind                  this system has no child subreapers: what the server leaves behind is init's at once
    reaped PID STATUS      a child has ended (wait status); first the server, later what was adopted
    adopted PID ...        the server has ended; these are left (`?`: somebody is, but /proc does not say who)

One byte on `control` means detach: it exits, and everything below becomes init's. End of file there means that the
wrapper has vanished: it runs the stop plan, because a server that nobody waits for is not left half-started.
"""

from __future__ import annotations

import os

from daemonize.posix import child, fds, prctl, signals
from daemonize.posix.identity import all_pids, has_proc, read_file, read_stat, wait_for_end
from daemonize.posix.loop import POLLIN, Loop
from daemonize.posix.signals import SIGCHLD, SIGTRAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from daemonize.launcher.claims import Claims
    from daemonize.posix.child import Program

DETACH = b"d"


class Reaper:
    """Reaps everything this process is parent of, and tells it as lines of the `events` format.

    For a process of our own that adopts orphans (the intermediate parent; the wrapper in the foreground), never a library.
    besides: children that are not the server's, of which nothing is told.
    """

    def __init__(self, server: int, besides: Collection[int] = ()) -> None:
        self.server, self._besides = server, besides
        self.server_ended = False

    def reap(self) -> list[bytes]:
        """Lines about all children that have ended by now; after the server's end also about those that are left."""
        lines = []
        left = True
        while left:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                left = False
                break
            if not pid:
                break
            if os.WIFSTOPPED(status):
                # It has made us its tracer (PTRACE_TRACEME, against debuggers); SIGTRAP is exec(2) being traced.
                number = os.WSTOPSIG(status)
                prctl.let_go(pid, 0 if number == SIGTRAP else number)
                continue
            if pid in self._besides:
                continue
            self.server_ended = self.server_ended or pid == self.server
            lines.append(b"reaped %d %d\n" % (pid, status))
        if lines and self.server_ended:
            lines.append(b" ".join([b"adopted", *(_children(self._besides) if left else ())]) + b"\n")
        return lines


def _children(besides: Collection[int]) -> list[bytes]:
    """Pids of the children of this process, which is its only thread, but for `besides`; it has at least one."""
    me = os.getpid()
    listed = (read_file(f"/proc/{me}/task/{me}/children") or b"").split() if has_proc() else []
    found = listed or [b"%d" % s.pid for s in map(read_stat, all_pids()) if s and s.ppid == me]
    return [pid for pid in found if int(pid) not in besides] if found or besides else [b"?"]


def run(
    program: Program,
    token: bytes,
    grace: float,
    claims: Claims,
    *,
    control: int,
    events: int,
    report: int,
    gate: int,
) -> None:
    """Be the intermediate parent, in a freshly forked process with all signals blocked.

    Never returns there. It does in the server, if that is the caller's own program, which is to go on.

    token: `NAME=value` that marks the server's environment. grace: seconds of the stop plan. claims: taken back if the
    wrapper has vanished. control, events: our ends of the pipes to the wrapper. report, gate: the server's ends of its own
    (posix/child.py).
    """
    detached = goes_on = False
    try:
        started = _start(program, {control, events, *claims.kept}, events=events, report=report, gate=gate)
        if started is None:
            goes_on = True
            return
        reaper, queue = started
        detached = _serve(reaper, queue, control, events)
        if not detached:
            _stop_all(reaper, token, grace)
        reaper.reap()  # no zombies for init
    finally:
        if not goes_on:
            if not detached:
                claims.remove()
            os._exit(0)


def _start(
    program: Program, kept: Collection[int], *, events: int, report: int, gate: int
) -> tuple[Reaper, signals.SignalQueue] | None:
    """Fork the server, and let go of all descriptors but those `kept`. None: this is the server."""
    os.setsid()
    stage = b"signals"
    try:
        # Before the fork: were SIGCHLD ignored, as some callers leave it, the kernel would throw the status away.
        queue = signals.SignalQueue((SIGCHLD,))
        stage = b"fork"
        server = child.fork(program, report, gate)
        if not server:
            queue.close()
            return None
        # After the fork, while the server sets itself up; it is let through the gate only when `forked` is said.
        if not prctl.become_subreaper():
            _tell(events, [b"blind\n"])
        # It holds nothing of the caller's from here on: `$(daemonize ...)` must not wait for it. And nothing of the
        # server's: were it stopped with a copy of a pipe, nobody would ever see the server execute, or go silent.
        stage = b"descriptors"
        fds.point_at_null(0, 1, 2)
        fds.sweep({*kept, *queue.descriptors})
    except OSError as error:
        _tell(events, [b"failed %s %d\n" % (stage, error.errno or 0)])
        raise
    _tell(events, [b"forked %d\n" % server])
    return Reaper(server), queue


def _serve(reaper: Reaper, queue: signals.SignalQueue, control: int, events: int) -> bool:
    """Reap, and tell, until the wrapper lets go; False if it has vanished instead."""
    loop = Loop()
    detached: list[bool] = []

    def told(_events: int) -> None:
        detached.append(os.read(control, 1) == DETACH)

    def children_ended(_events: int) -> None:
        queue.read()
        _tell(events, reaper.reap())

    loop.watch(control, POLLIN, told)
    loop.watch(queue.fd, POLLIN, children_ended)
    signals.restore_mask(signals.valid() - {SIGCHLD})
    while not detached:
        loop.run_once(None)
    return detached[0]


def _tell(events: int, lines: list[bytes]) -> None:
    try:
        os.write(events, b"".join(lines))
    except OSError:
        pass  # the wrapper has vanished; `control` says so too


def _stop_all(reaper: Reaper, token: bytes, grace: float) -> None:
    # Only now: a launch that goes well never needs it.
    from daemonize.posix import stop
    from daemonize.posix.tree import Tree

    me = os.getpid()
    stat = read_stat(reaper.server)
    main = None if reaper.server_ended else (reaper.server, stat.start if stat else 0)
    stop.run(Loop(), Tree({me}, session=me, tokens=[token]), main, stop.default_plan(grace), reaper.reap)


def reap(pid: int, patience: float) -> None:
    """In the wrapper: wait for the intermediate parent, which has been told to go (0: there is none).

    One that has not gone after `patience` seconds is killed: whatever it had to do, it does not do it.
    """
    if not pid:
        return
    try:
        # It may have been stopped. Its pid is safe as long as we have not reaped it.
        os.kill(pid, signals.SIGCONT)
        if not wait_for_end(pid, patience):
            os.kill(pid, signals.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # the caller leaves its children to the kernel (SIGCHLD ignored)
