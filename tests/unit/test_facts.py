"""The comparison of processes: what it would miss, every test that uses it would miss."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.support import facts, users
from tests.support.facts import ABSENT, ANY

if TYPE_CHECKING:
    from pathlib import Path


def said(directory: Path, *front: str) -> facts.Facts:
    """The facts of a program that was started directly."""
    reports = facts.Reports(str(directory))
    try:
        with subprocess.Popen(
            [*front, *users.program("report_self", reports.arg)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            reports.open()
            report = reports.read()
            process.kill()
    finally:
        reports.close()
    return facts.facts(report)


def test_two_of_the_same_do_not_differ(tmp_path: Path) -> None:
    """Nothing that changes from process to process is among the facts."""
    assert facts.changes(said(tmp_path), said(tmp_path)) == {}


def test_what_differs_is_found(tmp_path: Path) -> None:
    """One changed fact is one change (and what comes with it)."""
    plain = said(tmp_path)

    assert facts.changes(plain, said(tmp_path, "nice", "-n", "3")) == {
        "nice": (plain["nice"], plain["nice"] + 3)
    }
    assert facts.changes(plain, said(tmp_path, "env", "A=1")) == {"environ.A": (ABSENT, "1")}
    assert facts.changes(plain, said(tmp_path, "sh", "-c", 'umask 0; exec "$@"', "sh")) == {
        "umask": (plain["umask"], 0)
    }


def test_what_was_not_expected_is_named() -> None:
    """A change that is not expected, one that is expected otherwise, and one that does not come."""
    found = {"a": (1, 2), "b": (1, 2), "c": (1, ABSENT), "d": (1, ABSENT)}
    expected = {"a": (1, 2), "b": (1, 3), "c": (ANY, ABSENT), "d": (1, ANY), "e": (1, 2)}

    assert facts.unexpected(found, expected).keys() == {"b", "d", "e"}
    assert facts.unexpected(found, {}) == found


def test_names_of_directories_are_taken_out() -> None:
    """Wherever they stand."""
    assert facts.relative_to({"a": ["/x y/b", "in /x y"], "c": 1}, "/x y") == {
        "a": ["DIR/b", "in DIR"],
        "c": 1,
    }
