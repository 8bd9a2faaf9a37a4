"""Programs of other people's that have `--daemonize`, each a file of its own, run as their users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support import cli

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PRELUDE = """\
import argparse, atexit, ctypes, gc, json, os, runpy, select, signal, socket, subprocess, sys, threading
import click
import daemonize
from daemonize import daemonize_option

def serve(*words):
    signal.alarm(120)
    for word in words:
        print(word)
    daemonize.ready()
    while True:
        select.select([], [], [], 0.1)  # and not pause(2), which would miss a signal that comes just before it

"""
#: What makes a program one with threads, which is started anew. It holds nobody: a daemon thread.
THREAD = "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
#: The two ways into the background, by what is put before a program's code.
WAYS = {"fork": "", "anew": THREAD}


class Result(NamedTuple):
    """What a caller has: the status as a shell gives it (128+N for signal N), and both streams to their end."""

    status: int
    out: bytes
    err: bytes


def write(directory: str | os.PathLike[str], code: str, name: str = "app.py") -> list[str]:
    """The argument list of a program with this code, which finds click, `daemonize_option`, and `serve` to be ready."""
    path = os.path.join(directory, name)
    with open(path, "w") as file:
        file.write(_PRELUDE + code)
    return [sys.executable, path]


def run(
    argv: Sequence[str], *args: str, env: Mapping[str, str | None] | None = None, **options: Any
) -> Result:
    """Run a program until it has ended, and nobody holds its streams any more. `options` go to subprocess.run."""
    given: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "timeout": 30,
        **options,
    }
    done = subprocess.run([*argv, *args], env=cli.environ(env), check=False, **given)
    status = 128 - done.returncode if done.returncode < 0 else done.returncode
    return Result(status, done.stdout or b"", done.stderr or b"")


def popen(
    argv: Sequence[str], *args: str, env: Mapping[str, str | None] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a program; both streams are pipes. Use it in a `with` block."""
    given: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "bufsize": 0,
        **options,
    }
    return subprocess.Popen([*argv, *args], env=cli.environ(env), **given)
