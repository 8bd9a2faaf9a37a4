"""`--ready file:PATH`: which changes count, wherever PATH leads, and which do not."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from daemonize import UsageError
from daemonize.launcher import api
from daemonize.readiness import file, parse
from tests.support import cli, procs
from tests.support.programs import SHELL
from tests.support.progress import assert_not_yet, await_line
from tests.support.users import NOBODY

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

OLD = "the file is the one that was there before"
NONE = "there is no such file"


@contextlib.contextmanager
def waiting(
    path: Path | str, trigger: Trigger, action: str, *options: str, **how: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A launch that waits for a file; the server carries out a shell script when it is let."""
    server = (SHELL, "-c", f"head -c 1 <{trigger.path} >/dev/null; {action}\nexec sleep 60")
    with cli.popen("-v", *options, "-r", f"file:{path}", "--", *server, **how) as wrapper:
        try:
            yield wrapper
        finally:
            wrapper.kill()


def finish(wrapper: subprocess.Popen[bytes], servers: Family) -> None:
    """It is ready."""
    wrapper.communicate(timeout=20)
    assert wrapper.returncode == 0
    assert servers.only()


@pytest.fixture(params=["inotify", "looking"])
def launch_in_both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel tells of changes, and where it does not."""
    if request.param == "looking":
        monkeypatch.setattr(file, "inotify", lambda *_: None)


@pytest.mark.usefixtures("launch_in_both_ways")
@pytest.mark.parametrize(
    "action",
    [
        "echo new >{}",
        "echo more >>{}",
        "touch {}",
        "chmod 600 {}",
        "echo old >{}.new; mv {}.new {}",
        "rm {}; echo old >{}",
        "rm {}; mkdir {}",
        "rm {}; mkfifo {}",
        "mv {} {}.old; ln -s {}.old {}; touch {}.old",
        "rm {}; ln -s / {}",
        "ln {} {}.link",
    ],
)
def test_a_file_that_was_there(action: str, tmp_path: Path, servers: Family) -> None:
    """It counts when anything of it is new: its content, its times, or what it is."""
    path = tmp_path / "file"
    path.write_text("old\n")
    script = f"{action.replace('{}', os.fspath(path))}\nexec sleep 60"
    api.launch([SHELL, "-c", script], ready=f"file:{path}")

    assert servers.only()


@pytest.mark.parametrize("action", [":", "cat {}", "cat <{} >/dev/null", ": >>{}", "test -e {}"])
def test_an_old_file_does_not_count(action: str, tmp_path: Path, family: Family) -> None:
    """Negative control: whoever has only read it, or opened it and written nothing, has not changed it."""
    path = tmp_path / "file"
    path.write_text("old\n")
    server = (SHELL, "-c", f"{action.replace('{}', os.fspath(path))}\nexec sleep 60")
    done = cli.run("-t", "300ms", "-r", f"file:{path}", "--", *server)

    assert done.status == 124
    assert f"(waited for: file:{path}: {OLD})".encode() in done.err
    family.nobody()


@pytest.mark.parametrize(
    "action",
    [
        "mkdir -p {0}/deep/directory; touch {0}/deep/directory/file",
        "mkdir -p {0}/other/directory; touch {0}/other/directory/file; mv {0}/other {0}/deep",
        "mkdir {0}/other {0}/other/directory; touch {0}/other/directory/file; ln -s other {0}/deep",
    ],
)
def test_a_directory_that_is_made_later(
    action: str, tmp_path: Path, trigger: Trigger, servers: Family
) -> None:
    """Nothing of the way needs to be there."""
    with waiting(tmp_path / "deep/directory/file", trigger, action.format(tmp_path)) as wrapper:
        await_line(wrapper, f"not yet: {NONE}")
        trigger.release()
        finish(wrapper, servers)


@pytest.mark.parametrize(
    "action", ["rm -r {0}/run; mkdir {0}/run; touch {0}/run/file", "mv {0}/run {0}/gone; mkdir {0}/run; touch {0}/run/file"]
)  # fmt: skip
def test_a_directory_that_is_made_anew(
    action: str, tmp_path: Path, trigger: Trigger, servers: Family
) -> None:
    """Many a start script does that."""
    (tmp_path / "run").mkdir()
    with waiting(tmp_path / "run/file", trigger, action.format(tmp_path)) as wrapper:
        await_line(wrapper, f"not yet: {NONE}")
        trigger.release()
        finish(wrapper, servers)


def test_a_link_whose_target_changes(tmp_path: Path, trigger: Trigger, servers: Family) -> None:
    """What it points at counts, in whatever directory that is."""
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/file")
    with waiting(tmp_path / "link", trigger, f"touch {tmp_path}/far/file") as wrapper:
        await_line(wrapper, f"not yet: {NONE}")
        trigger.release()
        finish(wrapper, servers)


def test_a_link_to_itself(tmp_path: Path) -> None:
    """It is no file, and says why."""
    (tmp_path / "link").symlink_to("link")
    done = cli.run("-t", "300ms", "-r", f"file:{tmp_path}/link", "--", "sleep", "60")

    assert done.status == 125
    assert b"Too many levels of symbolic links" in done.err


def test_one_that_cannot_be_looked_at_later(tmp_path: Path, family: Family) -> None:
    """Not yet, with the reason."""
    server = (SHELL, "-c", f"ln -s link {tmp_path}/link; exec sleep 60")
    assert_not_yet("OSError: Too many levels of symbolic links", "-r", f"file:{tmp_path}/link", "--", *server)
    family.nobody()


@pytest.mark.parametrize("options", [(), ("-c", "/"), ("-u", NOBODY.name, "-c", "/tmp")])
def test_a_relative_path_is_the_callers(options: tuple[str, ...], tmp_path: Path, servers: Family) -> None:
    """Wherever the server goes."""
    if os.geteuid() and "-u" in options:
        pytest.skip("needs root")
    with cli.popen("-v", *options, "-r", "file:directory/file", "--", "sleep", "60", cwd=tmp_path) as wrapper:
        await_line(wrapper, f"not yet: {NONE}")
        (tmp_path / "directory").mkdir()
        (tmp_path / "directory/file").touch()
        finish(wrapper, servers)


def test_what_else_happens_in_the_directory(tmp_path: Path, servers: Family) -> None:
    """1,000 files before it, and as many after: none of them is taken for it."""
    code = (
        "import os, sys\n"
        "directory, path = sys.argv[1:]\n"
        "def others(word):\n"
        "    for number in range(1000):\n"
        "        os.close(os.open(f'{directory}/{word}{number}', os.O_CREAT))\n"
        "others('file'); others('fil')\n"
        "print('all others', flush=True)\n"
        "sys.stdin.read(1)\n"
        "os.close(os.open(path, os.O_CREAT))\n"
        "others('x')\n"
        "sys.stdin.read(1)\n"
    )
    path = tmp_path / "file"
    fifo = tmp_path / "stdin"
    os.mkfifo(fifo)
    with cli.popen(
        "--stdin", fifo, "-r", f"file:{path}", "--", sys.executable, "-c", code, tmp_path, path
    ) as wrapper:
        holding = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
        assert wrapper.stdout
        assert wrapper.stdout.readline() == b"all others\n"
        assert not procs.wait_ended(wrapper.pid, 0.2)
        os.write(holding, b".")
        wrapper.communicate(timeout=20)
        assert wrapper.returncode == 0
        assert servers.only()
        os.close(holding)


def test_more_events_than_the_kernel_keeps(tmp_path: Path, trigger: Trigger, servers: Family) -> None:
    """A wrapper that was stopped meanwhile looks for itself."""
    action = (
        f"{sys.executable} -c '\n"
        "import os\n"
        "for _ in range(20000):\n"
        f'    os.utime("{tmp_path}/a"); os.utime("{tmp_path}/b")\n'
        f"'; touch {tmp_path}/file; echo done >&2"
    )
    for name in "ab":
        (tmp_path / name).touch()
    log = tmp_path / "log"
    os.mkfifo(log)
    reading = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    with waiting(tmp_path / "file", trigger, f"exec 2>{log}; {action}") as wrapper:
        await_line(wrapper, f"not yet: {NONE}")
        wrapper.send_signal(signal.SIGSTOP)
        trigger.release()
        assert os.read(reading, 100) == b"done\n"
        wrapper.send_signal(signal.SIGCONT)
        finish(wrapper, servers)
    os.close(reading)


def test_events_are_read_to_the_last() -> None:
    """As inotify(7) lays them out; one about the directory itself has no name."""
    head = bytes(12)
    one = head + (16).to_bytes(4, sys.byteorder) + b"file".ljust(16, b"\0")
    itself = head + bytes(4)

    assert file._names(b"") == set()
    assert file._names(one) == {b"file"}
    assert file._names(itself + one + one.replace(b"file", b"link")) == {b"", b"file", b"link"}


@pytest.mark.parametrize("argument", ["", "a\0b", "\0", "\ud800"])
def test_what_is_no_path(argument: str) -> None:
    """A usage error, whatever it is."""
    with pytest.raises(UsageError, match="of the form file:PATH: it"):
        parse(f"file:{argument}")


def test_a_path_that_is_too_long(family: Family) -> None:
    """Nothing is started."""
    done = cli.run("-r", "file:" + "x" * 5000, "--", "sleep", "60")

    assert done.status == 125
    assert b"File name too long" in done.err
    assert done.err.count(b"\n") == 1
    family.nobody()
