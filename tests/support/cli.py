"""The installed `daemonize` command, run as a caller runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Word = str | bytes | os.PathLike[str]

#: The command that `make` installed beside the interpreter that runs the tests.
COMMAND = os.path.join(os.path.dirname(sys.executable), "daemonize")


class Result(NamedTuple):
    """What a caller has when the command returns."""

    status: int
    out: bytes
    err: bytes
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        """The one line that `--json` promises on stdout."""
        line, end, rest = self.out.partition(b"\n")
        assert end, f"not one line: {self.out!r}"
        assert not rest, f"more than one line: {self.out!r}"
        value: dict[str, Any] = json.loads(line)
        return value


def command(*args: Word) -> list[Word]:
    """The argument list that runs `daemonize` with these arguments."""
    return [COMMAND, *args]


def environ(changes: Mapping[str, str | None] | None) -> dict[str, str]:
    """The environment of this process with some variables changed, or (None) removed."""
    merged = {**os.environ, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def run(
    *args: Word,
    input: bytes | None = None,  # noqa: A002  (as subprocess calls it)
    env: Mapping[str, str | None] | None = None,
    cwd: Word | None = None,
    timeout: float = 30.0,
    **options: Any,
) -> Result:
    """Run `daemonize` to its end and to the end of file of both its streams, like `$( )` does.

    So that it returns at all proves that nothing was left holding them. `env` holds changes; None removes.
    Without `input`, stdin is /dev/null. `options` go to subprocess.run.
    """
    return run_command(command(*args), input=input, env=env, cwd=cwd, timeout=timeout, **options)


def run_command(
    words: list[Word],
    *,
    input: bytes | None = None,  # noqa: A002  (as subprocess calls it)
    env: Mapping[str, str | None] | None = None,
    cwd: Word | None = None,
    timeout: float = 30.0,
    **options: Any,
) -> Result:
    """The same with any command."""
    began = time.monotonic()
    source = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(
        words,
        check=False,
        env=environ(env),
        cwd=cwd,
        timeout=timeout,
        **{**source, **streams, **options},
    )
    return Result(done.returncode, done.stdout or b"", done.stderr or b"", time.monotonic() - began)


def popen(
    *args: Word,
    env: Mapping[str, str | None] | None = None,
    cwd: Word | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start `daemonize` and leave it running: stdin /dev/null, both streams pipes, unless `options` say otherwise.

    Use it in a `with` block, which closes the pipes and reaps it.
    """
    given: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "bufsize": 0,
        **options,
    }
    return subprocess.Popen(command(*args), env=environ(env), cwd=cwd, **given)
