"""`daemonctl logs`: what a daemon has written, to the end, or for as long as somebody reads it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from daemonize.logs.stamps import stamp
from tests.support import procs, records, users
from tests.support.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def append(path: str, data: bytes) -> None:
    """As a server writes."""
    with open(path, "ab") as file:
        file.write(data)


class Daemon:
    """A record with two logs in a directory, and what is shown of them."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "web.json")
        self.out, self.err = str(directory / "web.out"), str(directory / "web.err")
        self.record = Record(stdout=self.out, stderr=self.err)
        self.record.write(self.path)

    def heading(self, stream: str) -> bytes:
        """What stands before the words of a stream."""
        return f"==> web {stream} ({self.out if stream == 'stdout' else self.err}) <==\n".encode()

    def rewrite(self, **changes: object) -> None:
        """Another record of this name."""
        for name, value in changes.items():
            setattr(self.record, name, value)
        self.record.write(self.path)

    def show(self, **keywords: object) -> tuple[int, bytes, bytes]:
        """Status, and what is said on stdout and stderr."""
        done = records.logs(self.path, **keywords)
        return done.returncode, done.stdout, done.stderr

    @contextlib.contextmanager
    def following(self, **keywords: object) -> Iterator[Following]:
        """While they are followed."""
        words = records.command(self.path, follow=True, **keywords)
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        ) as process:
            try:
                yield Following(process)
            finally:
                process.kill()


