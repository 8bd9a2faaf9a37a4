"""Servers of databases, each on a new and empty one. They refuse root: where root runs the tests, they are nobody's."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from tests.support import ports
from tests.support.servers import ROOT, Server, client, flush_left, need, write


def prepare_database(directory: str, mistake: str, port: int) -> list[str]:
    """A new database, made by who will run it: initdb refuses root, too. The arguments of its server."""
    database = os.path.join(directory, "database")
    if mistake:  # which is found before the database is looked at
        os.mkdir(database)
    else:
        initdb = [
            need("initdb"),
            "-D",
            database,
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
            "--no-instructions",
        ]
        subprocess.run(initdb, check=True, capture_output=True, **as_nobody())
    config = f"""
        listen_addresses = '{ports.HOST}'
        port = {port}
        unix_socket_directories = ''
        fsync = off
        {mistake}
    """
    write(database, "postgresql.conf", flush_left(config))
    if ROOT:
        shutil.chown(database, "nobody")
    os.chmod(database, 0o700)
    return ["-D", database]


def as_nobody() -> dict[str, Any]:
    """How subprocess runs what refuses root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if ROOT else {}


def prepare_postgres(directory: str, mistake: str, port: int) -> list[str]:
    """In the foreground."""
    return [need("postgres"), *prepare_database(directory, mistake, port)]


def prepare_pg_ctl(directory: str, mistake: str, port: int) -> list[str]:
    """It exits when the server that it has started accepts connections; that one keeps its streams."""
    return [need("pg_ctl"), "start", "-w", *prepare_database(directory, mistake, port)]


def ask_postgres(port: int) -> bytes:
    """What 6 times 7 is: one connection, start to end, in the protocol that psql speaks."""
    start = b"\0\3\0\0" + b"user\0postgres\0" + b"\0"
    query = b"SELECT 6 * 7\0"
    messages = [sized(start), b"Q" + sized(query), b"X" + sized(b"")]
    return ports.ask(port, b"".join(messages))


def sized(message: bytes) -> bytes:
    """With its length, which counts itself, before it."""
    return (len(message) + 4).to_bytes(4, "big") + message


def prepare_mariadbd(directory: str, mistake: str, port: int) -> list[str]:
    """Without any table of users: everybody may do everything."""
    data = os.path.join(directory, "data")
    os.mkdir(data)
    if ROOT:
        shutil.chown(data, "nobody")
    config = f"""
        [mariadbd]
        datadir = {data}
        socket = {data}/socket
        bind-address = {ports.HOST}
        port = {port}
        skip-grant-tables
        innodb-flush-method = nosync
        {mistake}
    """
    path = write(directory, "my.cnf", flush_left(config))
    os.chmod(path, 0o644)  # it does not read what everybody may write, whatever the umask
    return [need("mariadbd"), f"--defaults-file={path}"]


def ask_mariadbd(port: int) -> bytes:
    """What 6 times 7 is."""
    where = ["--no-defaults", "-h", ports.HOST, "-P", str(port), "--connect-timeout", "10"]
    return client(need("mariadb"), *where, "-BNe", "SELECT 6 * 7")


POSTGRES = Server(
    name="postgres",
    prepare=prepare_postgres,
    ask=ask_postgres,
    answer=b"42C\0\0\0\rSELECT 1\0Z\0\0\0\5I",
    mistake="nonsense = 3",
    status=1,
    words=b'unrecognized configuration parameter "nonsense"',
    taken=(1, b"Address already in use"),
)
MARIADBD = Server(
    name="mariadbd",
    prepare=prepare_mariadbd,
    ask=ask_mariadbd,
    answer=b"42\n",
    mistake="nonsense = 3",
    status=7,
    words=b"unknown variable 'nonsense=3'",
    taken=(1, b"Address already in use"),
)
PG_CTL = POSTGRES._replace(prepare=prepare_pg_ctl)
