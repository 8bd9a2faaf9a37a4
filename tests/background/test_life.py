"""The life of one `BackgroundServer`: its states, who may ask and stop it, the ways to use it, how it ends."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import (
    BackgroundServer,
    CrashedOnStartup,
    InvalidState,
    NotExecuted,
    StrictFailure,
    TimedOut,
    UsageError,
)
from daemonize.launcher import owner
from tests.support import ports, procs
from tests.support.listening import server
from tests.support.owners import ECHO, owning, run
from tests.support.programs import PYTHON, SHELL, Trigger, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family


#: Half of a character: no file name, no environment and no command has it.
HALF = "\ud800"


def together(*actions: Any) -> list[BaseException | None]:
    """Do them in a thread each, at the same time; what each has raised."""
    outcomes: list[BaseException | None] = [None] * len(actions)
    barrier = threading.Barrier(len(actions))

    def act(at: int) -> None:
        barrier.wait()
        try:
            actions[at]()
        except BaseException as error:  # noqa: BLE001 (the test looks at it)
            outcomes[at] = error

    threads = [threading.Thread(target=act, args=[at], daemon=True) for at in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return outcomes


def held(trigger: Trigger, **settings: Any) -> BackgroundServer:
    """One that is ready when the trigger is released."""
    return BackgroundServer(program("tcp_echo", "{port}", "holds", trigger.arg), **settings)


def until_starting(one: BackgroundServer) -> None:
    """Wait until its start is under way."""

    def check() -> None:
        assert one.status == "starting"

    procs.eventually(check)


# -- threads ----------------------------------------------------------------------------------------------------------


def test_of_many_starts_at_once_one_is_the_start() -> None:
    """Eight threads start one object: one server, and InvalidState for the other seven."""
    echo = BackgroundServer(ECHO)
    outcomes = together(*[echo.start] * 8)
    assert sorted(str(type(outcome).__name__) for outcome in outcomes) == ["InvalidState"] * 7 + ["NoneType"]
    assert echo.listening
    echo.stop()


def test_of_many_stops_at_once_each_returns_when_it_is_gone() -> None:
    """Eight threads stop it; each returns, and after the first that does there is no server."""
    echo = BackgroundServer(ECHO)
    echo.start()

    def stop() -> None:
        echo.stop()
        assert not procs.alive(echo.pid or 0)

    assert together(*[stop] * 8) == [None] * 8


def test_many_threads_ask_one_object() -> None:
    """They ask, wait and send signals while it is stopped: nobody hangs, and all see its end."""
    echo = BackgroundServer(
        server(
            "signal.signal(signal.SIGUSR1, lambda *_: None)",
            'listen("127.0.0.1", {port})',
            "while True: stay()",
        )
    )
    echo.start()
    seen: list[int | None] = []

    def ask() -> None:
        while echo.running:
            assert echo.status in ("listening", "not_running")
            assert echo.stdout == ""
            echo.send_signal(signal.SIGUSR1)

    outcomes = together(
        ask, ask, lambda: seen.append(echo.wait(20)), lambda: seen.append(echo.wait(20)), echo.stop
    )
    assert outcomes == [None] * 5
    assert seen == [128 + signal.SIGTERM] * 2


def test_many_objects_in_many_threads() -> None:
    """Twenty whole lives in ten threads."""

    def live() -> None:
        for _ in range(2):
            with BackgroundServer(ECHO) as echo:
                assert echo.stdout == f"listening on port {echo.port}\n"
            assert echo.exit_status == 128 + signal.SIGTERM

    assert together(*[live] * 10) == [None] * 10


def test_stop_while_start_waits(trigger: Trigger, family: Family) -> None:
    """Another thread's stop() ends the start, which says so; nothing runs when stop() returns."""
    slow = held(trigger)
    outcomes: list[BaseException] = []

    def start() -> None:
        with pytest.raises(InvalidState, match="stopped before it was ready") as caught:
            slow.start()
        outcomes.append(caught.value)

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    until_starting(slow)
    slow.stop()
    assert slow.status == "not_running"
    starting.join()
    owner.dismiss()
    family.nobody()
    assert outcomes


