"""`daemonize -f` in a unit of Type=notify-reload, which systemd has since 253.

Not marked as the other tests of systemd: of those, none may be skipped where all of it has to be there, and there systemd
may be older.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support import click_server, ports
from tests.support.click_server import Greeting
from tests.support.namespaces import COMMAND, PLACE

if TYPE_CHECKING:
    from tests.support.systemd import Manager

KIND = "notify-reload"


def test_reload(manager: Manager) -> None:
    """The signal comes from systemd itself; `reload` returns when the server says that it has read all of it."""
    directory, port = manager.inside.directory, ports.free_port()
    shutil.copy(click_server.PATH, directory)
    example = f"{PLACE}/venv/bin/python {PLACE}/{os.path.basename(click_server.PATH)}"
    unit = manager.add(
        f"""
        Type={KIND}
        ExecStart={COMMAND} -f {example} --port {port} --greeting {PLACE}/greeting
        """
    )
    if unit.show("Type") != [KIND]:  # of a type that it does not know, systemd makes a simple one
        pytest.skip(f"this systemd does not know Type={KIND}")
    greeting = Greeting(directory)
    try:
        with unit.popen("start") as start, greeting.asked() as answer:
            answer("good day")
        with unit.popen("reload") as reload:
            with greeting.asked() as answer:
                unit.wait_for(ActiveState="reloading", StatusText=f"reading {PLACE}/greeting")
                status = reload.poll()
                answer("good night")
            reload.communicate(timeout=30)
        answered = click_server.ask(port).greeting
    finally:
        os.unlink(greeting.path)

    assert (start.returncode, status, reload.returncode) == (0, None, 0)
    assert answered == "good night"
    assert unit.show("ActiveState", "StatusText") == ["active", "serving"]
