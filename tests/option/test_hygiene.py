"""What a program that goes on as a server keeps: all that it has done itself, and nothing that it was given."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import apps, procs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

#: A group that changes whatever a program can change, and a command that says what it finds.
CHANGES = """
def facts():
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    umask = os.umask(0)
    os.umask(umask)
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    descriptors = {fd: os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')
                   if os.path.lexists(f'/proc/self/fd/{fd}')}
    return {
        'pid': os.getpid(), 'ppid': os.getppid(), 'sid': os.getsid(0), 'pgid': os.getpgid(0),
        'umask': umask, 'cwd': os.getcwd(), 'nice': os.nice(0), 'wakeup': wakeup, 'gc': gc.isenabled(),
        'threshold': gc.get_threshold(), 'blocked': sorted(mask),
        'signals': {n: str(signal.getsignal(n)).split(' at 0x')[0] for n in range(1, 32)},
        'environ': {k: v for k, v in os.environ.items() if not k.startswith('DAEMONIZE_')},
        'descriptors': descriptors, 'inheritable': {fd: os.get_inheritable(int(fd)) for fd in descriptors},
        'locale': str(sys.getdefaultencoding()), 'recursion': sys.getrecursionlimit(),
        'timer': signal.getitimer(signal.ITIMER_VIRTUAL)[0] > 0,
    }

def handler(number, frame):
    os.write(1, b'handled\\n')

@click.group()
@click.option('--change', is_flag=True)
def main(change):
    if change:
        keep.append(open('kept', 'w'))
        os.dup2(keep[0].fileno(), 7)               # inheritable, and at the number of an inherited one
        os.dup2(keep[0].fileno(), 20)
        os.set_inheritable(os.open('/dev/zero', os.O_RDONLY), True)
        keep.append(socket.create_server(('127.0.0.1', 0)))
        keep.append(socket.socketpair())
        keep[2][0].setblocking(False)
        signal.set_wakeup_fd(keep[2][0].fileno())
        signal.signal(signal.SIGUSR1, handler)
        signal.signal(signal.SIGCHLD, handler)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
        gc.disable()
        gc.set_threshold(11, 12, 13)
        os.umask(0o026)
        os.mkdir('sub')
        os.chdir('sub')
        os.environ['ADDED'] = 'added'
        os.environ.pop('REMOVED', None)
        sys.setrecursionlimit(555)
    print(json.dumps(facts()))
keep = []

@main.command('run')
@daemonize_option()
def run():
    print(json.dumps(facts()))
    serve()
main()
"""


def both(directory: Path, *words: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the group says of itself in the process that was called, and what the command says in the server."""
    argv = apps.write(directory, CHANGES)
    done = apps.run(
        [*options.pop("front", ()), *argv], *words, "run", "--daemonize", cwd=directory, **options
    )
    assert (done.status, done.err) == (0, b"")
    before, after = map(json.loads, done.out.splitlines())
    return before, after


#: Of every process its own.
OWN = {"pid", "ppid", "sid", "pgid", "descriptors", "inheritable"}


def own(found: dict[str, Any]) -> dict[str, str]:
    """Its descriptors, but for the standard ones, those of the logs, and the one that lists them."""
    return {
        fd: target for fd, target in found["descriptors"].items()
        if int(fd) > 2 and not target.startswith("/proc") and ".log" not in target and "/state/" not in target
    }  # fmt: skip


@pytest.mark.parametrize("words", [(), ("--change",)], ids=["unchanged", "changed"])
def test_what_it_has_done_is_kept(words: tuple[str, ...], tmp_path: Path, servers: Family) -> None:
    """Handlers, ignored and blocked signals, wakeup descriptor, collector, umask, directory, environment: as they were."""
    before, after = both(tmp_path, *words, env={"REMOVED": "1"})

    assert {key: value for key, value in before.items() if key not in OWN} == {
        key: value for key, value in after.items() if key not in OWN
    }
    assert (after["umask"] == 0o26) == bool(words)
    assert ("REMOVED" in after["environ"]) != bool(words)


@pytest.mark.parametrize(
    ("own", "later", "facts"),
    [
        ("pass", "pass", (0, 1, 0)),
        ("gc.freeze()", "pass", (1, 1, 1)),
        ("pass", "kept = [[] for _ in range(100)]; gc.freeze()", (0, 1, 1)),
        ("gc.disable()", "pass", (0, 0, 0)),
        (apps.THREAD, "pass", (0, 0, 0)),
    ],
    ids=["as most", "its own", "its own, later", "no collector", "started anew"],
)
def test_old_objects_are_left_alone_until_it_is_ready(
    own: str, later: str, facts: tuple[int, ...], tmp_path: Path, servers: Family
) -> None:
    """To look for garbage among them would copy them all. What the program does itself stays."""
    code = f"""
{own}
found = [gc.get_freeze_count() > 0]
@click.command()
@daemonize_option()
def main():
    found.append(gc.get_freeze_count() > 0)
    {later}
    daemonize.ready()
    found.append(gc.get_freeze_count() > 0)
    print(*map(int, found))
    serve()
main()
"""
    log = tmp_path / "log"
    done = apps.run(apps.write(tmp_path, code), "--daemonize", "--log-file", os.fspath(log), cwd=tmp_path)

    def check() -> None:
        assert log.read_text() == "{} {} {}\n".format(*facts)

    assert done.status == 0
    procs.eventually(check)


