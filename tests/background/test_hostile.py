"""Servers, neighbours and machines that do what nobody expects."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
import tempfile
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from daemonize import BackgroundServer, SetupError
from daemonize.background.heard import MOST_LINES, Heard
from daemonize.background.shared import Place
from daemonize.launcher import owner
from tests.support import ports, procs, users
from tests.support.listening import server, stranger
from tests.support.owners import ECHO, above, all_ended, owning
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family


# -- servers ----------------------------------------------------------------------------------------------------------


def test_one_that_puts_itself_in_the_background(family: Family) -> None:
    """Its first process exits 0 when another listens: that one is the server, and is stopped."""
    words = [*program("meets_spec", "port:{port}", "daemonizes")]
    with BackgroundServer(words, ready=["exit", "port:{port}"]) as one:
        assert ports.accepts(one.port or 0)
        assert procs.alive(one.pid or 0)
    owner.dismiss()
    family.nobody()


def test_one_that_is_never_long_the_same(family: Family) -> None:
    """It forks and exits every few milliseconds: stop() ends whoever it is by then."""
    with BackgroundServer(program("hops", 3), ready="log:hopping"):
        pass
    owner.dismiss()
    family.nobody()


def test_one_that_forks_while_it_is_stopped(family: Family) -> None:
    """At SIGTERM it starts five more, deaf and each in a session of its own, and exits."""
    words = server(
        "def more(*_):",
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "    for _ in range(5):",
        "        if not os.fork():",
        "            os.setsid()",
        "            stay()",
        "    os._exit(0)",
        "signal.signal(signal.SIGTERM, more)",
        'listen("127.0.0.1", {port})',
    )
    with BackgroundServer(words, term_timeout=0.3):
        pass
    owner.dismiss()
    family.nobody()


@pytest.mark.parametrize("who", ["wrapper", "keeper"])
def test_one_that_kills_who_keeps_it(who: str, family: Family) -> None:
    """SIGKILL to its parent, or to its parent's: it is ended all the same, at the latest by stop()."""
    with BackgroundServer(ECHO) as one:
        wrapper = above(one.pid)
        procs.send(wrapper if who == "wrapper" else above(wrapper), signal.SIGKILL)
    assert not procs.alive(one.pid or 0)
    owner.dismiss()
    all_ended(family)


def test_one_that_throws_its_environment_away(family: Family) -> None:
    """What marks its descendants is gone with it; they are found all the same."""
    bare = " ".join(["exec", "env", "-i", *program("ignores_term")])
    with BackgroundServer(f"({bare}) & (setsid {bare[5:]}) & exec env -i {' '.join(ECHO)}", term_timeout=0.3):
        pass
    owner.dismiss()
    family.nobody()


def test_output_of_any_bytes() -> None:
    """What is not UTF-8 is escaped, and the numbered form stays lines of text."""
    words = server(r'os.write(1, b"\xff\x00caf\xc3\xa9\n\x1b[31m")', 'listen("127.0.0.1", {port})')
    with BackgroundServer(words) as one:
        assert one.stdout == "\\xff\x00café\n\x1b[31m"
        assert one.logs().splitlines()[0] == "  out 0: \\xff\x00café"


def test_one_that_truncates_its_output() -> None:
    """`: > /dev/stdout` is the server's own affair: what it says after that is there."""
    text = f"echo before; : > /dev/stdout; echo after; exec {' '.join(ECHO)}"
    with BackgroundServer(text) as one:
        assert one.stdout == f"after\nlistening on port {one.port}\n"


def test_the_report_of_one_that_says_very_much_takes_little_memory() -> None:
    """Its last lines, numbered as among all, without all of them in memory: 64 MB here."""
    says = "[os.write(1, b'%0999d\\n' % number * 1000) for number in range(64)]"
    with BackgroundServer(server(says, "print('said', flush=True)"), ready="log:^said$") as one:
        heard = Heard(fresh=True)
        tracemalloc.start()
        try:
            _, text = heard.parts()[0]
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        lines = text.splitlines()
        assert lines[0] == f"  out: {64_001 - MOST_LINES} lines before these"
        assert lines[MOST_LINES - 1 : MOST_LINES + 1] == [f"  out 63999: {63:0999d}", "  out 64000: said"]
        assert most < 8 << 20
        assert len(one.stdout) == 64_000_000 + len("said\n")  # nothing is lost


def test_one_that_closes_its_streams(family: Family) -> None:
    """It goes on."""
    with BackgroundServer(server("os.closerange(0, 3)", 'listen("127.0.0.1", {port})')) as one:
        assert ports.accepts(one.port or 0)
    owner.dismiss()
    family.nobody()


def test_one_that_is_stopped_by_a_signal() -> None:
    """SIGSTOP: it cannot hear SIGTERM, and is killed after term_timeout."""
    with BackgroundServer(ECHO, term_timeout=0.3) as one:
        procs.send(one.pid or 0, signal.SIGSTOP)
    assert one.exit_status in (143, 137)
    assert not procs.alive(one.pid or 0)


# -- neighbours ---------------------------------------------------------------------------------------------------------


