"""A Flask application, and a program of argparse that serves it with werkzeug, one thread for each client."""

from __future__ import annotations

import argparse
import os

import flask
from werkzeug.serving import make_server

import daemonize

app = flask.Flask(__name__)


@app.get("/")
def hello() -> str:
    """Say who answers."""
    return f"Flask is here, pid {os.getpid()}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    daemonize.add_daemonize_arguments(parser)
    args = parser.parse_args()
    daemonize.daemonize_if_asked(args)

    server = make_server("127.0.0.1", args.port, app, threaded=True)
    server.log_startup()
    daemonize.ready()
    server.serve_forever()
