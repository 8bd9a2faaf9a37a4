r"""Says what it is told to say on NOTIFY_SOCKET, step by step, and serves on.

notifies.py STEP...

    send=TEXT     one message, with escapes as in Python (\n, \xff); many=N:TEXT: N of them
    child=TEXT    a child of its own says it, and is gone
    barrier       wait until all that was sent has been read, as sd_notify_barrier(3) does
    handing=N     a message with N descriptors
    say=TEXT      on stdout; pid: its own pid, on stdout; address: where it sends to
    waits=FIFO    until the test lets it go on
    fork          have a child that serves, and say its pid; `main=` then names that child as the main process
    user=UID      become this user
    exit=STATUS   end
"""

import _socket
import os
import sys

from _common import limit_lifetime, say, serve

RIGHTS = _socket.SOL_SOCKET, _socket.SCM_RIGHTS
name = os.environb[b"NOTIFY_SOCKET"]
manager = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
manager.connect(name.replace(b"@", b"\0", 1))
children = []


def text(argument):
    """The bytes that are meant."""
    return argument.encode().decode("unicode_escape").encode("latin-1")


def in_child(argument):
    """Send from a process that has gone, and been reaped, when this returns."""
    pid = os.fork()
    if pid == 0:
        manager.send(text(argument))
        os._exit(0)
    os.waitpid(pid, 0)


def hand(data, *descriptors):
    """Send descriptors along."""
    numbers = b"".join(fd.to_bytes(4, sys.byteorder) for fd in descriptors)
    manager.sendmsg([data], [(*RIGHTS, numbers)])


def barrier(_):
    """Returns when our descriptor has been closed at the other end."""
    read, write = os.pipe()
    hand(b"BARRIER=1", write)
    os.close(write)
    os.read(read, 1)
    os.close(read)


def send_many(argument):
    """The same message again and again."""
    count, _, words = argument.partition(":")
    for _ in range(int(count)):
        manager.send(text(words))


def wait(path):
    """Until a byte comes."""
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 1)
    os.close(fd)


def have_child(_):
    """One that serves."""
    pid = os.fork()
    if pid == 0:
        limit_lifetime()
        serve()
    children.append(pid)
    say(pid)


STEPS = {
    "send": lambda argument: manager.send(text(argument)),
    "many": send_many,
    "child": in_child,
    "barrier": barrier,
    "handing": lambda count: hand(b"FDSTORE=1", *[0] * int(count)),
    "say": say,
    "pid": lambda _: say(os.getpid()),
    "address": lambda _: say(os.fsdecode(name)),
    "waits": wait,
    "fork": have_child,
    "main": lambda argument: manager.send(text(argument).replace(b"CHILD", b"%d" % children[0])),
    "user": lambda uid: os.setresuid(int(uid), int(uid), int(uid)),
    "exit": lambda status: os._exit(int(status)),
}

text("x")  # loads what decodes them, which another user may not be able to reach
for step in sys.argv[1:]:
    kind, _, words = step.partition("=")
    STEPS[kind](words)
serve()
