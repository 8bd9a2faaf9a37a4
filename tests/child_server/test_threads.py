"""Threads in the owner: what is safe, and the warning about what may not be."""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from daemonize import ServerAlreadyStarted
from tests.support.child_servers import Echo, ask
from tests.support.threads import another_thread


@pytest.mark.usefixtures("unwarned")
def test_a_fork_beside_other_threads_warns_once() -> None:
    """One line, at the line of the caller. Negative control: without another thread there is none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Echo():
            pass
        assert caught == []
        with another_thread():
            for _ in range(3):
                with Echo() as server:
                    assert ask(server, "echo", "a") == ["a"]

    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert warning.filename == __file__
    assert "Echo is started by fork(2) while other threads live" in str(warning.message)
    assert "\n" not in str(warning.message)


@pytest.mark.usefixtures("unwarned")
def test_a_warning_that_is_an_error() -> None:
    """Nothing has been started then, nor will be the next time."""
    server = Echo()
    with another_thread():
        for _ in range(2):
            with pytest.raises(RuntimeWarning):
                server.start()

    assert not server.started


def test_pythons_own_warning_is_not_shown() -> None:
    """Of a fork beside threads (3.12 and later): ours says it. Nothing else is kept quiet."""
    script = (
        "import threading, warnings\nfrom tests.support.child_servers import Echo\n"
        "over = threading.Event(); thread = threading.Thread(target=over.wait); thread.start()\n"
        "with Echo(): pass\nwarnings.warn('other', DeprecationWarning)\nover.set()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script], check=True, capture_output=True, text=True, timeout=30
    )

    assert done.stderr.count("RuntimeWarning") == 1
    assert "multi-threaded" not in done.stderr
    assert "DeprecationWarning: other" in done.stderr


@pytest.mark.filterwarnings("ignore:.*while other threads live:RuntimeWarning")
def test_servers_of_many_threads() -> None:
    """Each starts, asks and stops its own, again and again; nobody gets the answers of another."""

    def work(number: int) -> int:
        server, count = Echo(), 0
        for turn in range(5):
            with server:
                count += ask(server, "echo", f"{number} {turn}") == [f"{number} {turn}"]
        return count

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [5] * 4


@pytest.mark.filterwarnings("ignore:.*while other threads live:RuntimeWarning")
def test_one_server_of_many_threads() -> None:
    """One of them starts it; the others are told. One stops it."""
    server, barrier = Echo(), threading.Barrier(4)

    def start() -> bool:
        barrier.wait()
        try:
            server.start()
        except ServerAlreadyStarted:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda _: start(), range(4)))
    assert sorted(started) == [False, False, False, True]
    assert ask(server, "echo", "a") == ["a"]
    server.stop()


@pytest.mark.filterwarnings("ignore:.*while other threads live:RuntimeWarning")
def test_a_thread_that_writes_while_the_server_is_forked() -> None:
    """It has the lock of stdout, and waits for a reader: neither start nor server waits for it, nor says it again."""
    read, write = os.pipe()
    answer, say = os.pipe()

    class Prints(Echo):
        def initialize_server(self) -> None:
            os.dup2(say, 1)
            sys.stdout.write("printed\n")

    stuck = io.TextIOWrapper(io.BufferedWriter(io.FileIO(write, "w")))
    before, thread = sys.stdout, threading.Thread(target=lambda: stuck.write("x" * 1_000_000))
    thread.start()
    poll = select.poll()
    poll.register(write, select.POLLOUT)
    while poll.poll(0):
        os.sched_yield()
    sys.stdout = stuck
    try:
        with Prints(keep_fds=[say]):
            pass
    finally:
        sys.stdout = before
        os.close(say)
        with os.fdopen(read, "rb") as reader, ThreadPoolExecutor() as pool:
            count = pool.submit(lambda: len(reader.read()))
            thread.join()
            stuck.close()
            assert count.result() == 1_000_000
    with os.fdopen(answer) as said:
        assert said.read() == "printed\n"
