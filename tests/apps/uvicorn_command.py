"""uvicorn's own command, as it is installed, with the option put on from outside."""

from __future__ import annotations

from typing import Any

import uvicorn

import daemonize

startup = uvicorn.Server.startup


async def startup_and_say_so(self: uvicorn.Server, *args: Any, **kwargs: Any) -> None:
    """Uvicorn's own; it ends the program where it cannot listen."""
    await startup(self, *args, **kwargs)
    daemonize.ready()


uvicorn.Server.startup = startup_and_say_so
daemonize.daemonize_option()(uvicorn.main)

if __name__ == "__main__":
    uvicorn.main()
