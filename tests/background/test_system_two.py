"""System 2 by intent: every test of the Ruby background server, and each of its faults shown absent."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import (
    AlreadyRunning,
    BackgroundServer,
    CrashedOnStartup,
    Exited,
    InvalidState,
    TimedOut,
    UsageError,
)
from daemonize.launcher import owner
from tests.support import ports, procs
from tests.support.listening import cpu_share, server, stranger
from tests.support.owners import ECHO, above, all_ended, environment, owning, shell
from tests.support.programs import SHELL, Trigger, program
from tests.support.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family

#: Says it, listens, and ends with success when it is told to.
POLITE = server(
    'say("hello")',
    'os.write(2, b"be careful\\n")',
    "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))",
    'listen("127.0.0.1", {port})',
)


def refused(*args: Any, **settings: Any) -> Exception:
    """What a start that fails raises; nothing runs then."""
    failing = BackgroundServer(*args, **settings)
    with pytest.raises(Exception) as caught:
        failing.start()
    assert failing.status == "not_running"
    assert not failing.running
    return caught.value


# -- its tests, by intent ---------------------------------------------------------------------------------------------


def test_stop_without_a_start_is_nothing(family: Family) -> None:
    """stop() of a server that was never started succeeds, as often as it is called, and starts nothing."""
    never = BackgroundServer(ECHO)
    never.stop()
    never.stop()

    assert never.status == "not_running"
    assert never.exit_status is None
    family.nobody()


def test_a_normal_life_ends_with_success() -> None:
    """not_running, listening, not_running; a server that handles SIGTERM ends with its own status, 0."""
    polite = BackgroundServer(POLITE)
    assert (polite.status, polite.running, polite.listening) == ("not_running", False, False)
    polite.start()
    assert (polite.status, polite.running, polite.listening) == ("listening", True, True)
    assert polite.exit_status is None
    assert ports.accepts(polite.port or 0)
    polite.stop()

    assert (polite.status, polite.running, polite.listening) == ("not_running", False, False)
    assert polite.exit_status == 0
    assert not ports.accepts(polite.port or 0)


def test_variables_reach_the_server() -> None:
    """Env is merged: what is named is added or replaced, the rest is ours; {port} is filled in values."""
    wanted = 'say(os.environ["GREETING"], os.environ["HOME"], os.environ["WHERE"])'
    with BackgroundServer(
        server(wanted, 'listen("127.0.0.1", int(os.environ["WHERE"]))'),
        env={"GREETING": "ahoy", "WHERE": "{port}"},
    ) as greeting:
        assert greeting.stdout == f"ahoy {os.environ['HOME']} {greeting.port}\n"


def test_a_clean_exit_before_listening_is_a_crash() -> None:
    """Exit status 0 is no readiness: CrashedOnStartup, which says so."""
    error = refused([SHELL, "-c", "exit 0"], port=ports.free_port())

    assert isinstance(error, CrashedOnStartup)
    assert error.status == 0
    assert "exit status: 0" in str(error)


def test_output_is_exact() -> None:
    """Both streams apart, byte for byte, while it runs and afterwards; logs() numbers the lines, from 0."""
    with BackgroundServer(POLITE) as polite:
        assert (polite.stdout, polite.stderr) == ("hello\n", "be careful\n")
    assert (polite.stdout, polite.stderr) == ("hello\n", "be careful\n")
    assert polite.logs() == "  out 0: hello\n  err 0: be careful"


def test_lines_are_numbered_with_as_many_digits_as_their_count() -> None:
    """Ten lines: one digit would do for the last, but their count has two."""
    lines = "".join(f"echo line {n}; " for n in range(10))
    error = refused(f"{lines} echo >&2; printf unended >&2; exit 3", port=ports.free_port())

    assert isinstance(error, CrashedOnStartup)
    expected = "\n".join(f"  out {n:02}: line {n}" for n in range(10)) + "\n  err 0: \n  err 1: unended"
    assert str(error).partition("server output:\n")[2] == expected


def test_stop_twice() -> None:
    """The second stop() is a no-op, and all queries still answer."""
    echo = BackgroundServer(ECHO)
    echo.start()
    pid, port = echo.pid, echo.port
    echo.stop()
    echo.stop()

    assert (echo.pid, echo.port) == (pid, port)
    assert echo.exit_status == 128 + signal.SIGTERM
    assert echo.logs() == f"  out 0: listening on port {port}\nerr: <empty>"
    assert echo.command == program("tcp_echo", str(port), "holds", "first")


def test_a_second_server_on_the_port_is_refused() -> None:
    """AlreadyRunning with the port, who has it, and the command that was not started; the first one is unharmed."""
    with BackgroundServer(ECHO) as first:
        error = refused(program("tcp_echo", "{port}"), port=first.port)

        assert isinstance(error, AlreadyRunning)
        words = f"port {first.port} is already in use by .*pid {first.pid}.*, refusing to start .*tcp_echo.py {first.port}"
        assert re.fullmatch(words, str(error))
        assert first.listening


def test_no_second_start() -> None:
    """One life for each object: neither while it runs nor after it, nor after a start that failed."""
    echo = BackgroundServer(ECHO)
    failing = BackgroundServer([SHELL, "-c", "exit 1"])
    with echo, pytest.raises(InvalidState, match="already been started"):
        echo.start()
    with pytest.raises(InvalidState, match="already been started"):
        echo.start()
    with pytest.raises(CrashedOnStartup):
        failing.start()
    with pytest.raises(InvalidState, match="already been started"):
        failing.start()


def test_the_message_of_a_crash_carries_all() -> None:
    """Command, exit status and both streams, in words and as facts; afterwards the object still answers."""
    words = [SHELL, "-c", "echo starting; echo boom >&2; exit 7", "server", "{port}"]
    failing = BackgroundServer(words)
    with pytest.raises(CrashedOnStartup) as caught:
        failing.start()
    error = caught.value

    assert isinstance(error, Exited)
    assert (error.status, error.exit_status, error.output) == (7, 7, b"starting\nboom\n")
    assert error.command == failing.command
    assert str(error).split("\n", 1)[1] == (
        f"cmd: {shlex.join(failing.command)}\nexit status: 7\nserver output:\n  out 0: starting\n  err 0: boom"
    )
    assert failing.exit_status == 7
    assert failing.logs() == "  out 0: starting\n  err 0: boom"


def test_who_does_not_listen_is_timed_out_and_told_to_end(family: Family) -> None:
    """TimedOut after boot_timeout and not before it; by then it has had its SIGTERM, and is gone."""
    idle = server(
        "signal.signal(signal.SIGTERM, lambda *_: (say('told to end'), os._exit(0)))", 'say("idle")'
    )
    began = time.monotonic()
    failing = BackgroundServer(idle, port=ports.free_port(), boot_timeout=0.3)
    with pytest.raises(TimedOut) as caught:
        failing.start()

    assert 0.3 <= time.monotonic() - began < 5
    assert "not ready within 0.3 s" in str(caught.value)
    assert f"port:{failing.port}: nobody listens there" in str(caught.value)
    assert caught.value.output == b"idle\ntold to end\n"
    assert failing.exit_status == 0
    owner.dismiss()
    family.nobody()


def test_who_ignores_sigterm_is_killed() -> None:
    """SIGKILL term_timeout after SIGTERM, not before it; exit_status says so."""
    deaf = BackgroundServer(
        server("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 'listen("127.0.0.1", {port})'),
        term_timeout=0.3,
    )
    deaf.start()
    began = time.monotonic()
    deaf.stop()

    assert 0.3 <= time.monotonic() - began < 3
    assert deaf.exit_status == 128 + signal.SIGKILL


def test_no_state_is_impossible(trigger: Trigger) -> None:
    """Asked at any moment, from another thread, status is one of three words, in their order; nobody can set it."""
    seen: list[str] = []
    over = threading.Event()
    slow = BackgroundServer(program("tcp_echo", "{port}", "holds", trigger.arg))

    def ask() -> None:
        while not over.is_set():
            seen.append(slow.status)
            if seen[-1] == "starting":
                trigger.release()
            over.wait(0.001)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    slow.start()
    assert slow.status == "listening"
    slow.stop()
    assert slow.status == "not_running"
    over.set()
    asking.join()
    changes = [status for status, before in zip(seen, ["", *seen], strict=False) if status != before]

    assert "starting" in changes
    assert changes in (
        [*begin, "starting", *end] for begin in ([], ["not_running"]) for end in ENDINGS
    )  # what it happened to see
    with pytest.raises(AttributeError):
        slow.status = "impossible"  # type: ignore[misc]


ENDINGS = ([], ["listening"], ["not_running"], ["listening", "not_running"])


def test_output_that_there_is_none_of() -> None:
    """`<missing>` for a server that was never started, `<empty>` for one that says nothing."""
    silent = BackgroundServer(server('listen("127.0.0.1", {port})'))
    assert silent.logs() == "out: <missing>\nerr: <missing>"
    assert (silent.stdout, silent.stderr) == ("", "")
    with silent:
        assert silent.logs() == "out: <empty>\nerr: <empty>"


def test_text_goes_through_the_shell_and_a_list_is_executed() -> None:
    """`$HOME` is the shell's business, and nobody's in a list; {port} is filled in both."""
    where = 'listen("127.0.0.1", int(sys.argv[1]))'
    words = server("say(*sys.argv[2:])", where)
    quoted = " ".join(f"'{word}'" for word in words)
    with BackgroundServer(f"exec {quoted} {{port}} $HOME") as through_shell:
        assert through_shell.stdout == f"{os.environ['HOME']}\n"
    with BackgroundServer([*words, "{port}", "$HOME"]) as executed:
        assert executed.stdout == "$HOME\n"


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (ECHO, {"port": 65536}),
        (ECHO, {"port": -1}),
        (ECHO, {"port": "80"}),
        (ECHO, {"port": True}),
        ([], {}),
        (["{port101}"], {}),
        (ECHO, {"boot_timeout": "soon"}),
        (ECHO, {"listen": "127.0.0.1:0"}),
        (ECHO, {"listen": "127.0.0.1:0", "ready": "notify", "port": 80}),
    ],
)
def test_what_cannot_be_is_said_when_the_object_is_made(command: list[str], settings: dict[str, Any]) -> None:
    """UsageError, before anything is started."""
    with pytest.raises(UsageError):
        BackgroundServer(command, **settings)


def test_a_spec_that_there_is_none_of_is_refused_at_once() -> None:
    """UsageError, before there is anything to start."""
    with pytest.raises(UsageError, match="'nonsense:3' is not a readiness spec"):
        BackgroundServer(ECHO, ready="nonsense:3")


# -- its faults -------------------------------------------------------------------------------------------------------


def test_stop_does_not_spin() -> None:
    """While a server takes 0.5 s to be killed, neither the one that waits in stop() nor its wrapper uses the CPU."""
    deaf = BackgroundServer(
        server("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 'listen("127.0.0.1", {port})'),
        term_timeout=0.5,
    )
    deaf.start()
    wrapper = above(deaf.pid)
    spent = []

    def stop() -> None:
        began = time.thread_time()
        deaf.stop()
        spent.append(time.thread_time() - began)

    stopping = threading.Thread(target=stop, daemon=True)
    stopping.start()
    share = cpu_share(wrapper, 0.4)
    stopping.join()

    assert share < 0.1  # a busy loop: 1
    assert spent[0] < 0.05  # 0.5


def test_a_wait_for_readiness_does_not_spin() -> None:
    """Nor while it is waited for: 0.5 s of a server that does not listen."""
    failing = BackgroundServer(server(), port=ports.free_port(), boot_timeout=0.5)
    began = time.thread_time()
    with pytest.raises(TimedOut):
        failing.start()

    assert time.thread_time() - began < 0.2  # with the execution of the keeper


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """$TMPDIR, which is watched: at the end, nothing has ever come into being there.

    Python itself tries once whether it can write there, when it first looks for the directory: it is told.
    """
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    with Watched(directory) as watched:
        yield watched
        assert watched.created() == []
        assert os.listdir(directory) == []


def test_a_temporary_file_would_be_seen(temporary: Watched) -> None:
    """The negative control: one that is gone at once."""
    with tempfile.NamedTemporaryFile() as file:
        name = os.path.basename(file.name)
    assert temporary.created() == [name]


@pytest.mark.parametrize(
    ("command", "settings", "outcome"),
    [
        (ECHO, {}, None),
        (program("writes_much", "100000", "3"), {}, CrashedOnStartup),
        (["/nonexistent/server"], {}, Exception),
        (server('say("idle")'), {"boot_timeout": 0.2}, TimedOut),
        (program("ignores_term", "never"), {"boot_timeout": 0.2, "term_timeout": 0.1}, TimedOut),
    ],
    ids=["normal", "crash", "not-found", "late", "deaf"],
)
def test_no_temporary_file_on_any_path(
    temporary: Watched, command: list[str], settings: dict[str, Any], outcome: type[Exception] | None
) -> None:
    """Nothing has a name in $TMPDIR at any time: there is nothing to be left, whatever becomes of the server."""
    expected = pytest.raises(outcome) if outcome else contextlib.nullcontext()
    with expected, BackgroundServer(command, **settings):
        pass


def test_no_temporary_file_is_left_by_who_is_killed(temporary: Watched, family: Family) -> None:
    """Neither while its server runs, nor when the owner is killed with SIGKILL."""
    with owning(
        'import tempfile; tempfile.tempdir = os.environ["TMPDIR"]; started(); hear()', env=environment()
    ) as program_of_its_own:
        program_of_its_own.says()
        program_of_its_own.end()
        all_ended(family)


@pytest.mark.parametrize("how", [[], ["setsid"]], ids=["plain", "session"])
def test_grandchildren_of_the_shell_go_too(how: list[str], family: Family) -> None:
    """What the shell of a text command has started ends with it, also in a session of its own."""
    text = shell([*how, *program("ignores_term")], ECHO)
    with BackgroundServer(text, term_timeout=0.2) as several:
        assert len(procs.tree(several.pid or 0)) >= 2
        assert ports.accepts(several.port or 0)
    owner.dismiss()
    family.nobody()


def test_what_the_shell_has_left_behind_goes_too(family: Family) -> None:
    """Whose parent has ended, and who leads a session of its own, still belongs to the server."""
    leaving = " ".join(program("leaves_grandchild", "0", "session"))
    with BackgroundServer(f"{leaving}; exec {' '.join(ECHO)}") as several:
        (said, _) = several.stdout.splitlines()
        grandchild = int(said.removeprefix("grandchild "))
        assert procs.alive(grandchild)
    assert not procs.alive(grandchild)
    owner.dismiss()
    family.nobody()


@pytest.mark.parametrize("ready", [None, "port:[::1]:{port}", "port:{port}"])
def test_ipv6(ready: str | None) -> None:
    """A server that listens on [::1] alone is found."""
    with BackgroundServer(server('listen6("::1", {port})'), ready=ready) as six:
        assert six.port
        socket.create_connection(("::1", six.port)).close()


def test_unix_socket(tmp_path: Path) -> None:
    """A server without any port: ready when the socket accepts; one that is taken is refused."""
    path = str(tmp_path / "socket")
    words = server(f'bind("{path}").listen()')
    with BackgroundServer(words, ready=f"unix:{path}") as plain:
        assert plain.port is None
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        error = refused(words, ready=f"unix:{path}")
        assert isinstance(error, AlreadyRunning)
        assert f"socket {path} is already in use" in str(error)


def test_a_stranger_is_never_the_server(trigger: Trigger, tmp_path: Path) -> None:
    """Somebody takes the port while the server starts: that is no readiness, and the message names who it is."""
    port = ports.free_port()
    with Trigger(tmp_path, "reached") as reached:
        words = [*program("steps", f"tell:{reached.path}", "serve")]
        failing = BackgroundServer(words, port=port, boot_timeout=1)
        caught: list[BaseException] = []

        def start() -> None:
            with pytest.raises(TimedOut) as raised:
                failing.start()
            caught.append(raised.value)

        starting = threading.Thread(target=start, daemon=True)
        starting.start()
        assert os.read(reached._fd, 1)
        with stranger(f'listen("127.0.0.1", {port})') as pid:
            starting.join()

    assert f"pid {pid}" in str(caught[0])


def test_a_port_that_is_lost_is_another(tmp_path: Path) -> None:
    """A stranger takes {port} between our choice and the server's bind: the server is started anew, on another port."""
    numbers = tmp_path / "numbers"
    os.mkfifo(numbers)
    with Trigger(tmp_path, "bind") as bind, contextlib.ExitStack() as strangers:
        words = server(
            f'os.write(os.open("{numbers}", os.O_WRONLY), b"%6d" % {{port}})',
            f'wait("{bind.path}")',
            'listen("127.0.0.1", {port})',
        )
        told = os.open(numbers, os.O_RDWR)
        strangers.callback(os.close, told)
        chosen: list[int] = []

        def take_the_first_two() -> None:
            for number in range(3):
                chosen.append(int(os.read(told, 6)))
                if number < 2:
                    strangers.enter_context(socket.create_server(("127.0.0.1", chosen[-1])))
                bind.release()

        taking = threading.Thread(target=take_the_first_two, daemon=True)
        taking.start()
        with BackgroundServer(words) as lucky:
            taking.join()
            assert len(set(chosen)) == 3
            assert lucky.port == chosen[-1]
            assert str(lucky.port) in " ".join(lucky.command)
            assert lucky.stderr == ""


def test_a_port_that_was_asked_for_is_not_another(tmp_path: Path) -> None:
    """The negative control: a port that was named is the one, and its loss a crash that is told."""
    port = ports.free_port()
    with Trigger(tmp_path, "bind") as bind, Trigger(tmp_path, "reached") as reached:
        words = server(
            f'os.write(os.open("{reached.path}", os.O_WRONLY), b".")',
            f'wait("{bind.path}")',
            'listen("127.0.0.1", {port})',
        )
        failing = BackgroundServer(words, port=port)
        failed: list[str] = []

        def start() -> None:
            with pytest.raises(CrashedOnStartup) as caught:
                failing.start()
            failed.append(str(caught.value))

        starting = threading.Thread(target=start, daemon=True)
        starting.start()
        assert os.read(reached._fd, 1)
        with socket.create_server(("127.0.0.1", port)):
            bind.release()
            starting.join()
    assert "Address already in use" in failed[0]