def test_stop_at_any_moment_of_a_start(family: Family) -> None:
    """Also before there is a process: when both have returned, nothing runs, and start() has said so unless it was first."""
    for step in range(12):
        echo = BackgroundServer(ECHO)
        begun = threading.Event()

        def start(echo: BackgroundServer = echo, begun: threading.Event = begun) -> None:
            begun.set()
            echo.start()

        def stop(echo: BackgroundServer = echo, begun: threading.Event = begun, step: int = step) -> None:
            begun.wait()
            end = time.monotonic() + step * 0.004
            while time.monotonic() < end:
                os.sched_yield()
            echo.stop()

        started, stopped = together(start, stop)
        assert stopped is None
        assert started is None or isinstance(started, InvalidState)
        if started is None and echo.running:
            assert step == 0  # stop() came before start() had begun
            echo.stop()
        assert echo.status == "not_running"
    owner.dismiss()
    family.nobody()


def test_a_handler_may_stop_what_the_program_waits_for() -> None:
    """A signal handler that calls stop() while the same thread is in wait(): no deadlock, and the status is there."""
    said = run(
        "server = started()\n"
        "signal.signal(signal.SIGUSR1, lambda *_: server.stop())\n"
        "threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGUSR1]).start()\n"
        "say(server.wait(20))\n"
        "say(server.status)\n"
    )
    assert said[1:] == [[143], ["not_running"]]


_AT_EACH_LINE = """
import select
from daemonize.launcher import owner
def is_there(wrapper):
    poll = select.poll()
    poll.register(wrapper, 0)
    return not poll.poll(0)
def start_at(number, act):
    # Start a server; act at the so many-th line of it. Whether there is such a line, what was raised, what there is, and how
    # many wrappers have not gone.
    left = [number]
    def trace(frame, event, _):
        if not frame.f_code.co_filename.endswith(FILES) or frame.f_code.co_name == "__del__":
            return None  # (what a finalizer raises goes nowhere)
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                sys.settrace(None)
                act(server)
        return trace
    server = BackgroundServer(command, ready="started", term_timeout=0)
    raised = None
    sys.settrace(trace)
    try:
        server.start()
    except BaseException as error:
        raised = type(error).__name__
    sys.settrace(None)
    status, wrappers = server.status, sum(map(is_there, owner._owner.wrappers)) - 1
    server.stop()
    return left[0] <= 0, raised, status, wrappers
def interrupt(_server):
    raise KeyboardInterrupt
FILES = {files}
first = BackgroundServer(command, ready="started")
first.start()
seen, number = set(), 1
while True:
    there, *outcome = start_at(number, {act})
    if not there:
        break
    seen.add(tuple(outcome))
    number += 1
first.stop()
say(number > 50, sorted(seen, key=repr))
"""


#: Where a start waits; where it gives its order.
_WAITS, _ORDERS = ("/background/link.py", "/posix/frames.py"), ("/background/server.py", "/launcher/owner.py")


def test_a_handler_may_stop_it_at_any_line_of_a_wait() -> None:
    """A signal handler comes between any two of them: start() says that it was stopped, and nothing runs."""
    code = _AT_EACH_LINE.format(act="lambda server: server.stop()", files=_WAITS)
    [[many, seen]] = run(code, "sleep", "1000")
    assert many
    assert seen in (
        [["InvalidState", "not_running", 0]],
        [["InvalidState", "not_running", 0], [None, "not_running", 0]],
    )


@pytest.mark.parametrize("files", [_WAITS, _ORDERS], ids=["wait", "order"])
def test_a_start_may_be_interrupted_at_any_line(files: tuple[str, str]) -> None:
    """KeyboardInterrupt goes on, no other error in its stead, and nothing runs: not what was just ordered either."""
    code = _AT_EACH_LINE.format(act="interrupt", files=files)
    [[many, seen]] = run(code, "sleep", "1000")
    assert many
    assert {(raised, status) for raised, status, _ in seen} == {("KeyboardInterrupt", "not_running")}
    if files == _ORDERS:
        assert [wrappers for *_, wrappers in seen] == [
            0
        ]  # start() has waited for the end of what was ordered


