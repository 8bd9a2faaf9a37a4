"""Servers of which it is known how they become ready, each in the ways it can be run, and the specs that tell the truth."""

from __future__ import annotations

import functools
import os
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from tests.support import ports
from tests.support.databases import MARIADBD, PG_CTL, POSTGRES
from tests.support.python_servers import GUNICORN, UVICORN
from tests.support.servers import (
    DNSMASQ,
    HAPROXY,
    LIGHTTPD,
    NGINX,
    ROOT,
    Server,
    client,
    flush_left,
    need,
    write,
)

if TYPE_CHECKING:
    from tests.support import cli

IN_USE = b"Address already in use"


class Way(NamedTuple):
    """One way to run a server.

    specs: what together says that it is ready; PORT in them is its port. user: as whom it runs where root runs the tests.
    """

    name: str
    specs: tuple[str, ...]
    server: Server
    user: str = ""

    @property
    def names_port(self) -> bool:
        """Whether a taken port is found before anything is started."""
        return any("PORT" in spec for spec in self.specs)

    def command(self, directory: str, port: int, mistake: str = "") -> list[cli.Word]:
        """The arguments of `daemonize`. The directory is one in which everybody can make files."""
        options: list[cli.Word] = []
        for spec in self.specs:
            options += ["-r", spec.replace("PORT", str(port))]
        if self.user and ROOT:
            options += ["-u", self.user]
        return [*options, *self.server.prepare(directory, mistake, port)]


def prepare_redis(directory: str, mistake: str, port: int) -> list[str]:
    """In the foreground, unless the options say otherwise."""
    config = f"""
        bind {ports.HOST}
        port {port}
        dir {directory}
        save ""
        {mistake}
    """
    return [need("redis-server"), write(directory, "redis.conf", flush_left(config))]


def prepare_memcached(directory: str, mistake: str, port: int) -> list[str]:
    """It knows nothing but its command line."""
    user = ["-u", "root"] if ROOT else []
    listening = ["-l", ports.HOST, "-p", str(port), "-U", "0"]
    return [need("memcached"), *user, *listening, *([mistake] if mistake else [])]


def prepare_unbound(directory: str, mistake: str, port: int) -> list[str]:
    """With `-d` it stays in the foreground."""
    config = f"""
        server:
        interface: {ports.HOST}@{port}
        directory: "{directory}"
        chroot: ""
        username: ""
        pidfile: ""
        use-syslog: no
        num-threads: 1
        module-config: "iterator"
        local-data: "ready.test. A 127.0.0.7"
        remote-control:
        control-enable: no
        {mistake}
    """
    return [need("unbound"), "-c", write(directory, "unbound.conf", flush_left(config))]


