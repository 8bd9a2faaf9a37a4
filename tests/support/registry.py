"""Packages that are fetched from the package registry for one test, beside what is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=10")


def fetch(requirement: str, directory: str) -> None:
    """Install a package, and what it needs, into a directory. Skips the test, with pip's reason, where that cannot be."""
    fetched = subprocess.run(
        [sys.executable, *_PIP, "--target", directory, requirement],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if fetched.returncode:
        reason = fetched.stderr.strip().splitlines()[-1:]
        pytest.skip(f"{requirement} cannot be fetched: {''.join(reason)}")
