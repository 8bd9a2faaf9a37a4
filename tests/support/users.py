"""Ordinary users: what they can reach, processes of theirs, and an account that no machine has."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import pytest

import daemonize
from tests.support.programs import DIRECTORY, SHELL

if TYPE_CHECKING:
    from collections.abc import Iterator


class Account(NamedTuple):
    """One line of /etc/passwd, and the groups it is in."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


#: In few machines' /etc/passwd; `with_accounts` puts it there for one process and its descendants.
MEMBER = Account("d-member", 54_321, 54_322, (54_323, 54_324), "/nonexistent/d-member")
NOBODY = Account("nobody", 65_534, 65_534, (), "/nonexistent")

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(daemonize.__file__)))


def _is_reachable(path: str) -> bool:
    """Whether everybody may go to the file, through every directory on the way."""
    parents = [path]
    while (parent := os.path.dirname(parents[-1])) != parents[-1]:
        parents.append(parent)
    return all(os.stat(part).st_mode & 1 for part in parents)


@functools.cache
def python() -> str:
    """An interpreter that everybody can execute: ours may lie in a home that nobody else can enter."""
    candidates = [os.path.realpath(sys.executable), shutil.which("python3", path=os.defpath)]
    for path in candidates:
        if path and _is_reachable(os.path.realpath(path)) and _is_reachable(DIRECTORY):
            return path
    pytest.skip("an ordinary user can reach no Python, or not these tests")


def program(name: str, *args: str) -> list[str]:
    """As programs.program, for a server that any user can be."""
    return [python(), "-S", "-E", os.path.join(DIRECTORY, f"{name}.py"), *args]


def environ() -> dict[str, str]:
    """Variables with which `python() -m daemonize` is this package, and finds what it depends on."""
    import click

    places = [_PACKAGE, os.path.dirname(os.path.dirname(os.path.abspath(click.__file__)))]
    return {"PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1"}


def become(account: Account) -> list[str]:
    """Words before a command that make it this user's. Needs root, else the test is skipped."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() or not setpriv:
        pytest.skip("needs root and setpriv(1)")
    groups = f"--groups={','.join(map(str, account.groups))}" if account.groups else "--clear-groups"
    return [setpriv, f"--reuid={account.uid}", f"--regid={account.gid}", groups]


@contextlib.contextmanager
def open_directory() -> Iterator[str]:
    """A directory in which everybody can make files (tmp_path is ours alone); removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="daemonize-") as path:
        os.chmod(path, 0o1777)
        yield path


def with_accounts(directory: str) -> list[str]:
    """Words before a command that let it and its descendants find MEMBER in /etc/passwd and /etc/group.

    In a mount namespace of its own; the files are written into `directory`. Skips the test where there can be none.
    """
    lines = {"passwd": [f"{MEMBER.name}:x:{MEMBER.uid}:{MEMBER.gid}::{MEMBER.home}:/bin/sh"]}
    lines["group"] = [f"d-group-{gid}:x:{gid}:{MEMBER.name}" for gid in MEMBER.groups]
    lines["group"].append(f"{MEMBER.name}:x:{MEMBER.gid}:")
    for name, added in lines.items():
        with open(f"/etc/{name}") as there, open(f"{directory}/{name}", "w") as file:
            file.write(there.read() + "\n".join(added) + "\n")
        os.chmod(f"{directory}/{name}", 0o644)
    binds = " && ".join(f"mount --bind '{directory}/{name}' /etc/{name}" for name in lines)
    return in_private_mounts(binds)


def in_private_mounts(script: str) -> list[str]:
    """Words before a command that run a script first, in a mount namespace of their own; skips where there can be none."""
    words = ["unshare", "-m", SHELL, "-c", f'{{\n{script}\n}} && unset PWD && exec "$@"', SHELL]
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare(1)")
    if subprocess.run([*words, "true"], capture_output=True, check=False, timeout=20).returncode:
        pytest.skip("no mount namespace here")
    return words
