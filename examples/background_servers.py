#!/usr/bin/env python3
"""Servers that run beside a program for as long as it needs them, in every way there is to use them."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import urllib.request

from daemonize import BackgroundServer, CrashedOnStartup

HERE = os.path.dirname(os.path.abspath(__file__))
#: `{port}` is a free port. The server is ready when it listens there, unless it is said otherwise.
SERVER = [sys.executable, os.path.join(HERE, "http_server.py"), "--port", "{port}"]


def get(server: BackgroundServer) -> str:
    """What the server answers, at the first attempt: it is ready."""
    url = f"http://127.0.0.1:{server.port}/"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode()).partition(" from ")[0]


def in_a_block() -> None:
    """It is stopped at the end of the block, whatever happens there."""
    with BackgroundServer(SERVER) as server:
        print(f"with: {get(server)}, {server.status}")
    print(f"after it: {server.status}, exit status {server.exit_status}")


def by_hand() -> None:
    """A command for the shell; it is ready when it answers a request. What it has said can be read, also later."""
    words = f"cd {shlex.quote(HERE)} && exec {shlex.quote(sys.executable)} http_server.py --port $PORT"
    server = BackgroundServer(
        words, env={"PORT": "{port}"}, ready="http://127.0.0.1:{port}/", term_timeout="5s"
    )
    server.start()
    try:
        print(f"start: {get(server)}")
    finally:
        server.stop()
    print(f"it said: {server.logs().partition(' on ')[0]}")


@BackgroundServer(
    [*SERVER, "--greeting", "good evening"], ready="log:serving on http://.*:\\d+", boot_timeout=20
)
def decorated(server: BackgroundServer) -> None:
    """Each call has a server of its own; this one is ready when it says so."""
    print(f"decorator: {get(server)}")


async def concurrently() -> None:
    """Without blocking the event loop: two servers, which are started at the same time."""

    async def greet(greeting: str) -> str:
        async with BackgroundServer([*SERVER, "--greeting", greeting]) as server:
            return await asyncio.to_thread(get, server)

    print("async with:", *await asyncio.gather(greet("hello"), greet("hi")))


def in_vain() -> None:
    """One that cannot start is an error at once, with all that it has said."""
    try:
        BackgroundServer([*SERVER, "--config", "/nonexistent"]).start()
    except CrashedOnStartup as failure:
        print(f"failed with status {failure.status}: {failure.output.decode().rstrip()}")


def main() -> None:
    """Show them."""
    in_a_block()
    by_hand()
    decorated()
    asyncio.run(concurrently())
    in_vain()


if __name__ == "__main__":
    main()
