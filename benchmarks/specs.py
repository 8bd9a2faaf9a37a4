"""How soon each readiness spec is seen, and how soon others see a port."""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from launching import HERE, PATIENCE, CannotMeasureError, end, since_ready
from page import PID

if TYPE_CHECKING:
    from launching import Bench
    from page import Page

SERVER = [sys.executable, "-S", "-E", str(HERE / "spec_server.py")]
#: Seconds that the server works: random, so that nobody's polling is in step with it.
LEAST, MOST = 0.05, 0.15
#: Seconds between two looks of the connect loop.
PAUSE = 0.005
#: What each way of the server is waited for with; {} are a port and a path.
SPECS = {
    "notify": "notify",
    "fd": "fd:3",
    "port": "port:127.0.0.1:{port}",
    "log": "log:^ready$",
    "file": "file:{path}",
}


@dataclass
class Place:
    """One round: what the server shares with us, a port and a file that are its own."""

    page: Page
    page_path: str
    way: str
    port: int
    path: str

    @classmethod
    def made(cls, bench: Bench, page: Page, page_path: str, way: str) -> Place:
        """A fresh one."""
        page.clear()
        path = bench.scratch / "ready"
        path.unlink(missing_ok=True)
        return cls(page, page_path, way, free_port(), str(path))

    @property
    def server(self) -> list[str]:
        """The command."""
        seconds = random.uniform(LEAST, MOST)
        return [*SERVER, self.page_path, self.way, str(seconds), str(self.port), self.path]

    @property
    def spec(self) -> str:
        """What it is waited for with."""
        return SPECS[self.way].format(port=self.port, path=self.path)


def free_port() -> int:
    """A port on loopback that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def seen_by_us(bench: Bench, page: Page, page_path: str, way: str) -> float:
    """Seconds from the server's ready moment to the wrapper reaped by its caller."""
    place = Place.made(bench, page, page_path, way)
    argv = [bench.command, "-r", place.spec, "-t", f"{PATIENCE:.0f}s", *place.server]
    _, status = os.waitpid(bench.spawn(argv), 0)
    gone = time.monotonic_ns()
    bench.complain(argv, status)
    seconds = since_ready(page, gone)
    end(page[PID])
    return seconds


def seen_by_loop(bench: Bench, page: Page, page_path: str) -> float:
    """Seconds from the server's ready moment to the first connection of a loop that tries and sleeps."""
    place = Place.made(bench, page, page_path, "port")
    pid = bench.spawn(place.server)
    deadline = time.monotonic() + PATIENCE
    while not accepts(place.port):
        if time.monotonic() > deadline:
            raise CannotMeasureError(f"nobody listened on port {place.port} within {PATIENCE:.0f} s")
        time.sleep(PAUSE)
    seen = time.monotonic_ns()
    end(pid)
    return since_ready(page, seen)


def accepts(port: int) -> bool:
    """Whether a connection is accepted now."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def seen_by_mirakuru(bench: Bench, page: Page, page_path: str) -> float:
    """Seconds from the server's ready moment to the return of mirakuru's start(), with its defaults."""
    try:
        from mirakuru import TCPExecutor
    except ImportError:
        raise CannotMeasureError("mirakuru is not installed (make bench installs it)") from None
    place = Place.made(bench, page, page_path, "port")
    executor = TCPExecutor(place.server, "127.0.0.1", place.port, timeout=PATIENCE)
    executor.start()
    seen = time.monotonic_ns()
    executor.kill()
    return since_ready(page, seen)
