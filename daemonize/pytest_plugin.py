"""The pytest plugin: servers for tests, and what they have said in the reports of those that fail.

Every pytest loads this where the package is installed: it imports nothing that takes time before a fixture is used.
"""

from __future__ import annotations

import sys

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path
    from typing import Any

    from daemonize.background import BackgroundServer
    from daemonize.background.heard import Heard
    from daemonize.launcher.daemon import Daemon

#: What the test that is running hears of its servers.
_HEARD = pytest.StashKey["Heard"]()


# --- options -------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long servers may take, and whose output is shown."""
    group = parser.getgroup("daemonize", "servers in the background (daemonize)")
    group.addoption(
        "--server-boot-timeout",
        metavar="SECONDS",
        type=_seconds,
        help="how long a server may take to become ready, unless the test says it: 20, 500ms, 2min (default: 10)",
    )
    group.addoption(
        "--server-logs",
        choices=("failed", "all", "none"),
        default="failed",
        help="tests whose report has what their servers said (default: failed); those that pass are shown by -rP",
    )


def _seconds(text: str) -> float:
    from argparse import ArgumentTypeError

    from daemonize.errors import UsageError
    from daemonize.units import parse_timeout

    try:
        return parse_timeout(text)
    except UsageError as error:
        raise ArgumentTypeError(str(error)) from None


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    """A program that is started with --daemonize by a test is told from pytest by what pytest had open before.

    That is looked at when daemonize is imported: for a plugin, before pytest has made copies of its own streams.
    """
    import importlib

    from daemonize.posix import arrival

    importlib.reload(arrival)


# --- fixtures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def background_server(request: pytest.FixtureRequest) -> Iterator[Callable[..., BackgroundServer]]:
    """Start servers for one test: background_server(command, **settings) returns a BackgroundServer that is ready.

    command, settings: as of daemonize.BackgroundServer. All of them are stopped after the test, the last one first.
    """
    yield from _starting(request.config, _heard(request.node).own)


@pytest.fixture(scope="session")
def background_server_factory(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., BackgroundServer]]:
    """Start servers that run until the end of the session: as background_server, for fixtures of a wider scope.

    With shared="NAME" all workers of pytest-xdist have one server together, which ends with the last of them. One that is
    needed no longer may be stopped at any time. For a module or a class there is `with BackgroundServer(...)`, too.
    """
    yield from _starting(request.config, [])


@pytest.fixture
def daemonize_dir(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Give one test a registry and logs of daemons of its own: a fresh private directory, to which the environment points.

    Daemons that were started there and still run after the test are stopped.
    """
    from daemonize.launcher.daemon import daemons

    directory = tmp_path_factory.mktemp("daemonize")

    def settle() -> None:
        monkeypatch.setenv("DAEMONIZE_RUNTIME_DIR", str(directory / "run"))
        monkeypatch.setenv("DAEMONIZE_STATE_DIR", str(directory / "state"))

    settle()
    yield directory
    settle()  # the test may have changed it, and daemons that are registered elsewhere are not ours to stop
    _stop(daemon for daemon in daemons() if daemon.is_running)


def _starting(
    config: pytest.Config, started: list[BackgroundServer]
) -> Iterator[Callable[..., BackgroundServer]]:
    """Give what starts servers; at the end all of them are stopped, also if that fails of one. started: gets them."""
    from daemonize.background import BackgroundServer
    from daemonize.errors import DaemonizeError

    timeout = config.getoption("server_boot_timeout")
    usual: dict[str, Any] = {} if timeout is None else {"boot_timeout": timeout}

    def start(command: Any, **settings: Any) -> BackgroundServer:
        __tracebackhide__ = True
        started[:] = [server for server in started if server.running]  # else what was stopped keeps its logs
        server = BackgroundServer(command, **(usual | settings))
        try:
            server.start()
        except DaemonizeError as error:
            # The error says it all. The lines of ours that it came through would be shown before it.
            raise error.with_traceback(None) from None
        started.append(server)
        return server

    yield start
    _stop(reversed(started))


def _stop(running: Iterable[BackgroundServer | Daemon]) -> None:
    """All of them, also if that fails of one. Raises what was raised, a group if that was more than one."""
    errors: list[Exception] = []
    for server in running:
        try:
            server.stop()
        except Exception as error:  # noqa: BLE001 (it is raised below)
            errors.append(error)
    if len(errors) > 1:
        raise ExceptionGroup("some servers were not stopped", errors)
    if errors:
        raise errors[0]


# --- reports -------------------------------------------------------------------------------------------------------


def _has_servers() -> bool:
    """Whether there may be any in this process."""
    return "daemonize.background.server" in sys.modules


def _heard(item: pytest.Item, *, fresh: bool = True) -> Heard:
    """What a test hears. fresh: when it was begun there was no server yet."""
    if _HEARD not in item.stash:
        from daemonize.background.heard import Heard

        item.stash[_HEARD] = Heard(fresh=fresh)
    return item.stash[_HEARD]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Of servers that are older than the test, only what they say from now on is for its report."""
    if _has_servers():
        _heard(item, fresh=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what the servers of a test have said, if it is wanted."""
    report = yield
    if _has_servers():
        heard = _heard(item)
        if _is_wanted(item.config.getoption("server_logs"), report):
            report.sections += heard.parts()
        if report.when == "teardown":
            del item.stash[_HEARD]  # and with it the logs
    return report


def _is_wanted(which: str, report: pytest.TestReport) -> bool:
    if which == "all" and report.when == "call":
        return True
    return report.failed and which != "none"
