"""`-f` under a service manager: what it is told of the server, by NOTIFY_SOCKET, NOTIFY_FD, and the watchdog."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import cli, forked, ports, procs, users
from tests.support.manager import Manager
from tests.support.programs import PYTHON, SHELL, program
from tests.support.progress import await_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

Message = dict[str, str]
MARK = {"STATUS": "mark"}


@pytest.fixture
def manager() -> Iterator[Manager]:
    """Who waits above."""
    with Manager() as found:
        yield found


@contextlib.contextmanager
def under(
    manager: Manager | None, *words: cli.Word, env: Mapping[str, str | None] | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """`daemonize -f WORDS` under a manager; killed at the end."""
    variables = {**(manager.environ if manager else {}), **(env or {})}
    with cli.popen("-f", *words, env=variables, **options) as wrapper:
        try:
            yield wrapper
        finally:
            wrapper.kill()


def line(wrapper: subprocess.Popen[bytes]) -> str:
    """The next line that the server has said."""
    assert wrapper.stdout
    assert procs.readable(wrapper.stdout.fileno()), "nothing was said"
    return wrapper.stdout.readline().decode().strip()


def until(manager: Manager, wanted: Message) -> list[Message]:
    """The messages before this one."""
    found = []
    while (message := manager.read()) != wanted:
        found.append(message)
    return found


def ready(wrapper: subprocess.Popen[bytes], **more: str) -> Message:
    """What the manager is told, once, when the server is ready."""
    return {"READY": "1", "MAINPID": str(wrapper.pid), **more}


def notifies(*steps: str) -> list[str]:
    """A server that takes these steps."""
    return program("notifies", *steps)


def mixed(*messages: str) -> list[str]:
    """Steps that send one after the other."""
    return [f"send={message}" for message in messages]


# --- what is passed on -------------------------------------------------------------------------------------------------

ALWAYS = [
    "STATUS=loading 3 of 7", "STATUS=", "EXTEND_TIMEOUT_USEC=5000000", "STOPPING=1", "ERRNO=2", "BUSERROR=org.x.Error",
    "EXIT_STATUS=3", "WATCHDOG=1", "WATCHDOG=trigger", "WATCHDOG_USEC=2000000", "ERRNO=2\\nSTATUS=two of them",
]  # fmt: skip
ONCE_READY = ["RELOADING=1\\nMONOTONIC_USEC=5", "READY=1", "RELOADING=1"]
NEVER = [
    "MAINPID=1", "FDSTORE=1", "FDSTORE=1\\nFDNAME=x", "FDSTOREREMOVE=1\\nFDNAME=x", "NOTIFYACCESS=all", "X_MINE=1",
    "FDPOLL=0", "MAINPIDFDID=5", "BARRIER=1", "RESTART_RESET=1",
]  # fmt: skip
MALFORMED = [
    "nonsense", "=1", "READY", "STATUS=a\\0b", "STATUS=" + "x" * 5000, "X=1\\nSTATUS=" + "x" * 4100, "\\n\\n", "",
]  # fmt: skip


def parsed(message: str) -> Message:
    """As the manager has it."""
    return dict(each.split("=", 1) for each in message.split("\\n"))


def test_what_is_passed_on(manager: Manager, trigger: Trigger, family: Family) -> None:
    """Each by itself and in order: some always, some of a server that has been ready, some never."""
    early = mixed(*ALWAYS, *ONCE_READY[:1], ONCE_READY[2], *NEVER, *MALFORMED, "STATUS=mark")
    late = mixed(*ALWAYS, *ONCE_READY, *NEVER, *MALFORMED, "STATUS=mark")
    wait = f"waits={trigger.path}"
    with under(manager, *notifies(wait, *early, "send=READY=1", wait, *late, wait, "exit=0")) as wrapper:
        assert manager.read() == {"STATUS": "waiting for notify"}
        trigger.release()
        assert until(manager, MARK) == [parsed(each) for each in ALWAYS]
        assert manager.read() == ready(wrapper)
        trigger.release()
        assert until(manager, MARK) == [parsed(each) for each in (*ALWAYS, *ONCE_READY)]
        trigger.release()
        assert wrapper.wait(10) == 0
    assert manager.rest() == []
    family.nobody()


def test_beside_others(manager: Manager, trigger: Trigger, family: Family) -> None:
    """Of one message, only what is passed on; the main process is the wrapper, whatever the server says of it."""
    said = "READY=1\\nMAINPID={pid}\\nFDSTORE=1\\nSTATUS=up\\nX=1\\nRELOADING=1"
    wait = f"waits={trigger.path}"
    server = notifies(
        wait, "fork", f"main={said.format(pid='CHILD')}", wait, "send=" + said.format(pid=1), wait
    )
    with under(manager, *server) as wrapper:
        assert manager.read() == {"STATUS": "waiting for notify"}
        trigger.release()
        line(wrapper)
        assert [manager.read(), manager.read()] == [{"STATUS": "up"}, ready(wrapper)]
        trigger.release()
        assert manager.read() == {"STATUS": "up", "RELOADING": "1", "READY": "1"}
        wrapper.terminate()
        assert wrapper.wait(10) == -signal.SIGTERM
    assert manager.rest() == []
    procs.eventually(family.nobody)


def test_bytes_as_they_are(trigger: Trigger, family: Family) -> None:
    """What is no UTF-8 is for the manager to judge."""
    address = f"daemonize-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as above:
        above.bind("\0" + address)
        above.settimeout(10)
        steps = notifies(f"waits={trigger.path}", "send=STATUS=\\xff\\x1b[2J", "send=STATUS=x\\0", "exit=0")
        with under(None, *steps, env={"NOTIFY_SOCKET": f"@{address}"}) as wrapper:
            assert above.recv(9999) == b"STATUS=waiting for notify"
            trigger.release()
            assert [above.recv(9999), above.recv(9999)] == [b"STATUS=\xff\x1b[2J", b"STATUS=x"]
            assert wrapper.wait(10) == 0
    family.nobody()


def test_longest_message(manager: Manager, trigger: Trigger, family: Family) -> None:
    """All of it, up to what systemd itself takes."""
    steps = notifies(f"waits={trigger.path}", "send=STATUS=" + "x" * 4089, "exit=0")
    with under(manager, *steps) as wrapper:
        manager.read()
        trigger.release()
        assert manager.read() == {"STATUS": "x" * 4089}
        assert wrapper.wait(10) == 0
    family.nobody()


SPECS = [
    "streams",
    "alive:200ms",
    "notify",
    "fdvar:READY_FD",
    "fd:5",
    "port",
    "log:up and running",
    "file:{}/file",
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("by", ["socket", "descriptor", "both"])
def test_ready(
    by: str, spec: str, manager: Manager, trigger: Trigger, tmp_path: Path, family: Family
) -> None:
    """Whatever it becomes ready by, the manager is told then, and not before, in its own way."""
    spec = spec.format(tmp_path)
    read, write = os.pipe()
    env = {"NOTIFY_FD": str(write)} if by != "socket" else {}
    server = program("meets_spec", spec, f"waits={trigger.path}")
    above = None if by == "descriptor" else manager
    try:
        with under(above, "-r", spec, *server, env=env, pass_fds=[write]) as wrapper:
            os.close(write)
            if above:
                assert manager.read() == {"STATUS": f"waiting for {spec}"}
            assert line(wrapper) == "waiting"
            if not spec.startswith("alive"):
                assert manager.rest() == []
                assert by == "socket" or not procs.readable(read, 0)
            trigger.release()
            if above:
                said = manager.read()
                assert re.fullmatch(rf"ready after [\d.]+ s: {re.escape(spec)}( \(.+\))?", said.pop("STATUS"))
                assert said == ready(wrapper)
            if by != "socket":
                assert procs.readable(read)
                assert os.read(read, 10) == b"\n"
                assert os.read(read, 10) == b""  # nobody holds it any more, the server neither
            wrapper.terminate()
            assert wrapper.wait(10) == -signal.SIGTERM
    finally:
        os.close(read)
    assert manager.rest() == []
    family.nobody()


def test_two_specs(manager: Manager, trigger: Trigger, tmp_path: Path, family: Family) -> None:
    """Both are waited for; what the server says of itself meanwhile is passed on, and its words stay."""
    spec = f"file:{tmp_path}/file"
    wait = f"waits={trigger.path}"
    server = notifies(wait, "send=READY=1\\nSTATUS=nearly", wait, "send=STOPPING=1", wait)
    with under(manager, "-r", spec, "-r", "notify", *server) as wrapper:
        assert manager.read() == {"STATUS": f"waiting for {spec}, notify"}
        trigger.release()
        assert manager.read() == {"STATUS": "nearly"}
        assert manager.rest() == []
        (tmp_path / "file").touch()
        assert manager.read() == ready(wrapper)  # and no STATUS of ours
        trigger.release()
        assert manager.read() == {"STOPPING": "1"}
    procs.eventually(family.nobody)


def test_server_that_speaks_beside_its_spec(
    manager: Manager, trigger: Trigger, tmp_path: Path, family: Family
) -> None:
    """`-r file:` of a server that also knows of sd_notify: only the spec makes it ready; READY=1 then ends a reload."""
    wait = f"waits={trigger.path}"
    server = notifies(wait, *mixed("READY=1", "STATUS=mark"), wait, *mixed("RELOADING=1", "READY=1"), wait)
    with under(manager, "-r", f"file:{tmp_path}/file", *server) as wrapper:
        manager.read()
        trigger.release()
        assert until(manager, MARK) == []
        (tmp_path / "file").touch()
        assert manager.read() == ready(wrapper)
        trigger.release()
        assert [manager.read(), manager.read()] == [{"RELOADING": "1"}, {"READY": "1"}]
    procs.eventually(family.nobody)


def test_bare_port(manager: Manager, trigger: Trigger, family: Family) -> None:
    """The manager is told where it listens."""
    with under(manager, "-r", "port", *program("meets_spec", "port", f"waits={trigger.path}")) as wrapper:
        assert manager.read() == {"STATUS": "waiting for port"}
        trigger.release()
        assert re.fullmatch(r"ready after [\d.]+ s: port \(127\.0\.0\.1:\d+\)", manager.read()["STATUS"])
        wrapper.terminate()
        wrapper.wait(10)
    family.nobody()


def test_started(manager: Manager, family: Family) -> None:
    """Where nothing is waited for, that is not said."""
    with under(manager, "-r", "started", "cat", stdin=subprocess.PIPE) as wrapper:
        assert manager.read().items() >= ready(wrapper).items()
        wrapper.communicate(timeout=10)
        assert wrapper.returncode == 0
    assert manager.rest() == []
    family.nobody()


@pytest.mark.parametrize("status", [0, 3])
def test_end_before_it_is_ready(status: int, manager: Manager, family: Family) -> None:
    """Nothing is said of readiness, and the status is the server's: nobody has said by what it becomes ready."""
    with under(manager, SHELL, "-c", f"exit {status}") as wrapper:
        assert wrapper.wait(10) == status
    assert all("READY" not in message for message in manager.rest())
    family.nobody()


