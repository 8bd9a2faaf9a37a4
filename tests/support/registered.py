"""Records of daemons as the tests look at them, change them and make them up; and `daemonctl`, run as a caller runs it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from daemonize.posix.identity import current_boot_id
from daemonize.registry import content
from tests.support import cli, procs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONTROL = os.path.join(os.path.dirname(sys.executable), "daemonctl")

#: A whole record, of a daemon that nobody has started.
SAMPLE: dict[str, Any] = {
    "name": "web",
    "pid": None,
    "start": 0,
    "boot_id": "3dfa75b0-8468-4134-998e-b1bb12c44b38",
    "explicit": True,
    "since": 12345,
    "session": 4321,
    "token": "DAEMONIZE_ID=63e336c239113253",
    "former": [],
    "process": "sleep",
    "ready": True,
    "foreground": False,
    "by_option": False,
    "began": 1795287203.06,
    "seconds": 0.014,
    "stopped": None,
    "stdout": "/dev/null",
    "stderr": "/dev/null",
    "pid_file": None,
    "pid_file_is_locked": False,
    "drain": None,
    "drain_start": 0,
    "notify_socket": None,
    "listen": [],
    "found": {"port": "127.0.0.1:43210"},
    "directory": "/",
    "program": None,
    "settings": {"command": ["sleep", "100"], "ready": ["alive:10ms"]},
}


def control(
    *args: cli.Word, env: Mapping[str, str | None] | None = None, timeout: float = 30.0, **options: Any
) -> cli.Result:
    """Run `daemonctl` to its end; `env` holds changes, None removes."""
    done = subprocess.run(
        [CONTROL, *args],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=cli.environ(env),
        timeout=timeout,
        **options,
    )
    return cli.Result(done.returncode, done.stdout, done.stderr, 0.0)


def directory() -> str:
    """Where the records of this test are."""
    return os.environ["DAEMONIZE_RUNTIME_DIR"]


def path(name: str) -> str:
    """Where the record of a daemon is."""
    return f"{directory()}/{name}.json"


def read(name: str) -> dict[str, Any]:
    """The fields of a record."""
    with open(path(name)) as file:
        fields: dict[str, Any] = json.load(file)
    return fields


def put(name: str, text: bytes) -> str:
    """Let a record be this; its path."""
    os.makedirs(directory(), mode=0o700, exist_ok=True)
    with open(path(name), "wb", opener=_privately) as file:
        file.write(text)
    return path(name)


def _privately(file: str, flags: int) -> int:
    return os.open(file, flags, 0o600)


def forge(name: str, **changes: object) -> str:
    """A record that was never written, of SAMPLE with changes; its path."""
    return put(name, content.write({**SAMPLE, "name": name, **changes}))


def of_process(pid: int) -> dict[str, object]:
    """The fields by which a record means the process that has this pid now."""
    process = procs.stat(pid)
    assert process is not None
    return {"pid": pid, "start": process.start, "boot_id": current_boot_id(), "since": process.start}


# --- what may lie at a path instead of a file ----------------------------------------------------------------------


def _link(place: str) -> None:
    with open(f"{place}.target", "wb") as file:
        file.write(b"precious")
    os.chmod(f"{place}.target", 0o600)
    os.symlink(f"{place}.target", place)


def _socket(place: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(os.path.dirname(place))  # a longer path than an address has room for
        try:
            made.bind(os.path.basename(place))
        finally:
            os.chdir(here)


def _of_mode(mode: int) -> Callable[[str], None]:
    def make(place: str) -> None:
        with open(place, "wb") as file:
            file.write(content.write(SAMPLE))
        os.chmod(place, mode)

    return make


def _somebody_elses(place: str) -> None:
    _of_mode(0o600)(place)
    os.chown(place, 1, 1)


#: Makers of whatever a launch must not take for a file of its own.
HOSTILE: dict[str, Callable[[str], None]] = {
    "symlink": _link,
    "dangling symlink": lambda place: os.symlink("/nonexistent/nothing", place),
    "fifo": os.mkfifo,
    "directory": os.mkdir,
    "socket": _socket,
    "device": lambda place: os.mknod(place, 0o600 | 0o020000, os.makedev(1, 3)),
    "readable by others": _of_mode(0o644),
    "writable by the group": _of_mode(0o620),
    "another user's": _somebody_elses,
}


def clear(place: str) -> None:
    """Remove whatever lies there."""
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    elif os.path.lexists(place):
        os.unlink(place)
