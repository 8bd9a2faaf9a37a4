"""The second server of the fourth row: a Flask application under its own server, as people write them, with an end to it."""

from __future__ import annotations

import signal

import click
import flask
from werkzeug.serving import make_server

import daemonize

app = flask.Flask(__name__)


@app.get("/")
def hello() -> str:
    """Answer."""
    return "hello\n"


@click.command()
@click.option("--port", default=0)
@daemonize.daemonize_option()
def serve(port: int) -> None:
    """Serve until SIGKILL; the alarm ends a server whose benchmark was killed."""
    signal.alarm(120)
    server = make_server("127.0.0.1", port, app)
    click.echo(f"serving on port {server.server_port}")
    daemonize.ready()
    server.serve_forever()


serve()
