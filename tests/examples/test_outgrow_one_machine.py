"""One workload on a `ForkExecutor` and on a Dask cluster: the same answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys

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
