"""What a server says until it is ready, in files that are followed: every byte once, in order, and all of it in time."""

from __future__ import annotations

import os
import random
import selectors
from typing import TYPE_CHECKING

import pytest

from tests.support import cli
from tests.support.programs import PYTHON

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.support.family import Family

pytestmark = [pytest.mark.stress, pytest.mark.usefixtures("burners")]

#: Repetitions of each race (DAEMONIZE_TESTS_RACES).
RACES = int(os.environ.get("DAEMONIZE_TESTS_RACES", "200"))

#: Children write lines to both streams, as many and as long as chance will have it; then READY comes, and they write on, or
#: the server fails when all is said.
SERVER = """
import os, random, sys, time
seed, fails = int(sys.argv[1]), sys.argv[2] == "fails"
chance = random.Random(seed)
most = chance.choice([0, 10, 300, 20_000])

def write(who, count):
    for number in range(count):
        os.write(1 + number % 2, b"%d %d %s\\n" % (who, number, b"x" * chance.randrange(most + 1)))

children = []
for who in range(3):
    pid = os.fork()
    if not pid:
        chance.seed((seed, who).__repr__())
        write(who, chance.randrange(200))
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
os.write(chance.choice([1, 2]), b"last words\\n" if fails else b"READY\\n")
if fails:
    os._exit(3)
os.write(1, b"out\\n")
os.write(2, b"err\\n")
write(9, 50_000 if most < 1000 else 1000)
time.sleep(1000)
"""


def launch(seed: int, directory: Path, *words: str) -> tuple[int, list[bytes], list[bytes]]:
    """Status, what the caller had when the wrapper was gone, and what the files had then, or later."""
    chance = random.Random(seed)
    files = [directory / f"out{seed}", directory / f"err{seed}"]
    if chance.random() < 0.3:
        files[1] = files[0]
    with cli.popen(
        "-r", "log:^READY$", "-o", files[0], "-e", files[1], *PYTHON, "-c", SERVER, str(seed), *words
    ) as wrapper:
        said = taken(wrapper, chance)
        status = wrapper.wait(20)
    return status, said, [path.read_bytes() for path in dict.fromkeys(files)]


def taken(wrapper: subprocess.Popen[bytes], chance: random.Random) -> list[bytes]:
    """What comes on both streams, read in portions of any size."""
    said = {stream: bytearray() for stream in (wrapper.stdout, wrapper.stderr) if stream}
    portion = chance.choice([100, 5000, 1 << 16])
    with selectors.DefaultSelector() as waiting:
        for stream in said:
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            for key, _ in waiting.select():
                data = os.read(key.fd, portion)
                said[key.fileobj] += data  # type: ignore[index]
                if not data:
                    waiting.unregister(key.fileobj)
    return [bytes(data) for data in said.values()]


def test_until_ready(tmp_path: Path, family: Family) -> None:
    """What the caller has is the beginning of what is in each file, and all that was said before READY is in it."""
    for seed in range(RACES):
        status, said, written = launch(seed, tmp_path, "serves")
        assert status == 0, seed
        family.end()
        for mine, whole in zip(said, written, strict=False):
            assert whole.startswith(mine), seed
        assert any(b"READY\n" in mine for mine in said), seed
        for mine, whole, mark in zip(said, written, (b"out\n", b"err\n"), strict=False):
            before, _, _ = whole.partition(b"READY\n" if b"READY\n" in whole else mark)
            assert len(mine) >= len(before), seed
        assert len(written) == 2 or said[1] == b"", seed


def test_until_it_fails(tmp_path: Path, family: Family) -> None:
    """All that it said, to the last byte."""
    for seed in range(RACES):
        status, said, written = launch(seed, tmp_path, "fails")
        family.nobody()
        assert status == 3, seed
        assert said[0] == written[0], seed
        words = written[1] if len(written) == 2 else b""
        assert said[1].startswith(words), seed
        rest = said[1][len(words) :]
        assert rest == b"" or (rest.startswith(b"daemonize: ") and rest.count(b"\n") == 1), seed
