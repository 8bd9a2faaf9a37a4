"""Its leader thread leaves (as by pthread_exit); another thread goes on: /proc shows Z for a living server.

leader_exits.py [closes | dies=STATUS] [until=TRIGGER]

The other thread becomes ready only after the leader has left: it points 1 and 2 at /dev/null,
with `closes` it closes them, with `dies=STATUS` it closes them and ends the process.
"""

import _thread
import ctypes
import os

from _common import arguments, close_streams, pause, repoint, serve

SYS_EXIT = {"x86_64": 60, "aarch64": 93, "riscv64": 93, "armv7l": 1, "i686": 1}[os.uname().machine]


def leader_is_gone():
    with open(f"/proc/self/task/{os.getpid()}/stat") as stat:
        return stat.read().rpartition(") ")[2].startswith("Z")


def other_thread(words):
    while not leader_is_gone():
        pause(1)
    how, _, status = "".join(words).partition("=")
    if how:
        close_streams()
    else:
        repoint()
    if how == "dies":
        os._exit(int(status))
    serve()


_thread.start_new_thread(other_thread, (arguments(),))
# CDLL gives up the interpreter's lock for the call, so the other thread has it for good.
ctypes.CDLL(None).syscall(SYS_EXIT, 0)