def prepare_sshd(directory: str, mistake: str, port: int) -> list[str]:
    """With `-D` it stays in the foreground. As an ordinary user it needs no directory of the machine's."""
    key = os.path.join(directory, "host_key")
    subprocess.run([need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    if ROOT:
        shutil.chown(key, "nobody")
    config = f"""
        ListenAddress {ports.HOST}
        Port {port}
        HostKey {key}
        PidFile none
        {mistake}
    """
    path = write(directory, "sshd_config", flush_left(config))
    return [need("sshd"), "-e", "-f", path]


def ask_sshd(port: int) -> bytes:
    """The kind of its key, for which keys are exchanged."""
    line = client(need("ssh-keyscan"), "-t", "ed25519", "-p", str(port), ports.HOST)
    return b" ".join(line.split()[:2])


def prepare_stunnel(directory: str, mistake: str, port: int, foreground: str = "no") -> list[str]:
    """It speaks TLS for a program of ours. foreground: `yes` or `no`."""
    certificate = os.path.join(directory, "certificate.pem")
    subprocess.run(
        [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-keyout", certificate, "-out", f"{certificate}.public"],
        check=True, capture_output=True,
    )  # fmt: skip
    with open(f"{certificate}.public") as public, open(certificate, "a") as both:
        both.write(public.read())
    config = f"""
        foreground = {foreground}
        pid =
        cert = {certificate}
        [ready]
        accept = {ports.HOST}:{port}
        exec = {need("echo")}
        execArgs = echo stunnel is here
        {mistake}
    """
    return [need("stunnel4"), write(directory, "stunnel.conf", flush_left(config))]


def ask_stunnel(port: int) -> bytes:
    """What is behind it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        ports.connected(port) as plain,
        context.wrap_socket(plain) as connection,
        connection.makefile("rb") as answer,
    ):
        return answer.read()


REDIS = Server(
    name="redis",
    prepare=prepare_redis,
    ask=lambda port: ports.ask(port, b"PING\r\nQUIT\r\n"),
    answer=b"+PONG\r\n+OK\r\n",
    mistake="nonsense 3",
    status=1,
    words=b"Bad directive or wrong number of arguments",
    taken=(1, IN_USE),
)
MEMCACHED = Server(
    name="memcached",
    prepare=prepare_memcached,
    ask=lambda port: ports.ask(port, b"set is 0 0 4\r\nhere\r\nget is\r\nquit\r\n"),
    answer=b"here\r\nEND\r\n",
    mistake="--nonsense",
    status=1,
    words=b"unrecognized option '--nonsense'",
    taken=(71, IN_USE),
)
UNBOUND = Server(
    name="unbound",
    prepare=prepare_unbound,
    ask=DNSMASQ.ask,
    answer=DNSMASQ.answer,
    mistake="nonsense: 3",
    status=1,
    words=b"unknown keyword 'nonsense'",
    taken=(1, IN_USE),
)
SSHD = Server(
    name="sshd",
    prepare=prepare_sshd,
    ask=ask_sshd,
    answer=b"ssh-ed25519",
    mistake="Nonsense 3",
    status=255,
    words=b"Bad configuration option: Nonsense",
    taken=(255, IN_USE),
)
STUNNEL = Server(
    name="stunnel4",
    prepare=prepare_stunnel,
    ask=ask_stunnel,
    answer=b"stunnel is here\n",
    mistake="nonsense = 3",
    status=1,
    words=b'"nonsense = 3": Specified option name is not valid here',
    taken=(1, IN_USE),
)
STUNNEL_FOREGROUND = STUNNEL._replace(prepare=functools.partial(prepare_stunnel, foreground="yes"))
#: Of a server that puts itself in the background. Some listen before their first process exits, some after that: only both
#: together say that it listens, and which process is the main one.
DAEMON = ("exit", "port:PORT")
#: uvicorn with workers writes its line long before any of them listens; with none, right after.
UVICORN_SPECS = ("port:PORT", "log:Uvicorn running on")
WAYS = (
    Way("redis-port", ("port:PORT",), REDIS),
    Way("redis-log", ("log:Ready to accept connections",), REDIS),
    Way("redis-supervised", ("notify",), REDIS.run_with("--supervised", "systemd")),
    Way("redis-daemonize", DAEMON, REDIS.run_with("--daemonize", "yes")),
    Way("memcached", ("port:PORT",), MEMCACHED),
    Way("memcached-d", DAEMON, MEMCACHED.run_with("-d")),
    Way("nginx-foreground", ("port:PORT",), NGINX.run_with("-g", "daemon off;")),
    Way("nginx", DAEMON, NGINX),
    Way("haproxy-Ws", ("notify",), HAPROXY.run_with("-Ws")),
    Way("haproxy-Ws-port", ("notify", "port:PORT"), HAPROXY.run_with("-Ws")),
    Way("haproxy-D", ("streams",), HAPROXY.run_with("-D")),
    Way("postgres", ("notify",), POSTGRES, "nobody"),
    # Its port alone would not do: who connects before it is ready is told that it is starting up.
    Way("postgres-port", ("port:PORT", "log:ready to accept connections"), POSTGRES, "nobody"),
    Way("pg_ctl", ("exit",), PG_CTL, "nobody"),
    Way("mariadbd", ("notify",), MARIADBD, "nobody"),
    Way("mariadbd-port", ("notify", "port:PORT"), MARIADBD, "nobody"),
    Way("dnsmasq-k", ("streams",), DNSMASQ.run_with("-k")),
    Way("dnsmasq-k-port", ("port:PORT",), DNSMASQ.run_with("-k")),
    Way("dnsmasq", DAEMON, DNSMASQ),
    Way("unbound-d", ("notify",), UNBOUND.run_with("-d")),
    Way("unbound-d-port", ("port:PORT",), UNBOUND.run_with("-d")),
    Way("unbound", DAEMON, UNBOUND),
    Way("sshd-D", ("notify",), SSHD.run_with("-D"), "nobody"),
    # It points its streams at /dev/null before it binds: of a taken port nobody would hear.
    Way("sshd", ("notify", *DAEMON), SSHD, "nobody"),
    # Its streams are at /dev/null before it forks: that alone would name its first process.
    Way("stunnel4", ("exit",), STUNNEL),
    Way("stunnel4-foreground", ("port:PORT",), STUNNEL_FOREGROUND),
    Way("lighttpd-D", ("port:PORT",), LIGHTTPD.run_with("-D")),
    Way("lighttpd", DAEMON, LIGHTTPD),
    # Its port is named so that one that is taken is refused at once: it would try for 5 s.
    Way("gunicorn-preload", ("notify", "port:PORT"), GUNICORN.run_with("--preload")),
    Way("gunicorn-http", ("http://127.0.0.1:PORT/",), GUNICORN),
    Way("gunicorn-D", DAEMON, GUNICORN.run_with("-D")),
    Way("uvicorn", UVICORN_SPECS, UVICORN),
    Way("uvicorn-http", ("http://127.0.0.1:PORT/",), UVICORN),
    Way("uvicorn-2-workers", UVICORN_SPECS, UVICORN.run_with("--workers", "2")),
    Way("uvicorn-2-workers-http", ("http://127.0.0.1:PORT/",), UVICORN.run_with("--workers", "2")),
)
