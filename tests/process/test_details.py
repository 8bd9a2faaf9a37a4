"""`daemonctl show`: what a daemon's processes are doing, as far as the asker may look, in numbers and as text."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import daemonize
from daemonize.cli.details import text
from daemonize.launcher import details as module
from daemonize.launcher.details import details, memory
from daemonize.posix.identity import current_boot_id
from tests.support import forked, ports, procs, users
from tests.support.programs import SHELL, program
from tests.support.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemonize.launcher.daemon import Daemon


def launch(*command: str, **settings: Any) -> Daemon:
    """A daemon that says nothing to us."""
    return daemonize.launch(list(command), relay_stdout=None, relay_stderr=None, **settings)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Daemon]:
    """A shell with two children, one of which has one. The shells stay when these end."""
    script = f"exec >/dev/null 2>&1; {SHELL} -c 'sleep 1000 & wait; kill -STOP $$' & sleep 1001 & wait; kill -STOP $$"
    with launch(SHELL, "-c", script, env={"SECRET": "x\x1by"}, limits={"nofile": (100, 200)}) as daemon:
        yield daemon


def told(daemon: Daemon) -> dict[str, Any]:
    """The details, with what `daemonctl` adds; they are fit for JSON."""
    found = {"state": daemon.state, **details(daemon.record)}
    assert json.loads(json.dumps(found)) == found
    return found


def test_the_record_is_part_of_it(server: Daemon) -> None:
    """All of it, environment included."""
    found = details(server.record)
    assert server.record.fields.items() <= found.items()
    assert found["settings"]["environment"] == {"SECRET": "x\x1by"}


def test_the_tree(server: Daemon) -> None:
    """Every process that belongs to it, and no other, with all that can be known of each."""

    def complete() -> dict[str, Any]:
        found = details(server.record)
        assert sorted(facts["name"] for facts in found["processes"]) == ["sh", "sh", "sleep", "sleep"]
        return found

    found = procs.eventually(complete)
    processes = {facts["pid"]: facts for facts in found["processes"]}
    assert server.pid
    main = processes[server.pid]
    assert found["running"]
    assert [facts["pid"] for facts in processes.values() if facts["main"]] == [server.pid]
    assert all(facts["ppid"] in processes for facts in processes.values() if not facts["main"])
    assert main["command"][:2] == [SHELL, "-c"]
    assert (main["state"], main["user"], main["threads"]) == ("sleeping", psutil.Process().username(), 1)
    assert abs(main["started"] - time.time()) < 60
    assert main["descriptors"] == len(found["open"]) == len(procs.descriptors(server.pid))
    assert found["open"]["1"] == "/dev/null"
    assert found["memory"] == sum(facts["memory"] for facts in processes.values()) > 0
    assert found["cpu"] >= 0
    assert found["listening"] == []


def test_where_it_listens(tmp_path: Path) -> None:
    """TCP and UNIX sockets, of children, too; the main process's descriptors say which is which."""
    path, port = str(tmp_path / "socket"), ports.free_port()
    script = (
        "import os, socket, sys, time\n"
        f"unix = socket.socket(socket.AF_UNIX); unix.bind({path!r}); unix.listen()\n"
        "if os.fork() == 0:\n"
        f"    tcp = socket.create_server(('127.0.0.1', {port}))\n"
        "    time.sleep(1000)\n"
        "time.sleep(1000)\n"
    )
    with launch(sys.executable, "-c", script, ready=[f"port:{port}", f"unix:{path}"]) as daemon:
        found = details(daemon.record)
    assert found["listening"] == [f"127.0.0.1:{port}", f"unix:{path}"]
    assert [target for target in found["open"].values() if target.endswith(f" unix:{path}")]


def test_what_others_have_is_not_told() -> None:
    """Negative control: a socket of this process is not the server's."""
    with socket.create_server((ports.HOST, 0)), launch(*program("repoints")) as daemon:
        assert details(daemon.record)["listening"] == []


def test_one_that_has_ended(server: Daemon) -> None:
    """Its record, and nothing of whoever has its pid or its session by now."""
    server.stop()
    found = told(daemonize.Daemon.find(server.name))
    assert (found["running"], found["processes"], found["open"], found["memory"]) == (False, [], None, None)
    assert found["state"] == "stopped"
    assert text(found)


def test_a_later_process_with_its_pid() -> None:
    """It is not taken for the daemon; nor is anything of another boot."""
    me = procs.stat(os.getpid())
    assert me
    for start, boot in ((me.start - 1, current_boot_id()), (me.start, "another boot")):
        found = details(Record(pid=me.pid, start=start, boot_id=boot, session=me.sid))
        assert (found["running"], found["processes"]) == (False, [])
    found = details(Record(pid=me.pid, start=me.start, boot_id=current_boot_id()))
    assert found["running"]  # negative control


