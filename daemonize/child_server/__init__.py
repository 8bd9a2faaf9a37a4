"""`ChildServer`: a server in a child process, with one client, which is the process that has forked it.

owner ── fork ── server            messages over a socketpair (channel/), a report of the start over another one

server.py    the owner's side, and what a server is made of           live.py      the server's life, from its birth on
birth.py     the fork, and what becomes of it                         report.py    how the start went
body.py      the server's side: what it is made fit by, main loop     owner.py     the owner, as the server sees it
handlers.py  which message, which signal calls what                   collection.py  servers by keys
"""

from daemonize.child_server.handlers import message_handler
from daemonize.child_server.server import ChildServer

__all__ = ["ChildServer", "message_handler"]
