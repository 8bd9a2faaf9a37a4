"""What a launch costs, how soon the wrapper is gone, how fast it relays.

    bench ── daemonize ── intermediate parent ── server       one side of a pair
    bench ── the same work without us                         the other side

The bench is a child subreaper: a server that has been left running becomes its child, so that every round
can end with the server killed and reaped, and nothing of one round is alive in the next.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from page import FINISHED, GO, PID, SIZE, STARTED, Page

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SERVER = [sys.executable, "-S", "-E", str(HERE / "server.py")]
#: Servers with the option: the smallest that there can be, and an application.
OPTION_SERVERS = {
    "smallest": [sys.executable, str(HERE / "option_server.py")],
    "Flask": [sys.executable, str(HERE / "option_app.py")],
}
PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 60.0


class CannotMeasureError(Exception):
    """A measurement could not be made; the text says why."""


@dataclass
class Bench:
    """The place where launches are measured: a scratch directory, the command, the environment it runs in."""

    scratch: Path
    command: str
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Bench]:
        """Set everything up; afterwards the scratch directory is gone."""
        command = Path(sys.executable).with_name("daemonize")
        if not command.exists():
            raise CannotMeasureError(
                f"{command} is not there; install the wheel into the Python that runs this"
            )
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise CannotMeasureError("cannot become a child subreaper; rows 1 to 3 need Linux")
        with tempfile.TemporaryDirectory(prefix="daemonize-bench-") as directory:
            environment = {
                name: value for name, value in os.environ.items() if not name.startswith("DAEMONIZE_")
            }
            environment["DAEMONIZE_STATE_DIR"] = environment["DAEMONIZE_RUNTIME_DIR"] = directory
            try:
                yield cls(Path(directory), str(command), environment)
            finally:
                for pid in children():
                    end(pid)

    @contextmanager
    def page(self) -> Iterator[tuple[Page, str]]:
        """A page for the server to write into, and its path."""
        path = self.scratch / "page"
        path.write_bytes(bytes(SIZE))
        with closing(Page(str(path))) as page:
            yield page, str(path)

    def at_once(self) -> list[str]:
        """The command of a server that is ready at once: a static program, or a shell without gcc."""
        program = self.scratch / "ready_at_once"
        if gcc := shutil.which("gcc"):
            for options in (["-O2", "-static"], ["-O2"]):
                build = [gcc, *options, "-o", str(program), str(HERE / "ready_at_once.c")]
                if subprocess.run(build, check=False, capture_output=True).returncode == 0:
                    return [str(program)]
        return ["/bin/sh", "-c", "exec >/dev/null 2>&1; exec sleep 60"]

    def spawn(self, argv: list[str], *, stdin: int | None = None, stdout: int | None = None) -> int:
        """Start one process; a stream not given is /dev/null, stderr is the file that `complain` quotes."""
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(self.stderr), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        for target, given in ((0, stdin), (1, stdout)):
            if given is not None:
                actions[target] = (os.POSIX_SPAWN_DUP2, given, target)
        # Python ignores SIGPIPE, and an ignored signal would be handed down.
        return os.posix_spawn(
            argv[0], argv, self.environment, file_actions=actions, setsigdef=[signal.SIGPIPE]
        )

    @property
    def stderr(self) -> Path:
        """Where the last process wrote its complaints."""
        return self.scratch / "stderr"

    def complain(self, argv: list[str], status: int) -> None:
        """Refuse to count a run that failed."""
        if status:
            code = os.waitstatus_to_exitcode(status)
            words = self.stderr.read_text(errors="replace").strip() or "(nothing)"
            raise CannotMeasureError(f"{' '.join(argv)} ended with {code}; on stderr: {words}")


def run(bench: Bench, argv: list[str]) -> float:
    """Seconds from the start of a process to the moment its parent has reaped it."""
    before = time.perf_counter_ns()
    _, status = os.waitpid(bench.spawn(argv), 0)
    after = time.perf_counter_ns()
    bench.complain(argv, status)
    return (after - before) / 1e9


def launch(bench: Bench, server: list[str]) -> float:
    """Seconds of one whole launch. The server that it leaves is ended, untimed; it is an error if none is."""
    return detached(bench, [bench.command, *server])


def launch_by_option(bench: Bench, server: list[str]) -> float:
    """Seconds of one whole run of a server's own command line with the option."""
    return detached(bench, [*server, "--daemonize"])


