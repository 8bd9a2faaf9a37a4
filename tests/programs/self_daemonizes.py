"""Daemonizes itself: two forks and a session; the daemon says its pid, becomes ready, and stays.

self_daemonizes.py [last] [holds] [fails=STATUS] [until=TRIGGER]

The first parent exits 0 at once, as most do; with `last` it exits when the daemon is ready (dnsmasq).
holds: the daemon keeps its stdout and stderr (nginx with `error_log stderr`).
fails=STATUS: the daemon does not come up; it says why and exits STATUS, and with `last` so does the first parent.
until=TRIGGER: the daemon (not its parents) waits before it is ready.
"""

import os
import sys

from _common import arguments, daemon_fork, repoint, say, serve

triggers = [word for word in sys.argv[1:] if word.startswith("until=")]
words = [word for word in sys.argv[1:] if word not in triggers]
failure = next((int(word.removeprefix("fails=")) for word in words if word.startswith("fails=")), 0)


def tell(status):
    """Only with `last` does somebody wait for it; else nobody reads, and Python ignores SIGPIPE."""
    if "last" in words:
        os.write(report, bytes([status]))


result, report = os.pipe()
if not daemon_fork():
    os.close(report)
    os._exit((os.read(result, 1) or b"\1")[0] if "last" in words else 0)
os.setsid()
if not daemon_fork():
    os._exit(0)
sys.argv[1:] = triggers
arguments()
if failure:
    say("cannot start", to=2)
    tell(failure)
    os._exit(failure)
say("daemon", os.getpid())
if "holds" not in words:
    repoint()
tell(0)
os.close(report)
os.close(result)  # kept until now: the first parent may have gone long ago, and nobody else reads
serve()
