"""Who dies, and who goes with whom: owner, keeper, wrapper and server, and copies of the owner."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from daemonize import BackgroundServer, InvalidState, SetupError
from daemonize.launcher import owner
from tests.support import ports, procs
from tests.support.owners import ECHO, above, all_ended, owning, run, shell
from tests.support.programs import SHELL, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

#: A shell with a server and one who does not listen to SIGTERM below it.
SEVERAL = [
    SHELL,
    "-c",
    shell(program("ignores_term"), ["setsid", *program("ignores_term")], ECHO),
    "sh",
    "{port}",
]
SEVERAL[2] = SEVERAL[2].replace("{port}", '"$1"')


# -- copies of the owner ------------------------------------------------------------------------------------------------


def test_a_forked_child_takes_nothing_from_its_parent() -> None:
    """It leaves the block without harm, and may not start, stop, wait or signal; the server goes on."""
    said = run(
        "with BackgroundServer(command) as server:\n"
        "    if not os.fork():\n"
        "        refused = []\n"
        "        for name in ('start', 'stop', 'wait', 'send_signal'):\n"
        "            try:\n"
        "                getattr(server, name)(*[9] * (name == 'send_signal'))\n"
        "            except daemonize.InvalidState as error:\n"
        "                refused.append(name)\n"
        "        say(refused, server.status, server.port)\n"
        "    else:\n"
        "        os.wait()\n"
        "        say(server.status, server.wait(0.1), server.port)\n"
    )
    # The child goes on behind the block, to its own end: that is nothing to the server either.
    assert said[0] == [["start", "stop", "wait", "send_signal"], "listening", said[1][2]]
    assert said[1][:2] == ["listening", None]


def test_a_forked_child_has_servers_of_its_own(family: Family) -> None:
    """With a keeper of its own; both can be stopped, and neither touches the other's."""
    said = run(
        "server = started()\n"
        "if not os.fork():\n"
        "    own = started()\n"
        "    own.stop()\n"
        "    say(own.status)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "say(server.status)\n"
        "server.stop()\n"
    )
    (first, second) = said[:2]
    assert said[2:] == [["not_running"], ["listening"]]
    assert not set(first[:3]) & set(second[:3])
    all_ended(family)


def test_an_unrelated_child_keeps_nothing_alive(family: Family) -> None:
    """A forked child that lives on holds copies of all sockets; the server ends with its owner all the same."""
    with owning(
        "started()\nif not os.fork():\n    say(os.getpid())\n    hear()\n    os._exit(0)\nhear()"
    ) as one:
        server, wrapper, keeper, _ = one.says()
        (child,) = one.says()
        procs.send(one.pid, signal.SIGKILL)
        assert procs.wait_ended(server)
        assert procs.wait_ended(wrapper)
        assert procs.wait_ended(keeper)
        assert procs.alive(child)
        one.tell()
        all_ended(family)


# -- the owner ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [ECHO, SEVERAL], ids=["one", "several"])
def test_who_is_killed_takes_its_servers_along(command: list[str], family: Family) -> None:
    """SIGKILL of the owner: all of two servers end within some seconds, with keeper and wrappers, deaf ones too."""
    with owning("started(); started(); hear()", *command) as one:
        for _ in range(2):
            assert procs.alive(one.says()[0])
        one.end()
        all_ended(family)


def test_who_is_killed_while_it_starts_leaves_nothing(family: Family) -> None:
    """A server that is not ready yet ends, too."""
    with owning("BackgroundServer(command, ready='log:never').start()") as one:
        procs.eventually(lambda: main_process(family))
        one.end()
        all_ended(family)


def main_process(family: Family) -> procs.Process:
    """The main process of the one server there is: it leads a session. An AssertionError if there is none yet."""
    found = [process for process in family.living() if "tcp_echo.py" in procs.command_line(process.pid)]
    (server,) = [process for process in found if process.sid == process.pid] or [None]
    assert server, "no server"
    return server


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ("sys.exit(3)", 3),
        ("os._exit(4)", 4),
        ("raise RuntimeError('oh')", 1),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("os.execv('/bin/true', ['true'])", 0),
    ],
    ids=["exit", "_exit", "raise", "SIGTERM", "exec"],
)
def test_who_ends_without_a_stop_takes_its_servers_along(ends: str, status: int, family: Family) -> None:
    """However an owner ends: by sys.exit its servers are gone before it is, else soon after."""
    with owning(f"server = started()\n{ends}") as one:
        server, *_ = one.says()
        ended, _, err = one.finish()
        assert ended == status
        if ends == "sys.exit(3)":
            assert err == b""
            assert not procs.alive(server)
        all_ended(family)


def test_a_thread_that_has_ended_takes_nothing_along() -> None:
    """The server lives on when the thread that started it has ended."""
    said = run(
        "servers = []\n"
        "starting = threading.Thread(target=lambda: servers.append(started()))\n"
        "starting.start()\n"
        "starting.join()\n"
        "say(servers[0].wait(0.2), servers[0].status)\n"
        "servers[0].stop()\n"
    )
    assert said[1] == [None, "listening"]


