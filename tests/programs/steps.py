"""Does what its arguments say, one after the other, and exits 0 at the end.

steps.py STEP...     out:TEXT err:TEXT   one line on stdout, stderr
                     part:TEXT           on stdout, without the end of a line
                     count:FIRST-LAST    numbers on stdout, a line each, without LAST
                     go-on               stdout and stderr are what $DAEMONIZE_STDOUT and $DAEMONIZE_STDERR name
                     tell:FIFO           a byte into a fifo
                     until=FIFO          wait for a byte, or end of file
                     fork                a child goes on in a session of its own, and this process sleeps
                     exit:STATUS, serve
"""

import os
import sys

from _common import _await, limit_lifetime, serve, write_all


def go_on():
    for fd, name in ((1, "DAEMONIZE_STDOUT"), (2, "DAEMONIZE_STDERR")):
        log = os.open(os.environ[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, fd)
        os.close(log)


def count(numbers):
    first, last = map(int, numbers.split("-"))
    write_all(1, b"".join(b"%d\n" % number for number in range(first, last)))


def fork(_):
    if os.fork():
        serve()
    os.setsid()
    limit_lifetime()


def tell(fifo):
    fd = os.open(fifo, os.O_WRONLY)
    os.write(fd, b".")
    os.close(fd)


STEPS = {
    "out": lambda text: write_all(1, os.fsencode(text) + b"\n"),
    "err": lambda text: write_all(2, os.fsencode(text) + b"\n"),
    "part": lambda text: write_all(1, os.fsencode(text)),
    "count": count,
    "go-on": lambda _: go_on(),
    "tell": tell,
    "fork": fork,
    "exit": lambda status: os._exit(int(status)),
    "serve": lambda _: serve(),
}
for step in sys.argv[1:]:
    if step.startswith("until="):
        _await(step.removeprefix("until="))
    else:
        name, _, argument = step.partition(":")
        STEPS[name](argument)
