"""The server of the fifth row: spec_server.py PAGE WAY SECONDS PORT FILE.

It works for SECONDS, notes the clock in the shared page (see page.py), and becomes ready in the one WAY that is being
measured: notify, fd, port, log or file. Then it waits to be killed.
"""

from __future__ import annotations

import _socket
import os
import signal
import sys
import time

from page import PID, STARTED, Page


def main(page_path: str, way: str, seconds: float, port: int, path: str) -> None:
    """Everything is prepared before the clock is read, so that what is measured begins with the very last step."""
    signal.alarm(120)
    page = Page(page_path)
    page[PID] = os.getpid()
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    manager = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
    teller = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    last_steps = {
        "notify": lambda: teller.sendto(b"READY=1\n", manager),
        "fd": lambda: os.write(3, b"\n"),
        "port": listener.listen,
        "log": lambda: os.write(1, b"ready\n"),
        "file": lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)),
    }
    last_step = last_steps[way]
    time.sleep(seconds)
    page[STARTED] = time.monotonic_ns()
    last_step()
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