def ready_in_foreground(bench: Bench, server: list[str]) -> float:
    """Seconds from the start of the same command line without the option to the moment it says that it is ready."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    bench.environment["NOTIFY_FD"] = str(writing)
    before = time.perf_counter_ns()
    try:
        pid = bench.spawn(server)
    finally:
        del bench.environment["NOTIFY_FD"]
        os.close(writing)
    told = os.read(reading, 1)
    after = time.perf_counter_ns()
    os.close(reading)
    end(pid)
    if told != b"\n":
        raise CannotMeasureError("the server in the foreground did not become ready")
    return (after - before) / 1e9


def detached(bench: Bench, argv: list[str]) -> float:
    """Seconds of a run that leaves one server. That is ended, untimed; it is an error if none is left."""
    seconds = run(bench, argv)
    adopted = children()
    for pid in adopted:
        end(pid)
    if len(adopted) != 1:
        raise CannotMeasureError(f"{' '.join(argv)} left {len(adopted)} processes, not one server")
    return seconds


def seen_directly(bench: Bench, page: Page, path: str) -> float:
    """Seconds from the server's ready moment to end of file on its streams, when nobody stands between."""
    page.clear()
    reading, writing = os.pipe()
    try:
        pid = bench.spawn([*SERVER, path, "0"], stdout=writing)
    finally:
        os.close(writing)
    os.read(reading, 1)
    seen = time.monotonic_ns()
    os.close(reading)
    end(pid)
    return since_ready(page, seen)


def seen_through(bench: Bench, page: Page, path: str) -> float:
    """Seconds from the server's ready moment to the wrapper reaped by its caller."""
    page.clear()
    argv = [bench.command, *SERVER, path, "0"]
    _, status = os.waitpid(bench.spawn(argv), 0)
    gone = time.monotonic_ns()
    bench.complain(argv, status)
    seconds = since_ready(page, gone)
    end(page[PID])
    return seconds


def since_ready(page: Page, moment: int) -> float:
    """Seconds from the server's ready moment; nobody can have seen it earlier, so that is an error."""
    if not 0 < page[STARTED] < moment:
        raise CannotMeasureError("the launch was over before the server was ready")
    return (moment - page[STARTED]) / 1e9


def copied_by_cat(bench: Bench, page: Page, path: str, size: int, *, to_pipe: bool) -> float:
    """Bytes per second through `server | cat`, as the server feels it."""
    page.clear()
    cat = shutil.which("cat") or "/bin/cat"
    reading, writing = os.pipe()
    with Drain(to_pipe=to_pipe) as drain:
        try:
            server = bench.spawn([*SERVER, path, str(size)], stdout=writing)
            copier = bench.spawn([cat], stdin=reading, stdout=drain.writing)
        finally:
            os.close(writing)
            os.close(reading)
        drain.wait(page, size)
        end(server)
        _, status = os.waitpid(copier, 0)
    bench.complain([cat], status)
    return size / (page[FINISHED] - page[STARTED]) * 1e9


@dataclass(frozen=True)
class Relayed:
    """One relay: how fast, and the largest the wrapper's memory ever was, in bytes."""

    rate: float
    peak: int


def relayed(bench: Bench, page: Page, path: str, size: int, *, to_pipe: bool) -> Relayed:
    """Bytes per second through the wrapper, as the server feels it, and the wrapper's peak memory."""
    page.clear()
    argv = [bench.command, *SERVER, path, str(size)]
    with Drain(to_pipe=to_pipe) as drain:
        wrapper = bench.spawn(argv, stdout=drain.writing)
        drain.wait(page, size)
        peak = peak_memory(wrapper)
        page[GO] = 1
        _, status = os.waitpid(wrapper, 0)
        bench.complain(argv, status)
    end(page[PID])
    return Relayed(size / (page[FINISHED] - page[STARTED]) * 1e9, peak)


class Drain:
    """Where the bytes go: a pipe that the bench empties, or /dev/null."""

    def __init__(self, *, to_pipe: bool) -> None:
        self._reading: int | None = None
        self.writing: int | None = None
        if to_pipe:
            self._reading, self.writing = os.pipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hand_over()
        if self._reading is not None:
            os.close(self._reading)

    def hand_over(self) -> None:
        """Close our copy of the writing end, now that the process that writes has its own."""
        if self.writing is not None:
            os.close(self.writing)
            self.writing = None

    def wait(self, page: Page, size: int) -> None:
        """Return when the server has written everything and, with a pipe, everything has arrived."""
        self.hand_over()
        if self._reading is not None:
            discard(self._reading, size)
        deadline = time.monotonic() + PATIENCE
        while not page[FINISHED]:
            if time.monotonic() > deadline:
                raise CannotMeasureError(f"the server could not write {size} bytes within {PATIENCE:.0f} s")
            time.sleep(0.001)


def discard(reading: int, size: int) -> None:
    """Read exactly `size` bytes and throw them away."""
    buffer, got = bytearray(1 << 20), 0
    while got < size:
        count = os.readv(reading, [buffer])
        if not count:
            raise CannotMeasureError(f"only {got} of {size} bytes arrived")
        got += count


def children() -> list[int]:
    """The bench's own children now, adopted ones included."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def end(pid: int) -> None:
    """Kill a child and reap it; it cannot be someone else's pid, since nobody but us reaps it."""
    if pid <= 0:
        raise CannotMeasureError("there is no server to end")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def peak_memory(pid: int) -> int:
    """The process's own high-water mark. Not ru_maxrss: that starts with the size of whoever called exec."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise CannotMeasureError(f"/proc/{pid}/status has no VmHWM")
