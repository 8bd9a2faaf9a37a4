"""http.server of the standard library, which shows the files of a directory, as a program of argparse."""

from __future__ import annotations

import argparse
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import daemonize

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    daemonize.add_daemonize_arguments(parser)
    args = parser.parse_args()
    daemonize.daemonize_if_asked(args)

    with ThreadingHTTPServer(("127.0.0.1", args.port), SimpleHTTPRequestHandler) as server:
        print(f"Serving on port {server.server_port}")
        daemonize.ready()
        server.serve_forever()