@pytest.mark.skipif(not shutil.which("systemd-notify"), reason="needs systemd-notify(1)")
def test_systemd_notify_in_a_script(manager: Manager, trigger: Trigger, family: Family) -> None:
    """Every call of it succeeds, before and after it is ready: it waits until what it says has been read."""
    script = (
        f"set -e; read word <{trigger.path}; systemd-notify --status=loading; systemd-notify --ready --status=up;"
        "systemd-notify STOPPING=1; systemd-notify --status=over; echo over; exit 3"
    )
    with under(manager, SHELL, "-c", script) as wrapper:
        assert manager.read() == {"STATUS": "waiting for notify"}
        os.write(trigger._fd, b"\n")
        assert [manager.read(), manager.read(), manager.read()] == [
            {"STATUS": "loading"},
            {"STATUS": "up"},
            ready(wrapper),
        ]
        assert [manager.read(), manager.read()] == [{"STOPPING": "1"}, {"STATUS": "over"}]
        assert line(wrapper) == "over"
        assert wrapper.wait(10) == 3
    assert manager.rest() == []
    family.nobody()


def test_barrier(manager: Manager, trigger: Trigger, family: Family) -> None:
    """It is answered, before and after; and what came before it is with the manager by then."""
    wait = f"waits={trigger.path}"
    steps = [
        wait,
        "send=STATUS=a",
        "barrier",
        "say=a",
        wait,
        "send=READY=1",
        "send=STATUS=b",
        "barrier",
        "say=b",
        wait,
    ]
    with under(manager, *notifies(*steps)) as wrapper:
        manager.read()
        for word, said in (("a", [{"STATUS": "a"}]), ("b", [ready(wrapper), {"STATUS": "b"}])):
            trigger.release()
            assert line(wrapper) == word
            assert [manager.read() for _ in said] == said
    procs.eventually(family.nobody)


