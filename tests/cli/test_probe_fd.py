"""`--ready fd:N` and `fdvar:NAME`: the right descriptor at the right number, and what is written to it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from daemonize import TimedOut
from daemonize.launcher import api
from tests.support import cli, forked, procs, users
from tests.support.programs import SHELL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

#: Says what it has open above 2, in /proc's words without the inodes, and writes a newline to what it was given by number
#: or variable.
SERVER = """
import os, re, signal, sys
signal.alarm(100)
fds = [fd for fd in range(3, 300) if os.path.lexists(f"/proc/self/fd/{fd}")]
print(*[f"{fd}={re.sub('[^a-z]+.*', '', os.path.basename(os.readlink(f'/proc/self/fd/{fd}')))}" for fd in fds], flush=True)
for word in sys.argv[1:]:
    os.write(int(word) if word.isdigit() else int(os.environ[word]), b"\\n")
signal.pause()
"""
PYTHON = [sys.executable, "-S", "-E", "-c", SERVER]


def specs(*words: str) -> list[str]:
    """`-r` for each."""
    return [part for word in words for part in ("-r", word)]


def shell(script: str) -> list[str]:
    """A server that is a script, and then waits."""
    return [SHELL, "-c", f"{script}; exec sleep 100"]


# --- the right descriptor -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [*range(3, 24), 255])
def test_at_its_number_and_nowhere_else(number: int, servers: Family) -> None:
    """Whatever the wrapper has there. The server has nothing else."""
    done = cli.run(*specs(f"fd:{number}"), *PYTHON, str(number))

    assert (done.status, done.out, done.err) == (0, f"{number}=pipe\n".encode(), b"")
    assert servers.only()


def test_at_the_last_number_there_is(servers: Family) -> None:
    """And the one after it is a usage error, which names the limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert cli.run(*specs(f"fd:{limit - 1}"), *PYTHON, str(limit - 1)).status == 0
    assert servers.only()
    done = cli.run(*specs(f"fd:{limit}"), *PYTHON, str(limit))
    assert done.status == 2
    assert f"the limit of open files is {limit}".encode() in done.err


def test_many_beside_a_lock_and_descriptors_that_are_kept(tmp_path: Path, servers: Family) -> None:
    """Each is where it belongs: those that are kept at their numbers, the lock at any other."""
    lock = os.fspath(tmp_path / "lock")
    with open(tmp_path / "given", "w") as given:
        kept = given.fileno()
        numbers = [number for number in range(3, 12) if number != kept][:4]
        done = cli.run(
            *specs(*(f"fd:{number}" for number in numbers), "fdvar:ONE", "fdvar:TWO"),
            "-l", lock, "--keep-fd", str(kept), *PYTHON, *map(str, numbers), "ONE", "TWO",
            pass_fds=[kept],
        )  # fmt: skip
    seen = dict(word.split("=") for word in done.out.decode().split())

    assert (done.status, done.err) == (0, b"")
    assert [seen.pop(str(number)) for number in numbers] == ["pipe"] * 4
    assert seen.pop(str(kept)) == "given"
    assert sorted(seen.values()) == ["lock", "pipe", "pipe"]
    assert cli.run("-l", lock, "true").status == 75
    assert servers.only()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("-r", "fd:5", "-r", "fd:05"), b"fd:05: the server is to have something else at descriptor 5"),
        (("-r", "fd:1"), b"'fd:1' is not a readiness spec of the form fd:N: 0, 1 and 2 are"),
        (("-r", "fdvar:X", "-E", "X=3"), b"fdvar:X: the server is to find something else in X"),
    ],
)
def test_one_meaning_each(words: tuple[str, ...], shown: bytes, family: Family) -> None:
    """A number or a name for two things can only be a mistake: 2, and nothing is started."""
    done = cli.run(*words, "true")

    assert done.status == 2
    assert shown in done.err
    family.nobody()


def test_a_number_that_is_kept(family: Family) -> None:
    """The same."""
    with open(os.devnull) as given:
        kept = given.fileno()
        done = cli.run("-r", f"fd:{kept}", "--keep-fd", str(kept), "true", pass_fds=[kept])

    assert done.status == 2
    assert f"the server is to have something else at descriptor {kept}".encode() in done.err
    family.nobody()


# --- what is written to it ------------------------------------------------------------------------------------------


def test_a_shell_script(servers: Family) -> None:
    """As s6 has it in its manual."""
    bash = shutil.which("bash") or pytest.skip("needs bash")
    done = cli.run("-r", "fd:3", bash, "-c", "echo >&3; exec 3>&-; exec sleep 100")

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


