"""Fork and set up the process that becomes the server.

The child reports over a CLOEXEC pipe, one line each:

    gate PID               everything is set up; it now waits at the gate
    failed STAGE ERRNO     a step failed; it exits

End of file after `gate` means that exec(2) has succeeded (or that the child was killed: look at its status). It waits at
the gate until a byte comes; end of file there means that nobody is left who could look after it, and it exits.

A program that is the caller's own (posix/continuation.py) is not executed: it goes on, when it has passed the gate.
"""

from __future__ import annotations

import errno
import gc
import os

from daemonize.posix import fds, prctl, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from daemonize.outcomes import NotExecuted

    class Context(Protocol):
        """What a process can be made to have beyond a directory (launcher/context.py)."""

        stage: str

        def open(self) -> None:
            """Make it so, for good; raises OSError, and `stage` tells the step."""

        def describe(self, stage: str) -> str:
            """What a step acts on, as shown to people."""


#: Errors after which execvp(3) goes on to the next directory of PATH.
_NOT_THIS_ONE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP)
_UNEXECUTED = 125  # never seen by anyone who has read the report


class Directory:
    """The least context: a directory (None: the one there is)."""

    stage = "directory"

    def __init__(self, path: bytes | None) -> None:
        self._path = path

    def open(self) -> None:
        """Change to it. Raises OSError."""
        if self._path is not None:
            os.chdir(self._path)

    def describe(self, stage: str) -> str:
        """The directory."""
        return os.fsdecode(self._path or b"")


class Program:
    """What to execute, and with what. All paths but `paths` are those that hold before root and directory change.

    argv: the arguments. paths: files to try, in this order (execvp(3)). context: what to become (None: as we are). stdin: a
    descriptor, or None to keep 0. fifo: opened for stdin by the child itself, which may have to wait for a writer. stdout,
    stderr: descriptors. keep: descriptors above 2 that are inherited. placed: more of them, by the number that each is to
    have. dies_with_parent: whether it gets SIGTERM when its parent ends (foreground: nobody else would look after it).
    assigns_pid: each `NAME=VALUE` for its environment, with %d for its pid. continues: it is the caller's own program.
    """

    continues = False

    def __init__(
        self,
        argv: Sequence[bytes],
        paths: Sequence[bytes],
        environment: Mapping[bytes, bytes],
        *,
        context: Context | None = None,
        stdin: int | None = None,
        fifo: bytes | None = None,
        stdout: int = 1,
        stderr: int = 2,
        keep: Sequence[int] = (),
        placed: Mapping[int, int] | None = None,
        dies_with_parent: bool = False,
        assigns_pid: Sequence[bytes] = (),
    ) -> None:
        self.argv, self.paths, self.environment = list(argv), list(paths), dict(environment)
        self.context = context or Directory(None)
        self.stdin, self.stdout, self.stderr, self.keep = stdin, stdout, stderr, tuple(keep)
        self.placed = dict(placed or {})
        self.fifo = fifo
        self.dies_with_parent = dies_with_parent
        self.assigns_pid = assigns_pid

    def hold(self, *ours: int) -> None:
        """Close every descriptor that the server is not to have, but for `ours`, which are closed by exec(2)."""
        fds.sweep({*ours, *self.keep})
        for fd in self.keep:
            os.set_inheritable(fd, True)

    def set_signals(self) -> None:
        """Every signal as a program expects it."""
        signals.set_defaults()

    def prepare(self) -> None:
        """Whatever of `start` can be done before it is let go: the others need a millisecond to let it."""

    def start(self) -> None:
        """Be the program. As execvp(3): the first file that is there and may be executed; else the error that says most.

        Raises OSError.
        """
        signals.restore_mask(())
        for variable in self.assigns_pid:
            name, _, value = (variable % os.getpid()).partition(b"=")
            self.environment[name] = value
        failure: OSError | None = None
        for path in self.paths:
            try:
                os.execve(path, self.argv, self.environment)
            except OSError as error:
                if failure is None or failure.errno in (errno.ENOENT, errno.ENOTDIR):
                    failure = error
                if error.errno not in _NOT_THIS_ONE:
                    break
        raise failure or OSError(errno.ENOENT, "")


def search(command: bytes, environment: Mapping[bytes, bytes], base: bytes | None = None) -> list[bytes]:
    """The files that execvp(3) would try, made absolute from `base`, or while the directory is still the caller's."""
    if not command:
        return []
    if b"/" in command:
        return [_absolute(command, base)]
    path = environment.get(b"PATH", os.defpath.encode())
    return [_absolute(os.path.join(directory, command), base) for directory in path.split(b":")]


