"""A place for a systemd: namespaces of their own, in a cgroup of their own, with all that a unit needs.

The order of the steps is what keeps the machine safe: **a child cgroup first, join it second, the cgroup namespace third.**
A systemd that is started without them takes every process of the machine for its own and moves it. So there is a guard
before the command (`GUARD`): it starts nothing unless the root of the hierarchy that it sees is the directory that was
made for it. /proc/self/cgroup alone would not do: it says `0::/` in a machine's own root as well.

In there the root file system is read-only, and /run, /dev, /tmp, /var/tmp, /var/log are private and empty. All that a unit
needs is under PLACE: the command, the programs of tests/programs, an interpreter, and what a test puts into
`Namespaces.directory`. It is a copy, because a `User=` unit cannot enter a clone in somebody's home, nor a PrivateTmp= unit
one in /tmp.

What a killed run leaves is an empty cgroup and a directory; the next one sweeps them. Nothing else survives: the first
process dies with ours (PR_SET_PDEATHSIG), and all others of the pid namespace with that.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Self

from tests.support import cli, procs, programs

if TYPE_CHECKING:
    from tests.support.procs import Process

#: What this needs of the machine.
TOOLS = ("unshare", "setpriv", "mount")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Where a unit finds what is its own; `Namespaces.directory` as seen from inside. Not below /tmp: PrivateTmp= hides that.
PLACE = "/run/daemonize-tests"
#: The installed command, and Python programs fast to start, as a unit calls them.
COMMAND = f"{PLACE}/venv/bin/daemonize"
PYTHON = f"{PLACE}/venv/bin/python -S -E"

_PREFIX = "daemonize-systemd-"

# Each step is a shell script that ends by executing its arguments, so a step can be tested without the later ones.
JOIN = 'echo 0 >"$CGROUP/cgroup.procs"; exec "$@"'
GUARD = """
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup  # hides every version 1 hierarchy, too
    seen="$(stat -f -c %T /sys/fs/cgroup) $(stat -c %i /sys/fs/cgroup) $(grep ^0: /proc/self/cgroup)"
    [ "$seen" = "cgroup2fs $INODE 0::/" ] || {
        echo "refused: the cgroup namespace is not rooted in $CGROUP: $seen" >&2
        exit 1
    }
    exec "$@"
"""
FURNISH = f"""
    mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
    mkdir -p {PLACE} /run/systemd/system /run/lock /run/user /run/log/journal /run/dev
    mount --bind "$W" {PLACE}
    mount --bind "$PYTHON_PREFIX" {PLACE}/python

    mount -t tmpfs -o mode=755,nosuid tmpfs /run/dev
    mkdir /run/dev/pts /run/dev/shm
    for node in null zero full random urandom tty; do
        touch /run/dev/$node
        mount --bind /dev/$node /run/dev/$node
    done
    for node in console kmsg; do
        touch /run/dev/$node
        mount --bind /dev/null /run/dev/$node
    done
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /run/dev/pts
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /run/dev/shm
    ln -s pts/ptmx /run/dev/ptmx
    mount --move /run/dev /dev

    for directory in /tmp /var/tmp /var/log; do
        mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs $directory
    done
    chmod 755 /var/log
    mount --bind /proc/sys /proc/sys
    for directory in {PLACE}/python /proc/sys /sys /; do
        mount -o remount,bind,ro $directory
    done
    cd /
    exec "$@"
"""


def cgroup_root() -> str:
    """Where the cgroup2 hierarchy of this machine is mounted; empty if it is not."""
    for line in procs.read("/proc/self/mountinfo").decode().splitlines():
        mount, _, source = line.partition(" - ")
        if source.startswith("cgroup2 ") and mount.split()[3] == "/":
            return mount.split()[4]
    return ""


def sweep() -> list[str]:
    """Remove what killed runs have left; the names of what was removed. What belongs to a run that lives is locked."""
    swept = []
    for entry in os.scandir(tempfile.gettempdir()):
        if entry.name.startswith(_PREFIX) and (lock := _lock_of_the_dead(entry.path)) is not None:
            with contextlib.suppress(OSError):  # still busy dying: the next sweep will find it
                _remove_cgroup(os.path.join(cgroup_root(), entry.name))
                shutil.rmtree(entry.path)
                swept.append(entry.name)
            os.close(lock)
    return swept


def _lock_of_the_dead(directory: str) -> int | None:
    """The lock of a directory that a run has claimed and nobody holds now; None if it is not ours to remove."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Made under the lock: what has no `venv` is about to be claimed.
        if os.fstat(lock).st_uid == os.geteuid() and os.path.isdir(f"{directory}/venv"):
            return lock
    except BlockingIOError:
        pass
    os.close(lock)
    return None


