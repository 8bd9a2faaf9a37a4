"""Leaves a descendant that holds both pipes and stays, says its pid, and exits STATUS.

leaves_grandchild.py STATUS [session] [until=TRIGGER]     session: the descendant leads a session of its own
"""

import os

from _common import arguments, daemon_fork, say, serve

status, *how = arguments()
talk, told = os.pipe()
if daemon_fork():
    if "session" in how:
        os.setsid()
    say("grandchild", os.getpid())
    os.write(told, b".")
    serve()
os.read(talk, 1)
os._exit(int(status))
