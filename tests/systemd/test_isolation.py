"""The throw-away systemd: nothing of the machine is its own, and what it was is gone afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support import namespaces, procs, systemd
from tests.support.namespaces import FURNISH, GUARD, JOIN, Namespaces

pytestmark = pytest.mark.systemd

#: A stand-in: no test of the guard starts systemd.
STAND_IN = ("echo", "started")
#: Like the steps that join the cgroup and that look, but for one thing.
NOT_JOINED = 'exec "$@"'


@pytest.fixture(autouse=True)
def possible(booted: systemd.Systemd) -> None:
    """Skip where there can be no systemd."""


def test_the_guard_lets_pass_what_is_isolated() -> None:
    """In a cgroup namespace that is rooted in its own cgroup, the command is started."""
    with Namespaces() as place:
        status = place.enter(*STAND_IN, steps=(JOIN, GUARD)).wait(10)
        said = place.said

    assert (status, said) == (0, "started\n")


@pytest.mark.parametrize("later", [(GUARD,), (GUARD, FURNISH)])
def test_the_guard_refuses_what_has_not_joined_its_cgroup(later: tuple[str, ...]) -> None:
    """Negative control: rooted in the machine's own cgroup, where systemd would move everybody, nothing is started."""
    with Namespaces() as place:
        status = place.enter(*STAND_IN, steps=(NOT_JOINED, *later)).wait(10)
        said = place.said

    assert status == 1
    assert said.startswith("refused: the cgroup namespace is not rooted in ")
    assert "started" not in said


def test_the_guard_refuses_what_is_in_another_cgroup() -> None:
    """Negative control: a cgroup namespace in a cgroup, but not in the one that was made for it."""
    with Namespaces() as other, Namespaces() as place:
        join = f'echo 0 >"{other.cgroup}/cgroup.procs"; exec "$@"'
        status = place.enter(*STAND_IN, steps=(join, GUARD)).wait(10)
        said = place.said

    assert status == 1
    assert "started" not in said


def test_every_process_of_the_machine_stays_where_it_is(system_manager: systemd.Systemd) -> None:
    """All of systemd's processes are in its cgroup, and nobody else is: not even those that started it."""
    inside = {process.pid for process in system_manager.inside.processes()}
    namespace = os.readlink(f"/proc/{system_manager.pid}/ns/pid")
    same = {pid for pid in procs.pids() if _namespace(pid) == namespace}

    assert system_manager.pid in inside
    assert same == inside
    assert os.getpid() not in inside


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def test_the_machine_is_read_only_in_there(system_manager: systemd.Systemd) -> None:
    """A root process cannot write to the machine's disk, its settings, its devices' directory or its temporary files."""
    name = f"daemonize-tests-{os.getpid()}"
    readonly = [
        system_manager.run("touch", f"{place}/{name}").returncode for place in ("/etc", "/usr", "/root")
    ]
    setting = system_manager.run("sh", "-c", "cat /proc/sys/kernel/hostname >/proc/sys/kernel/hostname")
    private = [f"{place}/{name}" for place in ("/tmp", "/var/tmp", "/run", "/dev", "/var/log")]
    for path in private:
        system_manager.run("touch", path, check=True)
        system_manager.run("rm", path, check=True)

    assert all(readonly)
    assert "Read-only file system" in setting.stderr
    assert not any(os.path.exists(path) for path in private)


def test_close_leaves_nothing() -> None:
    """A system manager with a unit and a user manager, closed: no process, no cgroup, no directory, no mount."""
    mounts = procs.read("/proc/self/mountinfo")
    manager = systemd.Systemd()
    try:
        manager.user_manager()
        unit = manager.add(f"ExecStart={systemd.program('repoints')}")
        unit.start()
        inside, directory, cgroup = (
            manager.inside.processes(),
            manager.inside.directory,
            manager.inside.cgroup,
        )
    finally:
        manager.close()

    assert len(inside) >= 5  # systemd, journald, the unit, the user manager and its helper
    assert not any(procs.stat(process.pid) == process for process in inside)
    assert not os.path.exists(directory)
    assert not os.path.exists(cgroup)
    assert procs.read("/proc/self/mountinfo") == mounts


def test_a_killed_run_is_swept() -> None:
    """A run that is killed ends its systemd; the next sweep removes its directory and cgroup, but not those of a living."""
    code = "from tests.support import systemd; m = systemd.Systemd(); print(m.inside.directory, m.pid, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout
        directory, pid = run.stdout.readline().split()
        before = namespaces.sweep()
        first = procs.stat(int(pid))
        run.send_signal(signal.SIGKILL)
    name = os.path.basename(directory)
    assert first
    assert procs.wait_ended(first.pid, start=first.start)

    def swept() -> None:
        assert name in namespaces.sweep()

    procs.eventually(swept)  # what is killed leaves its cgroup a moment later
    assert name not in before
    assert not os.path.exists(directory)
    assert not os.path.exists(os.path.join(namespaces.cgroup_root(), name))


@pytest.mark.parametrize(
    ("owner", "name", "value", "reason"),
    [
        (os, "geteuid", lambda: 1000, "needs root"),
        (systemd, "_TOOLS", ("/nonexistent/systemd",), "needs /nonexistent/systemd (make test-servers)"),
        (namespaces, "cgroup_root", lambda: "", "needs cgroup2"),
        (namespaces, "cgroup_root", lambda: "/proc", "has no place here: [Errno "),
        (
            systemd,
            "COMMAND",
            "/nonexistent/command",
            "has no place here: status 127: setpriv: failed to execute",
        ),
    ],
)
def test_a_skip_has_its_reason(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, value: object, reason: str
) -> None:
    """Where there can be no systemd, it is said why; and nothing is left by the trial."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, value)
        said = systemd.unavailable()

    assert reason in said
    assert systemd.unavailable() == ""


def test_what_a_test_leaves_is_seen(manager: systemd.Manager) -> None:
    """Negative control: a process that is left in a unit fails the test that left it."""
    unit = manager.add(f"KillMode=none\nExecStart={systemd.program('repoints')}")
    unit.start()
    main = unit.main()
    assert main
    try:
        with pytest.raises(AssertionError, match=str(main.pid)):
            manager.clear()
    finally:
        procs.stop(main.pid)
