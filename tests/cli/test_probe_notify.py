"""`--ready notify`: what is believed of what comes in, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import daemonize
from daemonize.launcher import api
from tests.support import cli, forked, procs, users
from tests.support.programs import SHELL, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger

IGNORED = b"ignored on NOTIFY_SOCKET: "
STRANGER = IGNORED + b"a message from a stranger: "


def launch(*steps: str, options: tuple[str, ...] = ()) -> cli.Result:
    """A server that takes these steps, under the command."""
    return cli.run("-r", "notify", *options, *program("notifies", *steps))


@contextlib.contextmanager
def launching(*steps: str, options: tuple[str, ...] = ()) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The same, left running, and the address that its server has said first."""
    with cli.popen("-r", "notify", *options, *program("notifies", "address", *steps)) as wrapper:
        try:
            yield wrapper, line(wrapper)
        finally:
            wrapper.kill()


def line(wrapper: subprocess.Popen[bytes]) -> str:
    """The next line that the server has said."""
    assert wrapper.stdout
    return wrapper.stdout.readline().decode().strip()


def send(address: str, data: bytes, count: int = 1) -> None:
    """From this process, which is none of the server's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address.replace("@", "\0"))
        for _ in range(count):
            sender.send(data)


# --- ready ---------------------------------------------------------------------------------------------------------


def test_systemd_notify_in_a_script(servers: Family) -> None:
    """It has gone before anybody can ask who it was."""
    if not shutil.which("systemd-notify"):
        pytest.skip("needs systemd-notify(1)")
    script = "systemd-notify --status=loading && systemd-notify --ready && exec sleep 100"
    done = cli.run("-r", "notify", SHELL, "-c", script)

    assert (done.status, done.out, done.err) == (0, b"", b"")
    assert servers.only()


CLIENT = f"""#!{sys.executable}
import os, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.connect(os.environ["NOTIFY_SOCKET"].replace("@", chr(0)))
    manager.send(b"READY=1")
    open(os.environ["TRIGGER"]).read(1)
    socket.send_fds(manager, [b"BARRIER=1"], [1])
