"""Servers of applications in Python, each with one that answers every request."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.support import ports
from tests.support.servers import Server, flush_left, write

if TYPE_CHECKING:
    from tests.support.programs import Trigger

APPLICATION = "site_ready.py"
#: Written by an application that waits in the middle of being imported.
HELD = "held"
WSGI = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"gunicorn is here"]
"""


def prepare_gunicorn(directory: str, mistake: str, port: int) -> list[str]:
    """Its arbiter binds, its workers serve; with `--preload` it is the arbiter that imports the application."""
    write(directory, APPLICATION, WSGI)
    config = f"""
        bind = "{ports.HOST}:{port}"
        chdir = "{directory}"
        control_socket_disable = True
        {mistake}
    """
    path = write(directory, "gunicorn.conf.py", flush_left(config))
    return [sys.executable, "-m", "gunicorn", "-c", path, "site_ready:application"]


ASGI = """
async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"uvicorn is here"})
"""


def prepare_uvicorn(directory: str, mistake: str, port: int) -> list[str]:
    """It knows nothing but its command line."""
    write(directory, APPLICATION, ASGI)
    listening = ["--host", ports.HOST, "--port", str(port), "--app-dir", directory]
    command = [sys.executable, "-m", "uvicorn", *listening, "site_ready:application"]
    return [*command, mistake] if mistake else command


def hold(directory: str, trigger: Trigger) -> None:
    """Let the application that was prepared there wait while it is imported; by then the file HELD is there."""
    path = os.path.join(directory, APPLICATION)
    with open(path) as file:
        code = file.read()
    waits = f"""
import os
open({os.path.join(directory, HELD)!r}, "w").close()
os.read(os.open({trigger.path!r}, os.O_RDONLY), 1)
"""
    write(directory, APPLICATION, waits + code)


GUNICORN = Server(
    name="gunicorn",
    prepare=prepare_gunicorn,
    ask=ports.get,
    answer=b"gunicorn is here",
    mistake="nonsense",
    status=1,
    words=b"name 'nonsense' is not defined",
    taken=(1, b"Connection in use"),
)
UVICORN = Server(
    name="uvicorn",
    prepare=prepare_uvicorn,
    ask=ports.get,
    answer=b"uvicorn is here",
    mistake="--nonsense",
    status=2,
    words=b"No such option",
    taken=(1, b"Address already in use"),
)
