"""Says why on stderr and exits STATUS before it is ready.

crashes_early.py STATUS [WORDS...] [until=TRIGGER]
"""

import os

from _common import arguments, say

status, *words = arguments()
say(*(words or ["boom"]), to=2)
os._exit(int(status))
