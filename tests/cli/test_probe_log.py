"""`--ready log:REGEX`: which lines match, however they are written, and where they may be written to."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest

import daemonize
from daemonize.errors import UsageError
from daemonize.readiness import parse
from tests.support import cli, procs
from tests.support.programs import SHELL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

STAYS = "; exec sleep 100"
#: In a server: wait until the test says so ($1 is its trigger).
WAITS = '; head -c1 "$1" >/dev/null; '
UNREADABLE = b"nothing that the server writes can be read back"


def server(script: str, *words: object) -> list[str]:
    """A shell script that serves when it has said its words."""
    return [SHELL, "-c", script + STAYS, SHELL, *map(str, words)]


def launch(pattern: str, script: str, *options: str | Path, **how: object) -> cli.Result:
    """Such a server, under the command."""
    return cli.run("-r", f"log:{pattern}", *options, *server(script), **how)  # type: ignore[arg-type]


@contextlib.contextmanager
def held(
    pattern: str, before: str, after: str, trigger: Trigger, *options: str | Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A launch whose server has said something, and says the rest when the trigger is released."""
    words = server(f"{before}{WAITS}{after}", trigger.path)
    with cli.popen("-r", f"log:{pattern}", *options, *words) as wrapper:
        try:
            yield wrapper
        finally:
            wrapper.kill()


def matches(pattern: str, *chunks: bytes) -> str | None:
    """The line that is found when these are written, one after the other."""
    probe = parse(f"log:{pattern}")
    for chunk in chunks:
        if not probe.held:
            probe.said("out", chunk)
    assert probe.held == (not probe.problem)
    return probe.found if probe.held else None


# --- which lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "chunks", "found"),
    [
        ("ready", [b"not yet\nit is ready now\n"], "it is ready now"),
        ("ready", [b"rea", b"dy", b"\n"], "ready"),
        ("^ready$", [b"ready\r\n"], "ready"),
        ("^ready$", [b"ready\r", b"\n"], "ready"),
        ("^ready$", [b"one\nready"], None),
        ("^ready$", [b"ready in 40 s\nalready\n"], None),
        ("one.*two", [b"one\ntwo\n"], None),
        ("^$", [b"\n"], ""),
        ("^é€😀$", [bytes([byte]) for byte in "é€😀\n".encode()], "é€😀"),
        ("^\ufffdready", [b"\xffready\n"], "\ufffdready"),
        ("(?i)READY", [b"Ready\n"], "Ready"),
        ("red", [b"\x1b[31mred\x1b[0m\n"], "\\x1b[31mred\\x1b[0m"),
        ("x$", [b"x" * 300 + b"\n"], "x" * 200),
    ],
)
def test_lines(pattern: str, chunks: list[bytes], found: str | None) -> None:
    """Complete lines without their ends, each by itself, whatever pieces they are written in."""
    assert matches(pattern, *chunks) == found


LONG = b"b" * 100_000


@pytest.mark.parametrize(
    ("pattern", "chunks", "found"),
    [
        ("^bb", [LONG, LONG, b"\n"], True),
        ("b$", [LONG, LONG, b"\n"], True),
        ("foo", [LONG[:65530], b"foo", LONG, b"\n"], True),
        ("foobar", [LONG, b"foo", b"bar", LONG, b"\n"], True),
        ("foo", [LONG, b"foo", LONG], False),
        ("^foo", [LONG, b"foo", LONG, b"\n"], False),
        (r"\Afoo", [*[b"foo" * 1000] * 40, LONG, LONG, b"\n"], True),
        (r"\bfoo", [LONG, b"foo", LONG, b"\n"], False),
        ("b$", [LONG, b"a\n"], False),
        ("ready", [LONG, LONG, b"\nready\n"], True),
        ("^ready$", [LONG, LONG, b"\n", b"ready\n"], True),
        ("bready", [LONG, LONG, b"\nready\n"], False),
    ],
)
def test_long_lines(pattern: str, chunks: list[bytes], found: bool) -> None:
    """Searched in parts that overlap: nothing in the middle is taken for an end of the line; found when it is complete."""
    assert (matches(pattern, *chunks) is not None) == found


def test_a_line_without_end_takes_no_memory() -> None:
    """A hundred megabytes without a newline."""
    code = """
import resource
from daemonize.readiness import parse
probe = parse("log:ready")
probe.said("out", b"x" * 65536 * 4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(1600):
    probe.said("out", b"x" * 65536)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, probe.held)
"""
    done = subprocess.run(
        [cli.COMMAND[: -len("daemonize")] + "python", "-c", code], capture_output=True, check=True
    )
    grown, held = done.stdout.split()

    assert int(grown) < 4096
    assert held == b"False"


