"""Closes 1 and 2, as if it were ready, and exits STATUS some milliseconds later.

closes_then_dies.py MILLISECONDS STATUS [until=TRIGGER]
"""

import os

from _common import arguments, close_streams, pause

milliseconds, status = map(int, arguments())
close_streams()
pause(milliseconds)
os._exit(status)
