"""datasette's own `serve`, which its group takes where no command is named, with the option put on from outside."""

from __future__ import annotations

import datasette.cli
import uvicorn_command  # noqa: F401 (its server is uvicorn, which then says when it listens)

import daemonize

daemonize.daemonize_option()(datasette.cli.serve)

if __name__ == "__main__":
    datasette.cli.cli()
