"""Real servers: how each is started on a private directory and a loopback port, asked, and broken."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support import cli, ports, procs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = os.geteuid() == 0
#: Debian keeps the programs of PostgreSQL beside their version, outside of every user's PATH.
POSTGRES = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *POSTGRES])


def need(name: str) -> str:
    """The path of a server's program; the test is skipped where it is not installed."""
    found = shutil.which(name, path=PATH)
    if not found:
        pytest.skip(f"{name} is not installed (make test-servers)")
    return found


@contextlib.contextmanager
def launched(*args: cli.Word) -> Iterator[dict[str, Any]]:
    """Start a server with `daemonize --json`; what that reports. Stopped, with all it left, at the end of the block."""
    result = cli.run("--json", *args)
    report = result.json if result.out else {}
    assert report.get("outcome") == "ready", (report, result)
    assert result.status == 0, (report, result)
    try:
        yield report
    finally:
        stop(report)


def stop(report: dict[str, Any]) -> None:
    """SIGTERM to the main process; wait until it, its descendants and the drain have ended by themselves."""
    descendants = procs.tree(report["pid"])
    procs.stop(report["pid"])
    for process in descendants:
        assert procs.wait_ended(process.pid, start=process.start), f"{process} outlived its parent"
    if report["drain"]:
        assert procs.wait_ended(report["drain"]), "the drain outlived the server"


class Server(NamedTuple):
    """One kind of server that is truthful: it listens before it closes its streams, or before its first process exits.

    prepare: write what it needs into a directory; the arguments of the server that then listens on a port. `mistake`
    goes into its configuration.
    ask, answer: what a real client does at its first attempt, and what it gets, in the end of the answer.
    mistake, status, words: a wrong line in its configuration, and how it ends by that.
    taken: status and words where the port is taken.
    """

    name: str
    prepare: Callable[[str, str, int], list[str]]
    ask: Callable[[int], bytes]
    answer: bytes
    mistake: str
    status: int
    words: bytes
    taken: tuple[int, bytes]

    def run_with(self, *words: str) -> Server:
        """The same server, with these words at the end of its command line."""
        return self._replace(prepare=lambda *where: [*self.prepare(*where), *words])


def write(directory: str, name: str, text: str) -> str:
    """Write a file; its path."""
    path = os.path.join(directory, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def prepare_dnsmasq(directory: str, mistake: str, port: int) -> list[str]:
    """With `-k` it stays in the foreground and points its streams at /dev/null when it is ready, else it forks twice."""
    config = f"""
        port={port}
        listen-address={ports.HOST}
        bind-interfaces
        no-resolv
        no-hosts
        address=/ready.test/127.0.0.7
        user={"root" if ROOT else ""}
        pid-file=
        {mistake}
    """
    return [need("dnsmasq"), "-C", write(directory, "dnsmasq.conf", flush_left(config))]


def prepare_nginx(
    directory: str,
    mistake: str,
    port: int,
    error_log: str = "error.log",
    user: str = "root" if ROOT else "",
    pid_file: str = "nginx.pid",
) -> list[str]:
    """It forks, and its first process exits when the sockets listen. user: of its worker; none: its own."""
    config = f"""
        {f"user {user};" if user else ""}
        worker_processes 1;
        pid {os.path.join(directory, pid_file)};
        error_log {error_log} info;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path body;
            proxy_temp_path proxy;
            fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi;
            scgi_temp_path scgi;
            server {{
                listen {ports.HOST}:{port};
                location / {{ return 200 "nginx is here"; }}
                location /pid {{ return 200 $pid; }}
                location /missing/ {{ root {directory}; }}
            }}
        }}
        {mistake}
    """
    path = write(directory, "nginx.conf", flush_left(config))
    return [need("nginx"), "-p", directory, "-e", "early.log", "-c", path]


def prepare_lighttpd(directory: str, mistake: str, port: int) -> list[str]:
    """It forks twice, and its first process exits when the socket listens; with `-D` it stays in the foreground."""
    write(directory, "index.html", "lighttpd is here")
    config = f"""
        server.document-root = "{directory}"
        server.bind = "{ports.HOST}"
        server.port = {port}
        index-file.names = ("index.html")
        {mistake}
    """
    return [need("lighttpd"), "-f", write(directory, "lighttpd.conf", flush_left(config))]


def prepare_haproxy(directory: str, mistake: str, port: int) -> list[str]:
    """With `-D` it forks, and its first process exits when the socket listens; with `-Ws` a master watches over a worker."""
    config = f"""
        {mistake}
        defaults
            mode http
            timeout client 5s
            timeout server 5s
            timeout connect 5s
        frontend test
            bind {ports.HOST}:{port}
            http-request return status 200 content-type text/plain string "haproxy is here"
    """
    return [need("haproxy"), "-f", write(directory, "haproxy.cfg", flush_left(config))]


def client(*argv: str) -> bytes:
    """What a client prints; an AssertionError with its words where it fails."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done
    return done.stdout


def flush_left(text: str) -> str:
    """A configuration without the indentation of the test, for parsers that mind the first column."""
    return "\n".join(line.strip() for line in text.strip().splitlines()) + "\n"


DNSMASQ = Server(
    name="dnsmasq",
    prepare=prepare_dnsmasq,
    ask=lambda port: ports.look_up(port, "ready.test"),
    answer=bytes([127, 0, 0, 7]),
    mistake="nonsense=3",
    status=1,
    words=b"bad option at line 9 of",
    taken=(2, b"Address already in use"),
)
NGINX = Server(
    name="nginx",
    prepare=prepare_nginx,
    ask=ports.get,
    answer=b"nginx is here",
    mistake="nonsense;",
    status=1,
    words=b'unknown directive "nonsense"',
    taken=(1, b"Address already in use"),
)
LIGHTTPD = Server(
    name="lighttpd",
    prepare=prepare_lighttpd,
    ask=ports.get,
    answer=b"lighttpd is here",
    mistake="nonsense",
    status=255,
    words=b"parser failed somehow near here",
    taken=(255, b"Address already in use"),
)
HAPROXY = Server(
    name="haproxy",
    prepare=prepare_haproxy,
    ask=ports.get,
    answer=b"haproxy is here",
    mistake="nonsense",
    status=1,
    words=b"unknown keyword 'nonsense'",
    # It binds with SO_REUSEPORT: with a second haproxy it shares the port.
    taken=(1, b"Address already in use"),
)
TRUTHFUL = (DNSMASQ.run_with("-k"), NGINX, LIGHTTPD, HAPROXY.run_with("-D"))
