"""What a server says to its manager: the words of sd_notify(3), and nothing where nobody listens."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

import daemonize
from daemonize import notify
from tests.support import forked, procs
from tests.support.manager import Manager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Each in a child of its own where it changes what a process remembers.
SAYINGS: dict[str, tuple[Callable[[], bool], dict[str, str]]] = {
    "status": (lambda: notify.status("loading 3 of 7"), {"STATUS": "loading 3 of 7"}),
    "extend_timeout": (lambda: notify.extend_timeout(1.5), {"EXTEND_TIMEOUT_USEC": "1500000"}),
    "a moment": (lambda: notify.extend_timeout(1e-9), {"EXTEND_TIMEOUT_USEC": "1"}),
    "stopping": (notify.stopping, {"STOPPING": "1"}),
    "watchdog": (notify.watchdog, {"WATCHDOG": "1"}),
}


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    """Who listens."""
    with Manager(tmp_path if request.param == "path" else None) as found:
        for name, value in found.environ.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.mark.parametrize("saying", SAYINGS)
def test_a_manager_hears_it(manager: Manager, saying: str) -> None:
    """One message, in the words of the manual."""
    say, words = SAYINGS[saying]

    assert say() is True
    assert manager.rest() == [words]


@pytest.mark.parametrize(
    "address",
    [
        None,
        "",
        "@",
        "/",
        "relative",
        "vsock:2:1234",
        "/nonexistent/socket",
        "@nobody",
        "/" + "x" * 200,
        "/dev/null",
    ],
)
@pytest.mark.parametrize("saying", SAYINGS)
def test_where_nobody_listens_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, address: str | None, saying: str
) -> None:
    """Not even an exception: the same server is started by hand."""
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

    assert SAYINGS[saying][0]() is False


def test_reloading_says_when(manager: Manager) -> None:
    """Systemd wants to know that the ready that follows belongs to this, and no earlier one."""

    def reload() -> tuple[bool, bool]:
        return notify.reloading(), notify.is_reloading()

    assert forked.call(reload) == (True, True)
    (said,) = manager.rest()
    assert said["RELOADING"] == "1"
    assert int(said["MONOTONIC_USEC"]) > 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", "two lines"),
        ("READY\nMAINPID=1", "READY MAINPID=1"),
        ("a\0b\tc\r", "a b c "),
        ("grüß", "grüß"),
        ("\udcff", "?"),
        ("x" * 5000, "x" * 2048),
        ("ü" * 1500, "ü" * 1024),
        ("x" + "ü" * 1500, "x" + "ü" * 1023),
        ("", ""),
    ],
)
def test_a_status_cannot_spoil_the_message(manager: Manager, text: str, shown: str) -> None:
    """It is one line of valid text, short enough for systemd, whatever it holds."""
    assert notify.status(text)
    assert manager.rest() == [{"STATUS": shown}]


def test_the_ready_beside_a_long_status_arrives(manager: Manager) -> None:
    """Systemd drops messages of more than 4096 bytes altogether."""
    assert notify.tell_ready("x" * 10_000)
    (said,) = manager.rest()
    assert said["READY"] == "1"
    assert said["MAINPID"] == str(os.getpid())


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_no_time_to_ask_for(seconds: float) -> None:
    """The argument is the caller's, and said."""
    with pytest.raises(daemonize.UsageError, match="write a number of seconds above 0"):
        notify.extend_timeout(seconds)


