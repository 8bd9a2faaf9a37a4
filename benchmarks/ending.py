"""The server of the sixth row: ending.py PAGE MILLISECONDS.

It is ready at once. When it is told to end (SIGTERM) it works for so long, so that whoever waits for its end sleeps, notes
the clock in the shared page (see page.py), and is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from page import PID, STARTED, Page


def main(page_path: str, milliseconds: int) -> None:
    """Wait for SIGTERM; the alarm ends a server whose benchmark was killed."""
    signal.alarm(120)
    page = Page(page_path)
    page[PID] = os.getpid()

    def end(*_: object) -> None:
        time.sleep(milliseconds / 1000)
        page[STARTED] = time.monotonic_ns()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
