"""Servers by keys: each lives for as long as it is asked for, and no longer."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daemonize import ChildServerCollection, InvalidState, UsageError
from tests.support import forked, procs
from tests.support.child_servers import Echo, ask


def pid_of(collection: ChildServerCollection[Echo], key: str) -> int:
    """Of the server of this key."""
    return collection.lookup_or_add(key, Echo).server_pid or 0


def test_a_server_for_each_key() -> None:
    """The same one for the same key; started, if the factory has not done that."""
    with ChildServerCollection[Echo]() as servers:
        one, other = (
            servers.lookup_or_add("one", Echo),
            servers.lookup_or_add("other", lambda: Echo().start()),
        )

        assert servers.lookup_or_add("one", Echo) is one
        assert ask(one, "pid") != ask(other, "pid")
        assert (len(servers), list(servers), "one" in servers, "two" in servers) == (
            2,
            ["one", "other"],
            True,
            False,
        )
    assert (len(servers), one.started, other.started) == (0, False, False)
    assert servers._expirer is None


def test_deleting_and_cleaning_up() -> None:
    """What is forgotten is stopped; the collection may be used again."""
    servers = ChildServerCollection[Echo]()
    one = servers.lookup_or_add("one", Echo)

    assert servers.delete("one")
    assert not servers.delete("one")
    assert not one.started
    assert pid_of(servers, "one")
    servers.cleanup()
    servers.cleanup()
    assert len(servers) == 0


def test_a_server_that_has_died_is_replaced() -> None:
    """And reaped; so is one that its user has stopped."""
    with ChildServerCollection[Echo]() as servers:
        first = pid_of(servers, "a")
        os.kill(first, signal.SIGKILL)
        assert procs.wait_ended(first)
        second = pid_of(servers, "a")
        servers.lookup_or_add("a", Echo).stop()

        assert len({first, second, pid_of(servers, "a")}) == 3
        assert len(servers) == 1


def test_a_factory_that_fails() -> None:
    """The key has no server then; the next factory is asked."""

    def fails() -> Echo:
        raise LookupError

    with ChildServerCollection[Echo]() as servers:
        with pytest.raises(LookupError):
            servers.lookup_or_add("a", fails)
        assert "a" not in servers
        assert pid_of(servers, "a")


def test_an_idle_server_is_stopped() -> None:
    """By a thread, which leaves when there is nothing to stop; another comes when there is. One that is used stays."""
    servers = ChildServerCollection[Echo](max_idle_time=0.3)
    for _ in range(2):
        idle, used = pid_of(servers, "idle"), pid_of(servers, "used")
        fd = os.pidfd_open(idle)
        while not procs.readable(fd, 0.05):
            assert pid_of(servers, "used") == used
        os.close(fd)
        thread = servers._expirer
        assert thread
        assert procs.wait_ended(used)
        thread.join(10)
        assert not thread.is_alive()
        assert len(servers) == 0


def test_one_that_has_closed_its_end_is_replaced() -> None:
    """Whoever has read the end of file need not wait for the process to be gone."""
    with ChildServerCollection[Echo]() as servers:
        for _ in range(20):
            server = servers.lookup_or_add("one", Echo)
            assert ask(server, "echo", "a") == ["a"]
            os.kill(server.server_pid or 0, signal.SIGKILL)
            assert server.server.read() is None


@pytest.mark.filterwarnings("ignore:.*while other threads live:RuntimeWarning")
@pytest.mark.parametrize("asks", ["cleanup", "delete", "lookup_or_add"])
def test_who_asks_for_a_server_that_is_being_stopped_waits(asks: str) -> None:
    """Two servers never have one key, and nothing is left when everything has been stopped."""
    stopping, go = threading.Event(), threading.Event()

    class Late(Echo):
        def stop(self) -> None:
            stopping.set()
            assert go.wait(10)
            super().stop()

    servers: ChildServerCollection[Echo] = ChildServerCollection(max_idle_time=0.001)
    first = servers.lookup_or_add("a", Late)
    assert stopping.wait(10)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(getattr(servers, asks), *{"cleanup": (), "delete": "a"}.get(asks, ("a", Echo)))
        with pytest.raises(TimeoutError):
            done.result(0.1)
        go.set()
        done.result(10)
        assert not first.started
    servers.cleanup()


def test_nothing_is_stopped_without_a_time() -> None:
    """0 is never, and there is no thread."""
    before = threading.active_count()
    with ChildServerCollection[Echo]() as servers:
        assert pid_of(servers, "a")
        assert threading.active_count() == before


def test_our_own_thread_is_no_reason_for_a_warning() -> None:
    """Warnings are errors here: a second start beside the thread that waits for idle ones does not warn."""
    before = threading.active_count()
    with ChildServerCollection[Echo](max_idle_time=600) as servers:
        assert pid_of(servers, "a")
        assert threading.active_count() == before + 1
        assert pid_of(servers, "b")
        thread = servers._expirer
    assert thread
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*while other threads live:RuntimeWarning")
def test_many_threads() -> None:
    """Who asks for the same key gets the same server; who asks for another does not wait for it."""
    barrier, slow = threading.Barrier(4), threading.Event()

    def slowly() -> Echo:
        slow.wait(10)
        return Echo()

    with ChildServerCollection[Echo]() as servers, ThreadPoolExecutor(6) as pool:

        def ask_for(key: str) -> int | None:
            barrier.wait()
            return servers.lookup_or_add(key, Echo).server_pid

        waits = [pool.submit(servers.lookup_or_add, "slow", slowly) for _ in range(2)]
        found = list(pool.map(ask_for, ["a", "a", "b", "b"]))
        slow.set()

        assert found[0] == found[1] != found[2] == found[3]
        assert waits[0].result() is waits[1].result()
        assert len(servers) == 3


@pytest.mark.parametrize("value", [-1, "often", None, float("nan")])
def test_times_that_cannot_be(value: Any) -> None:
    """One line."""
    with pytest.raises(UsageError, match=r"max_idle_time|duration"):
        ChildServerCollection(max_idle_time=value)


def test_what_is_no_key_or_factory() -> None:
    """One line each, and the collection is what it was."""
    servers: ChildServerCollection[Any] = ChildServerCollection()
    for key, factory, words in (
        ([], Echo, "a key is hashable"),
        ("a", None, "a factory is called to make a server"),
        ("a", lambda: 3, "a factory makes a ChildServer, and not 3"),
    ):
        with pytest.raises(UsageError, match=words):
            servers.lookup_or_add(key, factory)
    with pytest.raises(UsageError, match="a key is hashable"):
        servers.delete([])
    assert len(servers) == 0


@pytest.mark.parametrize("asks", ["lookup_or_add", "delete", "cleanup"])
def test_a_factory_cannot_use_its_own_key(asks: str) -> None:
    """It would get, or stop, what there is not yet; the key has no server then."""

    def factory() -> Echo:
        getattr(servers, asks)(*{"cleanup": (), "delete": ("a",)}.get(asks, ("a", Echo)))
        return Echo()

    with ChildServerCollection[Echo]() as servers:
        with pytest.raises(InvalidState, match="that it is making"):
            servers.lookup_or_add("a", factory)
        assert len(servers) == 0
        assert pid_of(servers, "a")


@pytest.mark.filterwarnings("ignore:.*while other threads live:RuntimeWarning", "ignore::DeprecationWarning")
def test_a_fork_in_the_midst_of_a_start() -> None:
    """Of another thread: the copy may use server and collection, has none of the servers, and waits for nobody."""
    starting, go = threading.Event(), threading.Event()

    class Slow(Echo):
        def before_fork(self) -> None:
            starting.set()
            assert go.wait(10)

    servers, server = ChildServerCollection[Echo](), Slow()
    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(servers.lookup_or_add, "a", Slow), pool.submit(server.start)]
        assert starting.wait(10)

        def use() -> int:
            before = len(servers)
            with Echo(), ChildServerCollection[Echo]() as own:
                pid_of(own, "a")
            pid_of(servers, "a")
            servers.cleanup()
            go.set()
            with server:
                return before

        with forked.holding(use) as (_, before):
            assert before == 0
        go.set()
        assert all(done.result(10) for done in begun)
    server.stop()
    servers.cleanup()
