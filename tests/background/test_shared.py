"""shared=: one server for several processes, such as the workers of one test run."""

from __future__ import annotations

import contextlib
import secrets
import signal
from typing import TYPE_CHECKING

import pytest

from daemonize import BackgroundServer, CrashedOnStartup, InvalidState
from tests.support import ports, procs
from tests.support.listening import server
from tests.support.owners import ECHO, Owner, all_ended, owning
from tests.support.programs import Trigger, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family

#: Uses the shared server from one word to the next, and says what it sees of it.
USER = """
server = BackgroundServer(command, shared={name!r}, boot_timeout=30)
server.start()
say(server.pid, server.port, server.command, server.stdout, server.status)
hear()
server.stop()
say(server.status, server.exit_status)
"""


@pytest.fixture
def name() -> str:
    """Of a server that nobody else has."""
    return f"shared {secrets.token_hex(8)}"


@contextlib.contextmanager
def users_of(name: str, count: int, *command: str) -> Iterator[list[Owner]]:
    """So many processes that use it."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(owning(USER.format(name=name), *command)) for _ in range(count)]


def test_eight_at_once_have_one_server(name: str, family: Family) -> None:
    """All see the same; whoever leaves leaves it running, the first one too; it ends with the last."""
    with users_of(name, 8) as several:
        seen = [user.says() for user in several]
        pid, port, _, said, status = seen[0]
        assert all(one == seen[0] for one in seen)
        assert (said, status) == (f"listening on port {port}\n", "listening")
        for user in several[:-1]:
            user.tell()
            assert user.says() == ["not_running", None]
            assert user.finish()[0] == 0
            assert procs.alive(pid)
            assert ports.accepts(port)
        several[-1].tell()
        assert several[-1].says() == ["not_running", 143]
        assert not procs.alive(pid)
        assert several[-1].finish()[0] == 0
    all_ended(family)


def test_it_outlives_a_starter_that_is_killed(name: str, family: Family) -> None:
    """SIGKILL of the process that started it, then of its keeper's others: it lives until the last has gone."""
    with users_of(name, 1) as [starter]:
        pid, port, *_ = starter.says()
        with users_of(name, 2) as [second, third]:
            assert second.says()[0] == third.says()[0] == pid
            starter.end()
            second.end()
            assert not procs.wait_ended(pid, 0.3)
            assert ports.accepts(port)
            third.end()
            assert procs.wait_ended(pid)
    all_ended(family)


def test_it_outlives_a_starter_that_exits_without_a_stop(name: str, family: Family) -> None:
    """And the exit of that is not held up by the others."""
    code = USER.format(name=name).replace("server.stop()", "sys.exit(5)")
    with owning(code) as starter:
        pid, *_ = starter.says()
        with users_of(name, 1) as [user]:
            assert user.says()[0] == pid
            starter.tell()
            assert starter.finish()[0] == 5
            assert procs.alive(pid)
            user.tell()
            assert user.says() == ["not_running", 143]
            assert user.finish()[0] == 0
    all_ended(family)


def test_two_objects_of_one_process_share_it_too(name: str) -> None:
    """They are two users."""
    with BackgroundServer(ECHO, shared=name) as first:
        with BackgroundServer(ECHO, shared=name) as second:
            assert second.pid == first.pid
            assert second.port == first.port
        assert first.listening
        assert procs.alive(first.pid or 0)
    assert first.exit_status == 143


def test_other_arguments_are_refused(name: str) -> None:
    """InvalidState, which names it; the server that there is is unharmed."""
    with BackgroundServer(ECHO, shared=name) as first:
        other = BackgroundServer(ECHO, shared=name, env={"A": "B"})
        with pytest.raises(InvalidState, match=f"{name} was started by another process with another env"):
            other.start()
        assert other.status == "not_running"
        assert first.listening


