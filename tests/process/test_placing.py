"""Descriptors at numbers that the server is to find them at, whatever stands there in the wrapper."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from daemonize.posix import child

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Says what it reads at each number that it is given: `3=lock` for a file with the word in it; `-` where nothing is open.
LOOK = """
import os, sys
def content(fd):
    try:
        return os.pread(fd, 99, 0).decode()
    except OSError:
        return "-"
print(*[f"{n}={content(int(n))}" for n in sys.argv[1:]])
"""


@pytest.fixture
def files(tmp_path: object) -> Iterator[dict[str, int]]:
    """Open files by the word that each holds."""
    opened = {}
    for word in ("a", "b", "kept"):
        path = f"{tmp_path}/{word}"
        with open(path, "w") as file:
            file.write(word)
        opened[word] = os.open(path, os.O_RDONLY)
    yield opened
    for fd in opened.values():
        os.close(fd)


def seen(placed: dict[int, int], keep: tuple[int, ...], numbers: list[int]) -> str:
    """What a server sees at these numbers."""
    out, stdout = os.pipe()
    report_end, report = os.pipe()
    gate, gate_end = os.pipe()
    words = [os.fsencode(sys.executable), b"-S", b"-E", b"-c", LOOK.encode(), *(b"%d" % n for n in numbers)]
    program = child.Program(words, words[:1], {}, stdout=stdout, keep=keep, placed=placed)
    pid = child.fork(program, report, gate)
    for fd in (report, gate, stdout):
        os.close(fd)
    os.write(gate_end, b"g")
    with open(out) as reader, open(report_end, "rb") as reports:
        said, told = reader.read(), reports.read()
    os.close(gate_end)
    _, status = os.waitpid(pid, 0)

    assert (told, status) == (b"gate %d\n" % pid, 0)
    return said.strip()


def test_at_a_number_that_is_free(files: dict[str, int]) -> None:
    """There, and nowhere else."""
    assert seen({40: files["a"]}, (), [files["a"], 40]) == f"{files['a']}=- 40=a"


def test_two_that_change_places(files: dict[str, int]) -> None:
    """No copy overwrites what is still needed."""
    a, b = files["a"], files["b"]

    assert seen({a: b, b: a}, (), [a, b]) == f"{a}=b {b}=a"


def test_where_something_stands_that_is_kept(files: dict[str, int]) -> None:
    """It is inherited all the same, at another number (a lock file: any will do)."""
    kept = files["kept"]
    said = seen({kept: files["a"]}, (kept,), list(range(3, 30)))

    assert f"{kept}=a" in said.split()
    assert said.count("=kept") == 1
    assert said.count("=a") == 1


@pytest.mark.parametrize("number", [*range(3, 20)])
def test_at_any_number(number: int, files: dict[str, int]) -> None:
    """Also at those of the report and the gate, which the child needs until exec."""
    said = seen({number: files["a"]}, (files["kept"],), [number])

    assert said == f"{number}=a"