def test_signals_still_work(tmp_path: Path, servers: Family) -> None:
    """A handler of the group's runs in the server; what the group ignores does not end it; SIGTERM does (the control)."""
    argv = apps.write(tmp_path, CHANGES)
    done = apps.run(
        argv, "--change", "run", "--daemonize", "--log-file", os.fspath(tmp_path / "log"), cwd=tmp_path
    )
    server = servers.only()
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR1):
        assert procs.send(server.pid, number)

    def check() -> None:
        assert (tmp_path / "log").read_bytes() == b"handled\n"

    procs.eventually(check)
    assert done.status == 0
    assert procs.alive(server.pid)
    procs.stop(server.pid)


def test_handlers_do_not_run_in_the_wrapper(tmp_path: Path, servers: Family) -> None:
    """A handler that would end the program is the server's alone: SIGCHLD, SIGUSR1, SIGVTALRM where it was called."""
    code = """
def handler(number, frame):
    raise SystemExit(f'{number} in {os.getpid()}')
for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGVTALRM):
    signal.signal(number, handler)

@click.command()
@daemonize_option()
def main():
    print('here', flush=True)
    sys.stdin = open('trigger')
    sys.stdin.read(1)
    serve()
main()
"""
    os.mkfifo(tmp_path / "trigger")
    with apps.popen(apps.write(tmp_path, code), "--daemonize", cwd=tmp_path) as process:
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGVTALRM)
        (tmp_path / "trigger").write_text(".")
        _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (0, b"")
    assert servers.only()


def test_descriptors(tmp_path: Path, servers: Family) -> None:
    """Those that the group opened stay, inheritable or not, at their numbers; inherited ones go; none of ours is added."""
    front = ["sh", "-c", 'exec 7</etc/passwd 9</etc/hostname; exec "$@"', "sh"]
    before, after = both(tmp_path, "--change", front=front)

    assert before["descriptors"]["9"] == "/etc/hostname"
    kept = {fd: target for fd, target in own(before).items() if fd != "9"}
    assert own(after) == kept
    assert kept["7"] == kept["20"] == f"{tmp_path}/kept"
    assert {"/dev/zero", f"{tmp_path}/kept"} < set(kept.values())
    assert {fd: after["inheritable"][fd] for fd in kept} == {fd: before["inheritable"][fd] for fd in kept}


def test_nothing_else_when_it_is_ready(tmp_path: Path, servers: Family) -> None:
    """Then not even a log is open twice: 0, 1, 2, and what the group opened."""
    before, after = both(tmp_path, "--change")
    now = procs.descriptors(after["pid"])

    assert {fd: target for fd, target in now.items() if fd > 2} == {
        int(fd): t for fd, t in own(before).items()
    }
    assert now[0] == os.devnull
    assert now[1].endswith(".out.log") or "state" in now[1]


def test_the_process(tmp_path: Path, servers: Family) -> None:
    """In a session of its own that it does not lead, whose leader has gone; /dev/null as stdin; init its parent."""
    before, after = both(tmp_path)
    now = procs.stat(after["pid"])

    assert after["descriptors"]["0"] == os.devnull
    assert now
    assert now.ppid == 1
    assert now.sid not in {before["sid"], now.pid}
    assert now.pgid == now.sid
    assert procs.stat(now.sid) is None
    assert procs.stat(before["pid"]) is None
    assert [process.pid for process in servers.living()] == [now.pid]


HOOKS = """
def forked():
    os.environ['SET'] = 'by a hook'
    os.environ.pop('NOTIFY_SOCKET', None)

@click.command()
@daemonize_option()
def main():
    serve(os.environ.get('SET'), os.environ.get('NOTIFY_FD'), 'DAEMONIZE_ID' in os.environ)

os.register_at_fork(after_in_child=forked)
main()
"""


def test_a_hook_changes_the_environment(tmp_path: Path, servers: Family) -> None:
    """What it sets at the fork is there, and what it takes away may be gone. The rest is as for any server (control)."""
    argv = apps.write(tmp_path, HOOKS)
    done = apps.run(argv, "--daemonize", env={"NOTIFY_SOCKET": "/nowhere", "NOTIFY_FD": "77"})

    assert (done.status, done.out, done.err) == (0, b"by a hook\nNone\nTrue\n", b"")


@pytest.mark.parametrize("way", apps.WAYS)
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, way: str, tmp_path: Path, servers: Family) -> None:
    """Streams that the caller has closed: 0, 1 and 2 of the server are occupied all the same, and it is ready."""
    argv = apps.write(
        tmp_path, apps.WAYS[way] + "@click.command()\n@daemonize_option()\ndef main(): serve('here')\nmain()"
    )
    done = apps.run(["sh", "-c", f'exec "$@" {closed}', "sh", *argv], "--daemonize")

    assert done.status == 0
    assert done.out == (b"" if ">&-" in closed.split() else b"here\n")
    assert done.err == b""
    assert {0, 1, 2} <= procs.descriptors(servers.only().pid).keys()


@pytest.mark.parametrize("way", apps.WAYS)
def test_a_few_descriptors(way: str, tmp_path: Path, family: Family) -> None:
    """Where there are too few descriptors for a launch: one line, 125, nobody left; with enough it goes (control)."""
    argv = apps.write(
        tmp_path, apps.WAYS[way] + "@click.command()\n@daemonize_option()\ndef main(): serve()\nmain()"
    )
    statuses = []
    for number in (8, 100):
        done = apps.run(["sh", "-c", f'ulimit -n {number}; exec "$@"', "sh", *argv], "--daemonize")
        statuses.append(done.status)
        assert done.status == 0 or done.err.count(b"\n") == 1
        assert b"Traceback" not in done.err
        if number == 8:
            family.nobody()
    family.end()

    assert statuses == [125, 0]
