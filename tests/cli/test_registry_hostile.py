"""A registry that means no good: damaged records, pids of others, full disks, directories and users of every kind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

import daemonize
from daemonize.launcher.daemon import DEAD, RUNNING
from daemonize.registry import content
from daemonize.registry.record import Registry
from tests.support import cli, procs, registered, users
from tests.support.programs import SHELL, program
from tests.support.registered import HOSTILE, SAMPLE, control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family

QUICK = ["-r", "started", "sleep", "100"]
WHOLE = content.write(SAMPLE)

# --- damaged records ---------------------------------------------------------------------------------------------------

DAMAGED = {
    "empty": b"",
    "truncated": WHOLE[:-40],
    "zeros": b"\0" * 4096,
    "garbage": bytes(range(256)) * 16,
    "deep": b"[" * 100_000,
    "no record": b"{}\n",
    "newer": WHOLE.replace(b'"version": 1', b'"version": 2'),
    "a token of everybody": WHOLE.replace(SAMPLE["token"].encode(), b""),
    "a pid of everybody": WHOLE.replace(b'"pid": null', b'"pid": -1'),
    "a pid of nobody": WHOLE.replace(b'"pid": null', b'"pid": 99999999999999999999'),
    "a time that never was": WHOLE.replace(b"1795287203.06", b"1e300"),
    "another's": WHOLE.replace(b'"name": "web"', b'"name": "\\u001b[31m"'),
}
#: Those of which it is legible that nobody runs: that is all that a launch looks at.
LEGIBLE = ("a token of everybody", "a time that never was", "another's")
#: Every verb that is given a name, and waits for nobody.
VERBS = (
    ["status"], ["stop"], ["start"], ["restart"], ["signal", "HUP"], ["reload"], ["wait", "-t", "1s"], ["wait", "--ready"],
    ["show"], ["logs"], ["export", "--format", "systemd"],
)  # fmt: skip


def damage(kind: str) -> str:
    """Let the record of `web` be this; its path."""
    path = registered.put("web", DAMAGED.get(kind, b""))
    if kind in HOSTILE:
        if os.geteuid() and kind in {"device", "another user's"}:
            pytest.skip("needs root")
        os.unlink(path)
        HOSTILE[kind](path)
    return path


def one_line(done: cli.Result, *words: str) -> None:
    """An AssertionError unless it said just one line on stderr that has these words, fit for a terminal."""
    text = done.err.decode()
    assert done.out == b"", done
    assert text.count("\n") == 1, done
    assert text.rstrip("\n").isprintable(), done
    assert "internal error" not in text
    assert all(word in text for word in words), done


#: It may well be about one that runs.
EXPOSED = {"readable by others", "writable by the group"}


@pytest.mark.parametrize("kind", [*DAMAGED, *HOSTILE])
def test_a_damaged_record(kind: str, servers: Family) -> None:
    """Every verb says which file, why, and what to do: 4, one line. The others are found, and forget cures it."""
    path = damage(kind)
    assert cli.run("--name", "good", *QUICK).status == 0
    verb = list(DAMAGED | HOSTILE).index(kind) % (len(VERBS) - 2)
    for words in VERBS[verb : verb + 3]:
        done = control(words[0], "web", *words[1:])
        assert done.status == 4, done
        remedy = "chmod 600" if kind in EXPOSED else "daemonctl forget web"
        one_line(done, path, "the record of web cannot be used: ", remedy)

    assert [daemon.name for daemon in daemonize.daemons()] == ["good"]
    assert daemonize.Daemon.find("good").state == RUNNING
    if kind not in LEGIBLE:
        done = cli.run("--name", "web", *QUICK)
        assert done.status == 125
        one_line(done, path, "daemonctl forget web")
    assert servers.only().pid == registered.read("good")["pid"]

    assert control("forget", "web") == (0, b"", b"", 0.0)
    assert cli.run("--name", "web", *QUICK).status == 0
    assert control("stop", "web", "good").status == 0
    servers.nobody()


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb(words: list[str]) -> None:
    """None has an error of its own for a record that is of no use."""
    path = damage("truncated")
    done = control(words[0], "web", *words[1:])
    assert done.status == 4, done
    one_line(done, path, "it is damaged: it is no JSON", "daemonctl forget web")


@pytest.mark.parametrize(
    "kind", ["truncated", "a token of everybody", "a time that never was", "fifo", "directory"]
)
def test_the_list_goes_on(kind: str, servers: Family) -> None:
    """The others are listed; what is wrong with this one is one line on stderr."""
    path = damage(kind)
    assert cli.run("--name", "good", *QUICK).status == 0
    assert cli.run("--name", "zone", *QUICK).status == 0
    done = control("list", "--all")

    assert done.status == 4
    assert [line.split()[0] for line in done.out.splitlines()] == [b"NAME", b"good", b"zone"]
    one_line(done._replace(out=b""), path)


@pytest.mark.parametrize("kind", ["truncated", "newer", *HOSTILE])
def test_a_launch_without_a_name_takes_another(kind: str, servers: Family) -> None:
    """It is not refused for what lies there, and does not touch it."""
    path = damage(kind)
    os.rename(path, registered.path("sleep"))
    before = os.lstat(registered.path("sleep"))
    done = cli.run("--json", *QUICK)

    assert (done.status, done.json["name"], done.err) == (0, "sleep-2", b"")
    assert daemonize.Daemon.find("sleep-2").is_running
    assert os.path.samestat(os.lstat(registered.path("sleep")), before)


def test_a_fifo_in_the_place_of_the_lock(servers: Family) -> None:
    """Nobody waits at it for a writer: not a launch, and none of the verbs."""
    registered.forge("web")
    os.mkfifo(f"{registered.directory()}/.web.lock")

    assert cli.run("--name", "web", *QUICK, timeout=10).status == 125
    assert (control("status", "web", timeout=10).status, control("stop", "web", timeout=10).status) == (1, 0)
    assert control("forget", "web", timeout=10).status == 0
    assert cli.run("--name", "web", *QUICK).status == 0


# --- who has that pid now ----------------------------------------------------------------------------------------------

LISTENS = 'for one in HUP TERM INT CONT USR1; do trap "echo $one" $one; done; echo up; while :; do read x || :; done'


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with a daemon, and says each signal that it gets."""
    pipe = subprocess.PIPE
    with subprocess.Popen([SHELL, "-c", LISTENS], stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        process.kill()


@pytest.mark.parametrize(
    "change", [{"start": 1}, {"boot_id": "00000000-0000-0000-0000-000000000000"}], ids=str
)
def test_a_pid_that_is_anothers_now(
    change: dict[str, object], stranger: subprocess.Popen[bytes], servers: Family
) -> None:
    """Given away, or of another boot: it is dead. Whoever has the pid now gets no signal; the name can be started again."""
    registered.forge("web", **{**registered.of_process(stranger.pid), **change})
    before = registered.read("web")

    assert daemonize.Daemon.find("web").state == DEAD
    assert control("signal", "web", "USR1").status == 1
    assert control("reload", "web").status == 1
    assert control("wait", "web").status == 0
    assert control("stop", "web").status == 0
    assert control("start", "web").status == 0
    assert control("restart", "web").status == 0
    assert control("stop", "web").status == 0
    registered.put("web", content.write(before))
    assert cli.run("--name", "web", *QUICK).status == 0
    assert registered.read("web")["pid"] != stranger.pid

    assert stranger.poll() is None
    stranger.send_signal(signal.SIGHUP)  # the control: this is the first that it hears
    assert stranger.stdout is not None
    assert stranger.stdout.readline() == b"HUP\n"


def test_the_control_of_that(stranger: subprocess.Popen[bytes]) -> None:
    """With its own start time and boot it is the daemon: it runs, and gets what is sent."""
    registered.forge("web", **registered.of_process(stranger.pid))

    assert daemonize.Daemon.find("web").state == RUNNING
    assert cli.run("--name", "web", *QUICK).status == 75
    assert control("signal", "web", "USR1").status == 0
    assert stranger.stdout is not None
    assert stranger.stdout.readline() == b"USR1\n"


def test_a_zombie_does_not_run(servers: Family) -> None:
    """A main process that has ended, and whose parent does not care."""
    process = subprocess.Popen(["true"])
    try:
        registered.forge("web", **registered.of_process(process.pid))
        assert procs.wait_ended(process.pid)
        assert daemonize.Daemon.find("web").state == DEAD
        assert control("stop", "web").status == 0
        assert cli.run("--name", "web", *QUICK).status == 0
    finally:
        process.wait()


def test_one_that_is_suspended_runs(servers: Family) -> None:
    """SIGSTOP takes nobody's name away; and it can be stopped."""
    assert cli.run("--name", "web", *QUICK).status == 0
    daemon = daemonize.Daemon.find("web")
    daemon.signal(signal.SIGSTOP)
    procs.eventually(lambda: _is_suspended(daemon.pid))

    assert daemon.state == RUNNING
    assert cli.run("--name", "web", *QUICK).status == 75
    assert control("stop", "web").status == 0
    servers.nobody()


def _is_suspended(pid: int | None) -> None:
    process = procs.stat(pid or 0)
    assert process is not None
    assert process.state == "T"


# --- users -------------------------------------------------------------------------------------------------------------


def as_user(account: users.Account, *words: cli.Word) -> list[cli.Word]:
    """Words that run `daemonize` or `daemonctl` (the first of them) as an ordinary user."""
    modules = {"daemonize": "daemonize.cli.main", "daemonctl": "daemonize.cli.daemonctl"}
    code = f"import sys; from {modules[os.fsdecode(words[0])]} import main; main()"
    settings = [f"{name}={value}" for name, value in users.environ().items()]
    return [*users.become(account), "env", *settings, users.python(), "-c", code, *words[1:]]


def run(words: list[cli.Word], **changes: str | None) -> cli.Result:
    """To its end; changes: of the environment."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=30,
        env=cli.environ(changes),
        cwd="/",
    )
    return cli.Result(done.returncode, done.stdout, done.stderr, 0.0)


def test_one_that_has_become_another_user(servers: Family) -> None:
    """It runs; who may not signal it says who is left: 1. He may not take its name either."""
    other = subprocess.Popen([*users.become(users.Account("daemon", 1, 1, (), "/")), "sleep", "100"])
    try:
        procs.eventually(lambda: _is_of(other.pid, 1))
        with users.open_directory() as base:
            places = {"DAEMONIZE_RUNTIME_DIR": f"{base}/run", "DAEMONIZE_STATE_DIR": f"{base}/state"}
            assert run(as_user(users.NOBODY, "daemonize", "--name", "web", *QUICK), **places).status == 0
            servers.end(besides=[other.pid])
            path = f"{base}/run/web.json"
            with open(path, "rb") as file:
                fields = content.write(
                    {**_fields(file.read()), **registered.of_process(other.pid), "process": "sleep"}
                )
            with open(path, "wb") as file:
                file.write(fields)

            status = run(as_user(users.NOBODY, "daemonctl", "status", "web"), **places)
            stopped = run(as_user(users.NOBODY, "daemonctl", "stop", "-t", "100ms", "web"), **places)
            told = run(as_user(users.NOBODY, "daemonctl", "signal", "web", "HUP"), **places)
            again = run(as_user(users.NOBODY, "daemonize", "--name", "web", *QUICK), **places)
        assert (status.status, stopped.status, told.status, again.status) == (0, 1, 1, 75)
        one_line(stopped, f"sleep (pid {other.pid})", "still running")
        one_line(told, "may not be signalled by this user")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def _fields(text: bytes) -> dict[str, object]:
    import json

    fields: dict[str, object] = json.loads(text)
    del fields["version"]
    return fields


def _is_of(pid: int, uid: int) -> None:
    assert os.stat(f"/proc/{pid}").st_uid == uid
    assert procs.command_line(pid).startswith("sleep")


DEFAULT = {"DAEMONIZE_RUNTIME_DIR": None, "DAEMONIZE_STATE_DIR": None, "XDG_STATE_HOME": None}


def test_two_users(servers: Family) -> None:
    """Root and an ordinary one, where the files are by default: each has his own `web`, sees his own, stops his own."""
    with users.open_directory() as home:
        private = "for place in /run /var/log; do mount -t tmpfs -o mode=755 tmpfs $place; done"
        user = " ".join(map(_quoted, as_user(users.NOBODY, "daemonize")))
        controls = " ".join(map(_quoted, as_user(users.NOBODY, "daemonctl")))
        script = f"""
            root() {{ {_quoted(cli.COMMAND)} "$@"; }}
            control() {{ {_quoted(registered.CONTROL)} "$@"; }}
            user() {{ HOME={home} {user} "$@"; }}
            user_control() {{ HOME={home} {controls} "$@"; }}
            root --name web -r started sleep 101; echo $?
            user --name web -r started sleep 102; echo $?
            root --name web -r started sleep 101; echo $?
            user --name web -r started sleep 102; echo $?
            root --name mine -u nobody -r started sleep 103; echo $?
            control list | cut -f1,7; user_control list | cut -f1,7
            user_control stop web mine; echo $?
            control status web mine >/dev/null; echo $?
            user_control status web >/dev/null; echo $?
            stat -c '%U %a %n' /run/daemonize /run/daemonize/web.json {home}/.local/state/daemonize/run/*/web.json
            control stop web mine; echo $?
        """
        done = run([*users.in_private_mounts(private), SHELL, "-c", script], HOME=home, **DEFAULT)
    host = os.uname().nodename
    assert done.out.decode().splitlines() == [
        "0", "0", "75", "75", "0",
        "NAME\tCOMMAND", "mine\tsleep 103", "web\tsleep 101", "NAME\tCOMMAND", "web\tsleep 102",
        "4", "0", "3",
        "root 700 /run/daemonize", "root 600 /run/daemonize/web.json",
        f"nobody 600 {home}/.local/state/daemonize/run/{host}/web.json",
        "0",
    ], done.err  # fmt: skip
    servers.nobody()


def _quoted(word: cli.Word) -> str:
    import shlex

    return shlex.quote(os.fsdecode(word))


NAMELESS = users.Account("nameless", 54_329, 54_329, (), "/")


@pytest.mark.parametrize("kind", ["another's", "a symlink", "writable by all", "nothing"])
def test_no_home(kind: str, servers: Family) -> None:
    """/tmp/daemonize-UID: if another has made it, nothing of ours is put there. A given name is refused, no other is."""
    users.become(NAMELESS)
    place = f"/tmp/daemonize-{NAMELESS.uid}"
    registered.clear(place)
    with users.open_directory() as target:
        try:
            if kind == "another's":
                os.mkdir(place, 0o700)
            elif kind == "a symlink":
                os.symlink(target, place)
            elif kind == "writable by all":
                os.mkdir(place)
                os.chown(place, NAMELESS.uid, NAMELESS.uid)
                os.chmod(place, 0o1777)
            settings = {**DEFAULT, "HOME": None}
            given = run(as_user(NAMELESS, "daemonize", "--name", "web", *QUICK), **settings)
            made = run(as_user(NAMELESS, "daemonize", *QUICK), **settings)
            listed = run(as_user(NAMELESS, "daemonctl", "list", "--json"), **settings)
            assert os.listdir(target) == []
            if kind == "nothing":
                assert (given.status, made.status, listed.status) == (0, 0, 0)
                assert os.stat(place).st_mode & 0o777 == 0o700
            else:
                assert (given.status, made.status, listed.status) == (125, 0, 125)
                for done in (given, listed):
                    one_line(
                        done, place, "it must be a directory of this user's that nobody else can write to"
                    )
                assert kind == "a symlink" or os.listdir(place) == []
        finally:
            registered.clear(place)
    assert len([one for one in servers.living() if one.name == "sleep"]) == (2 if kind == "nothing" else 1)


HIDDEN = """
import ctypes, os, time
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
quiet = os.open("/dev/null", os.O_RDWR)
os.dup2(quiet, 1), os.dup2(quiet, 2)
time.sleep(60)
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["runs", "is not said to be stopped"])
def test_a_daemon_that_hidepid_hides(stopped: bool, servers: Family) -> None:
    """An ordinary user who cannot see his own daemon in /proc: it runs, and has its name; no stop of it is made up."""
    with users.open_directory() as base:
        places = {"DAEMONIZE_RUNTIME_DIR": f"{base}/run", "DAEMONIZE_STATE_DIR": f"{base}/state"}
        server = (users.python(), "-S", "-E", "-c", HIDDEN)
        start = " ".join(map(_quoted, as_user(users.NOBODY, "daemonize", "--name", "web", *server)))
        controls = " ".join(map(_quoted, as_user(users.NOBODY, "daemonctl")))
        script = f"""
            # Of a pid namespace of its own: the option belongs to the file system, which others see too.
            mount -t proc -o hidepid=2 proc /proc || exit 99
            {start}; echo $?
            {start}; echo $?
            {controls} status web >/dev/null; echo $?
        """
        if stopped:
            script += f"{controls} stop web; echo $?; pgrep -U {users.NOBODY.uid} | wc -l"
        users.in_private_mounts(":")
        done = run(["unshare", "-m", "--pid", "--fork", "--kill-child", SHELL, "-c", script], **places)
    if done.status == 99:
        pytest.skip("no such /proc here")
    assert done.out.split()[:3] == [b"0", b"75", b"0"], done.err
    assert not stopped or done.out.split()[3:] in ([b"0", b"0"], [b"1", b"1"])
    servers.end()


# --- directories -------------------------------------------------------------------------------------------------------


def _directory(kind: str, place: str) -> None:
    """Let the directory of records be of some kind."""
    if kind == "a file in the way":
        with open(os.path.dirname(place), "wb"):
            pass
        return
    os.makedirs(os.path.dirname(place))
    if kind == "a file":
        with open(place, "wb"):
            pass
    elif kind == "a symlink":
        os.mkdir(f"{place}.target", 0o700)
        os.symlink(f"{place}.target", place)
    elif kind == "a dangling symlink":
        os.symlink("/nonexistent/nothing", place)
    else:
        os.mkdir(place, 0o700)
        os.chmod(place, {"writable by the group": 0o770, "writable by all": 0o1777}.get(kind, 0o700))
        if kind == "another user's":
            os.chown(place, 1, 1)


DIRECTORIES = [
    "a file in the way", "a file", "a symlink", "a dangling symlink", "writable by the group", "writable by all",
    "another user's",
]  # fmt: skip


@pytest.mark.parametrize("kind", DIRECTORIES)
def test_a_directory_that_cannot_be_used(kind: str, tmp_path: Path, servers: Family) -> None:
    """A launch without a name goes on without a record. A given name is refused before anything runs: 125, one line."""
    if os.geteuid():
        pytest.skip("needs root")
    place = f"{tmp_path}/parent/run"
    _directory(kind, place)
    env = {"DAEMONIZE_RUNTIME_DIR": place}
    made = cli.run(*QUICK, env=env)
    given = cli.run("--name", "web", SHELL, "-c", "echo started", env=env)

    assert (made.status, made.out, made.err) == (0, b"", b"")
    assert given.status == 125
    one_line(given, place)
    assert len(servers.living()) == 1
    for words in (["list"], ["status", "web"], ["forget", "web"]):
        done = control(*words, env=env)
        assert done.status == 125, done
        one_line(done, place)
    assert not os.path.isdir(place) or os.listdir(place) == []


def test_a_launch_without_a_record_says_so_if_asked(servers: Family) -> None:
    """-v: why there is none."""
    done = cli.run("-v", *QUICK, env={"DAEMONIZE_RUNTIME_DIR": "/dev/null/none"})

    assert done.status == 0
    assert b"/dev/null/none" in done.err


# --- disks -------------------------------------------------------------------------------------------------------------


def on_a_disk(options: str, script: str, *, env: dict[str, str] | None = None) -> cli.Result:
    """Run a shell script where the directory of records is a file system of its own, with `web` in it, and `sleep`."""
    place = registered.directory()
    os.makedirs(place, mode=0o700)
    mount = f"mount -t tmpfs -o mode=700,{options} tmpfs {_quoted(place)}"
    functions = f"""
        cd {_quoted(place)}
        fill() {{ head -c 10000000 /dev/zero >filler 2>/dev/null; truncate -s -"$1" filler; }}
        named() {{ {_quoted(cli.COMMAND)} --name web "$@"; }}
        unnamed() {{ {_quoted(cli.COMMAND)} "$@"; }}
        control() {{ {_quoted(registered.CONTROL)} "$@"; }}
        state() {{ ls -A | grep -v -e filler -e lock | tr '\\n' ' '; cksum <web.json; }}
    """
    done = run([*users.in_private_mounts(mount), SHELL, "-c", functions + script], **(env or {}))
    os.rmdir(place)
    return done


def put_web() -> str:
    """A line of shell that makes the old record of `web`."""
    return f"umask 077; printf %s {_quoted(content.write(SAMPLE).decode())} >web.json"


@pytest.mark.parametrize("pages", [0, 1, 2])
def test_a_full_disk(pages: int, servers: Family) -> None:
    """Without room for a record a given name is refused before the server runs; the old record is as it was."""
    done = on_a_disk(
        "size=64k",
        f"""
        {put_web()}; named true; control list >/dev/null; fill {4096 * pages}; state
        named {SHELL} -c 'echo started; exec sleep 100 >/dev/null 2>&1'; echo $?; state
        unnamed -r started sleep 100; echo $?; ls -A | grep -c new
        """,
    )
    before, *between, after, unnamed, new = done.out.decode().splitlines()
    if pages:
        assert between == ["started", "0"]
    else:
        assert (between, after) == (["125"], before)
        assert b"cannot write" in done.err
        assert b"No space left on device" in done.err
    assert (unnamed, new) == ("0", "0")
    assert len(servers.living()) == (2 if pages else 1)


@pytest.mark.parametrize("padding", range(2700, 4200, 300))
def test_a_disk_that_is_full_in_the_end(padding: int, servers: Family) -> None:
    """Room for the first half of a record: either the whole of it is there, or the server was stopped and the old one is."""
    done = on_a_disk(
        "size=64k",
        f"""
        {put_web()}; named true; fill 4096; state
        named -r started sleep 100 {"0" * padding}; echo $?; state; rm filler; control status web | head -1
        """,
    )
    before, status, after, told = done.out.decode().splitlines()

    assert status in {"0", "125"}
    assert (after == before) == (status == "125")
    assert after.startswith("web.json ")
    assert ("running" in told) == (status == "0")
    assert len(servers.living()) == (1 if status == "0" else 0)


def test_both_ends_of_that_are_met(servers: Family) -> None:
    """The control: of two paddings the shorter has room, and the longer has none, when the server is ready already."""
    seen = set()
    for padding in range(2700, 4200, 150):
        script = f"{put_web()}; named true; fill 4096; named -v -r started sleep 100 {'0' * padding}; echo $?"
        done = on_a_disk("size=64k", script)
        seen.add((done.out.split()[-1], b"started pid" in done.err))
    assert seen >= {(b"0", True), (b"125", True)}


@pytest.mark.parametrize("inodes", range(1, 7))
def test_no_more_files(inodes: int, servers: Family) -> None:
    """As with blocks: for the lock, for the record, for nothing at all. Records that are there are read."""
    done = on_a_disk(
        f"size=1m,nr_inodes={inodes}",
        f"""
        {put_web()}; cksum <web.json; named -r started sleep 100; echo $?; cksum <web.json; ls -A | grep new
        unnamed -r started sleep 100; echo $?
        """,
    )
    lines = done.out.decode().splitlines()
    if inodes == 1:
        assert lines[-1] == "0"
        return
    before, named, after, unnamed = lines
    assert (named, unnamed) in {("0", "0"), ("125", "0")}
    assert (before == after) == (named == "125")
    assert named == ("0" if inodes >= 4 else "125")
    assert len(servers.living()) == (2 if named == "0" else 1)


def test_a_read_only_disk(servers: Family) -> None:
    """A launch without a name goes on; a given one is refused; what is there is listed."""
    done = on_a_disk(
        "size=1m",
        f"""
        {put_web()}; mount -o remount,ro,mode=700 tmpfs "$PWD"
        named -r started sleep 100; echo $?; unnamed -r started sleep 100; echo $?; control list -a | cut -f1,2
        control forget web; echo $?
        """,
    )
    assert done.out.decode().splitlines() == ["125", "0", "NAME\tSTATE", "web\tdead", "125"], done.err
    assert done.err.count(b"Read-only file system") == 2
    assert len(servers.living()) == 1


def test_a_directory_without_write_permission(servers: Family) -> None:
    """Of an ordinary user's: as on a disk that is full."""
    with users.open_directory() as base:
        os.mkdir(f"{base}/run", 0o500)
        os.chown(f"{base}/run", users.NOBODY.uid, users.NOBODY.gid)
        places = {"DAEMONIZE_RUNTIME_DIR": f"{base}/run", "DAEMONIZE_STATE_DIR": f"{base}/state"}
        given = run(as_user(users.NOBODY, "daemonize", "--name", "web", *QUICK), **places)
        made = run(as_user(users.NOBODY, "daemonize", *QUICK), **places)

    assert (given.status, made.status) == (125, 0)
    one_line(given, f"{base}/run", "Permission denied")
    assert len(servers.living()) == 1


# --- whoever looks -----------------------------------------------------------------------------------------------------


def test_a_registry_that_is_not_there_yet() -> None:
    """No directory: no daemons, nothing is made, and it is no error."""
    assert control("list").status == 0
    assert control("status", "web").status == 4
    assert daemonize.daemons() == []
    assert not os.path.exists(registered.directory())
    assert Registry().launcher("web") is None


def test_what_else_lies_there(servers: Family) -> None:
    """Files that are no records are nobody's daemons."""
    assert cli.run("--name", "web", *QUICK).status == 0
    for name in (".hidden.json", "README", "web.json~", "web.out", "\udcff\n.txt"):
        with open(f"{registered.directory()}/{name}", "wb"):
            pass
    os.mkdir(f"{registered.directory()}/more")

    assert [daemon.name for daemon in daemonize.daemons()] == ["web"]
    assert control("list", "-a").status == 0


def test_records_with_odd_names(servers: Family) -> None:
    """Whoever puts them there: they are told of in one line, and nothing of them reaches the terminal as it is."""
    for name in ("\x1b[31mred", "a\nb", "\udcff"):
        registered.put(name, b"x")
    done = control("list", "-a")

    assert done.status == 4
    assert done.err.count(b"\n") == 3
    assert re.fullmatch(r"[ -~\n]*", done.err.decode())
    with contextlib.suppress(FileNotFoundError):
        assert control("forget", "a\nb", "\x1b[31mred", "\udcff").status == 0
    assert control("list", "-a").err == b""


@pytest.mark.parametrize("others", [[], ["good"]], ids=["alone", "with another"])
def test_a_stop_of_what_nobody_knows_of(others: list[str], servers: Family) -> None:
    """4; the others are stopped all the same."""
    assert cli.run("--name", "good", *QUICK).status == 0
    assert cli.run("--name", "web", *program("repoints")).status == 0
    os.unlink(registered.path("web"))

    assert control("stop", "web", *others).status == 4
    assert len(servers.living()) == 2 - len(others)
