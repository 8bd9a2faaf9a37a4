"""Tests against a real server, with unittest: `python -m unittest examples/test_with_unittest.py`.

What the servers have said is shown below the exception with which a test fails.
"""

from __future__ import annotations

import os
import sys
import unittest
import urllib.request
from typing import ClassVar

from daemonize import BackgroundServer, BackgroundServerMixin

#: `{port}` is a free port. The server is ready when it listens there.
SERVER = [sys.executable, os.path.join(os.path.dirname(__file__), "http_server.py"), "--port", "{port}"]


def get(server: BackgroundServer) -> str:
    """What the server answers, at the first attempt: it is ready."""
    url = f"http://127.0.0.1:{server.port}/"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


class Greeting(BackgroundServerMixin, unittest.TestCase):
    """One server for each test, and one for all of the class."""

    shared: ClassVar[BackgroundServer]

    @classmethod
    def setUpClass(cls) -> None:
        """Start what all tests use; it is stopped after the last of them."""
        cls.shared = cls.start_class_server(SERVER)

    def setUp(self) -> None:
        """Start what each test has for itself; it is stopped after the test."""
        self.server = self.start_server([*SERVER, "--greeting", "good day"])

    def test_greets(self) -> None:
        """It answers, and what it says can be read."""
        self.assertIn("good day", get(self.server))  # noqa: PT009  (this is unittest)
        self.assertIn('"GET / HTTP/1.1" 200', self.server.stderr)  # noqa: PT009

    def test_is_shared(self) -> None:
        """The other one is there, too."""
        self.assertEqual(get(self.shared), f"hello from pid {self.shared.pid}\n")  # noqa: PT009


if __name__ == "__main__":
    unittest.main()
