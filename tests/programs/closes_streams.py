"""Closes 1 and 2 when it is ready, and stays: nothing is at 1 and 2 from then on.

closes_streams.py [WORDS...] [until=TRIGGER]
"""

from _common import arguments, close_streams, say, serve

words = arguments()
if words:
    say(*words)
close_streams()
serve()