@pytest.mark.parametrize("uid", [None, forked.NOBODY])
def test_strangers(uid: int | None, manager: Manager, trigger: Trigger, family: Family) -> None:
    """Nobody but the server speaks to the manager in its name, before it is ready and after."""
    if uid is not None:
        forked.need_root()
    wait = f"waits={trigger.path}"
    steps = ["address", wait, "send=STATUS=mark", "send=READY=1", wait, "send=STATUS=mark", wait]
    with under(manager, *notifies(*steps)) as wrapper:
        address = line(wrapper)
        until(manager, {"STATUS": "waiting for notify"})
        for follows in ([ready(wrapper)], []):
            with forked.holding(lambda: say(address, b"STATUS=owned\nSTOPPING=1\nREADY=1"), uid):
                trigger.release()
                assert until(manager, MARK) == []
            assert [manager.read() for _ in follows] == follows
    procs.eventually(family.nobody)


def say(address: str, data: bytes) -> None:
    """From this process, which is none of the server's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address.replace("@", "\0"))
        sender.send(data)


# --- a manager in trouble ----------------------------------------------------------------------------------------------


def test_words_for_a_manager_whose_queue_is_full(
    manager: Manager, trigger: Trigger, tmp_path: Path, family: Family
) -> None:
    """They are lost, and the server is not held up for every one of them; and are there again when it reads again."""
    out = tmp_path / "out"
    wait = f"waits={trigger.path}"
    steps = [
        wait,
        "many=1000:STATUS=x",
        "many=1000:WATCHDOG=1",
        "barrier",
        "say=said",
        wait,
        "send=STATUS=mark",
        wait,
    ]
    with under(manager, "-r", "notify", "-o", out, *notifies(*steps)):
        assert manager.read() == {"STATUS": "waiting for notify"}
        manager.fill()
        trigger.release()
        procs.eventually(lambda: has_said(out, b"said"))
        assert all(message == {"FILL": "1"} for message in manager.rest())
        trigger.release()
        assert until(manager, MARK) == []
    procs.eventually(family.nobody)


def test_facts_for_a_manager_whose_queue_is_full(
    manager: Manager, trigger: Trigger, tmp_path: Path, family: Family
) -> None:
    """What is said once is there, in its order, when it reads again."""
    out = tmp_path / "out"
    wait = f"waits={trigger.path}"
    steps = [wait, *mixed("STATUS=lost", "READY=1", "RELOADING=1", "READY=1", "STOPPING=1"), "say=said", wait]
    with under(manager, "-r", "notify", "-o", out, *notifies(*steps)) as wrapper:
        assert manager.read() == {"STATUS": "waiting for notify"}
        manager.fill()
        trigger.release()
        procs.eventually(lambda: has_said(out, b"said"))
        found = [message for message in until(manager, {"STOPPING": "1"}) if "FILL" not in message]
        # Whether the words got through depends on who was first.
        assert found[-3:] == [ready(wrapper), {"RELOADING": "1"}, {"READY": "1"}]
    procs.eventually(family.nobody)


def has_said(out: Path, word: bytes) -> None:
    """An AssertionError until the server has."""
    assert word in out.read_bytes().split()


@pytest.mark.parametrize("when", ["before", "after"])
def test_manager_that_is_gone(when: str, trigger: Trigger, tmp_path: Path, family: Family) -> None:
    """Nobody waits for it: the server goes on, and the relay, and the status is the server's."""
    wait = f"waits={trigger.path}"
    steps = [
        wait,
        "many=1000:STATUS=x",
        "send=READY=1",
        wait,
        "many=1000:STATUS=x",
        "barrier",
        "say=said",
        "exit=3",
    ]
    with Manager(tmp_path) as manager:
        environ = manager.environ
        with under(None, "-v", *notifies(*steps), env=environ) as wrapper:
            manager.read()
            trigger.release()
            if when == "after":
                until(manager, ready(wrapper))
            manager._socket.close()
            trigger.release()
            assert line(wrapper) == "said"
            assert wrapper.wait(10) == 3
            assert wrapper.stderr
            assert b"the service manager cannot be told" in wrapper.stderr.read()
    family.nobody()


