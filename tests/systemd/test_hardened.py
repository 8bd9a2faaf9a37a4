"""Units that are locked down: `daemonize` works under every restriction that its server works under."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import procs
from tests.support.namespaces import COMMAND
from tests.support.systemd import UID, USER, inner_pid, program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.procs import Process
    from tests.support.systemd import Manager

pytestmark = pytest.mark.systemd


class Restriction(NamedTuple):
    """Lines of [Service], and the proof that they are in force for a process."""

    lines: tuple[str, ...]
    in_force: Callable[[Process], bool]


def has_status(field: str, value: str) -> Callable[[Process], bool]:
    """A field of /proc/PID/status starts with this value."""
    return lambda process: procs.status(process.pid)[field].split()[0] == value


def has_mount(place: str, words: str) -> Callable[[Process], bool]:
    """The line of what is mounted last at a place, in /proc/PID/mountinfo, has these words."""

    def check(process: Process) -> bool:
        lines = procs.read(f"/proc/{process.pid}/mountinfo").decode().splitlines()
        return words in [line for line in lines if line.split()[4] == place][-1]

    return check


FILTERED = has_status("Seccomp", "2")
#: Each is without effect on a process that is not restricted (`test_control_...`).
RESTRICTIONS = {
    "User": Restriction((f"User={USER}",), has_status("Uid", str(UID))),
    "PrivateTmp": Restriction(("PrivateTmp=yes",), has_mount("/tmp", " /systemd-private-")),
    "ProtectSystem": Restriction(("ProtectSystem=strict",), has_mount("/var/log", " ro,")),
    "NoNewPrivileges": Restriction(("NoNewPrivileges=yes",), has_status("NoNewPrivs", "1")),
    "CapabilityBoundingSet": Restriction(("CapabilityBoundingSet=",), has_status("CapBnd", "0" * 16)),
    "ProtectProc": Restriction(
        (f"User={USER}", "ProtectProc=invisible"), has_mount("/proc", "hidepid=invisible")
    ),
    "ProcSubset": Restriction(("ProcSubset=pid",), has_mount("/proc", "subset=pid")),
    "MemoryDenyWriteExecute": Restriction(("MemoryDenyWriteExecute=yes",), FILTERED),
    "SystemCallFilter": Restriction(("SystemCallFilter=@system-service",), FILTERED),
    "RestrictNamespaces": Restriction(("RestrictNamespaces=yes",), FILTERED),
}
EVERYTHING = tuple(dict.fromkeys(line for restriction in RESTRICTIONS.values() for line in restriction.lines))
#: Ways to be ready: by the streams, in the time given, and daemonizing itself.
SERVERS = {
    "streams": ("", program("repoints", "hello")),
    "alive": ("-r alive:200ms", program("tcp_echo", "holds")),
    "daemonizes": ("", program("self_daemonizes")),
}


def started(manager: Manager, lines: tuple[str, ...], server: str) -> Process:
    """The main process of a unit with these lines and its pid file in a RuntimeDirectory=; all about it is in order."""
    options, command = SERVERS[server]
    unit = manager.add(
        f"""
        Type=forking
        RuntimeDirectory=%N
        PIDFile=%t/%N/pid
        ExecStart={COMMAND} --pid-file %t/%N/pid {options} {command}
        """
        + "\n".join(lines)
    )
    unit.start()
    main = unit.main()
    assert main, unit.journal()
    assert main.ppid == manager.pid
    assert unit.processes() == [main]
    assert procs.command_line(main.pid) == command
    with open(manager.path(f"{manager.runtime}/{unit.name.removesuffix('.service')}/pid")) as file:
        assert file.read() == f"{inner_pid(main.pid)}\n"
    assert not [
        line for line in unit.journal() if "PID file" in line or "not our child" in line or "nsafe" in line
    ]
    return main


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", RESTRICTIONS)
def test_restricted(system_manager: Manager, name: str, server: str) -> None:
    """The launch goes as everywhere, and the restriction is in force for the server."""
    restriction = RESTRICTIONS[name]

    assert restriction.in_force(started(system_manager, restriction.lines, server))


@pytest.mark.parametrize("server", SERVERS)
def test_all_at_once(system_manager: Manager, server: str) -> None:
    """All restrictions together."""
    main = started(system_manager, EVERYTHING, server)

    assert {name for name, restriction in RESTRICTIONS.items() if not restriction.in_force(main)} == set()


@pytest.mark.parametrize("options", ["", "-r alive:2s"])
def test_one_that_fails(system_manager: Manager, options: str) -> None:
    """Under all restrictions, where no log can be kept, the words and the status of a server that fails arrive, too."""
    lines = ["Type=forking", f"ExecStart={COMMAND} {options} {program('crashes_early', 7, 'no', 'database')}"]
    unit = system_manager.add("\n".join([*lines, *EVERYTHING]))

    assert unit.ctl("start") == 1
    assert unit.show("ExecStart")[0].endswith("code=exited ; status=7 }")
    assert "no database" in unit.journal()
    assert unit.processes() == []


def test_control_nothing_is_in_force_by_itself(system_manager: Manager) -> None:
    """Negative control: a unit without restrictions has none of them."""
    main = started(system_manager, (), "streams")

    assert {name for name, restriction in RESTRICTIONS.items() if restriction.in_force(main)} <= {
        "PrivateTmp"
    }