class Following:
    """A process that follows logs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def expect(self, text: bytes, stream: int = 1) -> None:
        """Exactly that comes next."""
        pipe = self.process.stdout if stream == 1 else self.process.stderr
        assert pipe
        found = b""
        while len(found) < len(text):
            assert procs.readable(pipe.fileno()), found
            data = os.read(pipe.fileno(), len(text) - len(found))
            assert data, (found, self.process.stderr and self.process.stderr.read())
            found += data
        assert found == text

    def end(self, number: int = signal.SIGTERM) -> tuple[int, bytes, bytes]:
        """Send a signal; the status, and what was still said."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """One that has written nothing yet."""
    return Daemon(tmp_path)


# -- to the end -------------------------------------------------------------------------------------------------------


def test_the_last_lines_of_both(daemon: Daemon) -> None:
    """Ten of each, under headings; no more and no fewer than are asked for; over what was rotated."""
    append(f"{daemon.out}.1", b"".join(b"%d\n" % number for number in range(9)))
    append(daemon.out, b"".join(b"%d\n" % number for number in range(9, 13)))
    append(daemon.err, b"oops")
    out = [b"%d\n" % number for number in range(13)]
    for count in (10, 1, None):
        expected = daemon.heading("stdout") + b"".join(out[13 - (count or 13) :]) + b"\n"
        assert daemon.show(lines=count) == (0, expected + daemon.heading("stderr") + b"oops", b"")
    assert daemon.show(lines=0) == (0, b"", b"")


def test_no_heading_where_there_is_nothing_to_be_told_apart(daemon: Daemon) -> None:
    """One of them is empty, or not there, or not wanted, or both are one file."""
    append(daemon.out, b"hello\n")
    assert daemon.show() == (0, b"hello\n", b"")
    append(daemon.err, b"")
    assert daemon.show() == (0, b"hello\n", b"")
    append(daemon.err, b"oops\n")
    assert daemon.show(stderr_only=True) == (0, b"oops\n", b"")
    daemon.rewrite(stderr=daemon.out)
    assert daemon.show() == (0, b"hello\n", b"")


def test_content_is_not_changed(daemon: Daemon) -> None:
    """Every byte, NUL and escapes included, with and without an end of line."""
    data = bytes(range(256)) * 1000
    append(daemon.out, data)
    assert daemon.show(lines=None) == (0, data, b"")


def test_names_are_fit_for_a_terminal(daemon: Daemon) -> None:
    """In headings, and in messages."""
    daemon.rewrite(name="w\x1b[m\udcff", stderr=daemon.err + "\x1b")
    append(daemon.out, b"1\n")
    append(daemon.err + "\x1b", b"2\n")
    status, out, _ = daemon.show()
    assert status == 0
    assert rb"==> w\x1b[m\udcff stderr" in out
    assert b"\x1b" not in out


def test_time_stamped_logs_are_merged(daemon: Daemon) -> None:
    """In the order of time, without headings; the last lines are those of both together."""
    lines = [stamp(number) + b"%d\n" % number for number in range(20)]
    append(daemon.out, b"".join(lines[::2]))
    append(daemon.err, b"".join(lines[1::2]))
    for count in (None, 10, 3, 100):
        assert daemon.show(lines=count) == (0, b"".join(lines[-(count or 20) :]), b"")
    assert daemon.show(lines=3, stderr_only=True) == (0, b"".join(lines[15::2]), b"")


def test_one_with_time_stamps_and_one_without(daemon: Daemon) -> None:
    """Negative control: these cannot be merged."""
    append(daemon.out, stamp(1) + b"1\n")
    append(daemon.err, b"2\n")
    assert daemon.heading("stderr") in daemon.show()[1]


def test_since(daemon: Daemon) -> None:
    """By time stamps; without them it is said how to get them, but for a file that has not been written to since."""
    lines = [stamp(1e9 + number) + b"%d\n" % number for number in range(6)]
    append(daemon.out, b"".join(lines[::2]))
    append(daemon.err, b"".join(lines[1::2]))
    assert daemon.show(lines=None, since=1e9 + 2) == (0, b"".join(lines[2:]), b"")
    assert daemon.show(lines=1, since=1e9 + 2) == (0, lines[5], b"")
    assert daemon.show(lines=None, since=1e9 + 9) == (0, b"", b"")

    os.unlink(daemon.err)
    append(daemon.err, b"hello\n")
    status, out, err = daemon.show(lines=None, since=1e9 + 2)
    assert (status, out) == (2, b"")
    assert err.startswith(f"daemonctl: the lines of {daemon.err} have no time stamps".encode())
    assert b"start web with --timestamps" in err
    os.utime(daemon.err, (1e9, 1e9))
    assert daemon.show(lines=None, since=1e9 + 2) == (0, b"".join(lines[2::2]), b"")


def test_there_is_no_log(daemon: Daemon) -> None:
    """It is said why: it goes nowhere, to a terminal, or there is no such file."""
    why = f"there is no {daemon.out} and no {daemon.err}; nothing was written to it, or it has been removed"
    assert daemon.show() == (1, b"", f"daemonctl: no log: {why}\n".encode())
    append(daemon.err, b"oops\n")
    daemon.rewrite(stdout="/dev/null")
    nowhere = b"daemonctl: web keeps no log of its stdout (it goes to /dev/null)\n"
    assert daemon.show() == (0, b"oops\n", nowhere)
    assert daemon.show(stderr_only=True) == (0, b"oops\n", b"")
    terminal, other = os.openpty()
    daemon.rewrite(stderr=os.ttyname(other))
    both = b"daemonctl: web keeps no log of its stderr (it goes to /dev/pts/"
    for follow in (False, True):
        status, out, err = daemon.show(follow=follow)
        assert (status, out) == (1, b"")
        assert err.startswith(nowhere + both)
    os.close(terminal)
    os.close(other)
    daemon.rewrite(foreground=True)
    assert b"it runs in the foreground" in daemon.show()[2]


@pytest.mark.parametrize("kind", ["fifo", "symlink", "directory"])
@pytest.mark.parametrize("follow", [False, True])
def test_what_is_no_log(daemon: Daemon, kind: str, follow: bool) -> None:
    """One line, status 1, and the other stream all the same."""
    append(daemon.err, b"oops\n")
    if kind == "fifo":
        os.mkfifo(daemon.out)
    elif kind == "symlink":
        os.symlink("/etc/passwd", daemon.out)
    else:
        os.mkdir(daemon.out)
    reason = "it is a symbolic link" if kind == "symlink" else "it is not a plain file"
    line = f"daemonctl: cannot read the log {daemon.out}: {reason}\n".encode()
    if follow:
        with daemon.following() as following:
            following.expect(b"oops\n")
            following.expect(line, 2)
    else:
        assert daemon.show() == (1, b"oops\n", line)


def test_a_log_that_this_user_may_not_read() -> None:
    """As an ordinary user: one line, status 1, and the other one all the same."""
    with users.open_directory() as directory:
        out, err = f"{directory}/web.out", f"{directory}/web.err"
        append(out, b"secret\n")
        append(err, b"oops\n")
        os.chmod(out, 0o600)
        os.chmod(err, 0o644)
        Record(stdout=out, stderr=err).write(f"{directory}/web.json")
        words = [*users.become(users.NOBODY), users.python(), *records.command(f"{directory}/web.json")[1:]]
        tests = os.path.dirname(os.path.dirname(os.path.dirname(records.__file__)))
        path = f"{users.environ()['PYTHONPATH']}:{tests}"
        done = subprocess.run(
            words, capture_output=True, check=False, env={**users.environ(), "PYTHONPATH": path}, timeout=30
        )
    assert done.stdout == b"oops\n", done.stderr
    assert done.stderr == f"daemonctl: cannot read the log {out}: Permission denied\n".encode()
    assert done.returncode == 1


def test_a_reader_that_reads_a_line(daemon: Daemon) -> None:
    """`| head -1`: it ends, and says nothing."""
    append(daemon.out, b"hello\n" * 100_000)
    with subprocess.Popen(
        records.command(daemon.path, lines=None), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as shown:
        assert shown.stdout
        assert shown.stderr
        assert shown.stdout.readline() == b"hello\n"
        shown.stdout.close()
        assert shown.wait(20) == 0
        assert shown.stderr.read() == b""


def test_a_full_disk(daemon: Daemon) -> None:
    """One line, status 1."""
    append(daemon.out, b"hello\n")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            records.command(daemon.path), stdout=full, stderr=subprocess.PIPE, check=False, timeout=30
        )
    assert (done.returncode, done.stderr) == (
        1,
        b"daemonctl: cannot write the log: No space left on device\n",
    )


def test_a_log_is_not_written_to_itself(daemon: Daemon) -> None:
    """Followed, that would have no end."""
    append(daemon.out, b"hello\n")
    append(daemon.err, b"oops\n")
    with open(daemon.out, "ab") as log:
        done = subprocess.run(
            records.command(daemon.path), stdout=log, stderr=subprocess.PIPE, check=False, timeout=30
        )
    line = f"daemonctl: the log {daemon.out} would be written to itself\n".encode()
    assert (done.returncode, done.stderr) == (1, line)
    with open(daemon.out, "rb") as log:
        assert log.read() == b"hello\noops\n"


def test_memory_is_constant(daemon: Daemon) -> None:
    """However long the log, and its lines, are: merged ones, too."""
    with open(daemon.out, "wb") as out, open(daemon.err, "wb") as err:
        for number in range(100):
            out.write(stamp(number) + b"x" * 2_000_000 + b"\n")
            err.write(stamp(number + 0.5) + b"y" * 100_000 + b"\n")
    script = (
        "import resource, sys; from tests.support import records; sys.argv[0] = records.__file__; records.main();"
        "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(records.__file__)))
    used = []
    for count in (1, None):
        words = [sys.executable, "-c", script, *records.command(daemon.path, lines=count)[3:]]
        done = subprocess.run(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, timeout=60, cwd=root
        )
        used.append(int(done.stderr))
    assert used[1] - used[0] < 5_000, used


# -- following --------------------------------------------------------------------------------------------------------


def test_it_shows_what_comes(daemon: Daemon) -> None:
    """Of both streams, with a heading on each change, as soon as it is written; parts of lines, too."""
    append(daemon.out, b"1\n2\n")
    with daemon.following(lines=1) as following:
        following.expect(b"2\n")
        append(daemon.out, b"3\n")
        following.expect(b"3\n")
        append(daemon.err, b"oops\n")
        following.expect(b"\n" + daemon.heading("stderr") + b"oops\n")
        append(daemon.err, b"again, ")
        following.expect(b"again, ")
        append(daemon.out, b"4\n")
        following.expect(b"\n\n" + daemon.heading("stdout") + b"4\n")
        assert following.end() == (-signal.SIGTERM, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_asked(daemon: Daemon, number: int) -> None:
    """By that signal, without a word."""
    append(daemon.out, b"1\n")
    with daemon.following() as following:
        following.expect(b"1\n")
        assert following.end(number) == (-number, b"", b"")


def test_it_ends_when_its_reader_has_gone(daemon: Daemon) -> None:
    """At once, and not at the next line, which may never come."""
    append(daemon.out, b"1\n")
    with daemon.following() as following:
        following.expect(b"1\n")
        assert following.process.stdout
        assert following.process.stderr
        following.process.stdout.close()
        assert procs.wait_ended(following.process.pid)
        assert following.process.wait() == 0
        assert following.process.stderr.read() == b""


def test_over_a_rotation(daemon: Daemon) -> None:
    """The rest of the old file first; told by the kernel: no timer fires as quickly."""
    append(daemon.out, b"1\n")
    with daemon.following() as following:
        following.expect(b"1\n")
        for number in range(2, 30):
            append(daemon.out, b"old %d\n" % number)
            os.replace(daemon.out, f"{daemon.out}.1")
            append(daemon.out, b"new %d\n" % number)
            following.expect(b"old %d\nnew %d\n" % (number, number))


def test_over_rotations_under_load(daemon: Daemon) -> None:
    """A writer that never waits and rotates every few lines: every line once, in order."""
    count = 20_000
    script = f"""