"""


def test_systemd_notify_is_answered(trigger: Trigger, tmp_path: Path, servers: Family) -> None:
    """It asks whether READY=1 has been read, and fails if nobody is there any more: with it, the script would."""
    client = tmp_path / "systemd-notify"
    client.write_text(CLIENT)
    client.chmod(0o755)
    script = f"TRIGGER={trigger.path} {client} && exec sleep 100"
    with cli.popen("-v", "-r", "notify", SHELL, "-c", script) as wrapper:
        assert wrapper.stderr
        assert any(b"not yet: systemd-notify has not ended" in said for said in wrapper.stderr)
        trigger.release()
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    procs.eventually(lambda: servers.running(["sleep", "100"]))


def test_systemd_notify_that_nobody_reaps(trigger: Trigger, tmp_path: Path, servers: Family) -> None:
    """It has ended all the same."""
    client = tmp_path / "systemd-notify"
    client.write_text(CLIENT)
    client.chmod(0o755)
    code = (
        "import signal, subprocess, sys; p = subprocess.Popen(sys.argv[1]); signal.alarm(100); signal.pause()"
    )
    server = [sys.executable, "-S", "-E", "-c", code, os.fspath(client)]
    with cli.popen("-v", "-r", "notify", "-E", f"TRIGGER={trigger.path}", *server) as wrapper:
        assert wrapper.stderr
        assert any(b"not yet: systemd-notify has not ended" in said for said in wrapper.stderr)
        trigger.release()
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert servers.only()


@pytest.mark.parametrize("way", ["command", "library"])
def test_our_own_ready(way: str, servers: Family) -> None:
    """A server of ours needs nothing else, whoever starts it."""
    code = "import daemonize, signal; daemonize.ready('at your service'); signal.alarm(100); signal.pause()"
    words = [sys.executable, "-c", code]
    if way == "library":
        api.launch(words, ready="notify", relay_stdout=None)
    else:
        assert cli.run("-r", "notify", *words).status == 0
    assert servers.only()


@pytest.mark.parametrize(
    "said",
    ["READY=1", "READY=1\\n", "READY=1\\nSTATUS=x", "STATUS=x\\nREADY=1", "STATUS=\\xff\\nREADY=1", "nonsense\\nREADY=1",
     "X_MINE=2\\n\\nREADY=1", "READY=1\\0", "READY=1\\nERRNO=x", "READY=1\\nMAINPID=1", "READY=1\\nSTATUS=" + "x" * 4081],
)  # fmt: skip
def test_ready(said: str, servers: Family) -> None:
    """What stands beside it takes nothing from it, wherever it stands, up to 4096 bytes."""
    assert launch(f"send={said}").status == 0
    assert servers.only()


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (said, "what has been sent to NOTIFY_SOCKET is not READY=1")
        for said in ("READY=0", "READY=", "READY=11", "READY= 1", "XREADY=1", "STATUS=READY=1", "RELOADING=1")
    ]
    + [
        (said, "nothing has been sent to NOTIFY_SOCKET")
        for said in ("", "READY", "=1", "\\0READY=1", "READY=1\\0\\nX=1", "READY=1\\nSTATUS=" + "x" * 4082)
    ],
)
def test_not_ready(said: str, problem: str, family: Family) -> None:
    """Neither another value, nor a message that is too long, or none; and why is said."""
    done = launch(f"send={said}", "barrier", "exit=7", options=("-v",))

    assert done.status == 7
    assert f"notify: not yet: {problem}".encode() in done.err
    family.nobody()


def test_reloading_first(servers: Family) -> None:
    """Haproxy begins with it."""
    done = launch("send=RELOADING=1\\nMONOTONIC_USEC=5\\nSTATUS=x", "barrier", "send=READY=1")

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("X=\\0Y", b"there is a NUL in it"),
        ("nonsense", b"there is no NAME=value in it"),
        ("X=" + "x" * 5000, b"it has more than 4096 bytes"),
        ("MAINPID=-1", b"MAINPID of no use: -1"),
        ("ERRNO=ENOENT", b"ERRNO of no use: ENOENT"),
        ("ERRNO=4096", b"ERRNO of no use: 4096"),
        ("EXIT_STATUS=256", b"EXIT_STATUS of no use: 256"),
        ("EXTEND_TIMEOUT_USEC=1s", b"EXTEND_TIMEOUT_USEC of no use: 1s"),
        ("MAINPID=\\x1b[2J", b"MAINPID of no use: \\x1b[2J"),
    ],
)
def test_what_is_ignored_is_noted_once(said: str, reason: bytes, servers: Family) -> None:
    """Under -v, however often it comes; without, nothing is said."""
    noted = launch(f"many=500:{said}", "send=READY=1", options=("-v",))
    silent = launch(f"many=500:{said}", "send=READY=1")

    assert (noted.status, silent.status, silent.err) == (0, 0, b"")
    assert noted.err.count(IGNORED) == noted.err.count(reason) == 1
    assert len(servers.living()) == 2


# --- what else it says ----------------------------------------------------------------------------------------------


def test_its_last_words_are_read(family: Family) -> None:
    """Said immediately before the end: they are in the error, fit to be shown, and in --json."""
    said = "send=STATUS=no \\x1b[1mroom \\xff\\nERRNO=28\\nEXIT_STATUS=3"
    done = launch(said, "exit=3")
    report = launch(said, "exit=3", options=("--json",)).json

    assert done.status == report["status"] == 3
    assert b"; it last said: no \\x1b[1mroom \xef\xbf\xbd; its error: No space left on device; " in done.err
    assert b"it announced exit status 3 (log" in done.err
    assert report["told"] == {"status": "no \x1b[1mroom \ufffd", "errno": 28, "exit_status": 3}
    family.nobody()


@pytest.mark.parametrize(
    ("steps", "options", "status"),
    [
        ((), ("-t", "1s"), 124),
        (("exit=0",), (), 1),
        (("exit=7",), (), 7),
    ],
)
def test_the_status_of_a_failure(
    steps: tuple[str, ...], options: tuple[str, ...], status: int, family: Family
) -> None:
    """The last one that was said; an empty one is none."""
    words = ("send=STATUS=first", "send=STATUS=loading 3 of 7")
    done = launch(*words, *steps, options=options)
    empty = launch(*words, "send=STATUS=", *steps, options=options)

    assert (done.status, empty.status) == (status, status)
    assert b"it last said: loading 3 of 7" in done.err
    assert b"it last said" not in empty.err
    family.nobody()


def test_the_status_of_an_interrupted_launch(family: Family) -> None:
    """It tells what took so long."""
    with launching("send=STATUS=migrating", "barrier", "say=said") as (wrapper, _):
        assert line(wrapper) == "said"
        wrapper.send_signal(signal.SIGTERM)
        _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 128 + signal.SIGTERM
    assert b"it last said: migrating; " in err
    family.nobody()


def test_more_time(trigger: Trigger, servers: Family) -> None:
    """The server asks for it, and has it."""
    steps = ("send=EXTEND_TIMEOUT_USEC=60000000", f"waits={trigger.path}", "send=READY=1")
    with launching(*steps, options=("-t", "400ms")) as (wrapper, _):
        assert not procs.wait_ended(wrapper.pid, 0.8)
        trigger.release()
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert servers.only()


@pytest.mark.parametrize(
    "asked", ["0", "", "-1", "soon", "1e9", "60000000 ", str((1 << 64) - 1), "9" * 30, "1"]
)
def test_no_more_time(asked: str, family: Family) -> None:
    """Not for what is no number, for ever, or less than there is."""
    done = launch(f"send=EXTEND_TIMEOUT_USEC={asked}", options=("-t", "300ms"))

    assert done.status == 124
    assert done.seconds < 5
    family.nobody()


@pytest.mark.parametrize("said", ["READY=1\\nMAINPID=CHILD", "MAINPID=CHILD\\nREADY=1"])
def test_the_main_process(said: str, tmp_path: Path, servers: Family) -> None:
    """One of the tree, wherever in the message it is named: the pid file is its."""
    done = launch("fork", f"main={said}", options=("-p", f"{tmp_path}/pid"))

    assert done.status == 0
    assert (tmp_path / "pid").read_bytes() == done.out
    assert len(servers.living()) == 2


@pytest.mark.parametrize(
    "who", ["init", "the test", "the wrapper", "the intermediate parent", "nobody", "garbage"]
)
def test_a_forged_main_process(who: str, trigger: Trigger, tmp_path: Path, servers: Family) -> None:
    """It is noted, and the server stays the main process. It is ready all the same."""
    options = ("-v", "-p", f"{tmp_path}/pid")
    wait = f"waits={trigger.path}"
    code = (
        "import os, sys; wrapper = os.stat('/proc/self') and int(open(f'/proc/{os.getppid()}/stat').read().split()[3]);"
        "pid = {'init': 1, 'the test': int(sys.argv[2]), 'the wrapper': wrapper, 'nobody': 4194305,"
        " 'the intermediate parent': os.getppid(), 'garbage': '0x1'}[sys.argv[1]];"
        "os.execv(sys.argv[3], [*sys.argv[3:], f'send=READY=1\\\\nMAINPID={pid}'])"
    )
    server = [sys.executable, "-c", code, who, str(os.getpid()), *program("notifies", "pid", wait)]
    with cli.popen("-r", "notify", *options, *server) as wrapper:
        pid = line(wrapper)
        trigger.release()
        _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert (tmp_path / "pid").read_text() == f"{pid}\n" == f"{servers.only().pid}\n"
    assert IGNORED + b"MAINPID of no use: " in err


NOTIFIES = """
import os, signal, socket, sys, threading
signal.alarm(100)
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"].replace("@", chr(0)))
def barrier():
    end, sent = os.pipe()
    socket.send_fds(manager, [b"BARRIER=1"], [sent])
    os.close(sent)
    os.read(end, 1)
