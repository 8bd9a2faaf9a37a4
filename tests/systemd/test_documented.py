"""The units that the README and the manual page show start as they stand, but for the names of programs and files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import procs
from tests.support.namespaces import COMMAND
from tests.support.systemd import inner_pid, program

if TYPE_CHECKING:
    from tests.support.systemd import Manager

pytestmark = pytest.mark.systemd

ROOT = Path(__file__).parents[2]
PID_FILE = "/run/server/pid"


def units(text: str) -> list[str]:
    """The lines of each [Service] section in a document."""
    return re.findall(r"^\[Service\]\n(.*?)^(?:```|\.EE)$", text, re.MULTILINE | re.DOTALL)


DOCUMENTED = {
    "README": units((ROOT / "README.md").read_text()),
    "man": units((ROOT / "man" / "daemonize.1").read_text().replace("\\-", "-")),
}


@pytest.mark.parametrize("document", DOCUMENTED)
def test_a_documented_unit(system_manager: Manager, document: str) -> None:
    """It starts, its pid file names its main process, and it serves until it is stopped."""
    (service,) = DOCUMENTED[document]
    command = program("repoints", "hello")
    service = service.replace("/opt/daemonize/bin/daemonize", COMMAND).replace("/usr/bin/server", command)
    unit = system_manager.add(service)
    unit.start()
    main = unit.main()
    with open(system_manager.path(PID_FILE)) as file:
        written = file.read()

    assert main
    assert written == f"{inner_pid(main.pid)}\n"
    assert unit.processes() == [main]
    assert procs.command_line(main.pid) == command
    assert "hello" in unit.journal()
    assert not [line for line in unit.journal() if "PID file" in line or "not our child" in line]


def test_control_a_unit_with_another_pid_file_is_seen(system_manager: Manager) -> None:
    """Negative control: where the two do not agree, systemd waits for its own in vain."""
    (service,) = DOCUMENTED["man"]
    service = service.replace("/opt/daemonize/bin/daemonize", COMMAND).replace(
        "/usr/bin/server", program("repoints", "hello")
    )
    unit = system_manager.add(service.replace(f"-p {PID_FILE}", f"-p {PID_FILE}2") + "TimeoutStartSec=1\n")

    assert unit.ctl("start") != 0