def test_a_handler_may_start_another_at_any_line_of_an_order() -> None:
    """Also while the keeper is executed, or is being sent the order: both servers start."""
    another = "lambda _server: BackgroundServer(command, ready='started', term_timeout=0).start().stop()"
    code = _AT_EACH_LINE.format(act=another, files=("/launcher/owner.py", "/posix/frames.py"))
    [[many, seen]] = run(code, "sleep", "1000")
    assert many
    assert seen == [[None, "listening", 1]]


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ends", "status"), [("os._exit(0)", 0), ("os._exit(3)", 3), ("os.abort()", 134)])
def test_the_exit_status_is_the_servers_own(trigger: Trigger, ends: str, status: int) -> None:
    """As a shell gives it (128+N), once it has ended by itself; wait() returns it, at once."""
    with BackgroundServer(
        server('listen("127.0.0.1", {port})', f'wait("{trigger.path}")', ends), core=False
    ) as one:
        assert one.exit_status is None
        trigger.release()
        assert one.wait(20) == status
        assert (one.exit_status, one.status, one.running) == (status, "not_running", False)


def test_wait_has_a_limit() -> None:
    """None while it runs, after so many seconds and not before; None, at once, of one that was never started."""
    assert BackgroundServer(ECHO).wait() is None
    with BackgroundServer(ECHO) as echo:
        began = time.monotonic()
        assert echo.wait(0.1) is None
        assert echo.wait(0) is None
        assert 0.1 <= time.monotonic() - began < 5
        assert echo.listening


def test_it_is_seen_at_once_that_it_has_ended() -> None:
    """From the moment in which its process has ended it is not running, and the exit status is there."""
    with BackgroundServer(ECHO) as echo:
        procs.send(echo.pid or 0, signal.SIGKILL)
        procs.wait_ended(echo.pid or 0)
        assert (echo.status, echo.exit_status) == ("not_running", 137)


def test_signals_are_sent_to_the_main_process() -> None:
    """send_signal(): what the server does about it is the server's business; of one that has ended, nothing happens."""
    words = server(
        "signal.signal(signal.SIGHUP, lambda *_: say('reloaded'))",
        "signal.signal(signal.SIGUSR1, lambda *_: os._exit(5))",
        'listen("127.0.0.1", {port})',
        "while True: select.select([], [], [], 0.05)",
    )
    with BackgroundServer(words) as one:
        one.send_signal(signal.SIGHUP)

        def reloaded() -> None:
            assert one.stdout == "reloaded\n"

        procs.eventually(reloaded)
        one.send_signal(signal.SIGUSR1)
        assert one.wait(20) == 5
        one.send_signal(signal.SIGHUP)
    one.send_signal(signal.SIGHUP)
    BackgroundServer(ECHO).send_signal(signal.SIGHUP)


def test_term_timeout_of_nothing_kills_at_once() -> None:
    """0 seconds between SIGTERM and SIGKILL."""
    with BackgroundServer(program("ignores_term"), ready="streams", term_timeout=0) as deaf:
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert deaf.exit_status == 137


def test_boot_timeout_is_text_or_none(trigger: Trigger) -> None:
    """`100ms`; None is no limit."""
    with pytest.raises(TimedOut, match=r"not ready within 0\.1 s"):
        held(trigger, boot_timeout="100ms").start()
    trigger.release()
    with held(trigger, boot_timeout=None) as one:
        assert one.listening


def test_what_cannot_be_executed_is_told() -> None:
    """NotExecuted with the report, and the object answers."""
    failing = BackgroundServer(["/nonexistent/server", "{port}"])
    with pytest.raises(NotExecuted, match="/nonexistent/server") as caught:
        failing.start()
    assert f"cmd: /nonexistent/server {failing.command[1]}\nexit status: (never executed)" in str(
        caught.value
    )
    assert (failing.status, failing.exit_status) == ("not_running", None)


def test_strict() -> None:
    """A word on stderr before it is ready is a failure, with that word in the report."""
    words = server('os.write(2, b"hmm\\n")', 'listen("127.0.0.1", {port})')
    with pytest.raises(StrictFailure, match="err 0: hmm"):
        BackgroundServer(words, strict=True).start()
    with BackgroundServer(words) as lenient:
        assert lenient.stderr == "hmm\n"


