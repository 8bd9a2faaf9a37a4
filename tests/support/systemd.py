"""A throw-away systemd: a real system manager, and a real user manager under it.

    pytest ─ setpriv ─ unshare ─│─ systemd --system (pid 1) ─┬─ journald, units
                                │                            └─ user@65534.service: systemd --user ─ units

Where it lives, and what keeps the machine safe from it: tests/support/namespaces.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import namespaces, procs, programs
from tests.support.namespaces import COMMAND, PATH, PLACE, PYTHON, Namespaces
from tests.support.procs import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.procs import Process

#: An ordinary user that is there everywhere, and its group.
USER, UID = "nobody", 65534

#: Where a unit's pid file is, in the unit's words. See `Unit.pid_file`.
PID_FILE = "%t/%N.pid"
#: What systemd says about a service whose launcher broke the protocol of Type=forking.
_COMPLAINT = re.compile(
    r"not our child|Can't open PID file|[Ss]upervising process|PID file|does not (exist|belong)|[Uu]nsafe"
)

_SYSTEMD = "/lib/systemd/systemd"
_TOOLS = (*namespaces.TOOLS, _SYSTEMD, "systemctl", "journalctl", "dbus-daemon", "nsenter")
_SYSTEM_COPIES = tuple(
    f"/lib/systemd/system/{name}"
    for name in (
        "systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket",
        "dbus.service", "dbus.socket",
    )
)  # fmt: skip
_USER_COPIES = ("/usr/lib/systemd/user/dbus.service", "/usr/lib/systemd/user/dbus.socket")
_BOOT_TIMEOUT = 20.0

_MANAGER_ENVIRONMENT = (
    f"PATH={PATH}",
    "LANG=C.UTF-8",
    "SYSTEMD_GENERATOR_PATH=/nonexistent",
    "SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nonexistent",
    "SYSTEMD_LOG_TARGET=journal",
)

_BARE = "[Unit]\nDefaultDependencies=no\n"
_BASE_UNITS = {
    **{f"{name}.target": _BARE for name in ("shutdown", "umount", "final", "paths", "timers", "exit")},
    "sockets.target": f"{_BARE}Wants=dbus.socket\n",
    "basic.target": f"{_BARE}Requires=sysinit.target\nWants=sockets.target\nAfter=sysinit.target sockets.target\n",
}
_SYSTEM_UNITS = {
    **_BASE_UNITS,
    "sysinit.target": f"{_BARE}Wants=systemd-journald.service\nAfter=systemd-journald.service\n",
    # As systemd's own, but for PAM, which would look for logind.
    "user@.service": f"""
        [Service]
        Type=notify
        User=%i
        Slice=user-%i.slice
        Delegate=yes
        KillMode=mixed
        RuntimeDirectory=user/%i
        RuntimeDirectoryMode=0700
        Environment=HOME=/run/user/%i
        Environment=XDG_RUNTIME_DIR=/run/user/%i SYSTEMD_UNIT_PATH={PLACE}/user-units
        Environment={" ".join(_MANAGER_ENVIRONMENT)}
        ExecStart={_SYSTEMD} --user --unit=basic.target
    """,
}
_USER_UNITS = {**_BASE_UNITS, "sysinit.target": _BARE}


def program(name: str, *args: str | int) -> str:
    """The command line, for a unit, that runs tests/programs/NAME (see tests/support/programs.py)."""
    words = programs.program(name, *args)
    interpreter = PYTHON if words[-len(args) - 1].endswith(".py") else programs.SHELL
    file = os.path.basename(words[-len(args) - 1])
    return f"{interpreter} {PLACE}/programs/{file} {shlex.join(map(str, args))}".rstrip()


# --- what is there --------------------------------------------------------------------------------------------------


def unavailable() -> str:
    """Why there can be no throw-away systemd here; empty if there can. Starts none, but all that comes before it."""
    missing = [tool for tool in _TOOLS if not shutil.which(tool, path=PATH)]
    missing += [file for file in (*_SYSTEM_COPIES, *_USER_COPIES) if not os.path.exists(file)]
    if os.geteuid():
        return "a throw-away systemd needs root"
    if missing:
        return f"a throw-away systemd needs {', '.join(missing)} (make test-servers)"
    if not namespaces.cgroup_root():
        return "a throw-away systemd needs cgroup2, which is not mounted"
    try:
        with Namespaces() as inside:
            ordinary = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
            status = inside.enter(*ordinary, COMMAND, "--help").wait(_BOOT_TIMEOUT)
            problem = f"status {status}: {inside.said.strip()}" if status else ""
    except OSError as error:
        problem = str(error)
    return f"a throw-away systemd has no place here: {problem}" if problem else ""


def _write_units(directory: str, units: Mapping[str, str], copies: tuple[str, ...]) -> None:
    os.mkdir(directory)
    for name, text in units.items():
        with open(f"{directory}/{name}", "w") as unit:
            unit.write(textwrap.dedent(text))
    for file in copies:
        shutil.copy(file, directory)


# --- managers -------------------------------------------------------------------------------------------------------


class Manager:
    """A running manager that units can be given to.

    inside: where it runs. pid: its own, out here. user: it is the manager of USER, not the system's. runtime: its %t.
    """

    def __init__(self, inside: Namespaces, pid: int, *, user: bool) -> None:
        self.inside, self.pid, self.user = inside, pid, user
        self.runtime = f"/run/user/{UID}" if user else "/run"
        self.units: list[Unit] = []
        self._directory = f"{inside.directory}/{'user-units' if user else 'units'}"
        self._count = 0

    def add(self, service: str, *, unit: str = "") -> Unit:
        """A unit of a name that none had before, from the lines of its [Service] section, and of [Unit].

        Unless they say otherwise, systemd gives up after 20 s.
        """
        return self.install(
            f"[Unit]\n{textwrap.dedent(unit)}\n[Service]\nTimeoutSec=20\n{textwrap.dedent(service)}\n"
        )

    def install(self, text: str) -> Unit:
        """A unit of a name that none had before, from the text of a unit file."""
        self._count += 1
        stem = f"{'user' if self.user else 'system'}-{self._count}"
        with open(f"{self._directory}/{stem}.service", "w") as file:
            file.write(text.replace("[Service]\n", f"[Service]\nSyslogIdentifier={stem}\n"))
        self.units.append(Unit(self, f"{stem}.service"))
        self.ctl("daemon-reload", check=True)
        return self.units[-1]

    def path(self, inside: str) -> str:
        """A path out here to what is at `inside` in there."""
        return f"/proc/{self.pid}/root{inside}"

    def ctl(self, *args: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `systemctl ARGS`."""
        return self.run("systemctl", "--no-pager", *(["--user"] if self.user else []), *args, check=check)

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command beside the manager, as its user."""
        with self.popen(*command) as process:
            try:
                out, err = process.communicate(timeout=40)
            finally:
                process.kill()
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check:
            assert done.returncode == 0, done
        return done

    def popen(self, *command: str) -> subprocess.Popen[str]:
        """Start a command beside the manager, as its user. Use it in a `with` block."""
        become = [f"--setuid={UID}", f"--setgid={UID}"] if self.user else []
        return subprocess.Popen(
            ["nsenter", f"--target={self.pid}", "-m", "-p", "-i", "-u", "-C", *become, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PATH": PATH,
                "LANG": "C.UTF-8",
                "XDG_RUNTIME_DIR": f"/run/user/{UID}" if self.user else "/run",
            },
        )

    def clear(self) -> None:
        """Stop and forget all units. An AssertionError if a process of one is left."""
        units, self.units = self.units, []
        if not units:
            return
        self.ctl("stop", *(unit.name for unit in units))
        left = {unit.name: unit.processes() for unit in units}
        for unit in units:
            os.unlink(f"{self._directory}/{unit.name}")
        self.ctl("daemon-reload", check=True)
        self.ctl("reset-failed", check=True)
        assert not any(left.values()), left


class Systemd(Manager):
    """A system manager, pid 1 of its namespaces. Boots in about 0.1 s.

    Raises AssertionError with what it said if it does not come up.
    """

    def __init__(self) -> None:
        with contextlib.ExitStack() as undo:
            inside = undo.enter_context(Namespaces())
            _write_units(f"{inside.directory}/units", _SYSTEM_UNITS, _SYSTEM_COPIES)
            _write_units(f"{inside.directory}/user-units", _USER_UNITS, _USER_COPIES)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.bind(f"{inside.directory}/notify")
                outer = inside.enter(
                    "env", "-i", *_MANAGER_ENVIRONMENT, "container=daemonize-tests", f"NOTIFY_SOCKET={PLACE}/notify",
                    f"SYSTEMD_UNIT_PATH={PLACE}/units", _SYSTEMD, "--system", "--unit=basic.target",
                )  # fmt: skip
                told.settimeout(_BOOT_TIMEOUT)
                try:
                    while b"READY=1" not in told.recv(4096).split(b"\n"):
                        pass
                except TimeoutError:
                    pytest.fail(f"systemd did not come up: {inside.said}", pytrace=False)
            (first,) = procs.children(outer.pid)
            super().__init__(inside, first.pid, user=False)
            undo.pop_all()

    def user_manager(self) -> Manager:
        """Start the user manager of an ordinary user."""
        service = f"user@{UID}.service"
        self.ctl("start", service, check=True)
        main = Unit(self, service).main()
        assert main
        return Manager(self.inside, main.pid, user=True)

    def close(self) -> None:
        """End it and everything in it."""
        self.inside.close()


class Unit(NamedTuple):
    """One unit of a manager."""

    manager: Manager
    name: str

    def ctl(self, verb: str) -> int:
        """`systemctl VERB` with this unit; its exit status."""
        return self.manager.ctl(verb, self.name).returncode

    def popen(self, verb: str) -> subprocess.Popen[str]:
        """The same, still running. Use it in a `with` block."""
        return self.manager.popen("systemctl", *(["--user"] if self.manager.user else []), verb, self.name)

    def start(self) -> None:
        """Start it; an AssertionError with its journal if that fails."""
        assert self.ctl("start") == 0, self.journal()

    def show(self, *properties: str) -> list[str]:
        """The values of some properties, in this order."""
        text = self.manager.ctl("show", self.name, f"--property={','.join(properties)}", check=True).stdout
        values = dict(line.split("=", 1) for line in text.splitlines())
        return [values[name] for name in properties]

    def journal(self) -> list[str]:
        """What it and its manager have said about it, a line an entry, all that was said until now."""
        system = self.manager
        field = "USER_UNIT" if system.user else "UNIT"
        matches = [f"_SYSTEMD_{field}={self.name}", "+", f"{field}={self.name}"]
        if system.user:
            # A user manager does not name the unit on the stream, as the system's does: journald looks the writer up in
            # /proc, and if that has gone by then, the entry has no unit.
            matches += ["+", f"SYSLOG_IDENTIFIER={self.name.removesuffix('.service')}"]
        # In the system's namespaces, but as root: who may read the journal is not the question here.
        reader = Manager(system.inside, system.pid, user=False)
        reader.run("journalctl", "--sync", check=True)
        text = reader.run("journalctl", "--quiet", "--no-pager", "--output=cat", *matches, check=True).stdout
        return text.splitlines()

    def complaints(self) -> list[str]:
        """What systemd has had to say about its launcher."""
        return [line for line in self.journal() if _COMPLAINT.search(line)]

    @property
    def pid_file(self) -> str:
        """The path, out here, of its pid file if that is PID_FILE."""
        return self.manager.path(f"{self.manager.runtime}/{self.name.removesuffix('.service')}.pid")

    def processes(self) -> list[Process]:
        """All processes in its cgroup, by their pids out here."""
        (cgroup,) = self.show("ControlGroup")
        return self.manager.inside.processes(cgroup) if cgroup else []

    def main(self) -> Process | None:
        """Its main process, by its pid out here; None if it has none."""
        (pid,) = self.show("MainPID")
        return next((process for process in self.processes() if inner_pid(process.pid) == int(pid)), None)

    def wait_for(self, **properties: str) -> None:
        """Wait until its properties have these values. An AssertionError if they have not in time."""

        def check() -> None:
            assert dict(zip(properties, self.show(*properties), strict=True)) == properties

        eventually(check, 20)


def inner_pid(pid: int) -> int:
    """The pid that a process has in its own pid namespace."""
    return int(procs.status(pid).get("NSpid", "0").split()[-1])
