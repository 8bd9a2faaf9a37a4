#!/usr/bin/env python3
"""A click command that is a server: it greets whoever connects, and takes part by one decorator and one call.

    python3 examples/click_server.py --daemonize && nc 127.0.0.1 8080

The same program, unchanged, serves in a terminal, under daemonize(1), under systemd (`Type=notify`; with --daemonize
`Type=forking`), under s6 and dinit. SIGTERM ends it; SIGHUP makes it read its greeting again.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket

import click

import daemonize
from daemonize import notify

HOST = "127.0.0.1"


class Server:
    """Greets on a loopback port, with the first line of a file if one is given.

    Raises click.ClickException if it cannot listen, or read the file.
    """

    def __init__(self, port: int, path: str | None) -> None:
        self.path = path
        self.greeting = self.read_greeting()
        try:
            self.listener = socket.create_server((HOST, port))
        except OSError as error:
            raise click.ClickException(f"port {port}: {os.strerror(error.errno or 0)}") from None
        # What arrives in the middle of a request waits in a socket until the request is done.
        self.signals, wakeup = socket.socketpair()
        wakeup.setblocking(False)
        signal.set_wakeup_fd(wakeup.detach())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    def read_greeting(self) -> str:
        """The greeting as it is now."""
        if self.path is None:
            return "hello"
        notify.status(f"reading {self.path}")
        try:
            with open(self.path) as file:
                return file.readline().rstrip("\n")
        except OSError as error:
            raise click.ClickException(f"{self.path}: {error.strerror}") from None

    def serve_forever(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        while True:
            # None, if no manager waits for signs of life: then only events wake us.
            events, _, _ = select.select([self.listener, self.signals], [], [], notify.watchdog_interval())
            notify.watchdog()
            if self.listener in events:
                self.greet()
            for number in self.signals.recv(100) if self.signals in events else b"":
                if number != signal.SIGHUP:
                    notify.stopping()
                    return
                self.reload()

    def greet(self) -> None:
        """Answer one client, who may have gone already."""
        with self.listener.accept()[0] as client, contextlib.suppress(ConnectionError):
            client.sendall(f"{self.greeting} from pid {os.getpid()}\n".encode())

    def reload(self) -> None:
        """Read the greeting again; the old one stays if that fails."""
        notify.reloading()
        try:
            self.greeting = self.read_greeting()
        except click.ClickException as error:
            error.show()
        daemonize.ready("serving")


@click.command()
@click.option("--port", default=8080, show_default=True, help="Port to listen on; 0 is any free one.")
@click.option("--greeting", metavar="FILE", help="File whose first line is the greeting.")
@daemonize.daemonize_option()
def main(port: int, greeting: str | None) -> None:
    """Greet whoever connects."""
    server = Server(port, greeting)
    click.echo(f"listening on {HOST}:{server.listener.getsockname()[1]}")  # said to whoever started us
    daemonize.ready("serving")
    server.serve_forever()


if __name__ == "__main__":
    main()