def test_other_names_and_other_runs_have_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server for each name, and for each run of pytest-xdist."""
    with BackgroundServer(ECHO, shared=name) as first, BackgroundServer(ECHO, shared=name + "2") as second:
        monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", "another")
        with BackgroundServer(ECHO, shared=name) as third:
            assert len({first.pid, second.pid, third.pid}) == 3


def test_a_start_that_fails_fails_for_all(name: str, trigger: Trigger, family: Family) -> None:
    """Who waits for the server gets the same error, with what it said; nobody waits for ever, and nothing runs."""
    code = (
        f"server = BackgroundServer(command, shared={name!r}, ready='log:never')\n"
        "say('starts')\n"
        "try:\n"
        "    server.start()\n"
        "except daemonize.CrashedOnStartup as error:\n"
        "    say(error.status, error.output.decode(), server.status)\n"
    )
    command = program("steps", "out:boom", trigger.arg, "exit:9")
    with contextlib.ExitStack() as stack:
        several = [stack.enter_context(owning(code, *command)) for _ in range(4)]
        for user in several:
            assert user.says() == ["starts"]
        for _ in several:  # for this server, and for any that one of them starts later
            trigger.release()
        for user in several:
            assert user.says() == [9, "boom\n", "not_running"]
            assert user.finish()[0] == 0
    all_ended(family)


def test_after_a_start_that_failed_there_can_be_another(name: str) -> None:
    """The place is free again."""
    with pytest.raises(CrashedOnStartup):
        BackgroundServer("exit 3", ready="log:never", shared=name).start()
    with BackgroundServer(ECHO, shared=name) as echo:
        assert echo.listening


def test_its_end_is_seen_by_all(name: str) -> None:
    """A shared server that dies: each of its users knows, with the status."""
    code = USER.format(name=name).replace("hear()", "say(server.wait(20))")
    with owning(code) as first, owning(code) as second:
        pid = first.says()[0]
        assert second.says()[0] == pid
        procs.send(pid, signal.SIGKILL)
        assert procs.wait_ended(pid)
        for user in (first, second):
            assert user.says() == [137]
            assert user.says() == ["not_running", 137]
            assert user.finish()[0] == 0


def test_coming_and_going_there_are_never_two(name: str, tmp_path: Path, family: Family) -> None:
    """Five processes use it ten times each, for a moment: each time there is one server, and never two at once."""
    lock = tmp_path / "lock"
    words = server(
        "import fcntl",
        f'lock = open("{lock}", "a")',
        "try:",
        "    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "except OSError:",
        f'    open("{tmp_path}/two", "w").close()',
        "    os._exit(66)",
        f'open("{tmp_path}/count", "a").write(".")',
        'listen("127.0.0.1", {port})',
    )
    code = (
        "for turn in range(10):\n"
        f"    with BackgroundServer(command, shared={name!r}, boot_timeout=30) as server:\n"
        "        socket.create_connection(('127.0.0.1', server.port)).close()\n"
        "say('done')\n"
    )
    with contextlib.ExitStack() as stack:
        several = [stack.enter_context(owning(code, *words)) for _ in range(5)]
        for user in several:
            assert user.says() == ["done"]
            assert user.finish()[0] == 0
    assert not (tmp_path / "two").exists()
    assert 1 <= len((tmp_path / "count").read_text()) <= 50
    all_ended(family)


def test_the_lock_would_tell_of_two(tmp_path: Path) -> None:
    """The negative control: two servers that are not shared."""
    words = server(
        "import fcntl",
        f'lock = open("{tmp_path}/lock", "a")',
        "try:",
        "    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "except OSError:",
        "    os._exit(66)",
        'listen("127.0.0.1", {port})',
    )
    with BackgroundServer(words):
        failing = BackgroundServer(words)
        with pytest.raises(CrashedOnStartup):
            failing.start()
        assert failing.exit_status == 66


def test_a_starter_that_is_killed_while_it_starts(name: str, trigger: Trigger, family: Family) -> None:
    """Whoever comes has a server all the same: that one, or one of its own."""
    slow = program("tcp_echo", "{port}", "holds", trigger.arg)
    code = f"BackgroundServer(command, shared={name!r}).start()"
    with owning(code, *slow) as starter:

        def joined() -> None:
            assert [
                process for process in family.living() if "tcp_echo.py" in procs.command_line(process.pid)
            ]

        procs.eventually(joined)
        with users_of(name, 1, *slow) as [user]:
            starter.end()
            trigger.release()
            trigger.release()
            assert user.says()[4] == "listening"
            user.tell()
            assert user.says()[0] == "not_running"
            assert user.finish()[0] == 0
    all_ended(family)


def test_a_child_that_was_forked_while_it_starts_does_not_keep_its_name(
    name: str, trigger: Trigger, family: Family
) -> None:
    """It has a copy of what others come to, where nobody would ever answer: the next start waited as long as it lived."""
    code = (
        f"def make(): return BackgroundServer(command, shared={name!r})\n"
        "first = make()\n"
        "starting = threading.Thread(target=first.start)\n"
        "starting.start()\n"
        "hear()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.pause()\n"
        "say(child)\n"
        "starting.join()\n"
        "first.stop()\n"
        "with make() as second:\n"
        "    say(second.status)\n"
        "os.kill(child, signal.SIGKILL)\n"
        "os.wait()\n"
    )
    slow = program("tcp_echo", "{port}", "holds", trigger.arg)
    with owning(code, *slow) as one:

        def begun() -> None:
            assert [
                process for process in family.living() if "tcp_echo.py" in procs.command_line(process.pid)
            ]

        procs.eventually(begun)
        one.tell()
        one.says()
        trigger.release()
        trigger.release()
        assert one.says() == ["listening"]
        assert one.finish()[0] == 0
    all_ended(family)