def _remove_cgroup(path: str) -> None:
    """Remove an empty cgroup and those below it. Raises OSError if a process is left in one."""
    for directory, _, _ in os.walk(path, topdown=False):
        os.rmdir(directory)


class Namespaces:
    """A cgroup, and a directory that is PLACE inside; `enter` runs a command as pid 1 of new namespaces in them."""

    def __init__(self) -> None:
        root = cgroup_root()  # before anything is made
        self.directory = tempfile.mkdtemp(prefix=_PREFIX)
        self._lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.chmod(self.directory, 0o755)
        self.cgroup = os.path.join(root, os.path.basename(self.directory))
        self._outer: subprocess.Popen[bytes] | None = None
        try:
            _furnish(self.directory)
            os.mkdir(self.cgroup)
        except BaseException:
            self.close()
            raise

    def enter(
        self, *command: str, steps: tuple[str, ...] = (JOIN, GUARD, FURNISH)
    ) -> subprocess.Popen[bytes]:
        """Run `command`; what it says is in `said`. `steps` is for tests of the guard."""
        isolate = [
            "unshare",
            "--fork",
            "--pid",
            "--kill-child=KILL",
            "--mount",
            "--mount-proc",
            "--ipc",
            "--uts",
        ]
        join, *inner = [["sh", "-euc", step, "sh"] for step in steps]
        # unshare(1) itself stays out of the cgroup. Its second call must come after the first step has joined it.
        words = [*isolate, "--propagation=private", *join, "unshare", "--cgroup"]
        with open(f"{self.directory}/log", "wb") as log:
            self._outer = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *words, *(word for step in inner for word in step), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    "PATH": PATH,
                    "W": self.directory,
                    "CGROUP": self.cgroup,
                    "INODE": str(os.stat(self.cgroup).st_ino),
                    "PYTHON_PREFIX": os.path.realpath(sys.base_prefix),
                },
            )
        return self._outer

    @property
    def said(self) -> str:
        """What the command has said so far, on either stream."""
        with open(f"{self.directory}/log") as log:
            return log.read()

    def processes(self, below: str = "") -> list[Process]:
        """The processes in the cgroup, or in one below it, by their pids out here."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.cgroup + below):
            found += map(int, procs.read(f"{directory}/cgroup.procs").split())
        return procs.processes(found)

    def close(self) -> None:
        """End everything inside and remove all of it. An AssertionError if anything outlives that."""
        inside = self.processes()
        if self._outer:
            for first in procs.children(self._outer.pid):
                # The first of a pid namespace ends when all others in it have ended, whoever their parents are.
                procs.stop(first.pid, signal.SIGKILL)
            self._outer.kill()
            self._outer.wait()
        for process in inside:
            assert procs.wait_ended(process.pid, start=process.start), f"{process} outlived its namespace"
        if os.path.exists(self.cgroup):
            # A process leaves its cgroup a moment after it has ended.
            procs.eventually(lambda: _remove_cgroup(self.cgroup))
        shutil.rmtree(self.directory)
        os.close(self._lock)
        assert not os.path.exists(self.cgroup)
        assert not os.path.exists(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _furnish(directory: str) -> None:
    """Put the installed command and the programs into a directory that is going to be PLACE."""
    _install(f"{directory}/venv")
    shutil.copytree(programs.DIRECTORY, f"{directory}/programs")
    os.mkdir(f"{directory}/python")


def _install(venv: str) -> None:
    """Install the command as pip would, under another prefix.

    Not with pip: that needs a build backend, hence a network, and takes longer than all the rest.
    """
    python = os.path.relpath(os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix))
    library = f"{venv}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for name in ("daemonize", "click", "daemon", "lockfile", "psutil"):
        source = importlib.import_module(name).__file__
        assert source
        shutil.copytree(os.path.dirname(source), f"{library}/{name}")
    os.mkdir(f"{venv}/bin")
    os.symlink(f"{PLACE}/python/{python}", f"{venv}/bin/python")
    with open(f"{venv}/pyvenv.cfg", "w") as file:
        file.write(f"home = {os.path.dirname(f'{PLACE}/python/{python}')}\n")
    with open(cli.COMMAND) as installed, open(f"{venv}/bin/daemonize", "w") as script:
        script.write(f"#!{PLACE}/venv/bin/python\n" + installed.read().partition("\n")[2])
    os.chmod(f"{venv}/bin/daemonize", 0o755)
