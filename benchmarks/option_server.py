"""The server of the fourth row: the one of the README, which serves files on loopback, with an end to it."""

from __future__ import annotations

import http.server
import signal

import click

import daemonize


@click.command()
@click.option("--port", default=0)
@daemonize.daemonize_option()
def serve(port: int) -> None:
    """Serve until SIGKILL; the alarm ends a server whose benchmark was killed."""
    signal.alarm(120)
    server = http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler)
    click.echo(f"serving on port {server.server_port}")
    daemonize.ready()
    server.serve_forever()


serve()