def _absolute(path: bytes, base: bytes | None) -> bytes:
    if path.startswith(b"/"):
        return path
    try:
        return os.path.join(base or os.getcwdb(), path)
    except FileNotFoundError:  # the current directory has been deleted: nothing is in it
        return path


def not_executed(program: Program, root: bytes | None, stage: str, number: int) -> NotExecuted:
    """The outcome for a step that failed, with what it failed on. root: the server's, where it is not ours."""
    from daemonize.outcomes import NotExecuted

    if stage != "exec":
        on = os.fsdecode(program.fifo or b"") if stage == "stdin" else program.context.describe(stage)
        return NotExecuted(stage.partition(":")[0], number, on)
    exists = os.path.lexists if root else os.path.exists  # a symlink there leads where we do not see
    existing = [path for path in program.paths if exists((root or b"") + path)]
    found = bool(existing) or number not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    named = existing or (program.paths if found else [])
    return NotExecuted(stage, number, os.fsdecode(named[0]) if named else "", found=found)


def fork_alone() -> int:
    """fork(2), as os.fork, for a child that executes or exits: what is the caller's garbage is not finalized in it."""
    pid = os.fork()
    if pid == 0:
        gc.disable()
    return pid


def answer_of(be: Callable[[int], object]) -> bytes:
    """Fork a child, with all signals blocked, that calls `be` with a pipe to tell something on, and never returns from it.

    What it tells in one word, or b"" if it was killed before. It is reaped. Raises OSError.
    """
    read, write = os.pipe()
    try:
        mask = signals.block_all()
        try:
            pid = fork_alone()
            if pid == 0:
                be(write)
        finally:
            signals.restore_mask(mask)
            os.close(write)
        answer = os.read(read, 32)
    finally:
        os.close(read)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass  # the caller leaves its children to the kernel (SIGCHLD ignored)
    return answer


def fork(program: Program, report: int, gate: int) -> int:
    """Fork the server; returns its pid, and 0 in the server, if that is the caller's own program. Raises OSError.

    Signals must be blocked when this is called: a handler of ours must not run in the child.
    """
    parent = os.getpid()
    pid = fork_alone()
    if pid == 0:
        goes_on = False
        try:
            goes_on = _become(program, report, gate, parent)
        finally:
            if not goes_on:
                os._exit(_UNEXECUTED)
    return pid


def _become(program: Program, report: int, gate: int, parent: int) -> bool:
    """The child's side. True: the caller's own program is to go on. False: something failed, and that is reported."""
    stage = "descriptors"
    try:
        if program.dies_with_parent and not _dies_with(parent, signals.SIGKILL):
            return False  # until it is at the gate, where it would hear SIGTERM
        _place_streams(program)
        stage = "stdin"
        if program.fifo:
            os.dup2(os.open(program.fifo, os.O_RDONLY), 0)
        stage = "descriptors"
        if program.placed:
            report, gate = _place(program, report, gate)
        program.hold(report, gate)
        stage = ""
        program.context.open()
        stage = "signals"
        program.set_signals()
        if program.dies_with_parent and not _dies_with(parent, signals.SIGTERM):
            return False
        stage = "gate"
        os.write(report, b"gate %d\n" % os.getpid())
        program.prepare()
        if not os.read(gate, 1):
            return False
        os.close(gate)
        stage = "exec"
        program.start()
        os.close(report)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is no status of the server's)
        number = (
            errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", 0) or errno.EINVAL
        )
        os.write(report, b"failed %s %d\n" % ((stage or program.context.stage).encode(), number))
        return False
    return True


def _dies_with(parent: int, number: int) -> bool:
    """Get a signal at the parent's end; False if that has ended already."""
    prctl.die_with_parent(number)
    return os.getppid() == parent


def _place_streams(program: Program) -> None:
    # All sources are above 2 (0, 1 and 2 were occupied before anything was opened), so no copy overwrites a source.
    for source, target in ((program.stdin, 0), (program.stdout, 1), (program.stderr, 2)):
        if source is not None and source != target:
            os.dup2(source, target, inheritable=True)


def _place(program: Program, report: int, gate: int) -> tuple[int, int]:
    """Put descriptors at the numbers that the program is to find them at; what stood there moves out of the way first.

    Returns where report and gate are now.
    """
    report, gate = fds.away(report, program.placed), fds.away(gate, program.placed)
    keep = [fds.away(fd, program.placed) for fd in program.keep]
    sources = {number: fds.away(fd, program.placed) for number, fd in program.placed.items()}
    for number, fd in sources.items():
        os.dup2(fd, number, inheritable=True)
    program.keep = (*keep, *program.placed)
    return report, gate
