"""A server that went on, or was started anew, by its option is what the command makes of it, fact by fact."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support import apps, facts, procs, users
from tests.support.programs import DIRECTORY
from tests.support.users import NOBODY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.facts import Facts
    from tests.support.family import Family

#: A program that reports what it is as report_self.py does. It is executable: its name is the daemon's either way.
APP = """\
#!{python}
import runpy, sys, threading
import click, daemonize
{way}
@click.group()
def main():
    pass

@main.command()
@daemonize.daemonize_option(**{settings})
@click.argument('words', nargs=-1)
def run(words):
    sys.argv[1:] = words
    sys.path.insert(0, {programs!r})
    runpy.run_path({programs!r} + '/report_self.py', run_name='__main__')
main()
"""


class Setting(NamedTuple):
    """Options of the command, and keywords of the option that mean the same; `@` stands for the directory of the launch."""

    words: tuple[str, ...]
    keywords: dict[str, Any]


PLAIN = {
    "nothing": Setting((), {}),
    "umask": Setting(("--umask", "027"), {"umask": 0o27}),
    "nice": Setting(("--nice", "3"), {"nice": 3}),
    "core": Setting(("--core",), {"core": True}),
    "no core": Setting(("--no-core",), {"core": False}),
    "limits": Setting(
        ("--limit=nofile=333:444", "--limit=fsize=1M"), {"limits": {"nofile": (333, 444), "fsize": 1 << 20}}
    ),
    "directory": Setting(("-c", "@/sub"), {"cwd": "@/sub"}),
    "relative directory": Setting(("-c", "sub"), {"cwd": "sub"}),
    "directory and umask": Setting(("-c", "sub", "--umask", "0"), {"cwd": "sub", "umask": 0}),
    "himself": Setting(("-u", "{who}"), {"user": "{who}"}),
}
ALL = Setting(
    ("-u", "nobody", "--umask", "027", "--nice=3", "--no-core", "--limit", "nofile=333:444", "-c", "@/sub"),
    {"user": "nobody", "umask": 0o27, "nice": 3, "core": False, "limits": {"nofile": (333, 444)}, "cwd": "@/sub"},
)  # fmt: skip
BY_ROOT = {
    "user": Setting(("-u", "nobody"), {"user": "nobody"}),
    "user and group": Setting(("-u", "nobody:27"), {"user": "nobody:27"}),
    "user by number": Setting(("-u", "54399:54398"), {"user": "54399:54398"}),
    "all": ALL,
}
CASES = {
    f"{who}-{name}-{way}": (who, way, setting)
    for who, settings in (("root", PLAIN | BY_ROOT), ("nobody", PLAIN | {"all": ALL}))
    for name, setting in settings.items()
    for way in apps.WAYS
}
#: These differ from launch to launch, say how it was started, or are the guards' own.
UNCOMPARED = {
    "environ.DAEMONIZE_ID", "environ.DAEMONIZE_STREAMS", "argv", "cmdline", "limits.Max realtime timeout",
}  # fmt: skip
#: What a caller can leave to those it starts, all of it: signals ignored and blocked, descriptors.
BURDENED = [
    "sh", "-c", 'unset PWD; exec 5</etc/passwd 9</etc/hostname; exec "$@"', "sh",  # a shell unblocks what is blocked
    "env", "--ignore-signal=HUP,INT,QUIT,USR1,CHLD,TSTP", "--block-signal=USR2,TERM,CHLD,ALRM",
]  # fmt: skip


def filled(value: Any, directory: str, who: str) -> Any:
    """A word of a setting, for one launch."""
    return value.replace("@", directory).replace("{who}", who) if isinstance(value, str) else value


def launched(who: str, way: str, setting: Setting, *, by_option: bool, front: list[str]) -> Facts:
    """The facts of the server, when the launch is over."""
    with users.open_directory() as base:
        os.mkdir(f"{base}/sub", 0o755)
        os.chmod(f"{base}/sub", 0o755)
        keywords = {key: filled(value, base, who) for key, value in setting.keywords.items()}
        settings = repr(keywords if by_option else {})
        path = f"{base}/app"
        with open(path, "w") as file:
            file.write(
                APP.format(python=users.python(), way=apps.WAYS[way], settings=settings, programs=DIRECTORY)
            )
        os.chmod(path, 0o755)
        options = [filled(word, base, who) for word in setting.words]
        argv = [path, "run", "--daemonize"] if by_option else [
            users.python(), "-m", "daemonize", *options, path, "run"
        ]  # fmt: skip
        return reported(base, [*front, *(users.become(NOBODY) if who == "nobody" else []), *argv])


def reported(base: str, argv: list[str]) -> Facts:
    """Run it, with the fifo as the last argument; the facts that come from it."""
    reports = facts.Reports(base)
    marks = {name: value for name, value in os.environ.items() if name.startswith("TEST_MARK")}
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": "/home/of/caller",
        "DAEMONIZE_STATE_DIR": f"{base}/state",
        "DAEMONIZE_RUNTIME_DIR": f"{base}/run",
    }
    try:
        with subprocess.Popen(
            [*argv, reports.arg], cwd=base, env={**marks, **variables, **users.environ()},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            reports.open()
            out, err = process.communicate(timeout=20)
            assert (process.returncode, out, err) == (0, b"out\n", b"err\n")
            report = reports.read()
    finally:
        reports.close()
    server = procs.stat(report["pid"])
    assert server
    assert server.ppid == 1
    assert procs.stat(report["sid"]) is None
    found = facts.relative_to(facts.facts(report), base)
    # Root opens the logs that ready() is to use as soon as the server begins: it may give up its rights before that.
    found["descriptors"] = [target for target in found["descriptors"] if not target.startswith("DIR/state")]
    assert found["descriptors"] == []
    return {key: value for key, value in found.items() if key not in UNCOMPARED and "TEST_MARK" not in key}


@pytest.mark.parametrize("case", CASES)
def test_the_same_as_by_the_command(case: str, servers: Family) -> None:
    """Identity, limits, directory, environment, signals, descriptors, streams: no fact differs."""
    who, way, setting = CASES[case]
    if setting in BY_ROOT.values() and os.geteuid():
        pytest.skip("needs root")
    by_command = launched(who, way, setting, by_option=False, front=[])
    servers.end()
    by_option = launched(who, way, setting, by_option=True, front=[])

    assert facts.changes(by_command, by_option) == {}


def test_control(servers: Family) -> None:
    """The comparison sees what differs."""
    before = launched("root", "fork", PLAIN["nothing"], by_option=True, front=[])
    servers.end()
    after = launched("root", "fork", PLAIN["umask"], by_option=True, front=[])

    assert set(facts.changes(before, after)) == {"umask"}


@pytest.mark.parametrize("way", apps.WAYS)
def test_what_a_caller_leaves_does_not_reach_the_server(way: str, servers: Family) -> None:
    """Ignored signals (nohup, SIGCHLD), blocked ones, leaked descriptors: gone, as by the command."""
    if not shutil.which("env") or cli_env_lacks_signals():
        pytest.skip("needs an env(1) that can ignore and block signals")
    clean = launched("root", way, PLAIN["nothing"], by_option=True, front=[])
    servers.end()
    by_option = launched("root", way, PLAIN["nothing"], by_option=True, front=BURDENED)
    servers.end()
    by_command = launched("root", way, PLAIN["nothing"], by_option=False, front=BURDENED)

    assert facts.changes(clean, by_option) == {}
    assert facts.changes(by_command, by_option) == {}


def cli_env_lacks_signals() -> bool:
    """Whether env(1) is an old one, or another one."""
    done = subprocess.run([*BURDENED, "true"], capture_output=True, check=False, timeout=20)
    return done.returncode != 0


def test_control_of_the_burden() -> None:
    """In a program that is started so all of it is there."""
    if cli_env_lacks_signals():
        pytest.skip("needs an env(1) that can ignore and block signals")
    done = subprocess.run(
        [*BURDENED, "cat", "/proc/self/status", "/proc/self/fdinfo/5"],
        capture_output=True,
        check=True,
        timeout=20,
    )
    found = procs.dispositions(done.stdout)

    assert all(
        found["SigIgn"] & 1 << number - 1 for number in (signal.SIGHUP, signal.SIGCHLD, signal.SIGTSTP)
    )
    assert all(
        found["SigBlk"] & 1 << number - 1 for number in (signal.SIGUSR2, signal.SIGCHLD, signal.SIGTERM)
    )


#: Settings that fail, by who asks: keywords, status, and what is said.
FAILURES: dict[str, tuple[str, Mapping[str, Any], int, str]] = {
    "no user": ("root", {"user": "nonexistent"}, 125, "cannot run as nonexistent: no such user"),
    "another user": ("nobody", {"user": "daemon"}, 125, "cannot run as daemon: only root can run a server as another user"),
    "no directory": ("root", {"cwd": "/nonexistent"}, 125, "directory /nonexistent: No such file or directory"),
    "no directory with umask": ("root", {"cwd": "/nonexistent", "umask": 0}, 125, "directory /nonexistent: No such file"),
    "nice": ("nobody", {"nice": -5}, 125, "nice -5: Operation not permitted"),
    "limits": ("nobody", {"limits": {"nofile": (5, -1)}}, 125, "limits nofile=5:unlimited: Operation not permitted"),
}  # fmt: skip


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("name", FAILURES)
def test_a_setting_that_fails(name: str, way: str, family: Family) -> None:
    """One line that says which, on what, and why; status 125; the command never runs."""
    who, keywords, status, says = FAILURES[name]
    with users.open_directory() as base:
        path = f"{base}/app"
        with open(path, "w") as file:
            file.write(
                APP.format(python=users.python(), way=apps.WAYS[way], settings=keywords, programs=DIRECTORY)
            )
        os.chmod(path, 0o755)
        front = users.become(NOBODY) if who == "nobody" else []
        done = apps.run(
            [*front, path], "run", "--daemonize",
            env={
                **users.environ(), "DAEMONIZE_STATE_DIR": f"{base}/state", "DAEMONIZE_RUNTIME_DIR": f"{base}/run"
            },
            cwd=base,
        )  # fmt: skip

    assert (done.status, done.out) == (status, b"")
    assert done.err.startswith(b"app: ")
    assert says in done.err.decode()
    assert done.err.count(b"\n") == 1
    family.nobody()