# -- ports ------------------------------------------------------------------------------------------------------------


def test_a_port_that_is_found() -> None:
    """Without {port} and port=, the port is the one that the server listens on; until then it is not known."""
    anywhere = BackgroundServer(program("tcp_echo", "holds", "first"))
    assert anywhere.port is None
    with anywhere:
        assert anywhere.stdout == f"listening on port {anywhere.port}\n"


def test_any_port() -> None:
    """port=0 is a port of our choice, as {port} is without it."""
    with BackgroundServer(ECHO, port=0) as one:
        assert one.port
        assert one.stdout == f"listening on port {one.port}\n"


def test_more_ports() -> None:
    """{port2} is another one; port is the first; all are the same in words, values and specs, and braces can be meant."""
    words = server(
        'say({port}, {port2}, os.environ["SECOND"], "{{port}}", "${port}")',
        'listen("127.0.0.1", {port})',
        'listen("127.0.0.1", {port2})',
    )
    ready = ["port:{port}", "port:{port2}"]
    with BackgroundServer(words, env={"SECOND": "{port2}"}, ready=ready) as one:
        first, second, again, *meant = one.stdout.split()
    assert (int(first), second, meant) == (one.port, again, ["{port}", "${port}"])
    assert first != second


def test_sockets_of_ours() -> None:
    """listen=: we bind, without any race; {fd} and {port} tell the server, and port tells us."""
    words = server(
        "given = socket.socket(fileno={fd})",
        "say(given.getsockname()[1], {port})",
        "connection, _ = given.accept()",
        "connection.sendall(b'hello')",
        "connection.close()",
    )
    with BackgroundServer(words, listen="127.0.0.1:0", ready="log:^\\d+ \\d+$") as one:
        assert one.stdout == f"{one.port} {one.port}\n"
        assert ports.ask(one.port or 0, b"") == b"hello"


# -- ways to use it ---------------------------------------------------------------------------------------------------


def test_with_stops_it_when_the_block_raises() -> None:
    """The error of the block is what one sees; the server is gone."""
    with pytest.raises(ZeroDivisionError), BackgroundServer(ECHO) as echo:
        raise ZeroDivisionError
    assert echo.status == "not_running"


def test_as_a_decorator() -> None:
    """Each call has a server of its own, stopped when it returns or raises; `server` is given to who has it."""
    like = BackgroundServer(ECHO)
    pids = []

    @like
    def with_server(word: str, server: BackgroundServer, *, twice: bool = False) -> str:
        """What it does."""
        pids.append(server.pid)
        assert server.listening
        return word * (1 + twice)

    @like
    def without(word: str) -> str:
        raise ValueError(word)

    assert [with_server("a"), with_server("b", twice=True)] == ["a", "bb"]
    with pytest.raises(ValueError, match="c"):
        without("c")
    assert len(set(pids)) == 2
    assert not any(procs.alive(pid or 0) for pid in pids)
    assert (with_server.__name__, with_server.__doc__) == ("with_server", "What it does.")
    assert list(inspect.signature(with_server).parameters) == ["word", "twice"]
    assert like.status == "not_running"


def test_as_a_decorator_of_a_coroutine() -> None:
    """The same for `async def`."""
    seen = []

    @BackgroundServer(ECHO)
    async def ask(server: BackgroundServer) -> int | None:
        seen.append(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"hello")
        assert await reader.read(5) == b"hello"
        writer.close()
        await writer.wait_closed()
        return server.port

    port = asyncio.run(ask())
    assert port == seen[0].port
    assert seen[0].status == "not_running"


