"""--log-rotate and --timestamps: the drain between a server and its logs, for as long as the server runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import daemonize
from daemonize.launcher import lifelong
from daemonize.launcher.outputs import Targets
from daemonize.launcher.ready import Ready
from daemonize.launcher.request import Request
from daemonize.launcher.wrapper import Wrapper
from daemonize.logs import stamps
from daemonize.posix import identity
from tests.support import cli, ports, procs, users
from tests.support.launches import held_at
from tests.support.losses import check_counted
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family

STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ")
BOTH = ("--log-rotate", "64K:99", "--timestamps")


def numbers(first: int, last: int) -> bytes:
    """What `count:FIRST-LAST` says."""
    return b"".join(b"%d\n" % number for number in range(first, last))


def rotated(path: str | Path) -> list[bytes]:
    """The content of a log and of its rotated ones, oldest first."""
    directory, name = os.path.split(path)
    found = [
        int(other[len(name) + 1 :])
        for other in os.listdir(directory)
        if re.fullmatch(re.escape(name) + r"\.\d+", other)
    ]
    return [read(f"{path}.{number}") for number in sorted(found, reverse=True)] + [read(path)]


def read(path: str | Path) -> bytes:
    """A file."""
    with open(path, "rb") as file:
        return file.read()


def fifos() -> list[str]:
    """Those in the state directory."""
    state = os.environ["DAEMONIZE_STATE_DIR"]
    return (
        [name for name in os.listdir(state) if stat.S_ISFIFO(os.lstat(f"{state}/{name}").st_mode)]
        if os.path.exists(state)
        else []
    )


def has_child(pid: int) -> None:
    """Ready is said before that."""
    assert procs.children(pid)


def has_said(log: str, words: bytes) -> None:
    """A server that has gone on in its log is ready before it says anything there."""
    assert words in without_stamps(read(log))


def drain_ended(report: dict[str, Any]) -> None:
    """The drain has gone by itself, and its fifos with it; so has the server, which lets go of them a moment before."""
    assert report["pid"] is None or procs.wait_ended(report["pid"])
    assert report["drain"] is None or procs.wait_ended(report["drain"])
    assert fifos() == []


def without_stamps(text: bytes) -> bytes:
    """Each line has one at its beginning."""
    lines = text.splitlines(keepends=True)
    assert all(STAMP.match(line) for line in lines)
    assert [line[: stamps.LENGTH] for line in lines] == sorted(line[: stamps.LENGTH] for line in lines)
    return b"".join(line[stamps.LENGTH :] for line in lines)


# --- every line ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [("--log-rotate", "64K:99"), ("--timestamps",), BOTH], ids=" ".join)
@pytest.mark.parametrize("way", ["own log", "-o", "streams", "streams -o"])
def test_every_line_once_in_order(way: str, options: tuple[str, ...], tmp_path: Path, family: Family) -> None:
    """From the first word to the last, over rotated files, in both modes; what is said before ready reaches the caller."""
    is_streams = way.startswith("streams")
    spec = ["-r", "streams"] if is_streams else ["-r", f"exec:test -e {tmp_path}/ready"]
    named = ["-o", tmp_path / "log"] if way.endswith("-o") else []
    with Trigger(tmp_path) as trigger, Trigger(tmp_path, "begun") as begun:
        steps = [
            "count:0-2000",
            *(["go-on"] if is_streams else ["tell:" + begun.path]),
            trigger.arg,
            "count:2000-60000",
            "part:end",
        ]
        with cli.popen("--json", *spec, *named, *options, *program("steps", *steps)) as process:
            if not is_streams:
                assert os.read(begun._fd, 1)
                (tmp_path / "ready").touch()
            out, err = process.communicate(timeout=20)
        report = cli.Result(process.returncode, out, err, 0).json
        assert report["outcome"] == "ready", report
        trigger.release()
        drain_ended(report)
    family.nobody()
    files = rotated(report["files"]["stdout"])
    text = b"".join(files)

    assert err == numbers(0, 2000)
    assert (without_stamps(text) if "--timestamps" in options else text) == numbers(
        2000 if is_streams else 0, 60000
    ) + b"end"
    if "--log-rotate" in options:
        assert len(files) > 3
        assert all(file.endswith(b"\n") and len(file) <= 65536 + 40 for file in files[:-1])
    else:
        assert len(files) == 1
    assert named == [] or report["files"]["stdout"] == str(tmp_path / "log")
    assert {
        stat.S_IMODE(os.stat(entry).st_mode) for entry in os.scandir(os.environ["DAEMONIZE_STATE_DIR"])
    } <= {0o600}


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_so_many_are_kept(keep: int, tmp_path: Path, family: Family) -> None:
    """KEEP old ones; the newest lines are in them."""
    log = tmp_path / "log"
    report = cli.run(
        "--json", "--log-rotate", f"4K:{keep}", "-o", log, *program("steps", "count:0-20000")
    ).json
    drain_ended(report)
    files = rotated(log)

    assert len(files) == keep + 1
    assert numbers(0, 20000).endswith(b"".join(files))


def test_both_streams_in_one_file_keep_their_order(tmp_path: Path, family: Family) -> None:
    """-o equal to -e: one pipe, one writer, one log; relayed to stdout, as without a drain."""
    steps = [word for number in range(200) for word in (f"out:o{number}", f"err:e{number}")]
    log = tmp_path / "log"
    done = cli.run("-r", "exit", "--log-rotate", "1K:99", "-o", log, "-e", log, *program("steps", *steps))

    assert done.status == 1  # it left nothing behind
    assert done.out == b"".join(b"o%d\ne%d\n" % (number, number) for number in range(200))
    assert b"".join(rotated(log)) == done.out
    family.nobody()


def test_both_streams_in_one_file_after_ready(tmp_path: Path, trigger: Trigger, family: Family) -> None:
    """The same with `streams`: one fifo for both."""
    log = tmp_path / "log"
    steps = [
        "go-on",
        trigger.arg,
        *(word for number in range(50) for word in (f"out:o{number}", f"err:e{number}")),
    ]
    report = cli.run(
        "--json", "-r", "streams", "--timestamps", "-o", log, "-e", log, *program("steps", *steps)
    ).json
    assert len(fifos()) == 1
    trigger.release()
    drain_ended(report)

    assert without_stamps(read(log)) == b"".join(b"o%d\ne%d\n" % (number, number) for number in range(50))


def test_ready_goes_on_in_the_fifo(tmp_path: Path, trigger: Trigger, family: Family) -> None:
    """daemonize.ready() takes the fifos for its logs; streams apart."""
    code = (
        "import os, sys, daemonize; print('starting'); daemonize.ready(); print('out');"
        f"print('err', file=sys.stderr); os.read(os.open({trigger.path!r}, os.O_RDONLY), 1); print('bye')"
    )
    done = cli.run("--json", *BOTH, sys.executable, "-c", code)
    assert (done.status, done.err) == (0, b"starting\n")
    assert len(fifos()) == 2
    trigger.release()
    drain_ended(done.json)

    assert without_stamps(read(done.json["files"]["stdout"])) == b"out\nbye\n"
    assert without_stamps(read(done.json["files"]["stderr"])) == b"err\n"
    family.nobody()


def test_a_script_that_opens_its_log_for_every_word(trigger: Trigger, family: Family) -> None:
    """`echo >>"$DAEMONIZE_STDOUT"`, again and again: the fifo has no end before the server has."""
    script = f"""
        exec >/dev/null 2>&1; read x <{trigger.path}
        for i in 1 2 3 4 5 6 7 8 9; do echo $i >>"$DAEMONIZE_STDOUT"; done
    """
    report = cli.run("--json", *BOTH, SHELL, "-c", script).json
    trigger.close()
    drain_ended(report)

    assert without_stamps(read(report["files"]["stdout"])) == b"".join(b"%d\n" % i for i in range(1, 10))
    assert read(report["files"]["stderr"]) == b""


def test_a_server_that_opens_no_log(trigger: Trigger, family: Family) -> None:
    """A fifo that nobody ever opens ends with the main process."""
    report = cli.run("--json", *BOTH, *program("repoints", "hello")).json
    assert procs.alive(report["drain"])
    procs.stop(report["pid"])
    drain_ended(report)
    family.nobody()


def test_http_server(tmp_path: Path, family: Family) -> None:
    """A server that knows nothing of us: its requests are in its log, with the time."""
    port = ports.free_port()
    words = [sys.executable, "-u", "-m", "http.server", "--bind", ports.HOST, str(port)]
    report = cli.run("--json", "-r", f"port:{port}", *BOTH, *words, cwd=tmp_path).json
    for _ in range(5):
        ports.get(port)
    procs.stop(report["pid"])
    drain_ended(report)

    assert without_stamps(read(report["files"]["stderr"])).count(b'"GET / HTTP/') == 5
    family.nobody()


@pytest.mark.parametrize("rotate", ["64K:99", (65536, 99)])
def test_the_function(rotate: Any, tmp_path: Path, family: Family) -> None:
    """launch(): `drain` is its pid; it is neither our child nor does it outlive the server, whoever stops that."""
    with Trigger(tmp_path) as trigger:
        command = program("steps", "out:hello", "go-on", "count:0-30000", "tell:" + trigger.path, "serve")
        daemon = daemonize.launch(
            command, log_rotate=rotate, timestamps=True, relay_stdout=None, relay_stderr=None
        )
        with daemon:
            assert daemon.drain
            drain = procs.stat(daemon.drain)
            assert drain
            assert drain.ppid != os.getpid()
            assert os.read(trigger._fd, 1)
    assert procs.wait_ended(drain.pid, start=drain.start)
    assert without_stamps(b"".join(rotated(daemon.stdout))) == numbers(0, 30000)
    assert fifos() == []
    family.nobody()


def test_the_function_refuses_what_is_of_no_use() -> None:
    """UsageError with the words of the command line."""
    for wrong in ("10X", 5, (0, 5), ("1M", 5)):
        with pytest.raises(daemonize.UsageError):
            daemonize.launch(["true"], log_rotate=wrong)  # type: ignore[arg-type]


# --- who is who ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["files", "streams"])
def test_processes_and_descriptors(mode: str, tmp_path: Path, servers: Family) -> None:
    """Drain and server are apart in every respect, and each holds exactly what it is there for."""
    steps = ["go-on", "serve"] if mode == "streams" else ["serve"]
    spec = ["-r", "streams"] if mode == "streams" else ["-r", "alive:10ms"]
    done = cli.run("--json", *spec, "--log-rotate", "1M", *program("steps", *steps))
    report = done.json
    server, drain = procs.stat(report["pid"]), procs.stat(report["drain"])
    assert server
    assert drain
    assert {process.pid for process in servers.living()} == {server.pid, drain.pid}
    assert drain.ppid == server.ppid
    assert server.ppid != drain.pid
    assert drain.sid not in {server.sid, os.getsid(0)}
    assert drain.sid != drain.pid  # it cannot come to a terminal
    assert os.readlink(f"/proc/{drain.pid}/cwd") == "/"

    out, err = report["files"]["stdout"], report["files"]["stderr"]
    theirs = procs.descriptors(server.pid)
    ours = procs.descriptors(drain.pid)
    assert [ours.pop(number) for number in range(3)] == ["/dev/null"] * 3
    held = sorted(ours.values())  # the pipes of `streams` have come to their end
    place = os.path.dirname(out)
    if mode == "streams":
        assert theirs == {0: "/dev/null", 1: out + ".fifo", 2: err + ".fifo"}
        expected = [out, err, place, place, *[out + ".fifo"] * 2, *[err + ".fifo"] * 2, "anon_inode:[pidfd]"]
    else:
        pipes = [theirs[1], theirs[2]]
        assert all(pipe.startswith("pipe:") for pipe in pipes)
        assert theirs == {0: "/dev/null", 1: pipes[0], 2: pipes[1]}
        expected = [out, err, place, place, *pipes]
    assert held == sorted(expected)


@pytest.mark.parametrize("mode", ["files", "streams"])
def test_a_daemon_of_a_name_is_started_again(mode: str, family: Family) -> None:
    """With the same options, into the same logs; the drain before has written its last words by then."""
    spec, steps = (("-r", "streams"), ["go-on"]) if mode == "streams" else (("-r", "log:hello"), [])
    words = program("steps", *steps, "out:hello", "serve")
    report = cli.run("--json", "--name", "web", *spec, "--log-rotate", "1M:3", "--timestamps", *words).json
    drains = [report["drain"]]
    for number in range(1, 4):
        procs.eventually(lambda number=number: has_said(report["files"]["stdout"], b"hello\n" * number))  # type: ignore[misc]
        daemon = daemonize.Daemon.find("web").restart()
        assert daemon.drain
        drains.append(daemon.drain)
    assert daemon.record.settings["log_rotate"] == [1 << 20, 3]
    procs.eventually(lambda: has_said(report["files"]["stdout"], b"hello\n" * 4))
    daemon.stop()
    family.nobody()

    assert len(set(drains)) == 4
    assert daemon.stdout == report["files"]["stdout"]
    assert without_stamps(read(daemon.stdout)) == b"hello\n" * 4
    assert fifos() == []


def test_an_earlier_drain_that_still_has_an_orphan(trigger: Trigger, servers: Family) -> None:
    """A name that was given is the new one's: it has fifos of its own, and both write to the log."""
    steps = ["go-on", "fork", trigger.arg, "out:orphan"]
    first = cli.run("--json", "--name", "web", "--timestamps", *program("steps", *steps)).json
    procs.eventually(lambda: has_child(first["pid"]))
    procs.stop(first["pid"], signal.SIGKILL)
    assert procs.alive(first["drain"])
    second = cli.run(
        "--json", "--name", "web", "--timestamps", *program("steps", "go-on", "out:new", "serve")
    ).json
    trigger.release()
    assert procs.wait_ended(first["drain"])
    assert len(fifos()) == 2
    procs.eventually(lambda: has_said(second["files"]["stdout"], b"new\n"))
    procs.stop(second["pid"])
    drain_ended(second)

    assert second["files"] == first["files"]
    assert sorted(line[stamps.LENGTH :] for line in read(second["files"]["stdout"]).splitlines()) == [
        b"new",
        b"orphan",
    ]


