"""Launch one command again and again, in this one process; say each outcome that was not expected, and how many launches.

python repeat.py COUNT EXPECTED COMMAND...      EXPECTED: an exit status, or `ready`

Through `daemonize.launch`: that is the whole launch without the start of an interpreter, so ten thousand take minutes.
A server that is ready is stopped at once.
"""

from __future__ import annotations

import os
import sys

import daemonize


def once(argv: list[str]) -> str:
    """One launch: the exit status, or `ready`."""
    try:
        daemon = daemonize.launch(argv, relay_stdout=None, relay_stderr=None, timeout=60)
    except daemonize.LaunchError as error:
        return str(error.exit_status)
    daemon.stop(0.0)
    return "ready"


def main() -> None:
    """Until COUNT is reached."""
    count, expected, argv = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    for _ in range(count):
        outcome = once(argv)
        if outcome != expected:
            os.write(1, f"{outcome}\n".encode())
    os.write(1, f"= {count}\n".encode())


if __name__ == "__main__":
    main()
