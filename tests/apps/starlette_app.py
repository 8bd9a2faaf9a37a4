"""A Starlette application, and a command that serves it with uvicorn: an event loop that calls ready()."""

from __future__ import annotations

import os
from typing import Any

import click
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import daemonize


async def hello(request: object) -> PlainTextResponse:
    """Say who answers."""
    return PlainTextResponse(f"Starlette is here, pid {os.getpid()}\n")


app = Starlette(routes=[Route("/", hello)])


class Server(uvicorn.Server):
    """It says that it is ready when its sockets listen. The application's lifespan would be too early."""

    async def startup(self, *args: Any, **kwargs: Any) -> None:
        """Bind, listen, say so; uvicorn itself ends the program where it cannot."""
        await super().startup(*args, **kwargs)
        daemonize.ready()


@click.command()
@click.option("--port", default=8000)
@daemonize.daemonize_option()
def serve(port: int) -> None:
    """Serve it on a loopback port."""
    Server(uvicorn.Config(app, port=port)).run()


if __name__ == "__main__":
    serve()
