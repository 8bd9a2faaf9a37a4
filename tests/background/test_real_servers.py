"""Real servers, each started as its users would, on a port of our choice; talked to, stopped, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from daemonize import BackgroundServer, CrashedOnStartup
from daemonize.background.ports import is_free
from daemonize.launcher import owner
from tests.support import ports, users
from tests.support.databases import POSTGRES, prepare_postgres
from tests.support.known_servers import MEMCACHED, REDIS
from tests.support.servers import NGINX, ROOT, need, prepare_nginx, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.family import Family

pytestmark = pytest.mark.servers
APPS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "apps")
#: Stands for the port in files, which nobody fills in for us.
_ANY = 1


class Kind(NamedTuple):
    """One kind of server. make: from a directory, what is started and how. ask, answer: what a client does, and gets."""

    make: Callable[[str], BackgroundServer]
    ask: Callable[[int], bytes]
    answer: bytes


def redis(directory: str, **settings: Any) -> BackgroundServer:
    """All of it on the command line."""
    where = ["--port", "{port}", "--bind", ports.HOST, "--dir", directory, "--save", ""]
    return BackgroundServer([need("redis-server"), *where], **settings)


def postgres(directory: str) -> BackgroundServer:
    """It listens before it can answer, and says so when it can. It refuses root."""
    words = [*prepare_postgres(directory, "", _ANY), "-p", "{port}"]
    ready = ["port:{port}", "log:ready to accept connections"]
    return BackgroundServer(words, ready=ready, user="nobody" if ROOT else None, cwd="/", term_timeout=10)


def nginx(directory: str) -> BackgroundServer:
    """Its port can only be in its file, so a shell writes that first; master and worker."""
    words = prepare_nginx(directory, "", _ANY)
    config = words[-1]
    os.rename(config, f"{config}.in")
    fill = f"sed 's/{ports.HOST}:{_ANY};/{ports.HOST}:{{port}};/' {config}.in > {config}"
    return BackgroundServer(f"{fill} && exec {' '.join(words)} -g 'daemon off;'")


def memcached(directory: str) -> BackgroundServer:
    """All of it on the command line."""
    user = ["-u", "root"] if ROOT else []
    return BackgroundServer([need("memcached"), *user, "-l", ports.HOST, "-p", "{port}", "-U", "0"])


def flask_application(directory: str) -> BackgroundServer:
    """A program with an application, ready when that answers."""
    words = [sys.executable, os.path.join(APPS, "flask_app.py"), "--port", "{port}"]
    return BackgroundServer(words, ready="http://127.0.0.1:{port}/")


def flask_run(directory: str) -> BackgroundServer:
    """Flask's own command; with its reloader it has a child that serves."""
    app = os.path.join(APPS, "flask_app.py")
    words = [sys.executable, "-m", "flask", "--app", app, "run", "--port", "{port}", "--reload"]
    return BackgroundServer(words, term_timeout=5)


def node(directory: str) -> BackgroundServer:
    """On every address, IPv6 and IPv4 in one."""
    script = (
        "require('http').createServer((asked, answer) => {{ answer.end('node is here') }}).listen({port})"
    )
    return BackgroundServer([need("node"), "-e", script])


KINDS = {
    "redis": Kind(redis, REDIS.ask, REDIS.answer),
    "postgres": Kind(postgres, POSTGRES.ask, POSTGRES.answer),
    "nginx": Kind(nginx, NGINX.ask, NGINX.answer),
    "memcached": Kind(memcached, MEMCACHED.ask, MEMCACHED.answer),
    "flask-application": Kind(flask_application, ports.get, b"Flask is here"),
    "flask-run": Kind(flask_run, ports.get, b"Flask is here"),
    "node": Kind(node, ports.get, b"node is here"),
}


@pytest.fixture
def place() -> Iterator[str]:
    """A directory in which everybody can make files."""
    with users.open_directory() as path:
        yield path


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each of them."""
    return KINDS[request.param]


def test_it_answers_at_once_and_nothing_is_left(kind: Kind, place: str, family: Family) -> None:
    """The first thing a client asks is answered; after stop() there is no process, and its port is free."""
    one = kind.make(place)
    with one:
        assert one.listening
        assert kind.answer in kind.ask(one.port or 0), one.logs()
    assert is_free(one.port or 0, again=True)
    assert one.exit_status in (0, 143), one.logs()
    owner.dismiss()
    family.nobody()


def test_all_of_them_at_once(family: Family) -> None:
    """Each on a port of its own."""
    with contextlib.ExitStack() as stack:
        running = []
        for kind in KINDS.values():
            one = kind.make(stack.enter_context(users.open_directory()))
            running.append((kind, stack.enter_context(one)))
        for kind, one in running:
            assert kind.answer in kind.ask(one.port or 0), one.logs()
        assert len({one.port for _, one in running}) == len(KINDS)
    owner.dismiss()
    family.nobody()


def test_a_wrong_line_is_told_with_the_servers_words(place: str) -> None:
    """As it says it: on stderr or stdout, in the message, with its exit status."""
    config = write(place, "redis.conf", "nonsense 3\n")
    failing = BackgroundServer([need("redis-server"), config, "--port", "{port}"])
    with pytest.raises(CrashedOnStartup, match="Bad directive or wrong number of arguments") as caught:
        failing.start()
    assert caught.value.status == 1


def test_a_stop_is_no_crash_for_a_database(place: str) -> None:
    """PostgreSQL is stopped so that it need not recover when it is started again on the same data."""
    first = postgres(place)
    with first:
        assert POSTGRES.answer in POSTGRES.ask(first.port or 0)
    again = BackgroundServer(
        [need("postgres"), "-D", f"{place}/database", "-p", "{port}"],
        ready=["port:{port}", "log:ready to accept connections"],
        user="nobody" if ROOT else None,
        cwd="/",
        term_timeout=10,
    )
    with again:
        assert POSTGRES.answer in POSTGRES.ask(again.port or 0)
        assert "database system was shut down at" in again.stderr
    assert (first.exit_status, again.exit_status) == (0, 0)
