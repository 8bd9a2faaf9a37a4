"""Servers for tests of `unittest`."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any

from daemonize.background.heard import Heard
from daemonize.background.server import BackgroundServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemonize.launcher.request import StrPath

#: How a result is told that something has failed: the exception comes last.
_FAILURES = ("addError", "addFailure", "addSubTest")


class BackgroundServerMixin(unittest.TestCase):
    """A test case with servers: `class Tests(BackgroundServerMixin, unittest.TestCase)`.

    What its servers have said is a note of every exception with which a test fails.
    """

    _heard: Heard | None = None

    def start_server(self, command: str | Sequence[StrPath], **settings: Any) -> BackgroundServer:
        """A server that is ready, and runs until the end of the test.

        settings: as of BackgroundServer. Raises as its `start`.
        """
        server = BackgroundServer(command, **settings)
        server.start()
        self.addCleanup(server.stop)
        if self._heard:
            self._heard.own.append(server)
        return server

    @classmethod
    def start_class_server(cls, command: str | Sequence[StrPath], **settings: Any) -> BackgroundServer:
        """The same for all tests of the class, in `setUpClass`. Of what it says a test notes what was said meanwhile."""
        server = BackgroundServer(command, **settings)
        server.start()
        cls.addClassCleanup(server.stop)
        return server

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test. What fails in it is noted before the result has it: that writes it down at once."""
        self._heard = Heard()
        try:
            if result is None:
                return super().run()
            super().run(_Noting(result, self._heard))  # type: ignore[arg-type]
            return result
        finally:
            self._heard = None  # a result keeps the tests that have failed

    def defaultTestResult(self) -> unittest.TestResult:  # noqa: N802 (as unittest calls it)
        """Where nobody gives one."""
        result = super().defaultTestResult()
        return _Noting(result, self._heard) if self._heard else result  # type: ignore[return-value]


class _Noting:
    """A result that is told of no failure without a note of what was heard until then."""

    def __init__(self, result: unittest.TestResult, heard: Heard) -> None:
        self._result, self._heard = result, heard

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._result, name)
        return self._noted(value) if name in _FAILURES else value

    def _noted(self, add: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            failure = arguments[-1]
            for title, text in self._heard.parts() if failure else ():
                failure[1].add_note(f"{title}\n{text}")
            add(*arguments)

        return call