# -- the wrapper --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [ECHO, SEVERAL], ids=["one", "several"])
def test_a_killed_wrapper_takes_its_server_along(command: list[str], family: Family) -> None:
    """Server and grandchildren are ended; stop() returns when they are; the exit status is not known, and not made up."""
    several = BackgroundServer(command, term_timeout=0.3)
    several.start()
    procs.send(above(several.pid), signal.SIGKILL)
    several.stop()

    assert (several.status, several.exit_status) == ("not_running", None)
    assert not procs.alive(several.pid or 0)
    assert not ports.accepts(several.port or 0)
    owner.dismiss()
    family.nobody()


def test_a_wrapper_that_is_killed_while_it_starts_is_told(family: Family) -> None:
    """start() raises, names the cause, and nothing runs."""
    code = (
        "server = BackgroundServer(command, ready='log:never')\n"
        "starting = threading.Thread(target=lambda: attempt())\n"
        "def attempt():\n"
        "    try:\n"
        "        server.start()\n"
        "    except daemonize.SetupError as error:\n"
        "        say(str(error), server.status)\n"
        "starting.start()\n"
        "hear()\n"
        "starting.join()\n"
    )
    with owning(code) as one:
        server = procs.eventually(lambda: main_process(family))
        procs.send(server.ppid, signal.SIGKILL)
        one.tell()
        words, status = one.says()
        assert "its wrapper was killed" in words
        assert status == "not_running"
        assert procs.wait_ended(server.pid, 0)
        assert one.finish()[0] == 0


def test_a_server_that_is_not_executed_yet_goes_with_its_wrapper(tmp_path: Path, family: Family) -> None:
    """It waits for a writer of its stdin, with all signals blocked, and bears no mark: start() raises, and it is gone."""
    stdin = tmp_path / "stdin"
    os.mkfifo(stdin)
    held = BackgroundServer(ECHO, stdin=stdin, term_timeout=0.1)
    starting = threading.Thread(target=lambda: raised.append(attempt(held)))
    raised: list[str] = []
    starting.start()
    server = procs.eventually(lambda: unexecuted(family))
    procs.send(server.ppid, signal.SIGKILL)
    starting.join()

    assert "its wrapper was killed" in raised[0]
    assert procs.wait_ended(server.pid, 0)
    owner.dismiss()
    family.nobody()


def attempt(server: BackgroundServer) -> str:
    """What start() says that fails."""
    with pytest.raises(SetupError) as failed:
        server.start()
    return str(failed.value)


def unexecuted(family: Family) -> procs.Process:
    """What a wrapper has forked."""
    parents = {process.pid: process.ppid for process in family.living()}
    found = [process for process in family.living() if parents.get(process.ppid) in parents]
    assert found, "there is no server yet"
    return found[0]


# -- the keeper ---------------------------------------------------------------------------------------------------------


def test_servers_outlive_a_killed_keeper() -> None:
    """They go on, can be stopped with their exit status, and the next start executes another keeper."""
    with BackgroundServer(ECHO) as first:
        keeper = above(above(first.pid))
        procs.send(keeper, signal.SIGKILL)
        assert procs.wait_ended(keeper)
        assert first.wait(0.1) is None
        with BackgroundServer(ECHO) as second:
            assert above(above(second.pid)) != keeper
            assert ports.accepts(first.port or 0)
    assert (first.exit_status, second.exit_status) == (143, 143)


@pytest.mark.parametrize("command", [ECHO, SEVERAL], ids=["one", "several"])
def test_keeper_and_owner_killed_together(command: list[str], family: Family) -> None:
    """The wrappers see the end of their owner themselves."""
    with owning("started(); hear()", *command) as one:
        _, _, keeper, _ = one.says()
        procs.send(keeper, signal.SIGKILL)
        one.end()
        all_ended(family)


@pytest.mark.parametrize("command", [ECHO, SEVERAL], ids=["one", "several"])
def test_wrapper_and_owner_killed_together(command: list[str], family: Family) -> None:
    """The keeper ends what the wrapper has left, deaf grandchildren too."""
    with owning("started(); hear()", *command) as one:
        _, wrapper, _, _ = one.says()
        procs.send(wrapper, signal.SIGKILL)
        one.end()
        all_ended(family)


def test_keeper_wrapper_and_owner_killed_together(family: Family) -> None:
    """Nobody is left to stop the server: the kernel tells it to end (and it alone: whom it has started, nobody tells)."""
    with owning("started(); hear()") as one:
        _, wrapper, keeper, _ = one.says()
        for pid in (keeper, wrapper, one.pid):
            procs.send(pid, signal.SIGKILL)
        one.process.wait()
        all_ended(family)


def test_wrapper_and_keeper_killed_the_owner_ends_what_is_left(family: Family) -> None:
    """stop() itself ends the server and its grandchildren, deaf ones too."""
    several = BackgroundServer(SEVERAL, term_timeout=0.3)
    several.start()
    wrapper = above(several.pid)
    procs.send(above(wrapper), signal.SIGKILL)
    procs.send(wrapper, signal.SIGKILL)
    several.stop()

    owner.dismiss()
    all_ended(family)
    assert several.exit_status is None


