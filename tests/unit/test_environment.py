"""The server's environment: nothing that an outer manager meant for us."""

from __future__ import annotations

import os

import pytest

from daemonize.launcher.environment import caller_environment, server_environment

FOREIGN = [
    b"NOTIFY_SOCKET", b"NOTIFY_FD", b"MAINPID", b"WATCHDOG_USEC", b"WATCHDOG_PID", b"LISTEN_FDS", b"LISTEN_PID",
    b"LISTEN_FDNAMES", b"DAEMONIZE_ID", b"DAEMONIZE_STREAMS", b"DAEMONIZE_STDOUT", b"DAEMONIZE_STATE_DIR",
    b"DAEMONIZE_ANYTHING", b"WATCHDOG_", b"LISTEN_",
]  # fmt: skip
KEPT = [
    b"PATH",
    b"HOME",
    b"NOTIFY",
    b"NOTIFY_SOCKETS",
    b"XNOTIFY_SOCKET",
    b"MAINPIDS",
    b"LISTEN",
    b"WATCHDOG",
    b"DAEMONIZE",
    b"",
]
OWN = {b"DAEMONIZE_ID": b"cafe"}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_was_meant_for_us_is_removed(name: bytes) -> None:
    """A server must not answer an outer manager in our name."""
    assert server_environment({name: b"1", b"PATH": b"/bin"}, {}, {}, clear=False) == {b"PATH": b"/bin"}


@pytest.mark.parametrize("name", KEPT)
def test_everything_else_stays(name: bytes) -> None:
    """Names that only look alike are the user's."""
    assert server_environment({name: b"\xff\n"}, {}, {}, clear=False) == {name: b"\xff\n"}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_the_user_gives_stays(name: bytes) -> None:
    """Given on purpose, also against our own."""
    given = server_environment({name: b"outer"}, {name: b"given"}, {name: b"own"}, clear=False)

    assert given == {name: b"given"}


def test_clear_leaves_only_what_is_given_and_ours() -> None:
    """With clear nothing is inherited; our marks are still there."""
    assert server_environment({b"PATH": b"/bin"}, {b"A": b"1"}, OWN, clear=True) == {b"A": b"1", **OWN}


def test_our_own_replaces_an_outer_launch() -> None:
    """A daemonize below a daemonize has marks of its own."""
    assert server_environment({b"DAEMONIZE_ID": b"outer"}, {}, OWN, clear=False) == OWN


def test_nothing_that_was_handed_in_is_changed() -> None:
    """The caller's environment is the caller's."""
    outer, added, own = {b"NOTIFY_FD": b"3"}, {b"A": b"1"}, dict(OWN)
    server_environment(outer, added, own, clear=False)

    assert (outer, added, own) == ({b"NOTIFY_FD": b"3"}, {b"A": b"1"}, OWN)


def test_the_callers_environment_is_a_copy_in_bytes() -> None:
    """Bytes that are not UTF-8 are kept."""
    os.environb[b"NOT_UTF8"] = b"\xff\xfe"
    environment = caller_environment()
    del os.environb[b"NOT_UTF8"]

    assert environment[b"NOT_UTF8"] == b"\xff\xfe"
