"""`daemonize.launch()`: the launch as a function.

Without threads the caller itself is the wrapper: everything is imported before the fork, and the children run nothing of
the caller's. A caller with threads (another of them may hold any lock at the moment of the fork) or of great size (its
memory would be copied on write while the server starts) gets a wrapper of its own: launcher/keeper.py, executed.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol

from daemonize import outcomes  # noqa: F401 (everything is imported before the fork)
from daemonize.errors import LaunchError, UsageError
from daemonize.launcher import drain, foreground, kinds, owner  # noqa: F401 (everything is imported before the fork)
from daemonize.launcher.daemon import Daemon
from daemonize.launcher.outputs import Targets
from daemonize.launcher.request import START_TIMEOUT, STOP_TIMEOUT, Request
from daemonize.launcher.wrapper import Wrapper
from daemonize.posix import callers, follow, signals, stop, tree  # noqa: F401 (likewise)
from daemonize.registry import content
from daemonize.registry.record import parse
from daemonize.units import parse_duration, parse_rotation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemonize.launcher.request import Limit, StrPath

#: Bytes of each stream that an error carries.
KEPT_OUTPUT = 65536
#: Resident bytes from which on a caller is not forked.
LARGE = 256 << 20


class HasDescriptor(Protocol):
    """A file, a socket, a pipe."""

    def fileno(self) -> int:
        """Its descriptor."""


def launch(
    command: Sequence[StrPath],
    *,
    ready: str | Sequence[str] | None = None,
    timeout: float | str | None = START_TIMEOUT,
    on_timeout: str = "stop",
    stop_timeout: float | str = STOP_TIMEOUT,
    strict: bool = False,
    cwd: StrPath | None = None,
    env: Mapping[str, str] | None = None,
    clear_env: bool = False,
    stdout: StrPath | None = None,
    stderr: StrPath | None = None,
    append: bool = False,
    log_rotate: str | tuple[int, int] | None = None,
    timestamps: bool = False,
    stdin: StrPath | None = None,
    keep_fds: Sequence[int] = (),
    listen: str | Sequence[str] | None = None,
    user: str | int | None = None,
    chroot: StrPath | None = None,
    umask: int | None = None,
    nice: int = 0,
    core: bool | None = None,
    limits: Mapping[str, Limit] | None = None,
    safe: bool = False,
    pid_file: StrPath | None = None,
    lock_file: StrPath | None = None,
    name: str | None = None,
    relay_stdout: int | HasDescriptor | None = 1,
    relay_stderr: int | HasDescriptor | None = 2,
) -> Daemon:
    """Start a server in the background and return when it is ready.

    command: program and arguments. ready: readiness specs, all of which must hold (default `streams`; `started` with
    stdout or stderr). timeout: seconds (or "90s") to become ready, None: no limit. on_timeout: `stop` the server then, or
    `leave` it running. stop_timeout: seconds between SIGTERM and SIGKILL. strict: anything on stderr before ready is a
    failure. cwd: directory to run in. env: variables to set. clear_env: no others. stdout, stderr: files to write to,
    truncated unless `append`. log_rotate: rotate the logs beyond a size, "10M" or "10M:5" (so many old ones are kept), or
    (bytes, kept), and timestamps: begin each of their lines with the time: by a drain that stays as long as the server
    runs. stdin: file to read (default /dev/null). keep_fds: descriptors the server inherits.
    listen: `[NAME=]ADDRESS` of sockets that it finds open (`daemonize.listen_fds()`), each [HOST:]PORT or unix:PATH.
    user, chroot, umask, nice, core, limits: as of `daemonize.context` (cwd is inside the new root). safe: as root, refuse a
    program that others may write to. pid_file: file for the pid. lock_file: file to be locked as long as the server runs.
    name: of the daemon, of which there is one at a time, for `Daemon.find` and daemonctl(1).
    relay_stdout, relay_stderr: where its start-up output goes: a descriptor, a file, or None for nowhere.

    Raises LaunchError (Exited, NotExecuted, Unsafe, TimedOut, Cancelled, Lost, StrictFailure) with the facts and
    `exit_status`; AlreadyRunning if the name, the lock file or the pid file is taken, or a port or a socket of `listen`
    or of `ready` (`port`, `unix`, `http`, `https`); UsageError for arguments that cannot be used; SetupError if something
    of ours failed. If anything else is raised meanwhile (KeyboardInterrupt), the server is stopped first. Never exits,
    never forks a copy of the caller that lives on.
    """
    kinds.check(locals())
    with kinds.refusing("launch()"):
        request = Request(
            command,
            ready=kinds.several(ready),
            timeout=float("inf") if timeout is None else _seconds(timeout),
            on_timeout=on_timeout,
            stop_timeout=_seconds(stop_timeout),
            strict=strict,
            directory=cwd,
            environment=env,
            clear_environment=clear_env,
            stdout=stdout,
            stderr=stderr,
            append=append,
            log_rotate=parse_rotation(log_rotate) if isinstance(log_rotate, str) else log_rotate,
            timestamps=timestamps,
            stdin=stdin,
            keep_fds=keep_fds,
            listen=kinds.several(listen),
            user=user,
            chroot=chroot,
            umask=umask,
            nice=nice,
            core=core,
            limits=limits,
            safe=safe,
            pid_file=pid_file,
            lock_file=lock_file,
            name=name,
        )
        out, err = _descriptor("relay_stdout", relay_stdout), _descriptor("relay_stderr", relay_stderr)
        targets = Targets(out, err, KEPT_OUTPUT)
    with signals.SigpipeBlocked():
        # A drain for life is a fork of the wrapper, and must not keep a copy of the caller's memory.
        is_apart = request.has_drain or _needs_keeper()
        outcome = owner.run(request, targets) if is_apart else Wrapper(request, targets).run()
    if isinstance(outcome, LaunchError):
        raise outcome
    return Daemon(parse(content.write(outcome.record)))


def _seconds(duration: float | str) -> float:
    return parse_duration(duration) if isinstance(duration, str) else float(duration)


def _descriptor(name: str, target: int | HasDescriptor | None) -> int | None:
    if target is None:
        return None
    if isinstance(target, int) and 0 <= target < 1 << 31:
        return target
    if isinstance(target, int) or not hasattr(target, "fileno"):
        raise UsageError(f"{name} must be a descriptor, a file or None, not {target!r}")
    if isinstance(target, io.IOBase):
        target.flush()  # what was written before must come before
    return target.fileno()


def _needs_keeper() -> bool:
    return callers.has_threads() or callers.resident() > LARGE
