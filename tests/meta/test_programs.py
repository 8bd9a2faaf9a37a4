"""The programs of the tests do what their docstrings say, seen without `daemonize`: a wrong one would prove nothing."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.programs.writes_much import content
from tests.support import ports, procs
from tests.support.programs import DIRECTORY, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NULL = os.devnull


class Started:
    """A program whose streams are pipes that were read to their end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.process = process
        # To the end of file of one and then of the other: no program here writes more than a pipe holds.
        assert process.stdout
        assert process.stderr
        self.out, self.err = process.stdout.read(), process.stderr.read()

    @property
    def streams(self) -> tuple[str | None, str | None]:
        """What 1 and 2 of the program point at now."""
        found = procs.descriptors(self.pid)
        return found.get(1), found.get(2)


@contextlib.contextmanager
def started(name: str, *args: str | int, **options: object) -> Iterator[Started]:
    """Run a program until both of its streams are at their end; it is killed at the end of the block if need be."""
    with subprocess.Popen(
        program(name, *args),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    ) as process:
        try:
            yield Started(process)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("words", "out", "err", "streams"),
    [
        (["closes_streams", "here"], b"here\n", b"", (None, None)),
        (["repoints", "here"], b"here\n", b"", (NULL, NULL)),
        (["warns_then_ready", "careful"], b"", b"careful\n", (NULL, NULL)),
        (["ignores_term"], b"", b"", (NULL, NULL)),
        (["leader_exits"], b"", b"", (NULL, NULL)),
        (["leader_exits", "closes"], b"", b"", (None, None)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_ready_and_alive(
    words: list[str], out: bytes, err: bytes, streams: tuple[str | None, str | None]
) -> None:
    """They let go of their streams and live on."""
    with started(*words) as server:
        # The leader of leader_exits is a zombie; its other task is the one that has descriptors.
        task = max(int(name) for name in os.listdir(f"/proc/{server.pid}/task"))
        found = {
            int(fd): os.readlink(f"/proc/{server.pid}/task/{task}/fd/{fd}")
            for fd in os.listdir(f"/proc/{server.pid}/task/{task}/fd")
        }
        alive = not procs.exiting(server.pid)

    assert (server.out, server.err) == (out, err)
    assert (found.get(1), found.get(2)) == streams
    assert alive


@pytest.mark.parametrize(
    ("words", "err", "status"),
    [
        (["crashes_early", 7, "boom"], b"boom\n", 7),
        (["dies_silently"], b"", 3),
        (["dies_silently", 255], b"", 255),
        (["dies_by_signal", 6, "ouch"], b"ouch\n", -6),
        (["dies_by_signal", 9], b"", -9),
        (["dies_by_signal", 1], b"", -1),
        (["threads_die", 11], b"", 11),
        (["threads_die", 11, "closes"], b"", 11),
        (["leader_exits", "dies=8"], b"", 8),
        (["closes_then_dies", 1, 9], b"", 9),
    ],
    ids=str,
)
def test_dies(words: list[str | int], err: bytes, status: int) -> None:
    """They end as they are told, with the words they are told."""
    name, *args = words
    with started(str(name), *args) as server:
        ended = server.process.wait(10)

    assert (server.out, server.err, ended) == (b"", err, status)


def test_leader_exits_shows_a_zombie_that_lives() -> None:
    """The trap that it sets: state Z, and PF_EXITING, for a process that serves."""
    with started("leader_exits") as server:
        leader = procs.stat(server.pid)
        exiting = procs.exiting(server.pid)

    assert leader
    assert leader.ended
    assert leader.flags & procs.PF_EXITING
    assert not exiting


def test_closes_then_dies_is_alive_in_between() -> None:
    """At the end of file it lives, for as long as it was told."""
    began = time.monotonic()
    with started("closes_then_dies", 100, 9) as server:
        at_end_of_file = procs.exiting(server.pid)
        server.process.wait(10)

    assert not at_end_of_file
    assert time.monotonic() - began >= 0.1


def test_ignores_term() -> None:
    """SIGTERM changes nothing for it."""
    with started("ignores_term") as server:
        server.process.terminate()
        ignored = int(procs.status(server.pid)["SigIgn"], 16)
        ended = procs.wait_ended(server.pid, timeout=0.05)

    assert ignored >> 14 & 1
    assert not ended


@pytest.mark.parametrize("session", [[], ["session"]])
def test_leaves_grandchild(session: list[str]) -> None:
    """Its descendant holds the pipe after it has gone with its status."""
    with subprocess.Popen(program("leaves_grandchild", 4, *session), stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        grandchild = int(parent.stdout.readline().split()[1])
        status = parent.wait(10)
        held = procs.descriptors(grandchild)[1]
        leads = os.getsid(grandchild) == grandchild
        procs.stop(grandchild)

    assert status == 4
    assert held.startswith("pipe:")
    assert leads == bool(session)


@pytest.mark.parametrize("last", [[], ["last"]])
@pytest.mark.parametrize("holds", [[], ["holds"]])
def test_self_daemonizes(last: list[str], holds: list[str], tmp_path: Path) -> None:
    """The daemon leaves the session; `last`: its first parent waits for it; `holds`: it keeps the pipe."""
    with (
        Trigger(tmp_path) as trigger,
        subprocess.Popen(
            program("self_daemonizes", *last, *holds, trigger.arg), stdout=subprocess.PIPE
        ) as parent,
    ):
        assert parent.stdout
        waits = not procs.wait_ended(parent.pid, timeout=0.1 if last else 10)
        trigger.release()
        daemon = int(parent.stdout.readline().split()[1])
        status = parent.wait(10)
        if not holds:
            parent.stdout.read()
        target = procs.descriptors(daemon)[1]
        session = os.getsid(daemon)
        procs.stop(daemon)

    assert waits == bool(last)
    assert status == 0
    assert target.startswith("pipe:") == bool(holds)
    assert session not in (os.getsid(0), daemon)


def test_self_daemonizes_and_fails() -> None:
    """With `last`, the status of the daemon is the status of its first parent."""
    with started("self_daemonizes", "last", "fails=5") as server:
        status = server.process.wait(10)

    assert (server.err, status) == (b"cannot start\n", 5)


def test_writes_much() -> None:
    """Both streams carry what `content` yields, and differ."""
    size = 30_000
    with started("writes_much", size) as server:
        pass

    assert server.out == b"".join(content(1, size))
    assert server.err == b"".join(content(2, size))
    assert server.out != server.err


def test_tcp_echo() -> None:
    """It listens when it says so."""
    with started("tcp_echo") as server:
        port = int(server.out.split()[-1])
        with ports.connected(port) as connection:
            connection.sendall(b"hello")
            answer = connection.recv(100)

    assert answer == b"hello"


def test_report_self(tmp_path: Path) -> None:
    """What it says of itself is what /proc says of it."""
    with started("report_self", "a b", cwd=tmp_path, env={"ONLY": "this"}) as server:
        report = json.loads(server.out)
        process = procs.stat(server.pid)

    assert process
    assert [report[name] for name in ("pid", "ppid", "sid", "pgid")] == [
        server.pid,
        os.getpid(),
        process.sid,
        process.pgid,
    ]
    assert report["cwd"] == str(tmp_path)
    assert report["argv"] == ["a b"]
    assert {**report["environ"], "LC_CTYPE": None} == {"ONLY": "this", "LC_CTYPE": None}
    assert report["descriptors"].keys() == {"0", "1", "2"}
    assert report["stdin"] == NULL
    assert report["limits"]["Max open files"][0].isdigit()
    assert set(report["signals"]) == {"blocked", "ignored", "caught"}
    assert report["tty"] == 0
    assert report["uids"] == [str(os.getuid())] * 4
    assert report["gids"] == [str(os.getgid())] * 4
    assert report["capabilities"]["CapEff"] == procs.status(os.getpid())["CapEff"]
    assert report["cmdline"] == program("report_self", "a b")
    assert {name: stream["target"] for name, stream in report["streams"].items()} == {
        name: report["descriptors"][number]
        for number, name in (("0", "stdin"), ("1", "stdout"), ("2", "stderr"))
    }


def test_report_self_into_a_file(tmp_path: Path) -> None:
    """The streams get a word each, the report goes into the file."""
    path = tmp_path / "report"
    with started("report_self", f"into={path}") as server:
        report = json.loads(path.read_text())

    assert (server.out, server.err) == (b"out\n", b"err\n")
    assert report["pid"] == server.pid
    assert report["descriptors"].keys() == {"0", "1", "2"}


def test_report_signals() -> None:
    """What was ignored when it was started is shown as ignored."""
    with started("report_signals.sh", restore_signals=False) as server:
        (ignored,) = [line.split()[1] for line in server.out.splitlines() if line.startswith(b"SigIgn:")]

    # Python ignores SIGPIPE and SIGXFSZ, and was told not to restore them.
    assert int(ignored, 16) & ~procs.GLIBC_SIGNALS == 1 << 12 | 1 << 24


def test_a_trigger_holds_a_program_back(tmp_path: Path) -> None:
    """Nothing is said before the release, and all of it after."""
    with (
        Trigger(tmp_path) as trigger,
        subprocess.Popen(
            program("repoints", "now", trigger.arg), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as server,
    ):
        assert server.stdout
        early = procs.readable(server.stdout.fileno(), timeout=0.1)
        trigger.release()
        said = server.stdout.read()
        server.kill()

    assert not early
    assert said == b"now\n"


def test_a_closed_trigger_holds_nobody_back(tmp_path: Path) -> None:
    """When the test is gone, the programs go on and end."""
    with Trigger(tmp_path) as trigger:
        pass
    with started("repoints", "now", trigger.arg) as server:
        assert server.out == b"now\n"


def _hopper() -> procs.Process:
    """Between two hops /proc may show neither."""
    found = procs.carrying("HOPS")
    assert found
    return found[0]


def test_hops() -> None:
    """The process that was started ends by itself, and what it left goes on under other pids."""
    with subprocess.Popen(
        program("hops", 5), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={"HOPS": "1"}
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"hopping\n"
        process.wait(10)
        heir = procs.eventually(_hopper)
        for _ in range(100):
            for found in procs.carrying("HOPS"):
                procs.stop(found.pid)
            if procs.readable(process.stdout.fileno(), 0):
                break  # nobody holds its pipe any more
        assert process.stdout.read() == b""
    assert heir.pid != process.pid


def test_meets_spec(tmp_path: Path) -> None:
    """It does what a spec waits for, and not before it is let; or it ends as it is told."""
    path = tmp_path / "file"
    with Trigger(tmp_path) as trigger:
        command = program("meets_spec", f"file:{path}", f"waits={trigger.path}")
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == b"waiting\n"
            assert not path.exists()
            trigger.release()
            procs.eventually(path.stat)
            process.kill()
    done = subprocess.run(
        program("meets_spec", "log:never", "says=boom", "dies=7"), capture_output=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (7, b"waiting\n", b"boom\n")


def test_notifies(tmp_path: Path) -> None:
    """Its messages come as they are written, each by itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.fspath(tmp_path / "manager"))
        command = program("notifies", r"send=A=1\nB=2", "child=C=3", "many=2:D", "exit=4")
        environment = {"NOTIFY_SOCKET": os.fspath(tmp_path / "manager")}
        done = subprocess.run(command, env=environment, check=False)
        said = [manager.recv(100) for _ in range(4)]

    assert (done.returncode, said) == (4, [b"A=1\nB=2", b"C=3", b"D", b"D"])


def test_answers() -> None:
    """One status after the other, the last for ever."""
    port = ports.free_port()
    with subprocess.Popen(program("answers", port, "statuses=503,200"), stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"waiting\n"
        assert process.stdout.readline() == b"listening\n"
        found = [ports.get(port).split(b"\r\n")[0].split()[1] for _ in range(3)]
        process.kill()

    assert found == [b"503", b"200", b"200"]


def test_connects() -> None:
    """Whoever is refused, answered with something else, or answered, is counted as such; it ends when it is let."""
    port = ports.free_port()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        program("connects", port, 2, 20, ""), stdin=pipe, stdout=pipe, bufsize=0
    ) as clients:
        assert clients.stdout
        assert clients.stdout.readline() == b"refused\n"
        with subprocess.Popen(
            program("answers", port, "statuses=503,200"), stdout=subprocess.DEVNULL
        ) as server:
            out, _ = clients.communicate(timeout=20)
            server.kill()
    counts = json.loads(out)

    assert counts["refused"] > 0
    assert counts["failed"] == 1
    assert counts["answered"] >= 20


def test_connects_before_there_is_an_answer() -> None:
    """It says so when as many are connected as are to be, and asks on; who hangs up without a word has not answered."""
    with socket.create_server((ports.HOST, 0)) as listener:
        pipe = subprocess.PIPE
        command = program("connects", listener.getsockname()[1], 2, 1, "hello")
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as clients:
            assert clients.stdout
            assert clients.stdout.readline() == b"connected\n"
            for answer in (b"", b"HTTP/1.0 200 OK\r\n\r\nno", b"HTTP/1.0 200 OK\r\n\r\nhello"):
                client, _ = listener.accept()
                with client:
                    client.recv(1000)
                    client.sendall(answer)
            out, _ = clients.communicate(timeout=20)

    counts = json.loads(out)
    assert (counts["refused"], counts["failed"], counts["answered"]) == (0, 2, 1)


def test_steps(tmp_path: Path) -> None:
    """One after the other: words, numbers, the streams named for it, a status."""
    logs = {f"DAEMONIZE_STD{stream}": str(tmp_path / stream) for stream in ("OUT", "ERR")}
    steps = ["out:a", "err:b", "part:c", "go-on", "count:8-11", "err:d", "exit:5", "out:never"]
    with started("steps", *steps, env={**os.environ, **logs}) as program_:
        assert (program_.out, program_.err) == (b"a\nc", b"b\n")
        assert program_.process.wait() == 5

    assert (tmp_path / "OUT").read_bytes() == b"8\n9\n10\n"
    assert (tmp_path / "ERR").read_bytes() == b"d\n"


def test_every_program_is_tried() -> None:
    """No program without a test above."""
    with open(__file__) as file:
        text = file.read()
    names = {name.removesuffix(".py") for name in os.listdir(DIRECTORY) if not name.startswith("_")}

    assert [name for name in sorted(names) if f'"{name}"' not in text] == []
