#!/usr/bin/env python3
"""A small HTTP server that takes part: it says that it serves, lets go of its streams, and serves.

    daemonize examples/http_server.py --config FILE && curl ...

    http_server.py [--port PORT] [--greeting TEXT] [--warm-up SECONDS] [--config FILE]

The file holds the same options, one a line: `greeting = good day`. Port 0, the default, is any free port.
A mistake in the configuration ends it with status 78, as sysexits(3) has it.
"""

from __future__ import annotations

import argparse
import http.server
import os
import sys
import time
from typing import NoReturn

EX_CONFIG = 78
OPTIONS = {"port": int, "greeting": str, "warm-up": float}


def fail(problem: str) -> NoReturn:
    """End, as a server does that cannot start: one line on stderr, and a status that says what kind of problem."""
    print(f"http_server.py: {problem}", file=sys.stderr)
    sys.exit(EX_CONFIG)


def read_config(path: str) -> dict[str, object]:
    """The options in a configuration file."""
    found = {}
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    for number, line in enumerate(lines, 1):
        name, _, value = (part.strip() for part in line.partition("="))
        if not name or name.startswith("#"):
            continue
        if name not in OPTIONS:
            fail(f"{path}, line {number}: unknown option '{name}' (there are: {', '.join(OPTIONS)})")
        try:
            found[name.replace("-", "_")] = OPTIONS[name](value)
        except ValueError:
            fail(f"{path}, line {number}: '{value}' is not a value for {name}")
    return found


class Handler(http.server.BaseHTTPRequestHandler):
    """Greets. Each request is logged on stderr, which is the daemon's log once it is ready."""

    greeting = "hello"

    def do_GET(self) -> None:
        """Answer with one line."""
        body = f"{self.greeting} from pid {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def let_go_of_streams() -> None:
    """Say "ready" to daemonize: continue in the files it names instead of its pipes.

    Pointed elsewhere and not closed: 1 and 2 stay occupied, so no socket can become one of them. Without daemonize
    nothing happens, and a server started by hand goes on talking to its terminal.
    """
    sys.stdout.flush()
    pipes = os.environ.get("DAEMONIZE_STREAMS", "").split(",")
    files = ("DAEMONIZE_STDOUT", "DAEMONIZE_STDERR")
    for fd, pipe, variable in zip((1, 2), pipes, files, strict=False):
        status = os.fstat(fd)
        if pipe == f"{status.st_dev}:{status.st_ino}":
            path = os.environ.get(variable) or os.devnull
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.dup2(file, fd)
            os.close(file)


def main() -> None:
    """Load, listen, say so, let go, serve."""
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[2].strip())
    parser.add_argument("--config")
    for name, kind in OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind)
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    config = given.pop("config", None)
    options = {
        "port": 0,
        "warm_up": 0.0,
        "greeting": "hello",
        **(read_config(config) if config else {}),
        **given,
    }

    Handler.greeting = str(options["greeting"])
    time.sleep(float(options["warm_up"]))  # stands for the database that other servers have to open
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", int(options["port"])), Handler)
    except OSError as error:
        fail(f"port {options['port']}: {error.strerror}")
    print(f"serving on http://127.0.0.1:{server.server_port}")
    let_go_of_streams()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
