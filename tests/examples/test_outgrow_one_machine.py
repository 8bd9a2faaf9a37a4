"""One workload on a `ForkExecutor` and on a Dask cluster: the same answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

EXAMPLE = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "outgrow_one_machine.py")


def test_the_same_answers_on_a_cluster() -> None:
    """Results, maps in chunks and exceptions; progress is heard on this machine only. Nothing is left: the guards look."""
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=55, check=False)

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"here: (\{'primes': 5133, .*ValueError\('-1 has no root'\).*\}); progress was heard 10 times\n"
        r"on the cluster: \1\n"
        r"the same answers: True\n",
        done.stdout,
    )


@pytest.mark.parametrize(
    ("option", "words", "status", "said"),
    [
        (
            [],
            ["--help"],
            0,
            r"usage: outgrow_one_machine.py \[-h\] \[scheduler\]\n[\s\S]*the same answers\.[\s\S]*",
        ),
        (
            ["-S"],
            [],
            1,
            r"outgrow_one_machine.py: Dask is not installed: pip install 'daemonize-ready\[dask\]'\n",
        ),
    ],
    ids=["help", "no Dask"],
)
def test_what_it_says_of_itself(option: list[str], words: list[str], status: int, said: str) -> None:
    """What it is called with, and what it needs. Without the site's packages there is no Dask."""
    environment = {**os.environ, "PYTHONPATH": os.path.join(os.path.dirname(EXAMPLE), "..")}
    done = subprocess.run(
        [sys.executable, *option, EXAMPLE, *words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert done.returncode == status
    assert re.fullmatch(said, done.stdout), done.stdout
