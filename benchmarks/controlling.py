"""What daemonctl takes: to be gone when a daemon has ended, and to look at many of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from launching import HERE, end, run, since_ready
from page import PID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launching import Bench
    from page import Page

ENDING = [sys.executable, "-S", "-E", str(HERE / "ending.py")]
#: Milliseconds that a server takes to end: at random, so that nobody's polling is in step with it.
SHORTEST, LONGEST = 150, 250
NAME = "bench"


def daemonctl(bench: Bench, *words: str) -> list[str]:
    """The command line of daemonctl."""
    return [str(Path(bench.command).with_name("daemonctl")), *words]


def _ended(bench: Bench, page: Page, path: str, stop: list[str] | None) -> float:
    """Seconds from a server's last moment until `stop`, or (None) its parent, has seen that it has ended."""
    page.clear()
    run(bench, [bench.command, "--name", NAME, *ENDING, path, str(random.randint(SHORTEST, LONGEST))])
    pid = page[PID]
    if stop is None:
        os.kill(pid, 15)
        os.waitpid(pid, 0)
        return since_ready(page, time.monotonic_ns())
    waiting = bench.spawn(stop)
    _, status = os.waitpid(waiting, 0)
    gone = time.monotonic_ns()
    bench.complain(stop, status)
    end(pid)
    return since_ready(page, gone)


def stopped(bench: Bench, page: Page, path: str) -> float:
    """Seconds from a well-behaved server's last moment until `daemonctl stop` has been reaped."""
    return _ended(bench, page, path, daemonctl(bench, "stop", NAME))


def reaped(bench: Bench, page: Page, path: str) -> float:
    """Seconds from the same moment until its parent has reaped it: what an end costs on this machine."""
    return _ended(bench, page, path, None)


class Registered:
    """A registry of its own with so many records, every second one of a server that has ended. names: of the daemons."""

    def __init__(self, bench: Bench, count: int) -> None:
        self._bench = bench
        self._directory = bench.scratch / f"registry-{count}"
        self._directory.mkdir(mode=0o700)
        self._pids: list[int] = []
        self.names = [f"{NAME}-{number:03}" for number in range(count)]

    def __enter__(self) -> Self:
        server = self._bench.at_once()
        with self._environment():
            run(self._bench, [self._bench.command, "--name", NAME, *server])
        record = json.loads(self._path(NAME).read_text())
        end(record["pid"])
        self._path(NAME).unlink()
        for number, name in enumerate(self.names):
            if number % 2 == 0:
                self._pids.append(self._bench.spawn(server))
            pid, dead = self._pids[-1], number % 2
            self._path(name).write_text(
                json.dumps({**record, "name": name, "pid": pid, "start": start_of(pid) + dead}) + "\n"
            )
            self._path(name).chmod(0o600)
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            end(pid)
        shutil.rmtree(self._directory)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    @contextmanager
    def _environment(self) -> Iterator[None]:
        before = dict(self._bench.environment)
        self._bench.environment.update(
            dict.fromkeys(("DAEMONIZE_RUNTIME_DIR", "DAEMONIZE_STATE_DIR"), str(self._directory))
        )
        yield
        self._bench.environment.clear()
        self._bench.environment.update(before)

    def looked_at(self, verb: str) -> float:
        """Seconds of `daemonctl list --all`, or of `daemonctl status` of them all."""
        argv = daemonctl(self._bench, *(["list", "--all"] if verb == "list" else ["status", *self.names]))
        before = time.perf_counter_ns()
        with self._environment():
            _, status = os.waitpid(self._bench.spawn(argv), 0)
        after = time.perf_counter_ns()
        if os.waitstatus_to_exitcode(status) != (verb == "status" and len(self.names) > 1):  # 1: one is dead
            self._bench.complain(argv, status or 1)
        return (after - before) / 1e9


def start_of(pid: int) -> int:
    """Its start time, in clock ticks."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
