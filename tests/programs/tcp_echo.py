"""Listens on a loopback port, says which, is ready (1 and 2 at /dev/null), and sends back what it receives.

tcp_echo.py [PORT] [holds] [first] [until=TRIGGER]     without a port, any; holds: it keeps its streams; first: it says
                                                       which before it listens
"""

import _socket
import os

from _common import arguments, repoint, say

words = arguments()
listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(next(filter(str.isdigit, words), 0))))
if "first" not in words:
    listener.listen()
say("listening on port", listener.getsockname()[1])
listener.listen()
if "holds" not in words:
    repoint()
while True:
    fd, _ = listener._accept()
    while data := os.read(fd, 65536):
        os.write(fd, data)
    os.close(fd)
