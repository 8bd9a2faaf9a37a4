"""The examples of tests with servers, run as a reader of them does."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import inner

if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLES = os.path.join(ROOT, "examples")


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_with_pytest(tmp_path: Path, options: list[str]) -> None:
    """All tests pass, in one process and in several, without a warning."""
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path}/base",
    ]
    done = inner.run_words(tmp_path, *words, *options, os.path.join(EXAMPLES, "test_with_pytest.py"))

    assert done.status == 0, done.said
    assert "7 passed" in done.said


def test_with_unittest(tmp_path: Path) -> None:
    """By the module and as a program."""
    path = os.path.join(EXAMPLES, "test_with_unittest.py")
    module = inner.run_words(
        ROOT, sys.executable, "-W", "error", "-m", "unittest", os.path.relpath(path, ROOT)
    )
    program = inner.run_words(tmp_path, sys.executable, "-W", "error", path)

    assert (module.status, program.status) == (0, 0), module.said + program.said
    assert "Ran 2 tests" in module.said
    assert "Ran 2 tests" in program.said


def test_in_a_program(tmp_path: Path) -> None:
    """Every way to use a server, and what comes out."""
    done = inner.run_words(tmp_path, sys.executable, "-W", "error", f"{EXAMPLES}/background_servers.py")

    assert done.said.splitlines() == [
        "with: hello, listening",
        "after it: not_running, exit status 143",
        "start: hello",
        "it said:   out 0: serving",
        "decorator: good evening",
        "async with: hello hi",
        "failed with status 78: http_server.py: /nonexistent: No such file or directory",
    ]
    assert done.status == 0


def test_the_tests_of_the_package_are_others(pytestconfig: pytest.Config) -> None:
    """Without arguments pytest runs no example."""
    assert pytestconfig.getini("testpaths") == ["tests"]