def test_the_options_tell_of_it(servers: Family) -> None:
    """-v says its pid."""
    done = cli.run("-v", "--timestamps", *program("repoints"))

    assert b"daemonize: the drain (pid " in done.err
    assert len(servers.living()) == 2


def test_two_of_one_name(tmp_path: Path, family: Family) -> None:
    """Each has logs, fifos and a drain of its own."""
    with Trigger(tmp_path) as trigger:
        reports = []
        for number in range(2):
            steps = ["go-on", trigger.arg, f"out:{number}"]
            reports.append(cli.run("--json", "--timestamps", *program("steps", *steps)).json)
        assert len(fifos()) == 4
        trigger.close()
        for report in reports:
            assert procs.wait_ended(report["drain"])
    assert reports[1]["name"] == reports[0]["name"] + "-2"
    assert [without_stamps(read(report["files"]["stdout"])) for report in reports] == [b"0\n", b"1\n"]
    assert fifos() == []


def test_two_of_one_name_into_files_of_their_own(tmp_path: Path, trigger: Trigger, family: Family) -> None:
    """With -o and -e neither has a log by which its name could be seen: the fifos tell them apart."""
    reports = []
    for number in range(2):
        named = ["-r", "streams", "-o", tmp_path / f"o{number}", "-e", tmp_path / f"e{number}"]
        steps = ["go-on", trigger.arg, f"out:{number}"]
        reports.append(cli.run("--json", *named, "--timestamps", *program("steps", *steps)).json)
    assert len(fifos()) == 4
    trigger.close()
    for report in reports:
        assert procs.wait_ended(report["drain"])
    assert [without_stamps(read(tmp_path / f"o{number}")) for number in range(2)] == [b"0\n", b"1\n"]


