"""Warns on stderr, becomes ready all the same, and stays.

warns_then_ready.py [WORDS...] [until=TRIGGER]
"""

from _common import arguments, repoint, say, serve

say(*(arguments() or ["warning:", "no configuration file, using defaults"]), to=2)
repoint()
serve()
