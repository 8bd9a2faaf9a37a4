"""What is asked of a launch is checked before anything is started."""

from __future__ import annotations

import math
import os
import pathlib
import pickle
from typing import Any

import pytest

from daemonize.errors import UsageError
from daemonize.launcher.request import Request


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"on_timeout": "kill"}, "stop or leave"),
        ({"on_timeout": ""}, "stop or leave"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1.0}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"stop_timeout": -0.1}, "stop timeout"),
        ({"stop_timeout": math.nan}, "stop timeout"),
        ({"append": True}, "append"),
        ({"foreground": True, "on_timeout": "leave"}, "foreground"),
        ({"keep_fds": [0]}, "descriptor 0"),
        ({"keep_fds": [2]}, "descriptor 2"),
        ({"keep_fds": [-1]}, "descriptor -1"),
        ({"keep_fds": [987]}, "descriptor 987"),
        ({"keep_fds": [1 << 40]}, "not open"),
        ({"directory": ""}, "empty"),
        ({"stdout": b""}, "empty"),
        ({"stderr": ""}, "empty"),
        ({"stdin": ""}, "empty"),
        ({"directory": "a\0b"}, "NUL"),
        ({"stdout": b"a\0b"}, "NUL"),
        ({"environment": {"": "x"}}, "variable"),
        ({"environment": {"A=B": "x"}}, "variable"),
        ({"environment": {"A\0": "x"}}, "NUL"),
        ({"environment": {"A": "x\0"}}, "NUL"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], word: str) -> None:
    """A usage error names what is wrong."""
    with pytest.raises(UsageError) as caught:
        Request(["true"], **options)

    assert word in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("command", ["true", b"true", [], (), ["a\0b"], ["true", b"\0"]])
def test_a_command_is_a_list_without_nul(command: Any) -> None:
    """A string is a mistake that would start a program called by its first letter."""
    with pytest.raises(UsageError):
        Request(command)


@pytest.mark.parametrize(
    ("options", "ready"),
    [
        ({}, ("streams",)),
        ({"stdout": "o"}, ("started",)),
        ({"stderr": "e"}, ("started",)),
        ({"stdout": "o", "ready": ["streams"]}, ("streams",)),
        ({"ready": ["exit", "alive:1s"]}, ("exit", "alive:1s")),
    ],
)
def test_the_default_spec(options: dict[str, Any], ready: tuple[str, ...]) -> None:
    """`streams`; with files `started`; what is given stays."""
    assert Request(["true"], **options).ready == ready


def test_text_may_be_anything_that_names_a_file() -> None:
    """str, bytes, path-like, and bytes that are not UTF-8, all alike; paths hold after a change of directory."""
    request = Request(
        [pathlib.Path("/bin/true"), b"\xff", "\udcfe"],
        directory=pathlib.Path("somewhere"),
        stdout=b"out\xff",
        stderr="/err",
        environment={"A\udcff": "\udcfe"},
    )

    assert request.command == [b"/bin/true", b"\xff", b"\xfe"]
    assert request.directory == os.path.join(os.getcwdb(), b"somewhere")
    assert request.stdout == os.path.join(os.getcwdb(), b"out\xff")
    assert request.stderr == b"/err"
    assert request.environment == {b"A\xff": b"\xfe"}
    assert request.shown == ["/bin/true", "\udcff", "\udcfe"]


def test_a_request_can_be_sent_to_the_keeper() -> None:
    """Pickled and back it asks for the same."""
    request = Request(
        ["true", b"\xff"],
        ready=["alive:1s"],
        timeout=math.inf,
        stdout="o",
        append=True,
        environment={"A": "1"},
    )

    assert vars(pickle.loads(pickle.dumps(request))) == vars(request)  # noqa: S301  (our own)


def test_open_descriptors_can_be_kept() -> None:
    """Those that are open, above 2."""
    read, write = os.pipe()
    try:
        assert Request(["true"], keep_fds=[write, read]).keep_fds == (write, read)
    finally:
        os.close(read)
        os.close(write)
    with pytest.raises(UsageError, match="not open"):
        Request(["true"], keep_fds=[write])


@pytest.mark.parametrize("rotate", ["10M", 5, (1,), (0, 5), (1, -1), (1, 1000), (True, 5), (1.5, 5), [1, 5]])
def test_a_rotation_is_two_numbers(rotate: object) -> None:
    """Anything else would come to light in a drain, where nobody can be told."""
    with pytest.raises(UsageError, match="bytes, how many are kept"):
        Request(["true"], log_rotate=rotate)  # type: ignore[arg-type]


def test_in_the_foreground_a_file_must_be_named() -> None:
    """Its streams have a reader there, and no log, unless one is named or is asked to be gone on in."""
    for asked in ({"log_rotate": (1, 5)}, {"timestamps": True}):
        with pytest.raises(UsageError, match="in the foreground no log is kept"):
            Request(["true"], foreground=True, **asked)  # type: ignore[arg-type]
        for named in ({"stdout": "o"}, {"stderr": "e"}, {"ready": ["streams"]}):
            assert Request(["true"], foreground=True, **asked, **named).has_drain  # type: ignore[arg-type]
    assert not Request(["true"], foreground=True).has_drain