def test_processes_that_end_meanwhile(server: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are left out; the rest is told."""
    members = module._members

    def then_one_ends(*arguments: Any) -> Any:
        found = members(*arguments)
        for stat in found:
            if stat.name == "sleep":
                procs.stop(stat.pid, 9)
        return found

    monkeypatch.setattr(module, "_members", then_one_ends)
    found = details(server.record)
    assert {facts["name"] for facts in found["processes"]} == {"sh"}


def test_all_end_while_they_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever moment: no traceback, and no nonsense."""
    for moment in ("_members", "_facts", "_sockets", "_open"):
        with launch(*program("repoints")) as daemon, monkeypatch.context() as patch:
            function = getattr(module, moment)

            def end(*arguments: Any, function: Any = function, daemon: Daemon = daemon) -> Any:
                daemon.stop()
                return function(*arguments)

            patch.setattr(module, moment, end)
            found = details(daemon.record)
            if moment in ("_members", "_facts"):
                assert (found["running"], found["processes"], found["memory"]) == (False, [], None)
            assert text({"state": "dead", **found})


def test_another_users_processes() -> None:
    """What an ordinary user may not look at is None, and the rest is told."""
    forked.need_root()
    with launch(*program("repoints")) as daemon:
        found = forked.call(lambda: details(daemon.record), users.NOBODY.uid)
    (main,) = found["processes"]
    assert found["running"]
    assert (main["pid"], main["name"], main["user"]) == (daemon.pid, daemon.record.process, "root")
    assert main["memory"] > 0
    assert (main["descriptors"], found["open"], found["listening"]) == (None, None, None)
    assert "(may not be looked at)" in text({"state": "running", **found})


def test_where_proc_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs, and that is all that is known."""
    with launch(*program("repoints")) as daemon:
        monkeypatch.setattr(module, "_members", lambda *_: [])
        found = details(daemon.record)
    (main,) = found["processes"]
    assert {name for name, value in main.items() if value is not None} == {"pid", "main"}
    assert found["memory"] is None
    assert f"{daemon.pid} [?]" in text({"state": "running", **found})


def test_a_main_thread_that_has_left() -> None:
    """The others serve: it is told of as what it is, and not as a zombie that has ended."""
    with launch(*program("leader_exits")) as daemon:
        (main,) = details(daemon.record)["processes"]
    assert main["pid"] == daemon.pid


def test_memory() -> None:
    """Of one process, in next to no time; None for one that is gone."""
    mine = memory(os.getpid())
    assert mine
    assert abs(mine - psutil.Process().memory_info().rss) < 1 << 22
    assert memory(1 << 22) is None
    took = []
    for _ in range(50):
        began = time.perf_counter()
        memory(os.getpid())
        took.append(time.perf_counter() - began)
    assert min(took) < 0.0001


# -- text -------------------------------------------------------------------------------------------------------------


def test_the_tree_is_drawn(server: Daemon) -> None:
    """Children below their parents."""

    def drawn() -> str:
        found = told(server)
        assert sorted(facts["name"] for facts in found["processes"]) == ["sh", "sh", "sleep", "sleep"]
        return text(found)

    lines = procs.eventually(drawn).splitlines()
    begin = lines.index("processes:")
    assert lines[begin + 1].startswith(f"  {server.pid} {SHELL} -c ")
    assert {line[2:5] for line in lines[begin + 2 : begin + 5]} == {"├─ ", "│  ", "└─ "}
    assert "open in the main process:" in lines


def test_settings_are_told_by_name(server: Daemon) -> None:
    """Variables with their values: who may read the record may know them."""
    lines = [line.split(maxsplit=1) for line in text(told(server)).splitlines()]
    assert ["variable:", r"SECRET=x\x1by"] in lines
    assert ["limit:", "nofile=100:200"] in lines
    assert ["name:", "sh"] in lines


def test_nothing_unprintable_is_shown() -> None:
    """Whatever of it others have chosen."""
    odd = "a\x1b[31m\n\u202e\udcff"
    found = {
        "state": "running",
        "running": True,
        "listening": [odd],
        "open": {"0": odd},
        "memory": 5000,
        "cpu": 1.5,
        "processes": [
            {
                "pid": 1, "ppid": 0, "main": True, "name": odd, "command": command, "state": odd, "user": odd,
                "started": 1.0,
                "memory": 1, "cpu": 1.0, "threads": 2, "descriptors": 3,
            }
            for command in ([odd], None)
        ],
        **Record(
            name=odd, process=odd, program=odd, directory=odd, stdout=odd, stderr=odd, pid_file=odd, listen=[odd], drain=5,
            found={odd: odd}, stopped=1.0, ready=False, foreground=True, pid=1,
            settings={
                "command": [odd, odd], "environment": {odd: odd}, "limits": {odd: [1, -1], "as": 5}, "umask": 0o27,
                "ready": [odd], "strict": True, "user": odd, odd: odd, "log_rotate": [1, 2],
            },
        ).fields,
    }  # fmt: skip
    shown = text(found)
    assert not [c for c in shown.replace("\n", "") if not c.isprintable()]
    assert all(line.strip() == "" or line[0] != "[" for line in shown.splitlines())


def test_a_server_with_many_descriptors() -> None:
    """Not all are listed."""
    open_ones = {str(number): "socket:[1]" for number in range(1000)}
    found = {
        "state": "dead",
        "running": True,
        "listening": [],
        "open": open_ones,
        "memory": None,
        "cpu": None,
    }
    shown = text({**found, "processes": [], **Record().fields})
    assert "and 950 more" in shown
    assert len(shown.splitlines()) < 80
