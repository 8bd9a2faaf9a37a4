"""Flask's own `run`, a command of its group `flask`, as it is installed, with the option put on from outside."""

from __future__ import annotations

import flask.cli
from werkzeug.serving import BaseWSGIServer

import daemonize

serve_forever = BaseWSGIServer.serve_forever


def say_so_and_serve(self: BaseWSGIServer, poll_interval: float = 0.5) -> None:
    """Werkzeug's own; the socket listens since the server was made."""
    daemonize.ready()
    serve_forever(self, poll_interval)


BaseWSGIServer.serve_forever = say_so_and_serve
daemonize.daemonize_option()(flask.cli.run_command)

if __name__ == "__main__":
    flask.cli.main()
