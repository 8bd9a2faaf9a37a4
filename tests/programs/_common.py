"""What the programs share. Importing it limits the life of a program, so that no failing test leaves one for long.

Only built-in modules are imported, for the sake of start-up time: `_signal` and not `signal`, and no `socket`.
"""

import _signal
import os
import select
import sys

LIFETIME = 120


def limit_lifetime():
    """SIGALRM ends this process after two minutes, whatever it does. Not inherited through fork: call it again."""
    _signal.alarm(LIFETIME)


def say(*words, to=1):
    """Write one line, unbuffered."""
    write_all(to, os.fsencode(" ".join(map(str, words))) + b"\n")


def write_all(fd, data):
    """Write every byte, however often it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def repoint():
    """Become ready as `ready()` does: stdout and stderr go to /dev/null, so 1 and 2 stay occupied."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if null > 2:
        os.close(null)


def close_streams():
    """Become ready as gpupgrade does: stderr, then stdout, are closed."""
    os.close(2)
    os.close(1)


def serve():
    """Wait for a signal that ends the process."""
    while True:
        select.select([], [], [])


def pause(milliseconds):
    """Let time pass."""
    select.select([], [], [], milliseconds / 1000)


def daemon_fork():
    """Fork; true in the child, which gets a lifetime of its own."""
    if os.fork():
        return False
    limit_lifetime()
    return True


def arguments():
    """The arguments, after waiting for the trigger if one of them is `until=FIFO` (or `until=` and a descriptor)."""
    words = []
    for word in sys.argv[1:]:
        if word.startswith("until="):
            _await(word.removeprefix("until="))
        else:
            words.append(word)
    return words


def _await(trigger):
    """Block until a byte or end of file arrives; a FIFO that is gone has been released for good."""
    try:
        fd = int(trigger) if trigger.isdigit() else os.open(trigger, os.O_RDONLY)
    except FileNotFoundError:
        return
    os.read(fd, 1)
    os.close(fd)


limit_lifetime()
