"""What /proc says of a process is read right, whatever the process calls itself."""

from __future__ import annotations

import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonize.posix import identity
from daemonize.posix.identity import Identity, Stat

TAIL = b" S 1 17 18 0 -1 4194304 120 0 0 0 1 2 0 0 20 0 1 0 987654 2000 300 18446744073709551615 0 0 0\n"


def stat(name: bytes, tail: bytes = TAIL) -> Stat:
    """A line of /proc/PID/stat."""
    return Stat(b"4711 (" + name + b")" + tail)


@pytest.mark.parametrize(
    "name",
    [
        b"nginx",
        b"a) S 1 (b",
        b"))))",
        b"((((",
        b"",
        b" ",
        b"new\nline",
        b"tab\t)",
        b"\xff\xfe",
        b") Z 0 0 0 0 0 4 ",
    ],
)
def test_a_name_may_be_anything(name: bytes) -> None:
    """Parentheses, white space and newlines in the name do not shift the fields."""
    parsed = stat(name)

    assert (parsed.pid, parsed.state, parsed.ppid, parsed.pgrp, parsed.session) == (4711, "S", 1, 17, 18)
    assert (parsed.flags, parsed.threads, parsed.start) == (4194304, 1, 987654)
    assert parsed.name == name.decode("utf-8", "backslashreplace")


@given(st.binary(max_size=15))
def test_any_name(name: bytes) -> None:
    """Fifteen bytes of anything."""
    parsed = stat(name)

    assert (parsed.pid, parsed.session, parsed.start) == (4711, 18, 987654)


@pytest.mark.parametrize(
    ("state", "flags", "exiting"),
    [
        ("S", 0x400000, False),
        ("R", 0x400000, False),
        ("D", 0x400000, False),
        ("T", 0x400000, False),
        ("S", 0x400004, True),
        ("R", 0x4, True),
        ("Z", 0x0, True),
        ("X", 0x0, True),
    ],
)
def test_who_is_exiting(state: str, flags: int, exiting: bool) -> None:
    """PF_EXITING in the flags, or the state of a zombie."""
    tail = TAIL.replace(b" S ", b" %s " % state.encode()).replace(b"4194304", b"%d" % flags)

    assert stat(b"x", tail).exiting is exiting


def test_our_own_line() -> None:
    """The real line of this process says what the system calls say."""
    me = identity.read_stat(os.getpid())

    assert me is not None
    assert (me.pid, me.ppid, me.pgrp, me.session) == (os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0))
    assert not me.exiting


def test_a_process_that_is_not_there() -> None:
    """None, never an exception."""
    assert identity.read_stat(1 << 22) is None
    assert identity.standing(1 << 22) == identity.GONE
    assert identity.read_file("/proc/no/such/file") is None


def test_an_identity_is_all_three_parts() -> None:
    """Equal only when pid, start time and boot are; hashable; survives pickling and being written down."""
    one = Identity(10, 20, "boot")

    assert one == Identity(10, 20, "boot")
    assert hash(one) == hash(Identity(10, 20, "boot"))
    assert one not in {Identity(11, 20, "boot"), Identity(10, 21, "boot"), Identity(10, 20, "other")}
    assert one != (10, 20, "boot")
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301  (our own)
    assert eval(repr(one), {"Identity": Identity}) == one  # noqa: S307  (our own)


def test_we_are_alive_and_our_doubles_are_not() -> None:
    """The same pid with another start time, or from another boot, is another process."""
    me = identity.read_stat(os.getpid())
    assert me is not None
    boot = identity.current_boot_id()

    assert Identity.of(me.pid, me.start).alive
    assert Identity.of(me.pid, me.start) == Identity(me.pid, me.start, boot)
    assert not Identity(me.pid, me.start - 1, boot).alive
    assert not Identity(me.pid, me.start, "another boot").alive
    assert not Identity(1 << 22, me.start, boot).alive


def test_the_boot_has_a_name() -> None:
    """A UUID, the same at every look."""
    boot = identity.current_boot_id()

    assert len(boot) == 36
    assert boot == identity.current_boot_id()


@pytest.mark.parametrize("pid", [0, -1, -os.getpgrp()])
def test_a_process_group_is_no_process(pid: int) -> None:
    """kill(2) takes such a number for our own group, for everybody, or for a group: nobody gets a hold on one."""
    with pytest.raises(ProcessLookupError):
        identity.Process(pid)

    assert identity.standing(pid) == identity.GONE
    assert not Identity(pid, 0, identity.current_boot_id()).alive
