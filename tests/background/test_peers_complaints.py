"""What users of other launchers for tests complain of (mirakuru, pytest-xprocess), shown absent."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from daemonize import AlreadyRunning, BackgroundServer, CrashedOnStartup, TimedOut
from daemonize.background.ports import Port
from daemonize.launcher import owner
from tests.support import ports, procs
from tests.support.listening import server, stranger
from tests.support.owners import ECHO, shell
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

#: Answers every request with the status that a file names.
HTTP = server(
    "server = socket.create_server(('127.0.0.1', {port}))",
    "while True:",
    "    connection, _ = server.accept()",
    "    asked = connection.recv(65536)",
    "    say(asked.split(b' ')[1].decode())",
    "    status = open(sys.argv[1]).read() if os.path.exists(sys.argv[1]) else '503 Not Yet'",
    "    connection.sendall(f'HTTP/1.0 {status}\\r\\n\\r\\n'.encode())",
    "    connection.close()",
)


# -- 4: early death reported as a timeout -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ready", ["port:{port}", "log:never", "http://127.0.0.1:{port}/", "file:/nonexistent/x"]
)
@pytest.mark.parametrize("status", [0, 7])
def test_4_early_death_is_told_at_once(ready: str, status: int) -> None:
    """Not after the timeout, by whatever spec it is waited for, and with status and words; also for exit status 0."""
    failing = BackgroundServer(f"echo boom >&2; exit {status}", ready=ready, boot_timeout=60)
    began = time.monotonic()
    with pytest.raises(CrashedOnStartup) as caught:
        failing.start()

    assert time.monotonic() - began < 5
    assert caught.value.status == status
    assert "  err 0: boom" in str(caught.value)


def test_4_death_by_a_signal_is_told_at_once() -> None:
    """128+N, and its name."""
    failing = BackgroundServer("kill -USR1 $$", ready="log:never", boot_timeout=60)
    with pytest.raises(CrashedOnStartup, match="killed by SIGUSR1") as caught:
        failing.start()
    assert caught.value.status == 128 + 10


# -- 11: port races; a wait for a port that is blind to who answers ----------------------------------------------------


def test_11_two_of_us_never_choose_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that was chosen is nobody else's until it is given back, though nobody is bound to it yet."""
    monkeypatch.setattr("daemonize.background.ports._candidates", lambda: range(61_000, 61_040))
    first = [Port() for _ in range(15)]
    second = [Port() for _ in range(15)]
    numbers = [port.number for port in (*first, *second)]
    for port in (*first, *second):
        port.close()
    again = Port()
    again.close()

    assert len(set(numbers)) == 30
    assert again.number == numbers[0]


def test_11_the_kernel_gives_nobody_the_port() -> None:
    """It is outside of the range that the kernel takes ports from for clients and for servers that bind port 0."""
    low, high = map(int, procs.read("/proc/sys/net/ipv4/ip_local_port_range").split())
    with BackgroundServer(ECHO) as echo:
        assert not low <= (echo.port or 0) <= high