"""


def test_a_thread_is_no_main_process(tmp_path: Path, servers: Family) -> None:
    """/proc answers for the number of a thread as well, but nobody can signal or wait for it."""
    code = (
        "thread = threading.Thread(target=signal.pause, daemon=True); thread.start();"
        "manager.send(b'MAINPID=%d\\nREADY=1' % thread.native_id); signal.pause()"
    )
    done = cli.run("-v", "-p", tmp_path / "pid", "-r", "notify", sys.executable, "-c", NOTIFIES + code)

    assert done.status == 0
    assert (tmp_path / "pid").read_text() == f"{servers.only().pid}\n"
    assert IGNORED + b"MAINPID of no use: " in done.err


def test_a_main_process_on_its_way_out(tmp_path: Path, servers: Family) -> None:
    """It may take long to end, but will not stay: the server itself is the main process."""
    code = (
        "print(os.getpid(), flush=True); end, started = os.pipe(); child = os.fork()\n"
        "if not child:\n"
        "    held = b'x' * (300 << 20); os.write(started, b'x'); signal.pause()\n"
        "os.read(end, 1); os.kill(child, 9)\n"
        "while not int(open(f'/proc/{child}/stat').read().rpartition(')')[2].split()[6]) & 4: pass\n"
        "manager.send(b'MAINPID=%d\\nREADY=1' % child); os.waitpid(child, 0); signal.pause()"
    )
    done = cli.run("-p", tmp_path / "pid", "-r", "notify", sys.executable, "-c", NOTIFIES + code)

    assert done.status == 0
    assert (tmp_path / "pid").read_bytes() == done.out
    assert servers.living()


def test_a_main_process_that_ends_while_the_output_is_relayed(tmp_path: Path, servers: Family) -> None:
    """The pid file and --json name the same process, one that lives."""
    ended = tmp_path / "ended"
    code = (
        "child = os.fork() or signal.pause(); print('x' * 300_000, flush=True)\n"
        "manager.send(b'MAINPID=%d\\nREADY=1' % child); barrier(); barrier()\n"
        f"os.kill(child, 9); os.waitpid(child, 0); open({str(ended)!r}, 'w').close(); signal.pause()"
    )
    options = ("--json", "-p", str(tmp_path / "pid"), "-r", "notify")
    with cli.popen(*options, sys.executable, "-c", NOTIFIES + code) as wrapper:
        procs.eventually(ended.stat)
        out, _ = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert json.loads(out)["pid"] == int((tmp_path / "pid").read_text()) == servers.only().pid


# --- whom it believes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", [None, forked.NOBODY])
def test_strangers(uid: int | None, trigger: Trigger, servers: Family) -> None:
    """Nobody from outside makes a server ready, speaks for it, or names its main process: ours or another user."""
    if uid is not None:
        forked.need_root()
    steps = (f"waits={trigger.path}", "barrier", "say=still here", f"waits={trigger.path}", "send=READY=1")
    with launching(*steps, options=("-v",)) as (wrapper, address):
        data = f"READY=1\nSTATUS=owned\nERRNO=1\nMAINPID={os.getpid()}".encode()
        with forked.holding(lambda: send(address, data), uid) as (pid, _):  # it lives while it is looked at
            trigger.release()
            assert line(wrapper) == "still here"
        assert wrapper.poll() is None
        trigger.release()
        _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert servers.only()
    assert STRANGER + b"pid %d" % pid in err
    assert b"READY=1 came from pid %d" % pid in err
    assert b"MAINPID of no use" not in err


def test_a_server_that_has_become_another_user(servers: Family) -> None:
    """By itself, as many do that root starts: what counts is that it is the server's."""
    forked.need_root()
    done = launch(f"user={forked.NOBODY}", "send=READY=1")

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