def test_each_stream_by_itself(servers: Family) -> None:
    """What is begun on one is not finished on the other."""
    script = "printf rea; echo dy >&2; printf 'dy now' >&2; echo; echo done >&2"
    done = launch("^ready", script, "-t", "0.5s")

    assert done.status == 124
    assert b"log:^ready: no line matches" in done.err
    assert launch("^dy nowdone$", script).status == 0  # negative control: they are heard


@pytest.mark.parametrize("stream", ["1", "2"])
def test_either_stream_will_do(stream: str, servers: Family) -> None:
    """Servers log to one or the other."""
    done = launch("ready", f"echo ready >&{stream}")

    assert done.status == 0
    assert (done.out if stream == "1" else done.err) == b"ready\n"


def test_an_unfinished_line_does_not_count(servers: Family, trigger: Trigger) -> None:
    """It may go on."""
    with held("ready", "printf ready", "echo", trigger) as wrapper:
        assert wrapper.stdout
        assert wrapper.stdout.read(5) == b"ready"
        assert not procs.wait_ended(wrapper.pid, 0.3)
        trigger.release()
        assert wrapper.wait(10) == 0


def test_the_line_is_told(servers: Family) -> None:
    """Under -v, in JSON, and to programs; cleaned."""
    script = r"printf 'port 80\033 open\n'"
    line = "port 80\\x1b open"
    verbose, report = launch("open", script, "-v"), launch("open", script, "--json")
    daemon = daemonize.launch(server(script), ready="log:open", relay_stdout=None)

    assert f"log:open: {line}\n".encode() in verbose.err
    assert report.json["found"] == {"log:open": line}
    assert daemon.found == {"log:open": line}


# --- wrong patterns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "it would match any line"),
        ("(", "missing ), unterminated subpattern at position 0"),
        ("*", "nothing to repeat"),
        ("a{99999999999}", "the repetition number is too large"),
        ("\udcff(", "missing )"),
        ("(?P<\x1b>x)", "bad character in group name"),
        ("(" * 10_000, "recursion"),
    ],
)
def test_what_is_no_pattern(pattern: str, words: str) -> None:
    """In the words of Python's own compiler, on one line that can be shown."""
    with pytest.raises(UsageError) as caught:
        parse(f"log:{pattern}")

    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_will_mean_something_else_one_day() -> None:
    """Python warns of it; here nobody is to be bothered with that."""
    assert matches("[[a]x", b"[x\n") == "[x"


def test_a_wrong_pattern_starts_nothing(tmp_path: Path, family: Family) -> None:
    """Status 2, one line."""
    done = launch("(", f"echo >{tmp_path}/started")

    assert done.status == 2
    assert done.err.count(b"\n") == 1
    assert os.listdir(tmp_path) == []


# --- where it is written -------------------------------------------------------------------------------------------


def test_what_stood_there_before_does_not_count(servers: Family, tmp_path: Path, trigger: Trigger) -> None:
    """A file that is appended to has the line of the last start."""
    path = tmp_path / "log"
    path.write_bytes(b"ready\nrea")
    with held("ready", "echo dy", "echo ready", trigger, "-a", "-o", path) as wrapper:
        assert wrapper.stdout
        assert wrapper.stdout.read(3) == b"dy\n"
        assert not procs.wait_ended(wrapper.pid, 0.3)
        trigger.release()
        assert wrapper.wait(10) == 0


@pytest.mark.parametrize("after", [b"", b"x" * 400 + b"\n"], ids=["emptied", "emptied and filled again"])
def test_a_log_that_is_rotated(servers: Family, tmp_path: Path, trigger: Trigger, after: bytes) -> None:
    """Copied and truncated while the server starts: it goes on being followed."""
    path = tmp_path / "log"
    with held("ready", "echo one", "echo ready", trigger, "-o", path) as wrapper:
        assert wrapper.stdout
        assert wrapper.stdout.read(4) == b"one\n"
        path.write_bytes(after)
        trigger.release()
        assert wrapper.wait(10) == 0
        assert wrapper.stdout.read() == after + b"ready\n"


def test_both_streams_in_one_file(servers: Family, tmp_path: Path) -> None:
    """Relayed to stdout, once."""
    path = tmp_path / "log"
    done = launch("ready", "echo one; echo two >&2; echo ready >&2", "-o", path, "-e", path)

    assert (done.status, done.out, done.err) == (0, b"one\ntwo\nready\n", b"")


def test_the_callers_own_file(servers: Family, tmp_path: Path) -> None:
    """It is heard there, and not relayed to itself."""
    path = tmp_path / "log"
    with open(path, "ab") as file:
        done = launch("ready", "echo one; echo ready", "-a", "-o", path, stdout=file)

    assert done.status == 0
    assert path.read_bytes() == b"one\nready\n"


