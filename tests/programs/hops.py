"""A process that is never long the same: it forks and exits every few milliseconds, and its child does the same.

hops.py MILLISECONDS [until=TRIGGER]     it says "hopping" first; SIGTERM ends whoever it meets
"""

import os

from _common import arguments, daemon_fork, pause, say, serve

(milliseconds,) = map(int, arguments())
say("hopping")
for _ in range(10_000 // milliseconds):
    pause(milliseconds)
    if not daemon_fork():
        os._exit(0)
serve()