def test_11_many_at_once_have_ports_of_their_own() -> None:
    """Twelve servers that start at the same time: twelve ports, and each is answered by its own."""
    several = [BackgroundServer(ECHO) for _ in range(12)]
    threads = [threading.Thread(target=one.start, daemon=True) for one in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [one.stdout for one in several]
    numbers = [one.port for one in several]
    for one in several:
        one.stop()

    assert said == [f"listening on port {number}\n" for number in numbers]
    assert len(set(numbers)) == 12


def test_11_who_is_there_before_is_not_the_server() -> None:
    """A port that somebody listens on is refused, and the server is not started."""
    port = ports.free_port()
    with stranger(f'listen("127.0.0.1", {port})') as pid:
        failing = BackgroundServer(program("tcp_echo", port), port=port)
        with pytest.raises(AlreadyRunning, match=f"pid {pid}") as caught:
            failing.start()
    assert failing.stdout == ""
    assert f"refusing to start {' '.join(failing.command)}" in str(caught.value)


def test_11_a_port_is_not_ready_because_another_server_answers_there(tmp_path: Path) -> None:
    """http: too: a stranger that answers 200 on the port is not the server, which is still coming up."""
    port = ports.free_port()
    with Trigger(tmp_path, "reached") as reached:
        failing = BackgroundServer(
            program("steps", f"tell:{reached.path}", "serve"),
            port=port,
            ready="http://127.0.0.1:{port}/",
            boot_timeout=0.7,
        )
        outcome: list[BaseException] = []

        def start() -> None:
            try:
                failing.start()
            except TimedOut as error:
                outcome.append(error)

        starting = threading.Thread(target=start, daemon=True)
        starting.start()
        assert os.read(reached._fd, 1)
        answers = server(
            f"server = socket.create_server(('127.0.0.1', {port}))",
            'say("done")',
            "while True:",
            "    connection, _ = server.accept()",
            "    connection.recv(65536)",
            "    connection.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n')",
            "    connection.close()",
        )
        with BackgroundServer(answers, ready="log:done"):
            assert ports.get(port).startswith(b"HTTP/1.0 200")
            starting.join()
    assert isinstance(outcome[0], TimedOut)


# -- 12: a full pipe hangs the harness ----------------------------------------------------------------------------------

MEBIBYTE = 1 << 20


def test_12_output_never_fills_a_pipe() -> None:
    """A server that says 10 MiB on each stream before it listens does not wait for anybody to read them."""
    words = server(
        "for fd in (1, 2):",
        f"    view = memoryview((b'x' * 15 + b'\\n') * {10 * MEBIBYTE // 16})",
        "    while view:",
        "        view = view[os.write(fd, view):]",
        'listen("127.0.0.1", {port})',
    )
    with BackgroundServer(words) as talks:
        assert len(talks.stdout) == len(talks.stderr) == 10 * MEBIBYTE


def test_12_nor_after_it_is_ready(trigger: Trigger) -> None:
    """Nor later, when nobody looks at them at all."""
    words = server(
        'listen("127.0.0.1", {port})',
        f'wait("{trigger.path}")',
        "for fd in (1, 2):",
        f"    view = memoryview((b'x' * 15 + b'\\n') * {10 * MEBIBYTE // 16})",
        "    while view:",
        "        view = view[os.write(fd, view):]",
        "os._exit(0)",
    )
    with BackgroundServer(words) as talks:
        trigger.release()
        assert talks.wait(20) == 0
        assert len(talks.stdout) == len(talks.stderr) == 10 * MEBIBYTE


# -- 13: orphaned grandchildren -----------------------------------------------------------------------------------------


def test_13_no_grandchild_is_orphaned(family: Family) -> None:
    """Of a shell that starts servers in its background, all end; they need not even listen to SIGTERM."""
    with BackgroundServer(shell(ECHO, program("ignores_term"), program("repoints")), term_timeout=0.2):
        pass
    owner.dismiss()
    family.nobody()


def test_13_nor_when_the_server_itself_has_died(family: Family) -> None:
    """A main process that ends by itself leaves nothing behind."""
    words = " ".join(program("leaves_grandchild", "3", "session"))
    failing = BackgroundServer(words, ready="log:never")
    with pytest.raises(CrashedOnStartup):
        failing.start()
    assert failing.exit_status == 3
    owner.dismiss()
    family.nobody()


# -- 14: stop returns too early, or its delay is fixed ------------------------------------------------------------------


def test_14_stop_returns_when_all_is_gone(tmp_path: Path) -> None:
    """A server that takes its time to end is waited for: its last line is there, its port free, its process gone."""
    words = server(
        "def end(*_):",
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "    select.select([], [], [], 0.2)",
        '    say("ended")',
        "    os._exit(4)",
        "signal.signal(signal.SIGTERM, end)",
        'listen("127.0.0.1", {port})',
    )
    slow = BackgroundServer(words, term_timeout=10)
    slow.start()
    slow.stop()

    assert (slow.stdout, slow.exit_status) == ("ended\n", 4)
    assert not procs.alive(slow.pid or 0)
    socket.create_server(("127.0.0.1", slow.port or 0)).close()


@pytest.mark.parametrize(("term_timeout", "timeout"), [("0.3s", None), (60, 0.3), (60, "300ms")])
def test_14_the_delay_is_what_one_says(term_timeout: float | str, timeout: float | str | None) -> None:
    """term_timeout, and for one stop its own."""
    deaf = BackgroundServer(
        server("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 'listen("127.0.0.1", {port})'),
        term_timeout=term_timeout,
    )
    deaf.start()
    began = time.monotonic()
    deaf.stop(timeout)

    assert 0.3 <= time.monotonic() - began < 5
    assert deaf.exit_status == 128 + 9


def test_14_stop_does_not_wait_for_the_delay() -> None:
    """A server that ends at once is gone at once, however long it would have been given."""
    echo = BackgroundServer(ECHO, term_timeout=60)
    echo.start()
    began = time.monotonic()
    echo.stop()

    assert time.monotonic() - began < 5


# -- a callback that raises means "not yet" -----------------------------------------------------------------------------


def test_a_check_that_fails_means_not_yet(tmp_path: Path) -> None:
    """exec: a command that fails, and says why, is run again until it succeeds."""
    counter = tmp_path / "counter"
    counter.write_text("")
    check = f"echo . >> {counter}; [ $(wc -l < {counter}) -ge 3 ] || {{{{ echo not yet >&2; exit 1; }}}}"
    with BackgroundServer(ECHO, ready=["port:{port}", f"exec:{SHELL} -c '{check}'"]) as echo:
        assert echo.listening
        assert counter.read_text().count(".") >= 3
        assert echo.stderr == ""


def test_a_check_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    """exec: of what does not exist never holds, and the timeout says why."""
    failing = BackgroundServer(ECHO, ready=["port:{port}", "exec:/nonexistent/check"], boot_timeout=0.3)
    with pytest.raises(Exception, match="/nonexistent/check"):
        failing.start()
    assert not failing.running


def test_an_answer_that_is_no_success_means_not_yet(tmp_path: Path) -> None:
    """http: 503 is asked again, until it is 200."""
    state = tmp_path / "state"
    waiting = BackgroundServer([*HTTP, str(state)], ready="http://127.0.0.1:{port}/health")
    starting = threading.Thread(target=waiting.start, daemon=True)
    starting.start()

    def asked_twice() -> None:
        assert waiting.stdout.count("/health\n") >= 2

    procs.eventually(asked_twice)
    assert waiting.status == "starting"
    (tmp_path / "new").write_text("200 OK")
    os.rename(tmp_path / "new", state)
    starting.join()
    assert waiting.status == "listening"
    waiting.stop()
