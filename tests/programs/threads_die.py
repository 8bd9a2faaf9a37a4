"""Several threads are at work; one of them ends the process with STATUS before it is ready, without a word.

threads_die.py STATUS [closes] [until=TRIGGER]     closes: 1 and 2 are closed just before
"""

import _thread
import os

from _common import arguments, close_streams, serve

status, *how = arguments()


def end():
    if how:
        close_streams()
    os._exit(int(status))


for _ in range(3):
    _thread.start_new_thread(serve, ())
_thread.start_new_thread(end, ())
serve()