def test_async_with_does_not_block_the_loop(trigger: Trigger) -> None:
    """Another task goes on while a server starts: it is even that task which lets it become ready; and while it stops."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)

    async def live() -> int:
        ticking = asyncio.create_task(tick())
        slow = held(trigger)
        releasing = asyncio.create_task(release(slow))
        async with slow:
            assert slow.listening
            await releasing
        deaf = BackgroundServer(
            server("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 'listen("127.0.0.1", {port})'),
            term_timeout=0.3,
        )
        async with deaf:
            before = ticks
        ticking.cancel()
        return ticks - before

    async def release(slow: BackgroundServer) -> None:
        await asyncio.to_thread(until_starting, slow)
        trigger.release()

    assert asyncio.run(live()) > 20


@pytest.mark.parametrize("after", [0, 0.001, 0.02, None], ids=["at-once", "soon", "later", "starting"])
def test_a_start_that_is_cancelled_leaves_nothing(
    after: float | None, trigger: Trigger, family: Family
) -> None:
    """Cancelling the task stops the server, at whatever moment of its start."""
    slow = held(trigger)

    async def enter() -> None:
        async with slow:
            pytest.fail("it is not ready")

    async def live() -> None:
        entering = asyncio.create_task(enter())
        await asyncio.sleep(after or 0)
        if after is None:
            await asyncio.to_thread(until_starting, slow)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert slow.status == "not_running"

    asyncio.run(live())
    owner.dismiss()
    family.nobody()


def test_a_start_that_is_cancelled_in_its_last_moment_leaves_nothing(family: Family) -> None:
    """Also when the server is ready by then: whoever never entered the block need not leave it."""

    async def live(delay: float) -> None:
        echo = BackgroundServer(ECHO)

        async def enter() -> None:
            async with echo:
                await asyncio.Event().wait()

        entering = asyncio.create_task(enter())
        await asyncio.sleep(delay)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert echo.status == "not_running"

    for step in range(15):
        asyncio.run(live(step * 0.004))
    owner.dismiss()
    family.nobody()


def test_cancelled_twice_it_is_waited_for(family: Family) -> None:
    """Cancelled again while a deaf server is being stopped: the task ends when that is gone, and not before."""
    deaf = BackgroundServer(program("ignores_term", "never"), ready="log:never", term_timeout=0.2)

    async def enter() -> None:
        async with deaf:
            pytest.fail("it is not ready")

    async def live() -> None:
        entering = asyncio.create_task(enter())
        await asyncio.to_thread(until_deaf)
        for _ in range(3):
            entering.cancel()
            # It is taken in, and the next one comes while the server is being stopped.
            for _ in range(3):
                await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert deaf.exit_status == 137

    def until_deaf() -> None:
        def check() -> None:
            assert deaf.stdout == "ignoring SIGTERM\n"

        procs.eventually(check)

    asyncio.run(live())
    owner.dismiss()
    family.nobody()


def test_a_start_that_is_cancelled_twice_leaves_nothing(family: Family) -> None:
    """Before it has begun, and while that is undone: a loop that closes cancels again, and scopes of anyio do so often."""

    async def live() -> None:
        busy = threading.Event()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        waiting = asyncio.create_task(asyncio.to_thread(busy.wait))
        await asyncio.sleep(0)
        echo = BackgroundServer(ECHO)

        async def enter() -> None:
            async with echo:
                pytest.fail("it was cancelled")

        entering = asyncio.create_task(enter())
        for _ in range(3):
            await asyncio.sleep(0)
            entering.cancel()
            await asyncio.sleep(0)
        busy.set()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await waiting
        await asyncio.to_thread(int)  # whatever was to be done before this has been done
        assert echo.status == "not_running"

    asyncio.run(live())
    owner.dismiss()
    family.nobody()


def test_cancelled_in_the_block_it_is_stopped() -> None:
    """As by any other way out of it."""
    echo = BackgroundServer(ECHO)

    async def live() -> None:
        entered = asyncio.Event()

        async def enter() -> None:
            async with echo:
                entered.set()
                await asyncio.Event().wait()

        entering = asyncio.create_task(enter())
        await entered.wait()
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering

    asyncio.run(live())
    assert echo.exit_status == 143


def test_one_that_was_not_stopped_is_told_of() -> None:
    """ResourceWarning when the last reference goes; the server goes, too."""
    echo = BackgroundServer(ECHO)
    echo.start()
    pid = echo.pid or 0
    with pytest.warns(ResourceWarning, match=f"BackgroundServer .*pid {pid}.*was not stopped"):
        del echo
    assert procs.wait_ended(pid)


def test_one_that_has_ended_is_not_told_of() -> None:
    """A server that was stopped, that crashed, that ended by itself, or was never started leaves no warning."""
    failing = BackgroundServer([SHELL, "-c", "exit 1"])
    with pytest.raises(CrashedOnStartup):
        failing.start()
    ended = BackgroundServer(ECHO)
    ended.start()
    procs.send(ended.pid or 0, signal.SIGKILL)
    ended.wait()
    with BackgroundServer(ECHO) as stopped:
        pass
    never = BackgroundServer(ECHO)
    del failing, ended, stopped, never
    gc.collect()


def test_it_says_what_it_is() -> None:
    """repr(): command, state, port, pid."""
    echo = BackgroundServer(["echo-server", "{port}"])
    assert repr(echo) == "<BackgroundServer echo-server {port}: not_running>"
    with BackgroundServer(ECHO) as one:
        assert (
            repr(one)
            == f"<BackgroundServer {' '.join(one.command)}: listening, port {one.port}, pid {one.pid}>"
        )


def test_ctrl_c_is_the_owners(tmp_path: Path) -> None:
    """SIGINT from the terminal reaches the owner alone: its server, which would die of it, is stopped in order."""
    words = server(
        'signal.signal(signal.SIGINT, lambda *_: say("interrupted"))',
        'signal.signal(signal.SIGTERM, lambda *_: (say("told"), os._exit(0)))',
        'listen("127.0.0.1", {port})',
        "while True: select.select([], [], [], 0.05)",
    )
    code = (
        "server = BackgroundServer(command)\n"
        "try:\n"
        "    with server:\n"
        "        say('ready')\n"
        "        signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    say(server.stdout, server.exit_status)\n"
    )
    controller, terminal = os.openpty()

    def take_terminal() -> None:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with owning(code, *words, stdin=terminal, start_new_session=True, preexec_fn=take_terminal) as one:
        os.close(terminal)
        assert one.says() == ["ready"]
        os.write(controller, b"\x03")
        assert one.says() == ["told\n", 0]
        one.process.wait(20)
    os.close(controller)


def test_a_port_of_a_socket_is_free_again() -> None:
    """After stop() the port can be bound at once, though there were connections."""
    with BackgroundServer(ECHO) as echo, ports.connected(echo.port or 0) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    socket.create_server(("127.0.0.1", echo.port or 0)).close()


LEAVES_A_CHILD = """
import os, signal, socket, sys
def end(*_):
    if os.fork():
        os._exit(0)
    signal.pause()