@pytest.mark.parametrize("mode", ["files", "streams", "-o"])
def test_as_another_user(mode: str, family: Family) -> None:
    """-u nobody: he can open the fifo, and what rotates stays his."""
    if os.geteuid():
        pytest.skip("needs root to become another user")
    with users.open_directory() as base, Trigger(base) as trigger:
        os.chmod(trigger.path, 0o666)
        steps = ["out:first", *(["go-on"] if mode == "streams" else []), trigger.arg, "count:0-30000"]
        spec = ["-r", "streams"] if mode == "streams" else ["-r", "alive:200ms"]
        named = ["-o", f"{base}/log"] if mode == "-o" else []
        env = {"DAEMONIZE_STATE_DIR": f"{base}/state"}
        words = [
            "--json",
            "-u",
            "nobody",
            *spec,
            *named,
            "--log-rotate",
            "16K:99",
            *users.program("steps", *steps),
        ]
        report = cli.run(*words, env=env).json
        assert procs.status(report["pid"])["Uid"].split() == ["65534"] * 4
        trigger.release()
        assert procs.wait_ended(report["drain"])
        log = report["files"]["stdout"]
        files = rotated(log)
        owners = {
            os.stat(entry).st_uid
            for entry in os.scandir(os.path.dirname(log))
            if entry.name.startswith(os.path.basename(log))
        }

    assert b"".join(files) == (b"" if mode == "streams" else b"first\n") + numbers(0, 30000)
    assert len(files) > 5
    assert owners == {65534}


