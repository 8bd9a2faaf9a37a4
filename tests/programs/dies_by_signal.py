"""Dies of a signal before it is ready; leaves no core file.

dies_by_signal.py NUMBER [WORDS...] [until=TRIGGER]
"""

import _signal
import os
import resource

from _common import arguments, say, serve

number, *words = arguments()
if words:
    say(*words, to=2)
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
if int(number) not in {_signal.SIGKILL, _signal.SIGSTOP}:
    _signal.signal(int(number), _signal.SIG_DFL)
os.kill(os.getpid(), int(number))
serve()