signal.signal(signal.SIGTERM, end)
kept = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    signal.pause()
"""


def test_who_is_told_to_end_leaves_nobody_in_its_place(family: Family) -> None:
    """A server that forks when it ends has the status that it exited with, and its child is ended as well."""
    server = BackgroundServer([*PYTHON, "-c", LEAVES_A_CHILD, "{port}"])
    server.start()
    server.stop()

    assert server.exit_status == 0
    owner.dismiss()
    family.nobody()


def test_another_signal_asks_it_to_end() -> None:
    """stop_signal: postgres, say, waits for its clients on SIGTERM, and not on SIGINT."""
    words = server(
        "signal.signal(signal.SIGINT, lambda *_: os._exit(42))", "listen('127.0.0.1', int(sys.argv[1]))"
    )
    with BackgroundServer([*words, "{port}"], stop_signal=signal.SIGINT) as asked:
        pass

    assert asked.exit_status == 42


def test_all_ports_can_be_asked_for() -> None:
    """By their number; start() returns the server."""
    two = "listen('127.0.0.1', int(sys.argv[1])); listen('127.0.0.1', int(sys.argv[2]))"
    started = BackgroundServer(
        [*server(two), "{port}", "{port2}"], ready=["port:{port}", "port:{port2}"]
    ).start()
    try:
        assert len(started.ports) == 2
        assert started.ports[0] == started.port
        assert all(map(ports.accepts, started.ports))
    finally:
        started.stop()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"boot_timeout": 0}, "boot_timeout must be more than 0 seconds"),
        ({"term_timeout": None}, "term_timeout must be 0 or more seconds"),
        ({"boot_timeout": []}, "boot_timeout must be a number of seconds, or text"),
        ({"stop_signal": 999}, "stop_signal must be one such as signal.SIGTERM, not 999"),
        ({"stop_signal": 0}, "stop_signal must be one"),
        ({"stop_signal": []}, "stop_signal must be one"),
        ({"stop_signal": True}, "stop_signal must be one"),
        ({"shared": 5}, "shared must be a name, not 5"),
        ({"cwd": 5}, "cwd must be a path, not 5"),
        ({"stdin": 7}, "stdin must be a path"),
        ({"chroot": 8}, "chroot must be a path"),
        ({"env": ["A=1"]}, "env must be a mapping"),
        ({"limits": 4}, "limits must be a mapping"),
        ({"keep_fds": 3}, "keep_fds must be a list of descriptors"),
        ({"keep_fds": None}, r"an argument of BackgroundServer\(\) cannot be used"),
        ({"ready": len}, "ready must be a readiness spec, or a list of them"),
        ({"ready": [5]}, "a readiness spec must be text"),
        ({"listen": 80}, "listen must be an address to listen on"),
        ({"user": []}, "user must be USER"),
        ({"strict": "no"}, "strict must be True or False, not 'no'"),
        ({"clear_env": len}, "clear_env must be True or False"),
        ({"term_timeout": 10**400}, "term_timeout is more seconds than can be counted"),
        ({"user": HALF}, r"an argument of BackgroundServer\(\) cannot be used: .* surrogates not allowed"),
        ({"cwd": HALF}, "surrogates not allowed"),
        ({"env": {"A": HALF}}, "surrogates not allowed"),
        ({"ready": f"unix:{HALF}"}, "surrogates not allowed"),
    ],
)
def test_settings_that_cannot_be_are_named(asked: dict[str, Any], said: str) -> None:
    """UsageError, when the object is made."""
    with pytest.raises(UsageError, match=said):
        BackgroundServer(ECHO, **asked)


def test_arguments_of_its_methods_that_cannot_be_are_named() -> None:
    """UsageError, and the server goes on; a moment that has passed is no time to wait."""
    with BackgroundServer(ECHO) as one:
        for wrong in ("soon", float("nan"), 10**400, [], object()):
            for method in (one.wait, one.stop):
                with pytest.raises(UsageError, match=r"timeout|duration"):
                    method(wrong)  # type: ignore[operator]
        assert (one.wait(-1), one.wait("10ms"), one.listening) == (None, None, True)


def test_text_and_numbers_may_be_of_classes_of_the_callers() -> None:
    """As the members of an enum: the plain value goes to the wrapper, which has not the caller's modules."""
    said = run(
        "import enum\n"
        "class Number(enum.IntEnum):\n"
        "    NICE, LIMIT = 3, 100\n"
        "class Text(str):\n"
        "    def __str__(self):\n"
        "        return 'not this'\n"
        "limits = {Text('nofile'): (Number.LIMIT, Number.LIMIT)}\n"
        "settings = {'nice': Number.NICE, 'limits': limits, 'listen': Text('127.0.0.1:0')}\n"
        "with BackgroundServer(map(Text, command), ready=Text('exec:true'), **settings) as server:\n"
        "    say(os.getpriority(os.PRIO_PROCESS, server.pid), resource.prlimit(server.pid, resource.RLIMIT_NOFILE))\n",
        *PYTHON, "-c", "import time; time.sleep(60)",
    )  # fmt: skip
    assert said == [[3, [100, 100]]]


def test_a_generator_cannot_be_decorated() -> None:
    """Its server would have ended before the first of it is used."""
    with pytest.raises(UsageError, match="generator"):

        @BackgroundServer(ECHO)
        def fixture(server: BackgroundServer) -> Any:
            yield server


def test_a_server_that_is_forgotten_at_the_end_says_nothing_odd() -> None:
    """Python can import nothing any more when the last objects go; the server has been ended before."""
    code = """
class Held: pass
Held.server = BackgroundServer(command).start()
@BackgroundServer(command)
def use(): pass
use()
say(Held.server.pid)
"""
    ((pid,),) = run(code)  # which has nothing on stderr

    assert procs.wait_ended(pid)
