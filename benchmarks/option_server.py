"""The server of the fourth row: the least that a click command with the option is, as in README."""

from __future__ import annotations

import signal
import socket

import click

import daemonize


@click.command()
@click.option("--port", default=0)
@daemonize.daemonize_option()
def serve(port: int) -> None:
    """Listen, say so, and wait for SIGKILL; the alarm ends a server whose benchmark was killed."""
    signal.alarm(120)
    with socket.create_server(("127.0.0.1", port)) as server:
        click.echo(f"listening on {server.getsockname()[1]}")
        daemonize.ready()
        signal.pause()


if __name__ == "__main__":
    serve()
