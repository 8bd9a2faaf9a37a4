"""What newcomers and adversaries have found of the readiness specs."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import daemonize
from tests.support import cli, ports, procs
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

#: Takes longer to find out that it does not match than anybody can wait.
ENDLESS = "log:(a+)+$"


def test_an_expression_that_takes_for_ever(family: Family) -> None:
    """The timeout holds all the same, and the message says why the line was not looked at to its end."""
    says = ["printf", "%s\n", "a" * 40 + "!"]
    done = cli.run("-t", "2s", "-r", ENDLESS, SHELL, "-c", '"$@"; exec sleep 100', "sh", *says)

    assert done.status == 124
    assert b"took longer than 1 s: simplify REGEX" in done.err
    family.nobody()


def test_a_squatter_does_not_answer_for_the_server(tmp_path: Path, family: Family) -> None:
    """One that comes while the server starts: nobody was there before, and then somebody answers."""
    port = ports.free_port()
    with (
        Trigger(tmp_path) as trigger,
        cli.popen(
            "-v",
            "-r",
            f"http://127.0.0.1:{port}/",
            *program("meets_spec", "streams", f"waits={trigger.path}"),
        ) as wrapper,
    ):
        assert wrapper.stdout
        assert wrapper.stdout.readline() == b"waiting\n"
        with subprocess.Popen(program("answers", port), stdout=subprocess.DEVNULL) as squatter:
            assert wrapper.stderr
            assert any(b"not by the server" in line for line in wrapper.stderr)
            squatter.kill()
        wrapper.send_signal(signal.SIGTERM)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 128 + signal.SIGTERM
    family.nobody()


def test_one_that_notifies_and_goes(trigger: Trigger, family: Family) -> None:
    """It was ready for a moment, and nothing is running when the wrapper comes to look: no success."""
    steps = ("say=up", f"waits={trigger.path}", "send=READY=1", "exit=0")
    with cli.popen("-r", "notify", *program("notifies", *steps)) as wrapper:
        assert wrapper.stdout
        assert wrapper.stdout.readline() == b"up\n"
        server = family.running(program("notifies", *steps))
        wrapper.send_signal(signal.SIGSTOP)
        trigger.release()
        assert procs.wait_ended(server.pid, start=server.start)
        wrapper.send_signal(signal.SIGCONT)
        _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 1
    assert b"when 'notify' had held: nothing is running" in err
    family.nobody()


def test_the_log_of_this_launch_is_named(tmp_path: Path, family: Family) -> None:
    """And not that of stderr, in which an earlier one has left its words."""
    for words in ("echo boom >&2; exit 1", "echo fine; exit 1"):
        done = cli.run("-r", "alive:5s", SHELL, "-c", words)

    assert done.status == 1
    assert done.err.endswith(b"sh.out)\n")
    family.nobody()


def test_where_it_listens_is_said(family: Family) -> None:
    """To who waits for the streams of a server that listens, and to who waits for another port."""
    port = ports.free_port()
    server = program("meets_spec", f"port:127.0.0.1:{port}")
    silent = cli.run("-t", "1s", *server)
    other = cli.run("-t", "1s", "-r", f"port:{ports.free_port()}", *server)

    assert f"; it listens on 127.0.0.1:{port}. It, or a child".encode() in silent.err
    assert silent.err.endswith(f"--ready port:{port}\n".encode())
    assert f"; it listens on 127.0.0.1:{port}".encode() in other.err
    family.nobody()


def test_a_left_server_has_its_pid_file(tmp_path: Path, servers: Family) -> None:
    """Where it is left running: the report names the file that is there."""
    path = os.fspath(tmp_path / "pid")
    options = ("--json", "-t", "200ms", "--on-timeout=leave", "-p", path, "-r", "exit")
    report = cli.run(*options, *program("meets_spec", "alive:1s")).json

    assert report["pid_file"] == path
    assert int((tmp_path / "pid").read_text()) == report["pid"] == servers.only().pid
    assert report["problems"] == {"exit": "the command has not exited"}


def test_no_spec_is_the_default(servers: Family) -> None:
    """`ready=None`, and one that is given twice is one."""
    with daemonize.launch(program("repoints"), ready=None):
        pass
    with daemonize.launch(program("meets_spec", "notify"), ready=["notify", "notify"], relay_stdout=None):
        pass

    servers.nobody()