def test_the_callers_files_crosswise(servers: Family, tmp_path: Path) -> None:
    """What is relayed to one must not be followed there, and relayed to the other, for ever."""
    first, second = tmp_path / "first", tmp_path / "second"
    with open(first, "ab") as out, open(second, "ab") as err:
        words = ("-a", "-o", second, "-e", first)
        done = launch("ready", "echo one; echo two >&2; echo ready", *words, stdout=out, stderr=err)

    assert done.status == 0
    assert first.read_bytes() == b"two\n"
    assert second.read_bytes() == b"one\nready\n"


@pytest.mark.parametrize("kind", ["null", "fifo", "terminal"])
def test_what_cannot_be_read_back(kind: str, tmp_path: Path, servers: Family) -> None:
    """Nobody could ever see a line: refused at once. With one stream that can be read it is accepted."""
    with contextlib.ExitStack() as stack:
        target = "/dev/null"
        if kind == "fifo":
            target = os.fspath(tmp_path / "fifo")
            os.mkfifo(target)
            stack.callback(os.close, os.open(target, os.O_RDWR))
        elif kind == "terminal":
            near, far = pty.openpty()
            stack.callback(os.close, near)
            stack.callback(os.close, far)
            target = os.ttyname(far)
        refused = launch("ready", f"echo >{tmp_path}/started", "-o", target, "-e", target)
        accepted = launch("ready", "echo ready >&2", "-o", target)

    assert refused.status == 2
    assert UNREADABLE in refused.err
    assert not os.path.exists(tmp_path / "started")
    assert (accepted.status, accepted.err) == (0, b"ready\n")


def test_with_the_streams_protocol(servers: Family) -> None:
    """Both must hold; what is heard is the pipes, however much is said."""
    much = "head -c 2000000 /dev/zero; echo; echo ready; exec >/dev/null 2>&1"
    done = launch("^ready$", much, "-r", "streams")
    never = launch("^never$", much, "-r", "streams", "-t", "1s")

    assert (done.status, never.status) == (0, 124)
    assert done.out == bytes(2_000_000) + b"\nready\n"
    assert b"waited for: log:^never$: no line matches" in never.err


def test_a_burst(servers: Family) -> None:
    """Ten megabytes on each stream just before it is ready: all of it is there when the command is gone."""
    burst = "head -c 10000000 /dev/zero >&2 & head -c 10000000 /dev/zero; wait; echo; echo ready"
    done = launch("^ready$", burst)

    assert done.status == 0
    assert done.out == bytes(10_000_000) + b"\nready\n"
    assert done.err == bytes(10_000_000)


def test_a_reader_that_does_not_read(servers: Family) -> None:
    """The command leaves when its reader has everything, not sooner; the server is never held up: it writes to a file."""
    with cli.popen(
        "-r", "log:^ready$", *server("head -c 1000000 /dev/zero; echo; echo ready; echo done >&2")
    ) as wrapper:
        assert wrapper.stdout
        assert wrapper.stderr
        assert wrapper.stderr.read(5) == b"done\n"
        assert not procs.wait_ended(wrapper.pid, 0.3)
        assert wrapper.stdout.read(2_000_000) + wrapper.stdout.read() == bytes(1_000_000) + b"\nready\n"
        assert wrapper.wait(10) == 0


def test_a_reader_that_leaves(servers: Family) -> None:
    """`| head -1`: what it does not want to hear is heard all the same."""
    script = "echo one; head -c 1000000 /dev/zero; echo; echo ready"
    with cli.popen("-r", "log:^ready$", *server(script)) as wrapper:
        assert wrapper.stdout
        assert wrapper.stdout.readline() == b"one\n"
        wrapper.stdout.close()
        assert wrapper.wait(10) == 0
    assert servers.only()


def test_in_the_foreground(family: Family) -> None:
    """Until it is ready, and the output goes on afterwards."""
    words = [
        "-v",
        "-f",
        "-r",
        "log:ready",
        SHELL,
        "-c",
        "echo ready; echo more; sleep 0.2; echo last; exit 3",
    ]
    done = cli.run(*words)

    assert done.status == 3
    assert done.out == b"ready\nmore\nlast\n"
    assert b"ready after" in done.err


def test_a_server_that_dies_with_its_line(family: Family) -> None:
    """The line is there, and the server is not: its own status."""
    done = cli.run("-r", "log:ready", SHELL, "-c", "echo ready; exit 3")

    assert done.status in {0, 3}  # the line may have been seen before it died
    assert done.out == b"ready\n"
