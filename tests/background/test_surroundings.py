"""A server has what its owner has when it starts it, whatever the keeper was executed with; and what it is given."""

from __future__ import annotations

import json
import os
import pwd
import signal
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import BackgroundServer, UsageError
from tests.support import procs, users
from tests.support.listening import server
from tests.support.owners import ECHO, all_ended, owning, run
from tests.support.programs import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

REPORT = program("report_self")
#: `report(...)` is what report_self.py says.
_CODE = """
def report(**settings):
    with BackgroundServer(command, ready="log:environ", **settings) as server:
        return json.loads(server.stdout)
"""


def told(code: str, *command: str) -> list[list[Any]]:
    """Run an owner that finds `report`; what it says."""
    return run(_CODE + code, *(command or REPORT))


def test_the_directory_is_the_owners(tmp_path: Path) -> None:
    """Where the owner is when it starts the server; cwd= is relative to that."""
    (tmp_path / "below").mkdir()
    said = told(
        f"say(report()['cwd'])\nos.chdir({str(tmp_path)!r})\nsay(report()['cwd'])\nsay(report(cwd='below')['cwd'])"
    )
    assert said == [[os.getcwd()], [str(tmp_path)], [str(tmp_path / "below")]]


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    """An owner whose directory has been deleted can have servers with a directory of their own."""
    gone = tmp_path / "gone"
    gone.mkdir()
    said = told(f"os.chdir({str(gone)!r})\nos.rmdir({str(gone)!r})\nsay(report(cwd='/')['cwd'])")
    assert said == [["/"]]


def test_the_environment_is_the_owners() -> None:
    """As it is at the start: added, changed, and removed variables; clear_env= leaves none of it."""
    said = told(
        "os.environ['OURS'] = '1'\n"
        "first = report()['environ']\n"
        "os.environ['OURS'] = '2'\n"
        "second = report(env={'THEIRS': '3'})['environ']\n"
        "del os.environ['OURS']\n"
        "third = report()['environ']\n"
        "bare = report(clear_env=True, env={'THEIRS': '3'})['environ']\n"
        "say(first['OURS'], second['OURS'], second['THEIRS'], 'OURS' in third, 'THEIRS' in third)\n"
        "say(bare['THEIRS'], 'HOME' in bare, 'OURS' in bare)\n"
    )
    assert said == [["1", "2", "3", False, False], ["3", False, False]]


def test_the_umask_is_the_owners() -> None:
    """Or what is asked for."""
    said = told(
        "for mask in (0o022, 0o077):\n    os.umask(mask)\n    say(report()['umask'])\nsay(report(umask=0o027)['umask'])"
    )
    assert said == [[0o022], [0o077], [0o027]]


def test_limits_are_the_owners() -> None:
    """RLIMIT_NOFILE lowered between two starts: another keeper is executed, which has it; limits= is added."""
    said = told(
        "say(report()['limits']['Max open files'])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))\n"
        "say(report()['limits']['Max open files'])\n"
        "say(report(limits={'nofile': 100})['limits']['Max open files'])\n"
    )
    assert said[0][0] != ["200", "300"]
    assert said[1] == [["200", "300"]]
    assert said[2][0][0] == "100"


def test_niceness_is_the_owners() -> None:
    """os.nice() between two starts, and nice= on top of it."""
    said = told("say(report()['nice'])\nos.nice(3)\nsay(report()['nice'])\nsay(report(nice=2)['nice'])")
    assert said == [[os.nice(0)], [os.nice(0) + 3], [os.nice(0) + 5]]


def test_the_old_server_goes_on_when_the_owner_has_changed() -> None:
    """The keeper that is replaced stays for its servers, which are stopped as ever."""
    said = run(
        "first = started()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))\n"
        "second = started()\n"
        "say(first.status)\n"
        "first.stop()\n"
        "second.stop()\n"
        "say(first.exit_status, second.exit_status)\n"
    )
    assert said[0][2] != said[1][2]  # keepers
    assert said[2:] == [["listening"], [143, 143]]


def test_the_user_is_the_owners() -> None:
    """An owner that has become nobody has nobody's servers."""
    users.become(users.NOBODY)
    said = run(
        _CODE + "first = report(cwd='/')\n"
        "os.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
        "second = report(cwd='/')\n"
        "say(first['uid'], second['uids'], second['gids'], second['groups'])",
        *users.program("report_self"),
        python=users.python(),
        env={**os.environ, **users.environ()},
        cwd="/",
    )
    assert said == [[0, ["65534"] * 4, ["65534"] * 4, []]]


