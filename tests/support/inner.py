"""Files of tests with servers, run by a pytest or unittest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from tests.support import procs

if TYPE_CHECKING:
    from pathlib import Path

#: For these files. echo(): a server that says what it is told, and at its end its name in the file `ended`. CRASH, SILENT:
#: servers that end at once, or never listen.
_ECHO = """
import os, signal, socket, sys

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = [sys.executable, "-S", "-E"]
CRASH = [*PYTHON, "-c", "import sys; print('no luck', flush=True); sys.exit(3)"]
SILENT = [*PYTHON, "-c", "import signal; signal.pause()"]

def echo(name="echo"):
    return [*PYTHON, __file__, name, "{port}"]

def tell(server, text):
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(text.encode())
        assert sock.recv(10) == b"heard"

def note(*words, file="notes"):
    with open(os.path.join(HERE, file), "a") as notes:
        print(*words, file=notes)

def noted(file):
    with open(os.path.join(HERE, file)) as notes:
        return notes.read().split()

def serve(name, port):
    def end(*_):
        note(name, file="ended")
        sys.exit()
    signal.signal(signal.SIGTERM, end)
    signal.alarm(120)
    with socket.create_server(("127.0.0.1", int(port))) as listener:
        print(name, "serves", flush=True)
        while True:
            sock, _ = listener.accept()
            with sock:
                text = sock.recv(65536).decode()
                print("told", text, flush=True)
                print("on stderr", text.partition("\\n")[0], file=sys.stderr, flush=True)
                sock.sendall(b"heard")

if __name__ == "__main__":
    serve(*sys.argv[1:])
"""
_IMPORTS = "import os, signal, sys, unittest\nimport daemonize, pytest\nfrom echo import *\n"
_TESTS = "test_inner.py"

#: With these pytest says at the end all that it has said before (_pytest.compat.running_on_ci).
_CI = ("CI", "BUILD_NUMBER")


class Done(NamedTuple):
    """A run that has ended. said: on stdout and stderr."""

    status: int
    said: str


def write(directory: Path, code: str, imports: str = _IMPORTS) -> None:
    """The files that are run."""
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "echo.py").write_text(_ECHO)
    (directory / _TESTS).write_text(imports + code)


#: Plugins of others that are installed here; without them it starts in half the time.
_FOREIGN = ("anyio", "hypothesispytest", "platformdirs", "timeout")


def command(directory: Path, *options: str) -> list[str]:
    """A pytest for whom warnings are errors."""
    own = ["-W", "error", f"--basetemp={directory}/base"]
    own += [word for name in ("cacheprovider", *_FOREIGN) for word in ("-p", f"no:{name}")]
    return [sys.executable, "-m", "pytest", *own, *options, _TESTS]


def run(directory: Path, code: str, *options: str, **environment: str) -> Done:
    """Tests, run by pytest."""
    write(directory, code)
    return run_words(directory, *command(directory, *options), **environment)


def run_unittest(directory: Path, code: str) -> Done:
    """Tests, run by unittest."""
    write(directory, code)
    return run_words(directory, sys.executable, "-W", "error", "-m", "unittest")


def run_words(directory: Path | str, *words: str, **environment: str) -> Done:
    """Any command, to its end and to the end of file of its output."""
    surroundings = {name: value for name, value in os.environ.items() if name not in _CI}
    done = subprocess.run(
        words, cwd=directory, env={**surroundings, **environment}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout)


def noted(directory: Path, file: str = "notes") -> list[str]:
    """The lines that the tests, or the servers, have noted."""
    path = directory / file
    return path.read_text().splitlines() if path.exists() else []


def assert_ended(pids: list[int]) -> None:
    """All of them end, in a while."""
    assert pids
    for pid in pids:
        assert procs.wait_ended(pid), procs.command_line(pid)