def test_a_caller_with_closed_streams(family: Family) -> None:
    """Nothing of the drain's lands on 0, 1 or 2 of anybody."""
    words = cli.command("--timestamps", *program("steps", "out:hello", "go-on", "out:logged"))
    subprocess.run([SHELL, "-c", 'exec "$@" <&- >&- 2>&-', SHELL, *words], check=False, timeout=20)

    def logged() -> None:
        (log,) = [
            entry.path
            for entry in os.scandir(os.environ["DAEMONIZE_STATE_DIR"])
            if entry.name.endswith(".out")
        ]
        assert without_stamps(read(log)) == b"logged\n"
        family.nobody()

    procs.eventually(logged)


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [("--log-rotate", "1M"), ("--timestamps",)], ids=" ".join)
def test_a_file_that_is_none(option: tuple[str, ...], tmp_path: Path, family: Family) -> None:
    """A fifo, a terminal, a device cannot be rotated or stamped: said before anything is started."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path in (str(fifo), "/dev/full"):
            done = cli.run(*option, "-o", path, "sleep", "60")
            assert done.status == 2
            assert (
                done.err
                == f"daemonize: {path} is no plain file: what is written there cannot be rotated or stamped\n".encode()
            )
    finally:
        os.close(reader)
    family.nobody()


def test_dev_null_is_left_alone(tmp_path: Path, family: Family) -> None:
    """`-o /dev/null` is no log, and the other stream has one."""
    log = tmp_path / "e"
    report = cli.run(
        "--json", "--timestamps", "-o", "/dev/null", "-e", log, *program("steps", "out:x", "err:y")
    ).json
    drain_ended(report)

    assert without_stamps(read(log)) == b"y\n"


def test_a_file_that_another_drain_has(tmp_path: Path, servers: Family) -> None:
    """It would be renamed under its hands; emptied, too, and it is not."""
    log = tmp_path / "log"
    assert cli.run("--log-rotate", "1M", "-o", log, *program("steps", "out:precious", "serve")).status == 0
    procs.eventually(lambda: _holds(log, b"precious\n"))
    done = cli.run("--log-rotate", "1M", "-o", log, "sleep", "60")

    assert (done.status, done.err) == (
        125,
        f"daemonize: cannot open {log}: another daemon writes to it\n".encode(),
    )
    assert read(log) == b"precious\n"


def _holds(path: Path, text: bytes) -> None:
    assert read(path) == text


def test_the_same_file_again_at_once(tmp_path: Path, family: Family) -> None:
    """Who stops a server and starts it again need not wait for the last words of the first one's drain."""
    log = tmp_path / "log"
    for number in range(5):
        done = cli.run(
            "--json",
            "-r",
            "log:.",
            "-a",
            "--log-rotate",
            "1M",
            "-o",
            log,
            *program("steps", f"out:{number}", "serve"),
        )
        assert done.status == 0, done
        procs.stop(done.json["pid"], signal.SIGKILL)
    drain_ended(done.json)

    assert read(log) == b"0\n1\n2\n3\n4\n"


