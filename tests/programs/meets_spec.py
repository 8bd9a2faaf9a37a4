"""Meets one readiness spec, by doing what the spec waits for, and serves on.

meets_spec.py SPEC [daemonizes] [waits=FIFO] [takes=MILLISECONDS] [says=TEXT] [dies=STATUS] [listens=PORT]

    it says "waiting" first; daemonizes: in a child, when its parent has exited 0; waits: until the test lets it; takes: so
    long to start; says: on stderr; dies: exits with that status, and meets nothing; listens: right before it meets the spec
"""

import _socket
import os
import sys

from _common import daemon_fork, pause, repoint, say, serve

spec, *words = sys.argv[1:]
options = dict(word.partition("=")[::2] for word in words)
kind, _, argument = spec.partition(":")
kept = []


def listener(family, address):
    """A socket that listens; kept for good."""
    made = _socket.socket(family, _socket.SOCK_STREAM)
    if family != _socket.AF_UNIX:
        made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    made.bind(address)
    made.listen()
    kept.append(made)
    return made


def tcp(place):
    """Listen on HOST:PORT, or PORT, or anywhere."""
    host, _, port = place.rpartition(":")
    return listener(_socket.AF_INET, (host or "127.0.0.1", int(port or 0)))


def notify():
    """As sd_notify(3) does."""
    name = os.environb[b"NOTIFY_SOCKET"].replace(b"@", b"\0", 1)
    with_socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    with_socket.sendto(b"READY=1\n", name)
    with_socket.close()


def tell(fd):
    """As s6 and dinit want it."""
    os.write(fd, b"\n")
    os.close(fd)


def answer():
    """One answer after the other, to whatever is asked."""
    scheme, place = kind, argument[2:].partition("/")[0]
    made = tcp(place)
    import socket

    server = socket.socket(fileno=made.detach())
    if scheme == "https":
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["CERTIFICATE"])
        server = context.wrap_socket(server, server_side=True)
    while True:
        try:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello\n")
            connection.close()
        except OSError:
            pass  # a client that does not like the certificate


ACTIONS = {
    "streams": repoint,
    "started": lambda: None,
    "exit": lambda: None,
    "alive": lambda: None,
    "notify": notify,
    "fd": lambda: tell(int(argument)),
    "fdvar": lambda: tell(int(os.environ[argument])),
    "port": lambda: tcp(argument),
    "unix": lambda: listener(_socket.AF_UNIX, argument),
    "http": answer,
    "https": answer,
    "log": lambda: say(argument),
    "file": lambda: os.close(os.open(argument, os.O_WRONLY | os.O_CREAT, 0o600)),
    "exec": lambda: os.close(os.open(argument.split()[-1], os.O_WRONLY | os.O_CREAT, 0o600)),
}

say("waiting")
if "daemonizes" in options:
    if not daemon_fork():
        os._exit(0)
    say("daemonized")
if "waits" in options:
    fd = os.open(options["waits"], os.O_RDONLY)
    os.read(fd, 1)
    os.close(fd)
if "takes" in options:
    pause(float(options["takes"]))
if "says" in options:
    say(options["says"], to=2)
if "dies" in options:
    os._exit(int(options["dies"]))
if "listens" in options:
    tcp(options["listens"])
ACTIONS[kind]()
serve()