def test_where_no_more_processes_can_be_had(family: Family) -> None:
    """The keeper says so to whoever wants one, and goes on: it is the same one that starts the next server."""
    users.become(users.MEMBER)
    code = (
        "os.setgroups([])\nos.setgid(54322)\nos.setuid(54321)\n"
        "server = started()\n"
        "keeper = parents(server)[1]\n"
        "soft, hard = resource.prlimit(keeper, resource.RLIMIT_NPROC)\n"
        "hear()\n"
        "resource.prlimit(keeper, resource.RLIMIT_NPROC, (0, hard))\n"
        "say('poor')\n"
        "hear()\n"
        "another = BackgroundServer(command)\n"
        "try:\n"
        "    another.start()\n"
        "except daemonize.SetupError as error:\n"
        "    say(str(error))\n"
        "resource.prlimit(keeper, resource.RLIMIT_NPROC, (soft, hard))\n"
        "started().stop()\n"
        "server.stop()\n"
    )
    echo = users.program("tcp_echo", "{port}", "holds", "first")
    environment = {**os.environ, **users.environ()}
    with owning(code, *echo, python=users.python(), env=environment, cwd="/") as one:
        _, wrapper, keeper, _ = one.says()

        def spare() -> procs.Process:
            found = [child for child in procs.children(keeper) if child.pid != wrapper]
            assert found
            return found[0]

        waiting = procs.eventually(spare)
        one.tell()
        assert one.says() == ["poor"]
        procs.send(waiting.pid, signal.SIGKILL)
        assert procs.wait_ended(waiting.pid, start=waiting.start)
        assert not procs.wait_ended(keeper, 0.2)  # it tries to have the next one
        one.tell()
        assert one.says() == ["cannot fork a wrapper: Resource temporarily unavailable"]
        assert one.says()[2] == keeper
        assert one.finish()[0] == 0
    all_ended(family)


def test_the_user_that_is_asked_for() -> None:
    """user='nobody': the server is nobody's, can be stopped, and can open its own output by name."""
    users.become(users.NOBODY)
    words = [*users.program("report_self")]
    with BackgroundServer(words, ready="log:environ", user="nobody", cwd="/") as one:
        assert f'"uid": {pwd.getpwnam("nobody").pw_uid}' in one.stdout
    assert one.exit_status == 143
    opens = server(
        "os.write(os.open('/dev/stderr', os.O_WRONLY | os.O_APPEND), b'reopened\\n')", 'say("ready")'
    )
    with BackgroundServer(opens, ready="log:ready", user="nobody", cwd="/") as other:
        assert other.stderr == "reopened\n"


def test_descriptors_have_their_numbers(tmp_path: Path) -> None:
    """keep_fds: at the very numbers, also low ones that keeper and wrapper use themselves, and only those."""
    file = tmp_path / "file"
    file.write_text("kept")
    code = (
        _CODE + f"names = []\nfds = [os.open({str(file)!r}, os.O_RDONLY) for _ in range(40)]\n"
        "wanted = [*fds[:12], fds[-1]]\nos.dup2(fds[0], 200)\n"
        "found = report(keep_fds=[*wanted, 200])['descriptors']\n"
        "say(sorted(map(int, found)) == sorted([0, 1, 2, *wanted, 200]))\n"
        f"say({{found[str(fd)] for fd in [*wanted, 200]}} == {{{str(file)!r}}})\n"
    )
    assert run(code, *REPORT) == [[True], [True]]


def test_nothing_else_is_open() -> None:
    """A server finds stdin at /dev/null, its two streams, and no descriptor of ours."""
    with open("/etc/passwd") as ours:
        os.set_inheritable(ours.fileno(), True)
        with BackgroundServer(REPORT, ready="log:environ") as one:
            report = json.loads(one.stdout)
    assert sorted(report["descriptors"]) == ["0", "1", "2"]
    assert report["stdin"] == "/dev/null"
    assert report["signals"]["blocked"] == []
    assert report["sid"] == report["pgid"] == report["pid"]


def test_stdin_is_the_file_that_is_named(tmp_path: Path) -> None:
    """stdin=."""
    (tmp_path / "input").write_text("from a file\n")
    with BackgroundServer("cat; exec sleep 60", stdin=tmp_path / "input", ready="log:from a file") as one:
        assert one.stdout == "from a file\n"


def test_a_large_environment_and_command() -> None:
    """More than a pipe or a datagram holds."""
    words = [*server('say(len(os.environ["LARGE"]), len("".join(sys.argv[1:])))'), *["y" * 100_000] * 3]
    with BackgroundServer(words, env={"LARGE": "x" * 100_000}, ready="log:^\\d") as one:
        assert one.stdout == "100000 300000\n"


def test_more_descriptors_than_can_be_handed_over() -> None:
    """UsageError; the next start is not harmed by it."""
    many = [os.dup(0) for _ in range(260)]
    try:
        with pytest.raises(UsageError, match="260 descriptors are too many"):
            BackgroundServer(ECHO, keep_fds=many).start()
    finally:
        for fd in many:
            os.close(fd)
    with BackgroundServer(ECHO) as echo:
        assert echo.listening