import os
path, kept = {daemon.out!r}, 100
for number in range({count}):
    if number % 500 == 0:
        for old in range(kept, 1, -1):
            if os.path.exists(f"{{path}}.{{old - 1}}"):
                os.replace(f"{{path}}.{{old - 1}}", f"{{path}}.{{old}}")
        if number:
            os.replace(path, f"{{path}}.1")
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, b"%d\\n" % number)
    if number % 500 == 499:
        os.close(log)
"""
    with (
        daemon.following(lines=None) as following,
        subprocess.Popen([sys.executable, "-c", script]) as writer,
    ):
        following.expect(b"".join(b"%d\n" % number for number in range(count)))
        assert writer.wait() == 0


def test_a_file_that_is_not_there_yet(daemon: Daemon) -> None:
    """From its beginning."""
    append(daemon.err, b"oops\n")
    with daemon.following() as following:
        following.expect(b"oops\n")
        append(daemon.out, b"1\n")
        following.expect(b"\n" + daemon.heading("stdout") + b"1\n")


def test_a_file_that_is_truncated(daemon: Daemon) -> None:
    """It is said, and what is new is shown."""
    append(daemon.out, b"1\n2\n")
    with daemon.following() as following:
        following.expect(b"1\n2\n")
        os.truncate(daemon.out, 0)
        following.expect(f"daemonctl: {daemon.out}: file truncated\n".encode(), 2)
        append(daemon.out, b"3\n")
        following.expect(b"3\n")


def test_a_restart_that_writes_elsewhere(daemon: Daemon, tmp_path: Path) -> None:
    """The record is read again: the rest of the old file, then the new one."""
    append(daemon.out, b"1\n")
    with daemon.following() as following:
        following.expect(b"1\n")
        os.unlink(daemon.path)  # stopped
        append(daemon.out, b"2\n")
        following.expect(b"2\n")
        append(str(tmp_path / "other"), b"3\n")
        daemon.rewrite(stdout=str(tmp_path / "other"))
        following.expect(b"3\n")
        append(str(tmp_path / "other"), b"4\n")
        following.expect(b"4\n")


def test_time_stamped_logs_are_merged_as_they_come(daemon: Daemon) -> None:
    """What is there at one look in the order of time; no headings; whole lines are not torn."""
    daemon.rewrite(settings={"timestamps": True})
    lines = [stamp(number) + b"%d\n" % number for number in range(6)]
    with daemon.following() as following:
        append(daemon.out, lines[0])
        following.expect(lines[0])
        following.process.send_signal(signal.SIGSTOP)
        append(daemon.out, lines[1] + lines[3] + lines[5])
        append(daemon.err, lines[2] + lines[4])
        following.process.send_signal(signal.SIGCONT)
        following.expect(b"".join(lines[1:]))


def test_where_the_kernel_does_not_tell(daemon: Daemon) -> None:
    """No inotify instance is to be had: a timer looks."""
    append(daemon.out, b"1\n")
    script = (
        "import sys; from daemonize.posix import prctl; prctl.inotify = lambda *_: None;"
        "from tests.support import records; sys.argv[0] = records.__file__; records.main()"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(records.__file__)))
    words = [sys.executable, "-c", script, *records.command(daemon.path, follow=True)[3:]]
    with subprocess.Popen(words, stdout=subprocess.PIPE, bufsize=0, cwd=root) as process:
        try:
            following = Following(process)
            following.expect(b"1\n")
            append(daemon.out, b"2\n")
            os.replace(daemon.out, f"{daemon.out}.1")
            append(daemon.out, b"3\n")
            following.expect(b"2\n3\n")
        finally:
            process.kill()


def test_idle_costs_nothing(daemon: Daemon) -> None:
    """Neither looks nor wakes where nothing is written: over seconds, a few milliseconds of CPU time at most."""
    append(daemon.out, b"1\n")
    with daemon.following() as following:
        following.expect(b"1\n")
        append(daemon.out, b"2\n")
        following.expect(b"2\n")
        before = _cpu(following.process.pid)
        select.select([], [], [], 3.0)  # the time itself is what is measured
        used = _cpu(following.process.pid) - before
    assert used <= 0.02


def _cpu(pid: int) -> float:
    fields = procs.read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_is_quick(daemon: Daemon) -> None:
    """From the write to the reader in milliseconds: the kernel tells."""
    append(daemon.out, b"0\n")
    took = []
    with daemon.following() as following:
        following.expect(b"0\n")
        for number in range(1, 21):
            began = time.monotonic()
            append(daemon.out, b"%d\n" % number)
            following.expect(b"%d\n" % number)
            took.append(time.monotonic() - began)
    assert sorted(took)[10] < 0.02