def test_why_a_process_is_not_believed_is_said(trigger: Trigger, tmp_path: Path, family: Family) -> None:
    """One that became another user by itself, and has gone: nobody can tell any more that it was the server's."""
    forked.need_root()
    out = tmp_path / "out"
    steps = (f"waits={trigger.path}", f"user={forked.NOBODY}", "child=READY=1", "say=sent", "exit=7")
    with launching(*steps, options=("-v", "-o", str(out))) as (wrapper, _):
        wrapper.send_signal(signal.SIGSTOP)
        procs.eventually(lambda: is_stopped(wrapper.pid))
        trigger.release()
        procs.eventually(lambda: has_said(out, b"sent"))
        wrapper.send_signal(signal.SIGCONT)
        _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 7
    assert b"of user nobody, who is neither root nor the server's user" in err
    family.nobody()


@pytest.mark.parametrize("stays", [True, False])
def test_a_process_that_has_gone(stays: bool, trigger: Trigger, tmp_path: Path, servers: Family) -> None:
    """A message is read when its sender has long been reaped: it is believed, as the server itself is."""
    said = "send=READY=1" if stays else "child=READY=1"
    out = tmp_path / "out"
    with launching(f"waits={trigger.path}", said, "say=sent", options=("-o", str(out))) as (wrapper, _):
        wrapper.send_signal(signal.SIGSTOP)
        procs.eventually(lambda: is_stopped(wrapper.pid))
        trigger.release()
        procs.eventually(lambda: has_said(out, b"sent"))
        wrapper.send_signal(signal.SIGCONT)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert servers.only()


def is_stopped(pid: int) -> None:
    """An AssertionError until it is."""
    process = procs.stat(pid)
    assert process
    assert process.state == "T"


def has_said(out: Path, word: bytes) -> None:
    """An AssertionError until the server has."""
    assert word in out.read_bytes().split()


@pytest.mark.parametrize("root", [(), ("--chroot", "/")])
def test_another_user_in_another_root(root: tuple[str, ...], servers: Family) -> None:
    """The address is reached from everywhere, and the user whom the server was given is believed."""
    words = users.program("notifies", "send=READY=1")
    done = cli.run("-r", "notify", "-u", "nobody", *root, *words, **as_root())

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