def test_a_keeper_leaves_when_it_has_nothing_to_do(family: Family) -> None:
    """After a while without servers, not before; and the next start executes another one."""
    patch = (
        "from daemonize.launcher import interpreter\n"
        "code = 'import sys; from daemonize.launcher import keeper; keeper.IDLE = 0.2; keeper.main(sys.argv[1:])'\n"
        "interpreter.command = lambda _module, *words: [sys.executable, '-c', code, *map(str, words)]\n"
    )
    with owning(
        patch + "server = started()\nhear()\nserver.stop()\nhear()\nserver = started()\nserver.stop()"
    ) as one:
        _, _, keeper, _ = one.says()
        assert not procs.wait_ended(keeper, 0.4)  # it has a server
        one.tell()
        assert procs.wait_ended(keeper)
        one.tell()
        _, _, another, _ = one.says()
        assert another != keeper
        assert one.finish()[0] == 0
    all_ended(family)


def test_a_keeper_is_executed_once() -> None:
    """All servers of an owner have one keeper."""
    with BackgroundServer(ECHO) as first, BackgroundServer(ECHO) as second:
        assert above(above(first.pid)) == above(above(second.pid))
        assert above(first.pid) != above(second.pid)


def test_an_owner_that_waits_for_any_child_never_sees_ours() -> None:
    """Neither keeper, wrapper nor server is the owner's child."""
    with BackgroundServer(ECHO), pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_an_owner_that_adopts_orphans_has_no_zombies_of_ours() -> None:
    """As pid 1 of a container: each keeper that has left is reaped, when there is another or none is needed."""
    said = run(
        "import ctypes\n"
        "from daemonize.launcher import owner\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER\n"
        "def children():\n"
        "    with open('/proc/thread-self/children') as file:\n"
        "        return file.read().split()\n"
        "for niceness in range(6):\n"
        "    os.setpriority(os.PRIO_PROCESS, 0, niceness)\n"
        "    with BackgroundServer(command):\n"
        "        pass\n"
        "say(len(children()))\n"
        "owner.dismiss()\n"
        "say(children())\n"
    )
    assert said[0][0] < 5  # the last one, and perhaps some that are on their way out
    assert said[1] == [[]]


def test_in_the_child_of_multiprocessing_a_server_cannot_be_stopped_by_its_copy() -> None:
    """As in any forked child; said here for one in this process."""
    with BackgroundServer(ECHO) as echo:
        pid = os.fork()
        if not pid:
            try:
                echo.stop()
            except InvalidState:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert echo.listening


# -- who is interrupted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forks", [False, True], ids=["alone", "forked"])
def test_an_interrupted_launch_stops_the_server_first(forks: bool, family: Family) -> None:
    """By the keeper, too, for a program with threads: and a child that was forked meanwhile does not hold the launch."""
    code = (
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def fork():\n"
        "    hear()\n"
        f"    child = os.fork() if {forks} else 1\n"
        "    if not child:\n"
        "        signal.pause()\n"
        "    say(child)\n"
        "threading.Thread(target=fork, daemon=True).start()\n"
        "try:\n"
        "    daemonize.launch(command, ready='log:never', stop_timeout=0.3)\n"
        "except KeyboardInterrupt:\n"
        "    say('interrupted')\n"
        "    hear()\n"
    )
    with owning(code, *program("ignores_term")) as one:

        def server() -> procs.Process:
            found = [
                process
                for process in family.living()
                if procs.command_line(process.pid).endswith("ignores_term.py")
            ]
            assert found
            return found[0]

        launched = procs.eventually(server)
        one.tell()
        [child] = one.says()
        procs.send(one.pid, signal.SIGINT)
        assert one.says() == ["interrupted"]
        assert not procs.alive(launched.pid)
        if forks:
            procs.send(child, signal.SIGKILL)
        one.tell()
        assert one.finish()[0] == 0
    all_ended(family)


def test_an_interrupted_order_is_not_taken_for_the_beginning_of_the_next(family: Family) -> None:
    """One too large to be sent at once (the environment), to a keeper that does not read: the next start goes well."""
    code = (
        "started().stop()\n"
        "os.environ.update({f'LARGE{number}': 'x' * 100_000 for number in range(15)})\n"
        "hear()\n"
        "say('starts')\n"
        "try:\n"
        "    started(clear_env=True)\n"
        "except KeyboardInterrupt:\n"
        "    say('interrupted')\n"
        "hear()\n"
        "started(clear_env=True).stop()\n"
    )
    with owning(code) as one:
        _, _, keeper, _ = one.says()
        procs.send(keeper, signal.SIGSTOP)
        one.tell()
        assert one.says() == ["starts"]

        def sends(sending: bool = True) -> None:
            assert (procs.read(f"/proc/{one.pid}/wchan") == b"sock_alloc_send_pskb") is sending

        procs.eventually(sends)
        procs.send(one.pid, signal.SIGINT)
        procs.eventually(lambda: sends(False))
        procs.send(keeper, signal.SIGCONT)
        assert one.says() == ["interrupted"]
        one.tell()
        assert one.says()
        assert one.finish()[0] == 0
    all_ended(family)