def test_a_manager_that_does_not_read_is_given_up(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full socket holds the server up for a moment, and not for ever."""
    monkeypatch.setattr(notify, "_PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        other.connect(manager.address.replace("@", "\0"))
        with contextlib.suppress(BlockingIOError):
            while True:
                other.send(b"STATUS=full")

    assert notify.watchdog() is False


def test_nothing_is_inherited(manager: Manager) -> None:
    """The socket is gone when the call returns."""
    before = os.listdir("/proc/self/fd")
    notify.stopping()

    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("limit", "pid", "interval"),
    [
        ("3000000", None, 1.5),
        ("3000000", "", 1.5),
        ("3000000", "own", 1.5),
        ("3000000", "1", None),
        ("3000000", "x", None),
        ("0", None, None),
        ("", None, None),
        (None, None, None),
        ("-1", None, None),
        ("1.5", None, None),
        ("soon", None, None),
        ("9" * 5000, None, None),
    ],
)
def test_the_interval_of_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, limit: str | None, pid: str | None, interval: float | None
) -> None:
    """Half of the limit; None where nobody waits, or for somebody else."""
    if limit is not None:
        monkeypatch.setenv("WATCHDOG_USEC", limit)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)

    assert notify.watchdog_interval() == interval


def test_a_worker_has_no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the server that the manager waits for."""
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    assert forked.call(notify.watchdog_interval) is None


def test_what_is_removed_is_remembered(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children do not find it; this process goes on. DAEMONIZE_ID stays: it says what belongs to the server."""
    removed = (
        "NOTIFY_FD", "WATCHDOG_USEC", "WATCHDOG_PID", "DAEMONIZE_STREAMS", "DAEMONIZE_STDOUT", "DAEMONIZE_STDERR",
    )  # fmt: skip
    for name in (*removed, "DAEMONIZE_ID"):
        monkeypatch.setenv(name, "1")

    def remove() -> tuple[list[str], bool]:
        notify.unset_environment()
        notify.unset_environment()
        return sorted({*removed, "NOTIFY_SOCKET", "DAEMONIZE_ID"} & os.environ.keys()), notify.stopping()

    assert forked.call(remove) == (["DAEMONIZE_ID"], True)
    assert manager.rest() == [{"STOPPING": "1"}]


# --- whoever started the server ------------------------------------------------------------------------------------


@contextlib.contextmanager
def heard() -> Iterator[tuple[int, socket.socket]]:
    """A socket to hear servers on, and one that is connected to it."""
    fd, address = notify.listen()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address.replace(b"@", b"\0", 1))
            yield fd, sender
    finally:
        os.close(fd)


@pytest.mark.parametrize("saying", SAYINGS)
def test_what_we_say_we_understand(monkeypatch: pytest.MonkeyPatch, saying: str) -> None:
    """Both directions of one format: the fields, and who has said it."""
    fd, address = notify.listen()
    monkeypatch.setenv("NOTIFY_SOCKET", os.fsdecode(address))
    say, words = SAYINGS[saying]
    assert say()
    message = notify.receive(fd)
    nothing = notify.receive(fd)
    os.close(fd)

    assert message
    assert {name.decode(): value.decode() for name, value in message.fields().items()} == words
    assert (message.pid, message.uid) == (os.getpid(), os.getuid())
    assert nothing is None


def test_the_address_is_abstract_and_new() -> None:
    """No file is left, nobody inherits the socket, and the next launch has another."""
    (one, first), (two, second) = notify.listen(), notify.listen()
    inherited = [os.get_inheritable(fd) for fd in (one, two)]
    os.close(one)
    os.close(two)

    assert first.startswith(b"@daemonize/")
    assert first != second
    assert inherited == [False, False]


def test_who_has_said_it() -> None:
    """The kernel tells, not the message: another user's is another's."""
    forked.need_root()
    with heard() as (fd, sender), forked.holding(lambda: sender.send(b"READY=1"), forked.NOBODY) as (pid, _):
        message = notify.receive(fd)

    assert message
    assert (message.pid, message.uid) == (pid, forked.NOBODY)


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b"READY=1", {b"READY": b"1"}),
        (b"READY=1\n", {b"READY": b"1"}),
        (b"READY=1\0", {b"READY": b"1"}),
        (b"\n\nA=\nB=x=y\nodd\n", {b"A": b"", b"B": b"x=y"}),
        (b"A=1\nA=2", {b"A": b"1"}),
        (b"A=\xff\r", {b"A": b"\xff\r"}),
        (b"A=" + b"x" * 4094, {b"A": b"x" * 4094}),
        (b"A=" + b"x" * 4095, "it has more than 4096 bytes"),
        (b"A=1\0B=2", "there is a NUL in it"),
        (b"A=1\0\0", "there is a NUL in it"),
        (b"", "there is no NAME=value in it"),
        (b"\0", "there is no NAME=value in it"),
        (b"=1", "there is no NAME=value in it"),
        (b"READY", "there is no NAME=value in it"),
    ],
)
def test_what_a_message_says(data: bytes, fields: dict[bytes, bytes] | str) -> None:
    """Its fields, or what is wrong with it."""
    with heard() as (fd, sender):
        sender.send(data)
        message = notify.receive(fd)

    assert message
    if isinstance(fields, dict):
        assert message.fields() == fields
    else:
        with pytest.raises(ValueError, match=fields):
            message.fields()


@pytest.mark.parametrize("count", [1, 2, 253])
def test_descriptors_are_never_received(count: int) -> None:
    """They are closed when their message is read, and not before; who has sent it is known all the same."""
    read, write = os.pipe()
    before = os.listdir("/proc/self/fd")
    with heard() as (fd, sender):
        sender.send(b"A=1")
        socket.send_fds(sender, [b"BARRIER=1"], [write] * count)
        os.close(write)
        first = notify.receive(fd)
        early = procs.readable(read, 0)
        second = notify.receive(fd)
        late = procs.readable(read)
    os.close(read)

    assert first
    assert second
    assert (early, late) == (False, True)
    assert (second.pid, second.fields()) == (os.getpid(), {b"BARRIER": b"1"})
    assert len(os.listdir("/proc/self/fd")) == len(before) - 2


def test_nothing_waits() -> None:
    """Also where a program has set a timeout for all of its sockets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)
    with heard() as (fd, _):
        message = notify.receive(fd)
    socket.setdefaulttimeout(before)

    assert message is None


@pytest.mark.parametrize(
    ("value", "number"),
    [(b"0", 0), (b"007", 7), (b"99", 99), (b"100", None), (b"", None), (b"-1", None), (b"+1", None), (b" 1", None),
     (b"1_0", None), (b"\xb2", None), (b"9" * 5000, None)],
)  # fmt: skip
def test_a_number_of_a_message(value: bytes, number: int | None) -> None:
    """Decimal, and no larger than it may be."""
    assert notify.number(value, 99) == number