def test_usage_errors(family: Family) -> None:
    """In the style of the other options."""
    for size in ("0", "x", "10M:", "10M:1000", "unlimited"):
        done = cli.run("--log-rotate", size, "true")
        assert done.status == 2
        assert f"'{size}' is not a size to rotate a log at".encode() in done.err
    for option in (("--log-rotate", "1M"), ("--timestamps",)):
        done = cli.run("-f", *option, "true")
        assert done.status == 2
        assert (
            done.err
            == b"daemonize: in the foreground no log is kept that could be rotated or stamped: name a file (-o, -e)\n"
        )


def test_without_a_state_directory(tmp_path: Path, family: Family) -> None:
    """There is no log that could be rotated; the launch goes on as without the options. A fifo is missed, and said."""
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    env = {"DAEMONIZE_STATE_DIR": str(in_the_way / "state")}
    done = cli.run("--json", *BOTH, *program("repoints", "hello"), env=env)
    assert (done.status, done.json["drain"], done.err) == (0, None, b"hello\n")
    procs.stop(done.json["pid"])
    log = tmp_path / "log"
    done = cli.run("--json", "--timestamps", "-o", log, *program("steps", "out:hello"), env=env)
    assert done.status == 0
    assert procs.wait_ended(done.json["drain"])
    assert without_stamps(read(log)) == b"hello\n"
    done = cli.run(*BOTH, "-r", "streams", "-o", log, *program("repoints", "hello"), env=env)

    assert done.status == 125
    assert str(in_the_way).encode() in done.err
    family.nobody()


# --- ends ------------------------------------------------------------------------------------------------------------


def test_a_failed_launch_has_all_its_words_in_the_log(tmp_path: Path, family: Family) -> None:
    """When `daemonize` returns they are there, and nothing else is left."""
    log = tmp_path / "log"
    done = cli.run(
        "-r", "port", "--timestamps", "-o", log, *program("steps", "count:0-5000", "part:the end", "exit:3")
    )

    assert done.status == 3
    assert done.out == numbers(0, 5000) + b"the end"
    assert without_stamps(read(log)) == numbers(0, 5000) + b"the end"
    family.nobody()
    assert fifos() == []


@pytest.mark.parametrize(
    "words", [("nonexistent-command",), ("-c", "/nonexistent", "true"), ("--stdin", "/nonexistent", "true")]
)
def test_what_cannot_be_started_leaves_no_fifo(words: tuple[str, ...], family: Family) -> None:
    """Whether the drain has been started by then or not."""
    done = cli.run("--timestamps", *words)

    assert done.status in (125, 127)
    assert fifos() == []
    family.nobody()


def test_left_running_on_a_timeout(tmp_path: Path, trigger: Trigger, family: Family) -> None:
    """--on-timeout leave: what the server says from now on, into the pipes that it still holds, is in the log."""
    steps = ["out:early", trigger.arg, "out:late", "err:bad"]
    for spec in ("streams", "port"):
        done = cli.run(
            "--json",
            "-r",
            spec,
            "-t",
            "200ms",
            "--on-timeout",
            "leave",
            "--timestamps",
            *program("steps", *steps),
        )
        assert done.status == 124
        assert done.json["drain"]
        trigger.release()
        drain_ended(done.json)
        out, err = done.json["files"]["stdout"], done.json["files"]["stderr"]
        assert without_stamps(read(out)) == (b"late\n" if spec == "streams" else b"late\nearly\nlate\n")
        assert without_stamps(read(err)) == b"bad\n" * (1 if spec == "streams" else 2)
    family.nobody()


