"""What report_self.py says, as one flat table, so that two processes can be compared fact by fact."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from tests.support import procs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Facts = dict[str, Any]


class _Word:
    """Stands in a table for what is not spelled out."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


#: In an expectation: some value, whatever it is; and, there and in what was found: no such fact.
ANY, ABSENT = _Word("ANY"), _Word("ABSENT")

#: They differ from process to process, or say again what another fact says.
_UNCOMPARED = {"pid", "ppid", "sid", "pgid", "uid", "gid", "stdin", "descriptors", "root_inode"}


def facts(report: Mapping[str, Any]) -> Facts:
    """One fact per line: `environ.HOME`, `limits.Max open files`, `stdout.flags`, ... numbers of pipes left out."""
    found = {key: value for key, value in report.items() if key not in _UNCOMPARED}
    streams = found.pop("streams")
    # 32 and 33 are glibc's own: no program can change what they are (procs.GLIBC_SIGNALS).
    signals = {name: [n for n in numbers if n not in {32, 33}] for name, numbers in found["signals"].items()}
    return {
        "leads its session": report["sid"] == report["pid"],
        "leads its group": report["pgid"] == report["pid"],
        "group of the session's leader": report["pgid"] == report["sid"],
        **_flat({**found, **streams, "signals": signals}),
        "descriptors": [
            _target(target) for fd, target in sorted(report["descriptors"].items()) if int(fd) > 2
        ],
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Facts:
    found: Facts = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = _READ.get(key, lambda same: same)(value)
    return found


def _flags(octal: str) -> str:
    value = int(octal, 8)
    words = [("read", "write", "read and write")[value & os.O_ACCMODE]]
    words += [name for name, bit in (("append", os.O_APPEND), ("do not block", os.O_NONBLOCK)) if value & bit]
    return ", ".join(words)


def _target(target: str) -> str:
    return target.partition(":")[0] if target.startswith(("pipe:", "socket:")) else target


_READ: dict[str, Callable[[Any], Any]] = {"target": _target, "flags": _flags}


def relative_to(value: Any, directory: str) -> Any:
    """The value with the name of a directory taken out of every text in it: two directories then say the same."""
    return json.loads(json.dumps(value).replace(json.dumps(directory)[1:-1], "DIR"))


def changes(before: Facts, after: Facts) -> dict[str, tuple[Any, Any]]:
    """What differs: {fact: (before, after)}."""
    pairs = {key: (before.get(key, ABSENT), after.get(key, ABSENT)) for key in [*before, *after]}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def unexpected(
    found: Mapping[str, tuple[Any, Any]], expected: Mapping[str, tuple[Any, Any]]
) -> dict[str, tuple[Any, Any]]:
    """The changes that differ from those expected, in either direction; empty if none does."""
    wrong = {key: pair for key, pair in found.items() if not _fits(pair, expected.get(key))}
    missing = {key: (f"expected {pair}", "no change") for key, pair in expected.items() if key not in found}
    return {**wrong, **missing}


def _fits(pair: tuple[Any, Any], expected: tuple[Any, Any] | None) -> bool:
    return expected is not None and all(
        value == wanted or (wanted is ANY and value is not ABSENT)
        for value, wanted in zip(pair, expected, strict=True)
    )


class Reports:
    """The fifo into which report_self.py says its report (its argument `into=`), any user's."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, "report")
        os.mkfifo(self.path)
        os.chmod(self.path, 0o666)
        self._fd = -1

    @property
    def arg(self) -> str:
        """The argument for the program."""
        return f"into={self.path}"

    def open(self) -> None:
        """Let the program go on: it waits until its report has a reader."""
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self) -> dict[str, Any]:
        """The report, when it comes; an AssertionError after ten seconds."""
        os.set_blocking(self._fd, True)
        assert procs.readable(self._fd), "nothing was reported"
        with open(self._fd, "rb") as file:
            self._fd = -1
            report: dict[str, Any] = json.loads(file.read())
        return report

    def close(self) -> None:
        """Read no more. A program that comes later finds no fifo, or no reader."""
        os.unlink(self.path)
        if self._fd >= 0:
            os.close(self._fd)
