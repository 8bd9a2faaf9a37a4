"""What a test suite waits for: a server in the background, started and stopped by us, by others, and by nobody's library.

Each way takes its turn with a server that works for the same time before it listens, so that what is left between them
is what each adds.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from launching import HERE, CannotMeasureError
from specs import free_port

from daemonize import BackgroundServer
from daemonize.launcher import owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from launching import Bench

#: Microseconds that the server works: at random, so that nobody's polling is in step with it.
LEAST, MOST = 20_000, 60_000
#: Seconds that a test takes.
BETWEEN = 0.05
CYCLES = 100


@dataclass
class Taken:
    """Milliseconds that each start and each stop took, in the order they were taken."""

    starts: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)

    def beyond(self, bare: Taken) -> tuple[list[float], list[float]]:
        """What they took more than the server itself, turn by turn."""
        starts = [one - other for one, other in zip(self.starts, bare.starts, strict=True)]
        return starts, [one - other for one, other in zip(self.stops, bare.stops, strict=True)]


def built(bench: Bench) -> list[str]:
    """The server. Raises CannotMeasureError: a slower one would hide what is measured."""
    program = bench.scratch / "listens"
    gcc = shutil.which("gcc")
    for options in (["-O2", "-static"], ["-O2"]) if gcc else ():
        build = [str(gcc), *options, "-o", str(program), str(HERE / "listens.c")]
        if subprocess.run(build, check=False, capture_output=True).returncode == 0:
            return [str(program)]
    raise CannotMeasureError("row 8 needs gcc, to build the server")


def timed(taken: Taken, start: Callable[[], object], stop: Callable[[], object]) -> None:
    """One turn."""
    began = time.perf_counter()
    start()
    taken.starts.append(1000 * (time.perf_counter() - began))
    time.sleep(BETWEEN)
    began = time.perf_counter()
    stop()
    taken.stops.append(1000 * (time.perf_counter() - began))


def by_nobody(server: list[str], work: str, taken: Taken) -> None:
    """subprocess, and a loop that connects without a pause: the server's own time."""
    port = free_port()
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        started.append(subprocess.Popen([*server, str(port), work], stdout=subprocess.DEVNULL))
        while not accepts(port):
            pass

    def stop() -> None:
        started[0].terminate()
        started[0].wait()

    timed(taken, start, stop)


def accepts(port: int) -> bool:
    """Whether a connection is accepted now."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def by_us(server: list[str], work: str, taken: Taken) -> None:
    """BackgroundServer."""
    ours = BackgroundServer([*server, "{port}", work])
    timed(taken, ours.start, ours.stop)


def by_mirakuru(server: list[str], work: str, taken: Taken) -> None:
    """TCPExecutor, with its defaults."""
    try:
        from mirakuru import TCPExecutor
    except ImportError:
        raise CannotMeasureError("mirakuru is not installed (make bench installs it)") from None
    port = free_port()
    executor = TCPExecutor([*server, str(port), work], "127.0.0.1", port, timeout=30)
    timed(taken, executor.start, executor.stop)


class ByXprocess:
    """pytest-xprocess, outside of pytest: it reads the server's log for its pattern. directory: for its files."""

    def __init__(self, directory: Path) -> None:
        try:
            import py
            from xprocess import ProcessStarter, XProcess
        except ImportError:
            raise CannotMeasureError("pytest-xprocess is not installed (make bench installs it)") from None
        self._starter = ProcessStarter
        self._xprocess = XProcess(type("Config", (), {})(), py.path.local(str(directory)))
        self._turn = 0

    def __call__(self, server: list[str], work: str, taken: Taken) -> None:
        """One turn."""
        self._turn += 1
        name, words = f"server{self._turn}", [*server, str(free_port()), work]
        starter = type("Starter", (self._starter,), {"pattern": "listening", "args": words, "timeout": 30})

        def stop() -> None:
            self._xprocess.getinfo(name).terminate()
            self._xprocess.resources[-1].popen.wait()

        with contextlib.redirect_stdout(io.StringIO()):
            timed(taken, lambda: self._xprocess.ensure(name, starter), stop)


def taken_in_turn(bench: Bench, rounds: int) -> dict[str, Taken]:
    """Every way, round by round, in one order and then in the other."""
    server = built(bench)
    ways: dict[str, Callable[[list[str], str, Taken], None]] = {
        "bare": by_nobody,
        "ours": by_us,
        "mirakuru": by_mirakuru,
        "xprocess": ByXprocess(bench.scratch),
    }
    found = {name: Taken() for name in ways}
    for way in ways.values():  # the first of ours executes the keeper
        way(server, str(LEAST), Taken())
    for turn in range(rounds):
        work = str(random.randint(LEAST, MOST))
        for name in reversed(ways) if turn % 2 else ways:
            ways[name](server, work, found[name])
    return found


def first_start(bench: Bench) -> float:
    """Milliseconds of the first start in a process, which executes the keeper."""
    code = (
        "import sys, time; from daemonize import BackgroundServer\n"
        "server = BackgroundServer([*sys.argv[1:], '{port}', '0'])\n"
        "began = time.perf_counter(); server.start(); print(1000 * (time.perf_counter() - began)); server.stop()"
    )
    words = [sys.executable, "-c", code, *built(bench)]
    return median(
        float(subprocess.run(words, check=True, capture_output=True, text=True).stdout) for _ in range(5)
    )


def cycles(bench: Bench) -> float:
    """Seconds of so many starts and stops, one after the other, of a server that listens at once."""
    server = built(bench)
    began = time.perf_counter()
    for _ in range(CYCLES):
        with BackgroundServer([*server, "{port}", "0"]):
            pass
    return time.perf_counter() - began


def memory(bench: Bench) -> tuple[float, float]:
    """MB that the keeper has, and that each further server adds, of which nobody else has a part (PSS)."""
    server = built(bench)
    with BackgroundServer([*server, "{port}", "0"]) as first:
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(BackgroundServer([*server, "{port}", "0"]))
            many = pss(first)
        one = pss(first)
    owner.dismiss()  # other rows look at what is left of theirs
    return one, (many - one) / 10


def pss(server: BackgroundServer) -> float:
    """MB of the keeper, which is the server's grandparent, and of all its wrappers, when nothing is under way."""
    import psutil

    time.sleep(10 * BETWEEN)
    keeper = psutil.Process(server.pid).parent().parent()
    return sum(process.memory_full_info().pss for process in [keeper, *keeper.children()]) / 1e6
