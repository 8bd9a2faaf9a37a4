"""What --listen takes, and what placeholders are: every form that is documented, and nothing else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonize.errors import UsageError
from daemonize.launcher import sockets
from daemonize.launcher.placeholders import fill
from daemonize.posix import sockdiag

FDS, PORTS = (3, 4, 5), (8080, None, 90)


@pytest.mark.parametrize(
    ("text", "name", "port", "address"),
    [
        ("8080", "listen", 8080, bytes(16)),
        ("0", "listen", 0, bytes(16)),
        ("65535", "listen", 65535, bytes(16)),
        ("127.0.0.1:80", "listen", 80, b"\x7f\0\0\1"),
        ("[::1]:80", "listen", 80, bytes(15) + b"\1"),
        ("[::]:80", "listen", 80, bytes(16)),
        ("0.0.0.0:80", "listen", 80, bytes(4)),
        ("localhost:80", "listen", 80, b"\x7f\0\0\1"),
        ("http=80", "http", 80, bytes(16)),
        ("80=90", "80", 90, bytes(16)),
        ("a-b_c.D1=127.0.0.1:0", "a-b_c.D1", 0, b"\x7f\0\0\1"),
        ("x" * 255 + "=1", "x" * 255, 1, bytes(16)),
    ],
)
def test_a_port(text: str, name: str, port: int, address: bytes) -> None:
    """With and without a host, with and without a name."""
    found = sockets.parse(text)

    assert (found.name, found.port) == (name, port)
    assert isinstance(found.listener, sockdiag.Listener)
    assert found.listener.address == address


@pytest.mark.parametrize(
    ("text", "name", "bound"),
    [
        ("unix:/run/a", "listen", b"/run/a"),
        ("unix:/run//./a", "listen", b"/run/a"),
        ("api=unix:/run/a", "api", b"/run/a"),
        ("unix:/run/a=b:c", "listen", b"/run/a=b:c"),
        ("unix:@a b", "listen", b"\0a b"),
        ("unix:@" + "a" * 107, "listen", b"\0" + b"a" * 107),
        ("unix:/" + "a" * 106, "listen", b"/" + b"a" * 106),
        ("unix:/\udcff", "listen", b"/\xff"),
    ],
)
def test_a_unix_socket(text: str, name: str, bound: bytes) -> None:
    """A path, or an abstract name; an equals sign of the path names nothing."""
    found = sockets.parse(text)

    assert isinstance(found.listener, sockdiag.Bound)
    assert (found.name, found.port, found.listener.name) == (name, None, bound)


def test_a_relative_path_is_the_callers() -> None:
    """From the directory that he is in."""
    found = sockets.parse("unix:a/b")

    assert found.shown == f"unix:{os.getcwd()}/a/b"


@pytest.mark.parametrize(
    "text",
    ["", "=", "=80", "a b=80", "a:b=80", "x" * 256 + "=80", "http=", "foo", "-1", "65536", "1e3", " 80", "٣", "9" * 5000,
     ":80", "a b:80", "::1:80", "[::1:80", "[127.0.0.1]:80", "tcp:80:", "*:80", "unix:", "unix:@", "unix:a\0b", "Unix:/a",
     "unix:/" + "a" * 107, "unix:@" + "a" * 108, "80/tcp"],
)  # fmt: skip
def test_what_cannot_be_names_the_forms(text: str) -> None:
    """In one line, with what was given."""
    with pytest.raises(UsageError) as caught:
        sockets.parse(text)

    line = str(caught.value)
    assert line.isprintable()
    assert sockets.FORMS in line


@pytest.mark.parametrize("text", ["unix:/" + "a" * 107, "unix:" + "a" * 108])
def test_a_path_that_is_too_long_says_the_limit(text: str) -> None:
    """That of bind(2), for the whole path."""
    with pytest.raises(UsageError, match=r"from / on it has \d+ bytes; the path of a socket has at most 107"):
        sockets.parse(text)


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("{fd}", "3"),
        ("{fd1}", "3"),
        ("{fd3}", "5"),
        ("{fd03}", "5"),
        ("{port}", "8080"),
        ("{port3}", "90"),
        ("fd://{fd}", "fd://3"),
        ("--a={fd},{port}{fd2}", "--a=3,80804"),
        ("{{", "{"),
        ("{{fd}}", "{fd}"),
        ("{{{fd}}}", "{3}"),
        ("{{port}} {port}", "{port} 8080"),
        ("{{fd} {fd}", "{fd} 3"),
        ('{{"a":{{"fd":{fd}}}}}', '{"a":{"fd":3}}'),
        ("${fd} ${port2} $ {fd}", "${fd} ${port2} $ 3"),
        *((same, same) for same in (
            "", "{", "}", "}}", "{}", "{fd", "fd}", "{ fd }", "{FD}", "{fds}", "{fd-1}", "{f}", "{port:d}", "{portfd}",
            '{"a":{"b":1}}', "{print $1}", "{fd" + "1" * 20 + "}", "a" * 100_000,
        )),
    ],
)  # fmt: skip
def test_placeholders(word: str, filled: str) -> None:
    """Those there are; all else stays as it is."""
    assert fill(word.encode(), FDS, PORTS) == filled.encode()


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("{fd4}", "{fd4}: the server is given 3 sockets; to mean the text itself, write {{fd4}}"),
        ("{fd0}", "{fd0}: the server is given 3 sockets; to mean the text itself, write {{fd0}}"),
        ("{port9}", "{port9}: the server is given 3 sockets; to mean the text itself, write {{port9}}"),
        ("x{port2}", "{port2}: that socket has no port; to mean the text itself, write {{port2}}"),
    ],
)
def test_a_placeholder_for_nothing(word: str, why: str) -> None:
    """It is a mistake, and how to write what was perhaps meant is said."""
    with pytest.raises(UsageError) as caught:
        fill(word.encode(), FDS, PORTS)

    assert str(caught.value) == why


@given(st.text("{}fd1$ ", max_size=30))
def test_whatever_is_doubled_is_what_it_was(text: str) -> None:
    """As for str.format: braces that are all doubled come out as they were."""
    doubled = text.replace("{", "{{").replace("}", "}}")
    opened = closed = 0
    for character in text:
        opened, closed = opened + (character == "{"), closed + (character == "}")
        if closed > opened:
            return  # what closes nothing is left alone
    assert fill(doubled.encode(), (3,), (80,)) == text.encode()


@given(st.binary(max_size=60))
def test_bytes_without_braces_stay(word: bytes) -> None:
    """Whatever they are."""
    word = word.replace(b"{", b"").replace(b"}", b"")

    assert fill(word, FDS, PORTS) == word