# --- who is a manager --------------------------------------------------------------------------------------------------


def await_ready(manager: Manager, wrapper: subprocess.Popen[bytes]) -> None:
    """An AssertionError if something else comes before, other than words."""
    while (message := manager.read()).keys() == {"STATUS"}:
        pass
    assert message.items() >= ready(wrapper).items()


def test_path(tmp_path: Path, family: Family) -> None:
    """NOTIFY_SOCKET may be a path."""
    with Manager(tmp_path) as manager, under(manager, *notifies("send=READY=1")) as wrapper:
        await_ready(manager, wrapper)
    procs.eventually(family.nobody)


@pytest.mark.parametrize("root", [(), ("--chroot", "/")])
def test_another_user(root: tuple[str, ...], tmp_path: Path, family: Family) -> None:
    """Of the server, who could not reach the manager's socket himself: what he says is passed on."""
    forked.need_root()
    os.chmod(tmp_path, 0o700)
    server = users.program("notifies", "send=STATUS=mark", "send=READY=1")
    with Manager(tmp_path) as manager, under(manager, "-u", "nobody", *root, *server, cwd="/") as wrapper:
        assert until(manager, MARK) in ([], [{"STATUS": "waiting for notify"}])
        await_ready(manager, wrapper)
    procs.eventually(family.nobody)