def test_a_descendant_keeps_it(tmp_path: Path, trigger: Trigger, servers: Family) -> None:
    """What somebody who is left of the server says is in the log; the drain ends when nobody can say anything any more."""
    steps = ["out:hello", "fork", trigger.arg, "out:orphan"]
    report = cli.run("--json", "-r", "alive:100ms", "--timestamps", *program("steps", *steps)).json
    procs.stop(report["pid"], signal.SIGKILL)
    assert procs.alive(report["drain"])
    trigger.release()
    drain_ended(report)

    assert without_stamps(read(report["files"]["stdout"])) == b"hello\norphan\n"


def test_a_descendant_keeps_the_fifo(trigger: Trigger, family: Family) -> None:
    """The same with `streams`, long after the main process has ended."""
    report = cli.run(
        "--json", "--timestamps", *program("steps", "go-on", "fork", trigger.arg, "out:orphan")
    ).json
    procs.eventually(lambda: has_child(report["pid"]))
    procs.stop(report["pid"], signal.SIGKILL)
    assert procs.alive(report["drain"])
    trigger.release()
    drain_ended(report)

    assert without_stamps(read(report["files"]["stdout"])) == b"orphan\n"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name
)
def test_a_signal_to_everybody_does_not_end_it(
    number: signal.Signals, trigger: Trigger, family: Family
) -> None:
    """A service manager's SIGTERM to a whole group: the server has last words, and somebody who takes them."""
    report = cli.run("--json", "--timestamps", *program("steps", "go-on", trigger.arg, "out:last words")).json
    procs.send(report["drain"], number)
    trigger.release()
    drain_ended(report)

    assert without_stamps(read(report["files"]["stdout"])) == b"last words\n"


@pytest.mark.parametrize("mode", ["files", "streams"])
def test_the_server_is_killed(mode: str, family: Family) -> None:
    """Its drain ends, and takes the fifos along."""
    spec, steps = (("-r", "streams"), ["go-on"]) if mode == "streams" else (("-r", "alive:10ms"), [])
    report = cli.run("--json", *spec, "--timestamps", *program("steps", *steps, "serve")).json
    assert len(fifos()) == (2 if mode == "streams" else 0)
    procs.stop(report["pid"], signal.SIGKILL)
    drain_ended(report)
    family.nobody()


@pytest.mark.parametrize("mode", ["files", "streams"])
def test_the_drain_is_killed(mode: str, trigger: Trigger, family: Family) -> None:
    """The server is told by SIGPIPE, as by any pipe; the next launch replaces the fifos that are left."""
    goes_on = 'exec >>"$DAEMONIZE_STDOUT" 2>>"$DAEMONIZE_STDERR";' if mode == "streams" else ""
    spec = ("--json", "--timestamps", "-r", "streams" if mode == "streams" else "alive:10ms")
    report = cli.run(*spec, SHELL, "-c", f"{goes_on} read x <{trigger.path}; echo x; exec sleep 60").json
    server = procs.stat(report["pid"])
    assert server
    procs.stop(report["drain"], signal.SIGKILL)
    trigger.close()
    assert procs.wait_ended(server.pid, start=server.start)
    assert len(fifos()) == (2 if mode == "streams" else 0)
    again = cli.run(*spec, SHELL, "-c", f"{goes_on} echo anew; exec sleep 0.1").json
    drain_ended(again)

    assert again["name"] == report["name"]
    assert without_stamps(read(again["files"]["stdout"])) == b"anew\n"


@pytest.mark.parametrize("mode", ["files", "streams"])
@pytest.mark.parametrize("step", ["intermediate", "streams", "exec", "last-look", "detach"])
def test_the_wrapper_is_killed(step: str, mode: str, tmp_path: Path, family: Family) -> None:
    """At whatever moment: no server, no drain and no fifo is left."""
    spec = ("-r", "streams") if mode == "streams" else ("-r", "started")
    where = tmp_path / "held"
    where.mkdir()
    words = [
        *spec,
        *BOTH,
        *program("steps", "out:hello", "go-on" if mode == "streams" else "out:there", "serve"),
    ]
    with held_at(step, where, words) as (wrapper, release):
        wrapper.kill()
        wrapper.wait()
        release.release()

        def nothing() -> None:
            family.nobody()
            assert fifos() == []

        procs.eventually(nothing)


def test_the_drain_is_killed_while_the_server_starts(tmp_path: Path, family: Family) -> None:
    """Then nobody would write the log: the launch fails, and says so."""
    where = tmp_path / "held"
    where.mkdir()
    words = [*BOTH, *program("steps", "out:hello", "go-on", "serve")]
    with held_at("last-look", where, words) as (wrapper, release):
        others = {process.pid for process in procs.tree(wrapper.pid)} | {wrapper.pid}
        (drain,) = family.living(besides=others)
        procs.stop(drain.pid, signal.SIGKILL)
        release.release()
        _, err = wrapper.communicate(timeout=20)
    assert wrapper.returncode == 125
    assert err.endswith(b"daemonize: cannot leave the drain: it has been killed\n")
    family.nobody()


