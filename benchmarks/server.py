"""The server of the second and third row: server.py PAGE BYTES.

It writes BYTES to its stdout, re-points its streams as a server does that is ready, and waits to be killed.
What happened when is noted in the shared page (see page.py). With 0 bytes it waits a moment first, so that
whoever watches it sleeps, as in life.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from page import FINISHED, GO, PID, STARTED, Page

CHUNK = 1 << 20
START_UP = 0.02


def main(page_path: str, size: int) -> None:
    """Do the work of one round, then wait for SIGKILL; the alarm ends a server whose benchmark was killed."""
    signal.alarm(120)
    page = Page(page_path)
    null = os.open(os.devnull, os.O_RDWR)
    page[PID] = os.getpid()
    if size:
        write(page, size)
    else:
        time.sleep(START_UP)
        page[STARTED] = time.monotonic_ns()
    os.dup2(null, 1)
    os.dup2(null, 2)
    signal.pause()


def write(page: Page, size: int) -> None:
    """Write as fast as the reader takes it, then hold still until the wrapper's memory has been looked at."""
    chunk = memoryview(bytes(CHUNK))
    page[STARTED] = time.monotonic_ns()
    left = size
    while left:
        left -= os.write(1, chunk[:left])
    page[FINISHED] = time.monotonic_ns()
    while not page[GO]:
        time.sleep(0.0005)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
