"""Ignores SIGTERM, SIGINT and SIGHUP, and stays; ready (1 and 2 at /dev/null) once it does.

ignores_term.py [never] [until=TRIGGER]     never: it never becomes ready, and says so
"""

import _signal

from _common import arguments, repoint, say, serve

for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
    _signal.signal(number, _signal.SIG_IGN)
if arguments() == ["never"]:
    say("ignoring SIGTERM")
else:
    repoint()
serve()
