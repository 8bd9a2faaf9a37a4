"""Points 1 and 2 at /dev/null when it is ready, as a server that calls `ready()` does, and stays.

repoints.py [WORDS...] [until=TRIGGER]
"""

from _common import arguments, repoint, say, serve

words = arguments()
if words:
    say(*words)
repoint()
serve()
