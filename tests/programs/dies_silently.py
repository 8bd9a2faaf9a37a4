"""Exits STATUS (3) before it is ready, without a word.

dies_silently.py [STATUS] [until=TRIGGER]
"""

import os

from _common import arguments

os._exit(int((arguments() or ["3"])[0]))