VARIABLES = (
    "NOTIFY_SOCKET",
    "NOTIFY_FD",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "MAINPID",
    "LISTEN_FDS",
    "LISTEN_PID",
)
TELLS = [
    *PYTHON,
    "-c",
    f"import os; print({{n: os.environ[n] for n in {VARIABLES} if n in os.environ}}, end='')",
]


@pytest.mark.parametrize("spec", [(), ("-r", "started"), ("-r", "notify")], ids=["none", "started", "notify"])
def test_environment_under_a_manager(spec: tuple[str, ...], manager: Manager, family: Family) -> None:
    """The server is given a socket of ours, and that there is a watchdog; nothing of the manager's own."""
    outer = {
        "NOTIFY_FD": "2",
        "WATCHDOG_USEC": "5000000",
        "WATCHDOG_PID": "",
        "MAINPID": "1",
        "LISTEN_FDS": "1",
    }
    with under(manager, *spec, *TELLS, env=outer) as wrapper:
        out, _ = wrapper.communicate(timeout=20)
    found = ast.literal_eval(out.decode())

    assert found.keys() == {"NOTIFY_SOCKET", "WATCHDOG_USEC"}
    assert found["NOTIFY_SOCKET"].startswith("@daemonize/")
    assert found["WATCHDOG_USEC"] == "5000000"
    family.nobody()


