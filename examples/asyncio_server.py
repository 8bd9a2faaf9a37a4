#!/usr/bin/env python3
"""An asyncio server that says by itself that it serves. It sends back what it receives, on a loopback port.

daemonize examples/asyncio_server.py [PORT]      # or started by hand, or as a unit of Type=notify: the same code
"""

from __future__ import annotations

import asyncio
import signal
import sys

import daemonize


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one client."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    print("a client has left", flush=True)  # in the log


async def main() -> None:
    """Listen, say so, serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(echo, "127.0.0.1", int((sys.argv[1:] or ["0"])[0]))
    async with server:
        print("listening on port", server.sockets[0].getsockname()[1], flush=True)
        daemonize.ready("serving")
        await stop.wait()
        daemonize.notify.stopping()


asyncio.run(main())
