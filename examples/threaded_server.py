#!/usr/bin/env python3
"""A server that serves from a thread, and says so from there. It sends back what it receives, on a loopback port.

daemonize examples/threaded_server.py [PORT]     # or started by hand, or as a unit of Type=notify: the same code
"""

from __future__ import annotations

import logging
import signal
import socketserver
import sys
import threading

import daemonize

log = logging.getLogger(__name__)


class Echo(socketserver.StreamRequestHandler):
    """Serves one client."""

    def handle(self) -> None:
        """Send back every line."""
        for line in self.rfile:
            self.wfile.write(line)
        log.info("a client has left")  # in the log


class Server(socketserver.ThreadingTCPServer):
    """One thread for each client."""

    allow_reuse_address = True
    daemon_threads = True


def serve(server: Server) -> None:
    """Say that it listens, and serve."""
    print("listening on port", server.server_address[1], flush=True)
    daemonize.ready("serving")
    server.serve_forever()


def main() -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(
        level=logging.INFO
    )  # a handler that has stderr in hand long before the server is ready
    signal.pthread_sigmask(
        signal.SIG_BLOCK, [signal.SIGTERM]
    )  # for the threads, too: only sigwait() takes it
    with Server(("127.0.0.1", int((sys.argv[1:] or ["0"])[0])), Echo) as server:
        thread = threading.Thread(target=serve, args=[server])
        thread.start()
        signal.sigwait([signal.SIGTERM])
        daemonize.notify.stopping()
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    main()