def test_without_pidfds(monkeypatch: pytest.MonkeyPatch, family: Family) -> None:
    """Where the kernel tells nobody of an end, the drain looks from time to time."""
    monkeypatch.setattr(identity, "pidfd_open", lambda _pid: None)
    monkeypatch.setattr(lifelong, "_LOOK", 0.01)
    words = [*program("steps", "go-on", "out:hello", "serve")]
    outcome = Wrapper(Request(words, timestamps=True), Targets(None, None)).run()
    assert isinstance(outcome, Ready)
    assert outcome.drain
    assert outcome.pid
    log = outcome.files[0]
    procs.eventually(lambda: has_said(log, b"hello\n"))
    procs.stop(outcome.pid)
    assert procs.wait_ended(outcome.drain)

    assert fifos() == []
    assert without_stamps(read(log)) == b"hello\n"


def test_a_name_is_never_free_while_its_log_rotates(tmp_path: Path, family: Family) -> None:
    """Launches in the middle of rotations, of which there are a thousand: none gets the log of the server that runs."""
    with Trigger(tmp_path) as trigger:
        script = f"yes | head -c 4000000; read x <{trigger.path}"
        first = cli.run("--json", "-r", "alive:10ms", "--log-rotate", "4K:2", SHELL, "-c", script).json
        names = {
            cli.run("--json", "-r", "alive:1ms", SHELL, "-c", "sleep 0.01").json["name"] for _ in range(12)
        }
        assert procs.alive(first["drain"])
        trigger.close()
        drain_ended(first)
    assert first["name"] == "sh"
    assert "sh" not in names


# --- the foreground --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["-o", "streams"])
def test_in_the_foreground(way: str, tmp_path: Path, family: Family) -> None:
    """What is said is relayed as ever, and is in the log when `daemonize -f` has ended; the status is the server's."""
    log = tmp_path / "log"
    spec = ["-r", "streams"] if way == "streams" else []
    steps = ["out:early", *(["go-on"] if spec else []), "count:0-30000", "exit:7"]
    done = cli.run("-f", *spec, *BOTH, "-o", log, *program("steps", *steps))
    text = without_stamps(b"".join(rotated(log)))

    assert done.status == 7
    assert done.out == (b"early\n" if spec else b"early\n" + numbers(0, 30000))
    assert text == (numbers(0, 30000) if spec else b"early\n" + numbers(0, 30000))
    assert len(rotated(log)) > 3
    family.nobody()
    assert fifos() == []


def test_the_wrapper_in_the_foreground_is_killed(tmp_path: Path, family: Family) -> None:
    """Server and drain end with it; what the server has said is in the log."""
    log = tmp_path / "log"
    with cli.popen("-f", "--timestamps", "-o", log, *program("steps", "out:hello", "serve")) as process:
        assert process.stdout
        assert process.stdout.readline() == b"hello\n"
        process.kill()
        process.wait()
        procs.eventually(family.nobody)
    assert without_stamps(read(log)) == b"hello\n"


# --- a disk ----------------------------------------------------------------------------------------------------------


OPTIONS = [("--log-rotate", "32K:3"), ("--log-rotate", "10M"), ("--timestamps",)]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_a_full_disk(options: tuple[str, ...], tmp_path: Path, family: Family) -> None:
    """The server is never held up; how much is missing is noted. With few small logs nothing is: the control."""
    disk = tmp_path / "disk"
    disk.mkdir()
    front = users.in_private_mounts(f"mount -t tmpfs -o size=256k tmpfs '{disk}'")
    with Trigger(tmp_path) as trigger, Trigger(tmp_path, "said") as said:
        tell = "tell:" + said.path
        steps = ["count:0-200000", tell, trigger.arg, "count:200000-200100", tell, trigger.arg]
        words = cli.command("--json", *options, "-o", disk / "log", *program("steps", *steps))
        done = subprocess.run([*front, *words], capture_output=True, timeout=30, check=True)
        report = cli.Result(0, done.stdout, done.stderr, 0).json
        log = f"/proc/{report['pid']}/root{disk}/log"
        assert os.read(said._fd, 1)  # all was said
        procs.eventually(lambda: _idle(report["drain"]))
        before = rotated(log)
        if len(before) == 1:
            os.truncate(log, 0)
        trigger.release()
        assert os.read(said._fd, 1)
        procs.eventually(lambda: _ends(log, b"200099\n"))
        after = rotated(log)
        trigger.release()
        assert procs.wait_ended(report["drain"])

    if len(before) > 1:
        assert numbers(0, 200100).endswith(b"".join(after))
    else:
        assert len(before[0]) > 200_000
        width = stamps.LENGTH if "--timestamps" in options else 0
        check_counted(before[0] + after[0], numbers(0, 200100), width)