@pytest.mark.parametrize(
    "outer",
    [
        {},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative/path"},
        {"NOTIFY_FD": ""},
        {"NOTIFY_FD": "99"},
        {"NOTIFY_FD": "9" * 30},
        {"NOTIFY_FD": "-1"},
        {"NOTIFY_FD": "two"},
        {"NOTIFY_FD": "FILE"},
        {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"},
    ],
    ids=str,
)
def test_nobody_above(outer: dict[str, str], tmp_path: Path, family: Family) -> None:
    """Where nobody can be meant, all is as without a manager: the server finds nothing, and nothing is waited for."""
    with open(tmp_path / "file", "w+b", buffering=0) as file:
        env = {name: value.replace("FILE", str(file.fileno())) for name, value in outer.items()}
        with under(None, *TELLS, env=env, pass_fds=[file.fileno()]) as wrapper:
            assert wrapper.communicate(timeout=20) == (b"{}", b"")
            assert wrapper.returncode == 0
        assert file.read() == b""
    family.nobody()


def test_nobody_is_reproached(family: Family) -> None:
    """Without a manager, what a server says is for nobody, and -v has no word of that."""
    with under(
        None, "-v", "-r", "notify", *notifies("send=STATUS=x\\nREADY=1", "barrier", "exit=3")
    ) as wrapper:
        _, err = wrapper.communicate(timeout=20)

    assert b"service manager" not in err
    family.nobody()


@pytest.mark.parametrize("closed", [False, True])
def test_descriptor(closed: bool, trigger: Trigger, family: Family) -> None:
    """NOTIFY_FD alone: a newline for the server's READY=1; a pipe that nobody reads any more ends nobody."""
    read, write = os.pipe()
    wait = f"waits={trigger.path}"
    server = notifies(wait, "send=STATUS=x", "send=READY=1", "barrier", wait, "say=on", "exit=3")
    with under(None, "-v", *server, env={"NOTIFY_FD": str(write)}, pass_fds=[write]) as wrapper:
        os.close(write)
        assert not procs.readable(read, 0)
        if closed:
            os.close(read)
        trigger.release()
        await_line(wrapper, f"the service manager {'cannot be told' if closed else 'has been told'}")
        if not closed:
            assert os.read(read, 10) == b"\n"
            os.close(read)
        trigger.release()
        assert line(wrapper) == "on"
        assert wrapper.wait(10) == 3
        assert wrapper.stderr
        assert b"the service manager" not in wrapper.stderr.read()
    family.nobody()


@pytest.mark.parametrize(
    "options", [(), ("-r", "alive:1h"), ("-r", "started")], ids=["none", "alive", "started"]
)
def test_socket_that_the_user_gives(options: tuple[str, ...], manager: Manager, family: Family) -> None:
    """-E NOTIFY_SOCKET: there is none of ours beside it, and no spec by default that would wait there."""
    with under(
        manager, *options, "-E", f"NOTIFY_SOCKET={manager.address}", *notifies("send=X_MINE=1", "exit=3")
    ) as wrapper:
        assert wrapper.wait(10) == 3
    assert {"X_MINE": "1"} in manager.rest()
    family.nobody()


def test_background(manager: Manager, family: Family, servers: Family) -> None:
    """Without -f nobody stays to speak for the server: the manager is told nothing, also by a server that speaks."""
    read, write = os.pipe()
    env = {**manager.environ, "NOTIFY_FD": str(write)}
    for words in (("notify", *program("meets_spec", "notify")), ("alive:50ms", "sleep", "100")):
        assert cli.run("-r", *words, env=env, pass_fds=[write]).status == 0
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    assert manager.rest() == []


# --- the watchdog ------------------------------------------------------------------------------------------------------

LIMIT = 0.6  # seconds; it is fed every half of it
WATCHED = {"WATCHDOG_USEC": str(int(LIMIT * 1e6))}
FED = {"WATCHDOG": "1"}


def is_fed(manager: Manager) -> None:
    """Again and again, and no more often than twice within the limit."""
    manager.rest()
    # After a question that was answered late the next is asked at once.
    await_fed(manager, 2)
    began = time.monotonic()
    await_fed(manager, 2)
    assert LIMIT * 0.75 < time.monotonic() - began < LIMIT * 4


def await_fed(manager: Manager, times: int) -> None:
    """So often, with nothing between but words."""
    while times:
        message = manager.read()
        times -= message == FED
        assert message == FED or message.keys() == {"STATUS"}


def is_not_fed(manager: Manager) -> list[str]:
    """Not for longer than the limit, when what had been under way has come. What is said meanwhile."""
    manager.rest()
    procs.readable(manager._socket.fileno(), LIMIT / 2)
    said = manager.rest()
    until = time.monotonic() + LIMIT * 1.5
    while procs.readable(manager._socket.fileno(), max(0.0, until - time.monotonic())):
        message = manager.read()
        said.append(message)
        assert message.keys() == {"STATUS"}
    return [message["STATUS"] for message in said if "STATUS" in message]


def ask(port: int) -> str:
    """The spec."""
    return f"http://127.0.0.1:{port}/"


def test_watchdog_asks_from_ready_on(
    manager: Manager, trigger: Trigger, tmp_path: Path, family: Family
) -> None:
    """Not before; then at half the interval; not while the server hangs; and again when it goes on."""
    port, notes = ports.free_port(), tmp_path / "notes"
    server = program("answers", str(port), f"notes={notes}")
    with under(
        manager, "-r", f"file:{tmp_path}/file", "--watchdog", ask(port), *server, env=WATCHED
    ) as wrapper:
        assert [line(wrapper), line(wrapper)] == ["waiting", "listening"]
        manager.read()
        assert not procs.readable(manager._socket.fileno(), LIMIT)
        assert not notes.exists()
        (tmp_path / "file").touch()
        assert manager.read().items() >= ready(wrapper).items()
        is_fed(manager)
        server_pid = family.running(server).pid
        os.kill(server_pid, signal.SIGSTOP)
        assert is_not_fed(manager) == [f"no answer: {ask(port)}: no answer yet"]
        os.kill(server_pid, signal.SIGCONT)
        is_fed(manager)
        # Between two questions there is nobody but the server.
        procs.eventually(lambda: has_only(wrapper.pid, server_pid))
        wrapper.send_signal(signal.SIGABRT)  # as systemd does when its patience is at an end
        assert wrapper.wait(10) == -signal.SIGABRT
    family.nobody()


def has_only(pid: int, child: int) -> None:
    """An AssertionError until there is no other descendant."""
    assert [process.pid for process in procs.tree(pid)] == [child]


def test_watchdog_and_wrong_answers(manager: Manager, family: Family) -> None:
    """No answer but a good one counts; why it is not fed is said, once."""
    port = ports.free_port()
    server = program("answers", str(port), "statuses=200,200,503,503,503,200")
    with under(manager, "-r", "port", "--watchdog", ask(port), *server, env=WATCHED) as wrapper:
        await_ready(manager, wrapper)
        until(manager, {"STATUS": f"no answer: {ask(port)}: status 503"})
        while (message := manager.read()) == FED:
            pass
        assert message["STATUS"].startswith("ready after ")
        is_fed(manager)
        wrapper.terminate()
        _, err = wrapper.communicate(timeout=20)
    assert err.count(b"the watchdog is not fed: %s: status 503\n" % ask(port).encode()) == 1
    family.nobody()


def test_watchdog_by_a_command(manager: Manager, tmp_path: Path, family: Family) -> None:
    """Fed as long as it exits 0. What a check leaves behind is ended with it, and one that hangs with the server."""
    flag, hang = tmp_path / "flag", tmp_path / "hang"
    flag.touch()
    spec = f"exec:sleep 99 & test -e {flag} && if test -e {hang}; then sleep 98; fi"
    with under(manager, "-r", "started", "--watchdog", spec, "sleep", "100", env=WATCHED) as wrapper:
        await_ready(manager, wrapper)
        is_fed(manager)
        flag.unlink()
        is_not_fed(manager)
        flag.touch()
        is_fed(manager)
        procs.eventually(lambda: has_only(wrapper.pid, family.running(["sleep", "100"]).pid))
        hang.touch()
        is_not_fed(manager)
        assert procs.eventually(lambda: family.running(["sleep", "98"]))
        wrapper.terminate()
        assert wrapper.wait(20) == -signal.SIGTERM
    family.nobody()


def test_server_that_feeds_itself(manager: Manager, trigger: Trigger, family: Family) -> None:
    """With --watchdog it is not told of a watchdog, and what it says of one is not passed on: a check that fails counts."""
    steps = [f"waits={trigger.path}", *mixed("READY=1", "WATCHDOG=1", "WATCHDOG_USEC=9", "STATUS=mark")]
    code = "import os, sys; assert 'WATCHDOG_USEC' not in os.environ; os.execv(sys.argv[1], sys.argv[1:])"
    server = [*PYTHON, "-c", code, *notifies(*steps, f"waits={trigger.path}")]
    with under(manager, "--watchdog", "exec:false", *server, env=WATCHED):
        manager.read()
        trigger.release()
        assert [each.get("READY") for each in until(manager, MARK)] == ["1"]
    procs.eventually(family.nobody)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "9" * 30},
        {**WATCHED, "WATCHDOG_PID": "1"},
    ],
    ids=str,
)
def test_no_watchdog(env: dict[str, str], manager: Manager, tmp_path: Path, family: Family) -> None:
    """Without a limit, or with somebody else's, nobody is asked and nobody fed; -v says so."""
    spec = f"exec:touch {tmp_path}/asked"
    with under(
        manager, "-v", "-r", "started", "--watchdog", spec, "cat", stdin=subprocess.PIPE, env=env
    ) as wrapper:
        await_ready(manager, wrapper)
        assert not procs.readable(manager._socket.fileno(), LIMIT)
        _, err = wrapper.communicate(timeout=20)
    assert b"no service manager waits for a watchdog (WATCHDOG_USEC): it is not fed\n" in err
    assert not (tmp_path / "asked").exists()
    family.nobody()


