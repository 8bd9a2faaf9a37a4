"""The guards around every test, as a pytest plugin: what a test opens, starts or changes, it ends and puts back.

    before   environment scrubbed, private directories, two marks that every process started from here on inherits
    test
    after    fixtures of the test torn down; then: descriptors, processes, and process-wide state as before

A process that is left is killed (by pidfd, its start time checked) and the test fails, naming it. Processes are known
by two marks, because each can be lost: a variable in the environment (gone with --clear-env, or when a server writes
its title over its environment, as nginx does), and an odd soft limit on real-time CPU, which nothing here uses and
nobody resets. The marks belong to one test, so other test runs on the machine are never mistaken for ours.

tests/meta/test_guards.py shows that each guard catches what it is there for.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import secrets
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import procs

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

REQUIRE = "DAEMONIZE_TESTS_REQUIRE"
#: What may come from outside and would change what is tested.
FOREIGN = (
    "DAEMONIZE_", "NOTIFY_", "WATCHDOG_", "LISTEN_", "MAINPID", "XDG_", "PYTHON", "JOURNAL_STREAM", "INVOCATION_ID",
    "LC_", "LANG", "TEST_MARK_",
)  # fmt: skip
#: A process that is about to end by itself (a drain whose pipe has just closed) has this long to do so.
GRACE = 1.0
STRESS_TIMEOUT = 1800


# --- what every test finds ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def scrubbed_environment(directory: str, mark: str) -> Iterator[None]:
    """The environment of a test: nothing from outside that matters, every directory private, the mark in it."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(FOREIGN):
            del os.environ[name]
    os.environ.update(
        {
            mark: "1",
            "HOME": f"{directory}/home",
            "LC_ALL": "C.UTF-8",
            "DAEMONIZE_STATE_DIR": f"{directory}/state",
            "DAEMONIZE_RUNTIME_DIR": f"{directory}/run",
            "XDG_STATE_HOME": f"{directory}/xdg-state",
            "XDG_RUNTIME_DIR": f"{directory}/xdg-run",
        }
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def branded() -> Iterator[str]:
    """A mark that survives exec and a new environment: an odd soft RLIMIT_RTTIME, as /proc/PID/limits shows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    room = hard if hard != resource.RLIM_INFINITY else 1 << 60
    brand = room - 1 - secrets.randbelow(room // 2)
    resource.setrlimit(resource.RLIMIT_RTTIME, (brand, hard))
    try:
        yield str(brand)
    finally:
        resource.setrlimit(resource.RLIMIT_RTTIME, (soft, hard))


# --- what every test has to leave as it was ------------------------------------------------------------------------


class Descriptors:
    """The same descriptors are open as before, on the same files."""

    def __init__(self) -> None:
        self.before = self.now()

    @staticmethod
    def now() -> dict[int, tuple[str, int, int]]:
        """Each descriptor with what it points at, device and inode (a name alone can be reused)."""
        found = {}
        for fd, target in procs.descriptors(os.getpid()).items():
            with contextlib.suppress(OSError):  # the listing's own descriptor
                info = os.fstat(fd)
                found[fd] = (target, info.st_dev, info.st_ino)
        return found

    def faults(self) -> Iterator[str]:
        """One line for each descriptor that was left open, closed, or pointed elsewhere."""
        after = self.now()
        if after != self.before:
            # A traceback may still hold an object; collecting one that was not closed is an error by itself.
            gc.collect()
            after = self.now()
        for fd in sorted(after.keys() | self.before.keys()):
            was, now = self.before.get(fd), after.get(fd)
            if was is None and now is not None:
                yield f"descriptor {fd} was left open: {now[0]}"
            elif now is None and was is not None:
                yield f"descriptor {fd} was closed: {was[0]}"
            elif now != was and now is not None and was is not None:
                yield f"descriptor {fd} was pointed elsewhere: from {was[0]} to {now[0]}"


class Processes:
    """No child is left, dead or alive, and no process anywhere that the test brought about."""

    def __init__(self, mark: str, brand: str) -> None:
        self.mark, self.brand = mark, brand
        self.before = {(process.pid, process.start) for process in procs.processes()}

    def _ours(self, process: procs.Process) -> bool:
        if process.ppid == os.getpid():
            return True
        if process.ended:
            return False  # its parent is responsible for it, or init is about to reap it
        return self.brand.encode() in procs.read(f"/proc/{process.pid}/limits").split() or bool(
            procs.carrying(self.mark, [process.pid])
        )

    def left(self) -> list[procs.Process]:
        """The processes of this test that still exist."""
        new = (process for process in procs.processes() if (process.pid, process.start) not in self.before)
        return [process for process in new if self._ours(process)]

    def faults(self) -> Iterator[str]:
        """One line for each process that was left; all of them are gone afterwards."""
        end = time.monotonic() + GRACE
        for process in self.left():
            if not process.ended:
                procs.wait_ended(process.pid, max(0.0, end - time.monotonic()), process.start)
        # Again and again: what is killed may just have started another.
        while left := self.left():
            for process in left:
                what = "child was not reaped" if process.ended else "process was left running"
                yield f"{what}: {process.name} (pid {process.pid}): {procs.command_line(process.pid)}"
                self._end(process)

    @staticmethod
    def _end(process: procs.Process) -> None:
        procs.send(process.pid, signal.SIGKILL, process.start)
        procs.wait_ended(process.pid, start=process.start)
        if process.ppid == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, 0)


class Keeper:
    """A keeper stays until its owner leaves: here it leaves with each test. What it kept for the test is a fault."""

    @staticmethod
    def faults() -> Iterator[str]:
        """Servers that were not stopped."""
        owner = sys.modules.get("daemonize.launcher.owner")
        if owner is None:
            return
        for _ in owner._owner.wrappers:
            yield "a background server was not stopped"
        owner.dismiss()


class State:
    """Signal handlers, signal mask, umask and directory are what they were; if not, they are put back."""

    def __init__(self) -> None:
        self.handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self.mask = self._mask()
        self.umask = self._umask()
        self.directory = os.getcwd()

    @staticmethod
    def _mask() -> set[int]:
        return set(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    @staticmethod
    def _umask() -> int:
        umask = os.umask(0o077)
        os.umask(umask)
        return umask

    def faults(self) -> Iterator[str]:
        """One line for each piece of process-wide state that was changed."""
        for number, handler in self.handlers.items():
            now = signal.getsignal(number)
            if number == signal.SIGALRM and now == signal.SIG_DFL:
                continue  # pytest-timeout lets go of it as soon as a test has failed
            if now is not handler and now != handler:
                yield f"the handler of {signal.Signals(number).name} was changed: from {handler} to {now}"
                if handler is not None:
                    signal.signal(number, handler)
        if (mask := self._mask()) != self.mask:
            yield f"the signal mask was changed: from {sorted(self.mask)} to {sorted(mask)}"
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        if (umask := self._umask()) != self.umask:
            yield f"the umask was changed: from {self.umask:04o} to {umask:04o}"
            os.umask(self.umask)
        if (directory := os.getcwd()) != self.directory:
            yield f"the directory was changed: from {self.directory} to {directory}"
            os.chdir(self.directory)


# --- the plugin ----------------------------------------------------------------------------------------------------


_REQUIRED = pytest.StashKey[frozenset[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Note which kinds of tests must not be skipped, before the environment is scrubbed."""
    config.stash[_REQUIRED] = frozenset(os.environ.get(REQUIRE, "").split())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Races that are repeated have longer than other tests."""
    for item in items:
        if item.get_closest_marker("stress") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(STRESS_TIMEOUT))


@pytest.fixture(scope="session")
def guarded_directories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fresh private directory for each test that asks; cheaper than one numbered directory each."""
    base = tmp_path_factory.mktemp("guarded")

    def fresh() -> Iterator[str]:
        count = 0
        while True:
            count += 1
            directory = base / str(count)
            for name in ("home", "xdg-run"):  # the others are for the command to make
                (directory / name).mkdir(mode=0o700, parents=True)
            yield str(directory)

    return fresh()


@pytest.fixture(autouse=True)
def guards(guarded_directories: Iterator[str]) -> Iterator[None]:
    """Fail the test that leaves a descriptor, a process or process-wide state behind."""
    mark = f"TEST_MARK_{secrets.token_hex(8)}"
    with scrubbed_environment(next(guarded_directories), mark), branded() as brand:
        watched = (Keeper(), Processes(mark, brand), State(), Descriptors())
        yield
        faults = [fault for guard in watched for fault in guard.faults()]
    if faults:
        pytest.fail("\n".join(["this test left something behind:", *faults]), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test that was required into a failure."""
    report = yield
    required = item.config.stash[_REQUIRED] & {marker.name for marker in item.iter_markers()}
    if report.skipped and required and not hasattr(report, "wasxfail"):
        reason: Any = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE} names {', '.join(sorted(required))}, so this is a failure: {reason}"
    return report