def _idle(pid: int) -> None:
    """It has read everything, and all that it could not write is lost."""
    found = {procs.read(f"/proc/{pid}/task/{task}/wchan") for task in os.listdir(f"/proc/{pid}/task")}
    assert all(b"poll" in place or b"futex" in place for place in found), found


def _ends(path: str, text: bytes) -> None:
    assert read(path).endswith(text)


def resident(pid: int) -> int:
    """KiB."""
    return int(procs.status(pid)["VmRSS"].split()[0])


@pytest.mark.parametrize(
    "options", [("--log-rotate", "1M:2"), ("--log-rotate", "1M:2", "--timestamps")], ids=" ".join
)
def test_constant_memory(options: tuple[str, ...], tmp_path: Path, servers: Family) -> None:
    """After 200 MB it is as large as after one, but for its buffer."""
    script = "say() { yes daemonize | head -c $1; echo >$2; }; say 1000000 $1; read x <$2; say 200000000 $1; sleep 60"
    with Trigger(tmp_path) as trigger, Trigger(tmp_path, "said") as said:
        report = cli.run(
            "--json", *options, "-o", tmp_path / "log", SHELL, "-c", script, SHELL, said.path, trigger.path
        ).json
        assert os.read(said._fd, 1)
        procs.eventually(lambda: _idle(report["drain"]))
        before = resident(report["drain"])
        os.write(trigger._fd, b"\n")
        assert os.read(said._fd, 1)
        procs.eventually(lambda: _idle(report["drain"]))
        after = resident(report["drain"])
    assert before < 25_000
    assert after < before + 3_000
    assert len(rotated(tmp_path / "log")) == 3


# --- at launch -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def old_log(name: str, size: int) -> Iterator[str]:
    """A log from before, of this size."""
    state = os.environ["DAEMONIZE_STATE_DIR"]
    os.makedirs(state, 0o700, exist_ok=True)
    path = f"{state}/{name}"
    with open(path, "wb") as file:
        file.truncate(size)
    os.chmod(path, 0o600)
    yield path


LARGE = 10 << 20


@pytest.mark.parametrize("mode", ["files", "streams"])
@pytest.mark.parametrize(("size", "options", "rotates"), [
    (LARGE, (), True), (LARGE - 1, (), False), (LARGE, ("--log-rotate", "20M"), False),
    (LARGE, ("--log-rotate", "1M:1"), True), (LARGE, ("--timestamps",), True),
])  # fmt: skip
def test_large_logs_are_rotated_at_launch(
    mode: str, size: int, options: tuple[str, ...], rotates: bool, family: Family
) -> None:
    """From 10 MiB, or what was asked for; before the server runs, in both modes."""
    spec, steps = (("-r", "streams"), ["go-on"]) if mode == "streams" else (("-r", "alive:10ms"), [])
    words = (
        program("steps", *steps, "out:new", "exit:0")
        if mode == "files"
        else program("steps", *steps, "out:new", "serve")
    )
    name = os.path.basename(words[0])
    with old_log(f"{name}.out", size) as log:
        done = cli.run("--json", *spec, *options, *words)
        if mode == "streams":
            procs.eventually(lambda: _ends(log, b"new\n"))
            procs.stop(done.json["pid"])
        drain_ended(done.json) if done.json["drain"] else None
    assert done.json["name"] == name
    assert os.path.exists(f"{log}.1") == rotates
    if rotates:
        assert os.stat(f"{log}.1").st_size == size
        assert os.stat(log).st_size < 100
    assert not os.path.exists(f"{os.path.dirname(log)}/{name}.err.1")


@pytest.mark.parametrize("mode", ["files", "streams"])
def test_a_log_in_use_is_not_rotated_at_launch(mode: str, servers: Family) -> None:
    """The next daemon of the name has another log."""
    spec, steps = (("-r", "streams"), ["go-on"]) if mode == "streams" else (("-r", "alive:10ms"), [])
    words = program("steps", *steps, "serve")
    first = cli.run("--json", "-r", "alive:10ms", *program("steps", "serve")).json
    log = first["files"]["stdout"]
    os.truncate(log, LARGE)
    second = cli.run("--json", *spec, *words).json

    assert second["name"] == first["name"] + "-2"
    assert os.stat(log).st_size == LARGE
    assert not os.path.exists(f"{log}.1")


def test_a_log_that_cannot_be_rotated_is_gone_on_in(servers: Family) -> None:
    """Something of another kind lies there: no failure of the launch."""
    words = program("steps", "out:new")
    with old_log(f"{os.path.basename(words[0])}.out", LARGE) as log:
        os.mkdir(f"{log}.1")
        assert cli.run("-r", "log:new", *words, "serve").status == 0
    assert os.stat(log).st_size == LARGE + 4