@pytest.mark.parametrize("env", [{"WATCHDOG_PID": ""}, {}])
def test_watchdog_of_the_wrapper(env: dict[str, str], manager: Manager, family: Family) -> None:
    """Systemd sets WATCHDOG_PID to the wrapper's own (control: it is fed)."""
    script = 'WATCHDOG_PID=$$ exec "$@"' if env else 'exec "$@"'
    argv = cli.command("-f", "-r", "started", "--watchdog", "exec:true", "sleep", "100")
    variables = cli.environ({**manager.environ, **WATCHED})
    with subprocess.Popen(
        [SHELL, "-c", script, SHELL, *argv], env=variables, stdin=subprocess.DEVNULL
    ) as wrapper:
        try:
            await_ready(manager, wrapper)
            is_fed(manager)
        finally:
            wrapper.terminate()
    family.nobody()


@pytest.mark.parametrize(
    "spec", ["port", "port:80", "streams", "notify", "started", "log:x", "file:/x", "unix:/x", "fd:3"]
)
def test_what_cannot_be_asked_again(spec: str, family: Family) -> None:
    """A usage error that names what can."""
    done = cli.run("-f", "--watchdog", spec, "true")

    assert (done.status, done.out) == (2, b"")
    assert done.err.count(b"\n") == 1
    assert all(form in done.err for form in (b"http://", b"https://", b"exec:COMMAND"))
    assert spec.encode() in done.err