def as_root() -> dict[str, object]:
    """Skips where this process cannot become another user."""
    forked.need_root()
    return {"cwd": "/"}


def test_an_ordinary_user(servers: Family) -> None:
    """His own server is believed; nothing of it needs rights."""
    with users.open_directory() as directory:
        words = [*users.become(users.NOBODY), users.python(), "-m", "daemonize", "-r", "notify"]
        done = subprocess.run(
            [*words, *users.program("notifies", "send=STATUS=x", "child=READY=1")],
            env={**os.environ, **users.environ(), "DAEMONIZE_STATE_DIR": f"{directory}/state"},
            stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30, cwd="/",
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")
    assert servers.only()


# --- nobody is held up ----------------------------------------------------------------------------------------------


def test_a_barrier(servers: Family) -> None:
    """It is answered: all that was said before has been taken by then."""
    done = launch("send=STATUS=x", "barrier", "barrier", "send=READY=1")

    assert done.status == 0
    assert servers.only()


def test_descriptors_that_come_are_closed(trigger: Trigger, family: Family) -> None:
    """As many as a message can have, again and again: the wrapper has as many as before."""
    steps = ("barrier", "say=before", f"waits={trigger.path}", *["handing=253"] * 20, "barrier", "say=after")
    with launching(*steps) as (wrapper, _):
        assert line(wrapper) == "before"
        before = procs.descriptors(wrapper.pid)
        trigger.release()
        assert line(wrapper) == "after"
        assert procs.descriptors(wrapper.pid) == before
        wrapper.terminate()
        wrapper.communicate(timeout=20)

    family.nobody()


@pytest.mark.parametrize(("uid", "count"), [(None, 10_000), (forked.NOBODY, 20_000)])
def test_a_flood_from_outside(uid: int | None, count: int, trigger: Trigger, servers: Family) -> None:
    """Thousands of messages of a stranger, ours or another user: the server gets through, and -v has one line of it."""
    if uid is not None:
        forked.need_root()
    steps = (f"waits={trigger.path}", "send=READY=1")
    with launching(*steps, options=("-v",)) as (wrapper, address):
        data = b"READY=1\nSTATUS=flood"
        with forked.holding(lambda: send(address, data, count), uid):  # one that had gone would be believed
            trigger.release()
            _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert err.count(STRANGER) == 1
    assert servers.only()


def test_a_flood_keeps_nobody_from_the_timeout(family: Family) -> None:
    """Nor from anything else that the loop has to do."""
    with launching("many=100000000:STATUS=flood", options=("-t", "500ms")) as (wrapper, _):
        _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 124
    assert b"it last said: flood" in err
    family.nobody()


def test_in_the_foreground_it_is_read_on(trigger: Trigger, family: Family) -> None:
    """What comes after ready is for nobody, and holds nobody up."""
    steps = (
        "send=READY=1",
        f"waits={trigger.path}",
        "many=1000:WATCHDOG=1",
        "handing=3",
        "barrier",
        "say=done",
        "exit=0",
    )
    with launching(*steps, options=("-f",)) as (wrapper, _):
        trigger.release()
        assert line(wrapper) == "done"
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    family.nobody()


def test_afterwards_nobody_listens(trigger: Trigger, servers: Family) -> None:
    """Also where a drain is left: a server that goes on sending must not wait for ever. It gets an error, at once."""
    with launching("send=READY=1", options=("-r", "streams", "-t", "300ms", "--on-timeout=leave")) as (
        wrapper,
        address,
    ):
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 124
    assert len(servers.living()) == 2  # the server, and the drain of the pipes that it holds
    with pytest.raises(ConnectionRefusedError):
        send(address, b"STATUS=x")


# --- usage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [("-E", "NOTIFY_SOCKET=/run/x"), ("-r", "fdvar:NOTIFY_SOCKET")])
def test_the_variable_says_one_thing(more: tuple[str, ...], family: Family) -> None:
    """Who gives the server another address would wait for ever."""
    done = cli.run("-r", "notify", *more, "true")

    assert done.status == 2
    assert b"the server is to find something else in NOTIFY_SOCKET" in done.err
    family.nobody()


def test_the_errors_of_the_library_have_the_facts(family: Family) -> None:
    """`told`, as --json has it."""
    with pytest.raises(daemonize.Exited) as caught:
        api.launch(program("notifies", "send=ERRNO=2", "exit=9"), ready="notify", relay_stdout=None)

    assert caught.value.told == {"errno": 2}
    family.nobody()
