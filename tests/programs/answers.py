"""Answers over HTTP.

answers.py PORT [until=FIFO] [statuses=503,200] [certificate=FILE] [notes=FILE] [body=BYTES]

It listens when it is let, says "listening", and answers with one status after the other, the last for ever; `hang`: never.
certificate: it speaks TLS. notes: every request is appended there. body: so much of it.
"""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from _common import arguments, say

say("waiting")
port, *words = arguments()
options = dict(word.partition("=")[::2] for word in words)
statuses = options.get("statuses", "200").split(",")
body = b"." * int(options.get("body", "6"))


class Handler(BaseHTTPRequestHandler):
    """What comes, and what goes."""

    def do_GET(self):
        """One answer."""
        if "notes" in options:
            with open(options["notes"], "a") as notes:
                notes.write(f"{self.requestline}\n{self.headers}")
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        if status == "hang":
            threading.Event().wait()
        self.send_response(int(status))
        if 300 <= int(status) < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Its stderr is for what goes wrong."""


class Server(ThreadingHTTPServer):
    """Without what TLS clients that hang up make it say."""

    daemon_threads = True

    def handle_error(self, _request, _address):
        """One line."""
        if "certificate" not in options or not isinstance(sys.exc_info()[1], ssl.SSLError):
            os.write(2, f"{sys.exc_info()[1]!r}\n".encode())


server = Server(("127.0.0.1", int(port)), Handler)
if "certificate" in options:
    import ssl  # not where it is not needed: its library may lie where an ordinary user cannot go

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options["certificate"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
say("listening")
server.serve_forever()