@pytest.mark.parametrize("spec", ["", "nonsense", "http:", "exec:", "http://"])
def test_wrong_watchdogs(spec: str, family: Family) -> None:
    """No readiness spec at all: a usage error."""
    done = cli.run("-f", "--watchdog", spec, "true")

    assert (done.status, done.err.count(b"\n")) == (2, 1)


def test_watchdog_without_f(family: Family) -> None:
    """Nobody would stay to feed it."""
    done = cli.run("--watchdog", "exec:true", "true")

    assert (done.status, done.err.count(b"\n")) == (2, 1)
    assert b"add -f" in done.err


# --- the pid file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("locked", [False, True])
def test_pid_file_without_a_spec(
    locked: bool, above: bool, manager: Manager, tmp_path: Path, family: Family
) -> None:
    """It is there as soon as the server is, which may never say that it is ready, and goes with the server."""
    path = tmp_path / "pid"
    options = ["-p", path, *(("-l", path) if locked else ())]
    with under(
        manager if above else None, *options, SHELL, "-c", "read word; exit 3", stdin=subprocess.PIPE
    ) as wrapper:
        pid = procs.eventually(lambda: named(path))
        assert [child.pid for child in procs.children(wrapper.pid)] == [pid]
        assert cli.run("-f", *options, "true").status == 75
        wrapper.communicate(timeout=10)
        assert wrapper.returncode == 3
    assert path.exists() == locked
    assert not locked or not path.read_bytes().strip()
    family.nobody()


@pytest.mark.parametrize("locked", [False, True])
def test_pid_file_with_a_spec(locked: bool, trigger: Trigger, tmp_path: Path, family: Family) -> None:
    """It is there when the server is ready, and not before."""
    path = tmp_path / "pid"
    options = ["-p", path, *(("-l", path) if locked else ()), "-r", "port"]
    with under(None, "--json", *options, *program("meets_spec", "port", f"waits={trigger.path}")) as wrapper:
        procs.eventually(lambda: family.running(program("meets_spec", "port", f"waits={trigger.path}")))
        assert not path.read_bytes().strip() if locked else not path.exists()
        trigger.release()
        assert json.loads(line(wrapper))["pid"] == int(path.read_bytes())
        wrapper.terminate()
        wrapper.wait(10)
    assert path.exists() == locked
    family.nobody()


@pytest.mark.parametrize("locked", [False, True])
def test_pid_file_of_a_server_that_daemonizes_itself(
    locked: bool, tmp_path: Path, trigger: Trigger, family: Family
) -> None:
    """First it names who was started, then who has been left."""
    path = tmp_path / "pid"
    options = ["-p", path, *(("-l", path) if locked else ())]
    with under(None, *options, *program("self_daemonizes", "last", trigger.arg)) as wrapper:
        first = procs.eventually(lambda: named(path))
        assert first == procs.children(wrapper.pid)[0].pid
        trigger.release()
        daemon = int(line(wrapper).split()[1])
        procs.eventually(lambda: names(path, daemon))
        wrapper.terminate()
        assert wrapper.wait(10) == -signal.SIGTERM
    assert first != daemon
    assert path.exists() == locked
    family.nobody()


def named(path: Path) -> int:
    """Whom a pid file names; an AssertionError until it names somebody."""
    text = path.read_bytes()
    assert text.strip()
    return int(text)


def names(path: Path, pid: int) -> None:
    """An AssertionError until it does."""
    assert path.read_bytes() == b"%d\n" % pid