@pytest.mark.parametrize(
    "script", ["printf 'loading\\nmore' >&3", "printf loading >&3; printf '\\n' >&3", "(echo >&3)"]
)
def test_at_the_first_newline(script: str, servers: Family) -> None:
    """Whatever comes before it and after it, and whoever of the server writes it."""
    assert cli.run("-r", "fd:3", *shell(script)).status == 0
    assert servers.only()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("printf loading >&3", b"no newline has been written to descriptor 3"),
        ("exec 3>&-", b"descriptor 3 was closed and no newline written to it"),
        ("printf loading >&3; exec 3>&-", b"descriptor 3 was closed and no newline written to it"),
    ],
)
def test_not_without_a_newline(script: str, problem: bytes, family: Family) -> None:
    """Neither other bytes nor its end: 124, and which of them it was."""
    done = cli.run("-r", "fd:3", "-t", "300ms", *shell(script))

    assert done.status == 124
    assert b"waited for: fd:3: " + problem + b")" in done.err
    family.nobody()


def test_the_end_is_seen_at_once(trigger: Trigger, family: Family) -> None:
    """Nobody of ours holds the other end. Under -v it is said as soon as it is so."""
    with cli.popen("-v", "-r", "fd:3", "-f", *shell(f"exec 3>&-; read line < {trigger.path}")) as wrapper:
        try:
            assert wrapper.stderr
            assert any(b"was closed and no newline" in line for line in wrapper.stderr)
        finally:
            wrapper.terminate()
            wrapper.communicate(timeout=20)

    family.nobody()


def test_in_the_foreground_more_may_be_written(trigger: Trigger, family: Family) -> None:
    """Any number of lines: nobody is held up, or killed by SIGPIPE. When it ends, the wrapper does."""
    writes = "import os; [os.write(3, b'x' * 999 + b'\\n') for _ in range(1000)]; print('done', flush=True)"
    done = cli.run("-f", "-r", "fd:3", sys.executable, "-S", "-E", "-c", writes)

    assert (done.status, done.out) == (0, b"done\n")
    family.nobody()


@pytest.mark.parametrize("way", ["command", "foreground", "library"])
def test_our_own_ready(way: str, family: Family) -> None:
    """A server that calls `daemonize.ready()` needs no more than the name that s6 and dinit are told to use."""
    code = "import daemonize, signal; signal.alarm(100); assert daemonize.ready(); signal.pause()"
    words = [sys.executable, "-c", code]
    spec = "fdvar:NOTIFY_FD"
    if way == "command":
        assert cli.run("-r", spec, *words).status == 0
    elif way == "library":
        api.launch(words, ready=spec, relay_stdout=None)
    else:
        with cli.popen("-f", "-v", "-r", spec, *words) as wrapper:
            assert wrapper.stderr
            assert any(b"ready after" in line for line in wrapper.stderr)
            wrapper.send_signal(signal.SIGTERM)
            wrapper.communicate(timeout=20)
    family.end()


# --- other users, other roots ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [(), ("--chroot", "/")])
@pytest.mark.parametrize("script", ["echo >&3", "echo >/dev/fd/3", "echo >/proc/self/fd/3"])
def test_another_user(script: str, root: tuple[str, ...], servers: Family) -> None:
    """Written to, or opened by its name: it is the server's own."""
    forked.need_root()
    done = cli.run("-r", "fd:3", "-u", "nobody", *root, "-c", "/", *shell(script))

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


def test_an_ordinary_user(servers: Family) -> None:
    """Nothing of it needs rights."""
    with users.open_directory() as directory:
        words = [*users.become(users.NOBODY), users.python(), "-m", "daemonize", *specs("fd:3", "fdvar:X")]
        done = subprocess.run(
            [*words, *shell('echo >&3; eval "echo >&$X"')],
            env={**os.environ, **users.environ(), "DAEMONIZE_STATE_DIR": f"{directory}/state"},
            stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30, cwd="/",
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")
    assert servers.only()


# --- what is left ---------------------------------------------------------------------------------------------------


def test_the_library_closes_its_copies(family: Family) -> None:
    """Also of a launch that failed; the numbers that were asked for are free, or are what they were."""
    before = procs.descriptors(os.getpid())
    with pytest.raises(TimedOut) as caught:
        api.launch(shell("exec 3>&-"), ready=["fd:3", "fdvar:X"], timeout=0.2, relay_stdout=None)

    assert procs.descriptors(os.getpid()) == before
    assert caught.value.problems == {
        "fd:3": "descriptor 3 was closed and no newline written to it",
        "fdvar:X": "no newline has been written to descriptor 4",
    }
    family.nobody()


def test_the_last_moment_counts(servers: Family) -> None:
    """A newline, and at once the end of a server that leaves a daemon behind, is a newline."""
    script = "echo >&3; exec 3>&-; sleep 100 >/dev/null 2>&1 & exit 0"
    done = cli.run("-r", "fd:3", SHELL, "-c", script)

    assert done.status == 0
    assert servers.only()
