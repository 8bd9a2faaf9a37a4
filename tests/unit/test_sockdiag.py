"""The kernel's tables: what their lines say, and which addresses a listener takes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys

import pytest

from daemonize.posix import sockdiag
from daemonize.posix.sockdiag import Listener, parse_inet, parse_unix
from daemonize.posix.sockets import pack

pytestmark = pytest.mark.skipif(sys.byteorder == "big", reason="the lines are of a little-endian machine")

END = b"00000000:00000000 00:00000000 00000000  1000        0 4711 1 000000000ba385b2 100 0 0 10 0\n"


def listener(address: str, *, dual: bool = False) -> Listener:
    """One at an address."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return Listener(packed, 80, 0, 1, dual=dual)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (b"0100007F:0050", "127.0.0.1:80"),
        (b"00000000:FFFF", "0.0.0.0:65535"),
        (b"00000000000000000000000001000000:0050", "[::1]:80"),
        (b"B80D01200000000067452301EFCDAB89:0050", "[2001:db8::123:4567:89ab:cdef]:80"),
        (b"0000000000000000FFFF00000100007F:0050", "127.0.0.1:80"),
    ],
)
def test_a_line_of_proc(address: bytes, shown: str) -> None:
    """Address and port, uid, inode."""
    found = parse_inet(b"   0: " + address + b" 00000000:0000 0A " + END)

    assert found
    assert (str(found), found.uid, found.inode) == (shown, 1000, 4711)


@pytest.mark.parametrize("state", [b"01", b"06", b"07", b"03"])
def test_a_line_about_something_else(state: bytes) -> None:
    """Connections are no listeners, in whatever state they are."""
    assert parse_inet(b"   0: 0100007F:0050 0100007F:1234 " + state + b" " + END) is None


@pytest.mark.parametrize(
    ("at", "dual", "address", "covers", "overlaps"),
    [
        ("127.0.0.1", False, "127.0.0.1", True, True),
        ("127.0.0.1", False, "127.0.0.2", False, False),
        ("127.0.0.1", False, "0.0.0.0", False, True),
        ("127.0.0.1", False, "::", False, False),
        ("127.0.0.1", False, "::ffff:127.0.0.1", True, True),
        ("0.0.0.0", False, "127.0.0.1", True, True),
        ("0.0.0.0", False, "::1", False, False),
        ("::", True, "127.0.0.1", True, True),
        ("::", True, "0.0.0.0", True, True),
        ("::", True, "::1", True, True),
        ("::", False, "127.0.0.1", False, False),
        ("::", False, "::1", True, True),
        ("::1", True, "::", False, True),
        ("::1", True, "::1", True, True),
        ("::1", True, "127.0.0.1", False, False),
        ("::ffff:0.0.0.0", True, "127.0.0.1", True, True),
        ("::ffff:0.0.0.0", True, "::1", False, False),
    ],
)
def test_who_is_reached(at: str, dual: bool, address: str, covers: bool, overlaps: bool) -> None:
    """At its own address, or at all of its family; who wants all addresses is in the way of each."""
    found = listener(at, dual=dual)

    assert (found.covers(pack(address)), found.overlaps(pack(address))) == (covers, overlaps)


def test_the_table_of_unix_sockets() -> None:
    """Those that listen, and datagram sockets with a name; a name may hold spaces and newlines."""
    table = b"""Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01    11 /run/a socket
0000000000000000: 00000002 00000000 00010000 0005 01 12345 @abstract@x
0000000000000000: 00000002 00000000 00000000 0001 01    13 /run/bound
0000000000000000: 00000003 00000000 00000000 0001 03    14 /run/connected
0000000000000000: 00000002 00000000 00000000 0002 01    15 /run/log
0000000000000000: 00000002 00000000 00000000 0002 01    16
0000000000000000: 00000002 00000000 00010000 0001 01    17 relative
evil: 00000002 00000000 000z0000 0001 01    18 /run/forged
0000000000000000: 00000002 00000000 00010000 0001 01    19
"""
    assert [(one.name, one.inode) for one in parse_unix(table)] == [
        (b"/run/a socket", 11),
        (b"\0abstract@x", 12345),
        (b"/run/log", 15),
        (b"relative", 17),
        (b"", 19),
    ]


def test_both_ways_show_the_same() -> None:
    """sock_diag and /proc, but for what /proc does not tell."""
    with (
        socket.create_server(("127.0.0.1", 0)) as narrow,
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as wide,
        socket.create_server(("::", 0), family=socket.AF_INET6) as only,
    ):
        for one, dual in ((narrow, False), (wide, True), (only, False)):
            (quick,) = sockdiag.listeners(one.getsockname()[1])
            (slow,) = sockdiag.listeners_near("self", one.getsockname()[1])
            assert (str(quick), quick.inode, quick.uid) == (str(slow), slow.inode, slow.uid)
            assert (quick.dual, slow.dual) == (dual, one is not narrow)


def test_what_the_kernel_refuses_is_an_error() -> None:
    """A family that it does not know: OSError, and no answer."""
    tables = sockdiag.Tables()
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT) + "|" + os.strerror(errno.EINVAL)):
        list(tables.ask(bytes([99, 6, 0, 0, 0, 4, 0, 0]) + bytes(48)))
    tables.close()


def test_tables_that_are_kept_answer_again_and_again() -> None:
    """Also after a question that the kernel refused, and after they have been closed; closed, nothing is open."""
    tables = sockdiag.Tables()
    before = os.listdir("/proc/self/fd")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for _ in range(3):
            with contextlib.suppress(OSError):
                list(tables.ask(bytes([99, 6, 0, 0, 0, 4, 0, 0]) + bytes(48)))
            (found,) = sockdiag.listeners(port, tables)
            assert found.inode == os.fstat(listener.fileno()).st_ino
            tables.close()
    assert sockdiag.listeners(port, tables) == []
    tables.close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("address", "only", "asked", "found"),
    [
        ("127.0.0.1", None, "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", None, "127.0.0.1", "0.0.0.0"),
        ("127.0.0.1", None, "::1", None),
        ("127.0.0.2", None, "127.0.0.1", None),
        ("::1", True, "::1", "[::1]"),
        ("::", False, "::1", "[::]"),
        ("::", False, "127.0.0.1", "0.0.0.0"),
        ("::", True, "127.0.0.1", None),
    ],
)
def test_who_takes_a_connection(address: str, only: bool | None, asked: str, found: str | None) -> None:
    """The kernel tells of one socket, by the address that somebody would connect to, as it does of all."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.closing(sockdiag.Tables()) as tables, socket.socket(family) as listening:
        if only is not None:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        listening.bind((address, 0))
        port = listening.getsockname()[1]
        assert sockdiag.listener_at(pack(asked), port, tables) is None  # bound, and does not listen yet
        listening.listen()
        told = sockdiag.listener_at(pack(asked), port, tables)
        inodes = {listener.inode for listener in sockdiag.listeners(port, tables)}

    assert (told and str(told)) == (found and f"{found}:{port}")
    assert told is None or {told.inode} == inodes