def test_another_user_who_has_the_name_of_a_shared_server() -> None:
    """SetupError that names the user; we neither use nor wait for what is there."""
    address = Place("wanted")._address
    with stranger(f"bind({address!r}).listen()", account=users.NOBODY):
        failing = BackgroundServer(ECHO, shared="wanted")
        with pytest.raises(SetupError, match="user 65534 has its name"):
            failing.start()
        assert failing.status == "not_running"


def test_another_user_who_has_the_name_and_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """SetupError after a while: nobody of ours is bound without listening."""
    monkeypatch.setattr("daemonize.background.shared._LONGEST_SILENCE", 0.2)
    with stranger(f"bind({Place('silent')._address!r})", account=users.NOBODY):
        failing = BackgroundServer(ECHO, shared="silent")
        with pytest.raises(SetupError, match="has its name, and does not listen"):
            failing.start()
        assert failing.status == "not_running"


def test_another_user_who_wants_to_share() -> None:
    """Is shown the door; who has the server has no harm."""
    address = Place("ours")._address
    with BackgroundServer(ECHO, shared="ours") as one:
        asks = f"client = socket.socket(socket.AF_UNIX)\nclient.connect({address!r})\nsay(client.recv(100))"
        words = [*users.become(users.NOBODY), *server(asks)]
        with BackgroundServer(words, ready="log:^b''$", cwd="/") as other:
            assert other.stdout == "b''\n"
        assert one.listening
        with BackgroundServer(ECHO, shared="ours") as same:
            assert same.pid == one.pid


def test_one_of_ours_who_connects_and_goes() -> None:
    """A user of a shared server that is gone at once, without a word."""
    address = Place("short")._address
    with BackgroundServer(ECHO, shared="short") as one:
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(address)
        assert one.listening
    assert procs.wait_ended(one.pid or 0)  # it may have taken us for not the last


# -- machines -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def only_so_many_descriptors(room: int) -> Iterator[None]:
    """This process can open so many more, and no other; within the limit there is."""
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        for fd in taken[len(taken) - room :]:
            os.close(fd)
        del taken[len(taken) - room :]
    try:
        yield
    finally:
        for fd in taken:
            os.close(fd)


def test_without_descriptors_it_fails_and_leaves_nothing(family: Family) -> None:
    """EMFILE in the owner, at whichever step: an error of ours, nothing runs, and later starts succeed."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    outcomes = []
    for room in range(12):
        failing = BackgroundServer(ECHO)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        try:
            with only_so_many_descriptors(room):
                failing.start()
        except SetupError:
            outcomes.append("SetupError")
        else:
            outcomes.append("listening")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            failing.stop()
        assert failing.status == "not_running"
    assert set(outcomes) == {"SetupError", "listening"}
    with BackgroundServer(ECHO) as one:
        assert one.listening
    owner.dismiss()
    family.nobody()


def test_without_a_directory_for_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """SetupError, before anything is started."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    failing = BackgroundServer(ECHO)
    with pytest.raises(SetupError, match="cannot make a file for its output"):
        failing.start()
    assert failing.status == "not_running"


def test_an_interrupted_start_leaves_nothing(family: Family) -> None:
    """Ctrl-C in start(): KeyboardInterrupt goes on when the server is gone."""
    code = (
        "server = BackgroundServer(command, ready='log:never')\n"
        "say('starts')\n"
        "try:\n"
        "    server.start()\n"
        "except KeyboardInterrupt:\n"
        "    say(server.status, server.exit_status)\n"
    )
    with owning(code) as one:
        assert one.says() == ["starts"]

        def begun() -> None:
            lines = [procs.command_line(process.pid) for process in family.living()]
            assert [line for line in lines if "tcp_echo.py" in line and "-c" not in line.split()]

        procs.eventually(begun)
        procs.send(one.pid, signal.SIGINT)
        assert one.says()[0] == "not_running"
        assert one.finish()[0] == 0
    all_ended(family)


def test_a_shell_that_cannot_be_found(tmp_path: Path) -> None:
    """PATH means nothing to the text of a command itself: the shell is always there, what it runs need not be."""
    failing = BackgroundServer("nonexistent-server {port}", env={"PATH": str(tmp_path)})
    with pytest.raises(Exception, match="nonexistent-server") as caught:
        failing.start()
    assert failing.exit_status == 127
    assert "not found" in str(caught.value)
    assert failing.command[:2] == ["/bin/sh", "-c"]


# -- owners -----------------------------------------------------------------------------------------------------------


def test_an_owner_that_has_blocked_all_signals(family: Family) -> None:
    """As programs do that take theirs by sigwait(3): the keeper hears of the end of a wrapper, and leaves."""
    code = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "server = started()\n"
        "server.stop()\n"
        "say(server.exit_status)\n"
    )
    with owning(code) as one:
        _, _, keeper, _ = one.says()
        assert one.says() == [143]
        assert procs.wait_ended(keeper, 10.0)
        assert one.finish()[0] == 0
    all_ended(family)


@pytest.mark.parametrize("said", ["", None])
def test_an_owner_that_knows_no_interpreter(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Python is embedded: SetupError says what is missing."""
    monkeypatch.setattr(sys, "executable", said)
    with pytest.raises(SetupError, match=r"cannot start the keeper: sys\.executable does not say"):
        BackgroundServer(ECHO).start()
