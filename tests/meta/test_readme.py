"""The README's examples run, and print what they show.

They follow one convention. A block marked `console` is a session (tests/support/sessions.py). Any other block whose first
line is `# NAME.EXTENSION` is saved under that name first; else it is shown, not run. Port 8000 is replaced by one that is
free, /srv by a directory that everybody can reach, and where the command is installed by where it is here. `sudo` means
that the session needs root. The blocks of one section in sessions.CHAINED are one session, cut in pieces.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import cli, procs, sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parents[2] / "README.md").read_text()

#: Other people's commands that an example may use.
BORROWED = ("curl", "jq", "flock")
#: Real servers that an example may use, and what is asked of them with.
SERVERS = ("redis-server", "redis-cli", "initdb", "pg_ctl", "pg_isready")
#: Where the README installs the command.
INSTALLED = "/opt/daemonize/bin/daemonize"


class Script(NamedTuple):
    """A script that runs, and the variable that all its processes carry."""

    process: subprocess.Popen[bytes]
    mark: str

    def others(self) -> list[procs.Process]:
        """What it has started."""
        return [process for process in procs.carrying(self.mark) if process.pid != self.process.pid]


def wants(block: str, programs: tuple[str, ...]) -> list[str]:
    """Which of these programs a session uses."""
    return [name for name in programs if re.search(rf"(?<![\w-]){name}(?![\w-])", sessions.commands(block))]


def need(block: str) -> None:
    """Skip the test where something is missing that the session uses."""
    for name in wants(block, BORROWED + SERVERS):
        if not shutil.which(name, path=sessions.PATH):
            pytest.skip(f"{name} is not installed")
    for name in re.findall(r" -u (\w+)", sessions.commands(block)):
        try:
            pwd.getpwnam(name)
        except KeyError:
            pytest.skip(f"there is no user {name}")
    if "sudo " in block and os.geteuid() != 0:
        pytest.skip("the session needs root")


def play(block: str, text: str, directory: Path) -> str:
    """Run a session of the document `text`, end what it left behind, and return what it printed."""
    port = sessions.save_files(text, directory)
    mark = f"TEST_SESSION_{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="daemonize-") as srv:
        os.chmod(srv, 0o711)
        typed = (
            sessions.commands(block)
            .replace("8000", port)
            .replace("/srv/", f"{srv}/")
            .replace(INSTALLED, cli.COMMAND)
        )
        return (
            sessions.played(f'sudo() {{ "$@"; }}\n{typed}', mark, directory)
            .replace(port, "8000")
            .replace(srv, "/srv")
        )


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block, id=sessions.commands(block), marks=[pytest.mark.servers] if wants(block, SERVERS) else []
        )
        for block in sessions.console(README)
    ],
)
def test_an_example_does_what_the_readme_shows(block: str, tmp_path: Path) -> None:
    """The session prints exactly what is printed there."""
    need(block)

    printed = play(block, README, tmp_path)

    assert sessions.expected(block).fullmatch(printed), (
        f"the README shows\n{block}\nbut this was printed:\n{printed}"
    )


def test_the_readme_has_examples() -> None:
    """Negative control: a renamed fence would leave the test above with nothing to do."""
    assert len(sessions.console(README)) >= 11
    assert {README.count(f"\n## {title}\n") for title in sessions.CHAINED} == {1}
    assert len(sessions.saved(README)) >= 4


@contextlib.contextmanager
def script_with_client(
    directory: Path, client: str, *edits: tuple[str, str], shell: str = "sh"
) -> Iterator[Script]:
    """The README's script with another client, which says "asking" when it runs; has been read until then.

    edits: what else is replaced in it (regular expressions). shell: which one runs it. What is left is ended.
    """
    port = sessions.save_files(README, directory)
    script = directory / "with-server.sh"
    text = script.read_text()
    asks = f"attend curl -sf -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1:{port}/"
    for old, new in ((re.escape(asks), client), *edits):
        assert re.search(old, text, re.MULTILINE)
        text = re.sub(old, new.replace("\\", r"\\"), text, flags=re.MULTILINE)
    script.write_text(text)
    mark = f"TEST_SCRIPT_{secrets.token_hex(8)}"
    with subprocess.Popen(
        [shell, script.name],
        cwd=directory,
        env=cli.environ({"PATH": sessions.PATH, mark: "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"asking\n"
            yield Script(process, mark)
        finally:
            for left in procs.carrying(mark):
                procs.stop(left.pid, signal.SIGKILL)


ASKING = "attend sh -c 'echo asking; exec sleep 60'"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_script_that_is_ended_stops_its_server(number: signal.Signals, tmp_path: Path) -> None:
    """While the client runs, too, and at once; the client is ended as well."""
    with script_with_client(tmp_path, ASKING) as script:
        running = script.others()
        procs.send(script.process.pid, number)

        assert script.process.wait(10) == 128 + number
        assert len(running) == 2
        assert all(procs.wait_ended(process.pid) for process in running)


@pytest.mark.parametrize(
    ("client", "edits"),
    [
        ("attend sleep 60", [("^attend daemonize", "echo asking; kill -TERM $$; attend daemonize")]),
        (
            "attend sleep 60",
            [
                ("^attend daemonize", "echo asking; attend daemonize"),
                ('^    wait "', '    kill -TERM $$; wait "'),
            ],
        ),
        ("echo asking; kill -TERM $$; attend sleep 60", []),
        (
            "now=yes; attend sleep 60",
            [('^    wait "', '    [ -z "${now-}" ] || { echo asking; kill -TERM $$; }; wait "')],
        ),
        ("attend true; echo asking; kill -TERM $$; sleep 60", []),
    ],
    ids=["before the server", "while it starts", "before the client", "just after", "too late"],
)
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_script_is_ended_at_any_moment(
    shell: str, client: str, edits: list[tuple[str, str]], tmp_path: Path
) -> None:
    """What there is is ended, and nothing else."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    with script_with_client(tmp_path, client, *edits, shell=shell) as script:
        assert script.process.wait(10) == 128 + signal.SIGTERM
        assert all(procs.wait_ended(process.pid) for process in script.others())
    assert {path.name for path in tmp_path.iterdir()} == set(sessions.saved(README))


def test_control_a_script_without_traps_leaves_its_server(tmp_path: Path) -> None:
    """Negative control: the server is there to be left."""
    with script_with_client(tmp_path, ASKING, ("^trap 'exit.*\n", "")) as script:
        running = script.others()
        procs.stop(script.process.pid)

        assert len(running) == 2
        assert all(procs.alive(process.pid) for process in running)


@pytest.mark.parametrize("status", [0, 3])
def test_a_script_has_the_status_of_its_client(status: int, tmp_path: Path) -> None:
    """And nothing is left when it ends by itself."""
    with script_with_client(tmp_path, f"attend sh -c 'echo asking; exit {status}'") as script:
        assert script.process.wait(10) == status
        procs.eventually(lambda: _assert_alone(script))


def test_a_script_fails_with_its_client(tmp_path: Path) -> None:
    """The README's own: a page that is not there."""
    port = sessions.save_files(README, tmp_path)
    script = tmp_path / "with-server.sh"
    script.write_text(script.read_text().replace(f":{port}/", f":{port}/no-such-page"))
    done = subprocess.run(
        ["sh", script.name], cwd=tmp_path, env=cli.environ({"PATH": sessions.PATH}),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, timeout=50,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (22, b"404\n")


def _assert_alone(script: Script) -> None:
    assert script.others() == []


@pytest.mark.parametrize(
    ("block", "fits"),
    [
        ("$ echo one\none\n", True),
        ("$ echo one; echo two >&2\none\ntwo\n", True),
        ("$ echo pid 4711, started\npid ..., started\n", True),
        ("$ seq 9\n1\n...\n9\n", True),
        ("$ cat script.py\n# script.py\nport = 8000\n", True),
        ("$ echo one \\\n>   two\none two\n", True),
        ("$ sudo ls -d /srv/.\n/srv/.\n", True),
        ("$ /opt/daemonize/bin/daemonize --version\ndaemonize ...\n", True),
        ("$ printf 'A\\tB\\nlong\\t1\\n'\nA     B\nlong  1\n", True),
        ("$ echo 'A    B'\nA  B\n", True),
        ("$ echo 'A B'\nA  B\n", False),
        ("$ echo one\ntwo\n", False),
        ("$ echo one\n", False),
        ("$ true\none\n", False),
        ("$ seq 9\n1\n...\n8\n", False),
        ("$ seq 99\n1\n...\n9\n...\n12\n13\n...\n99\n", True),
        ("$ seq 9\n1\n...\n5\n6\n...\n6\n...\n9\n", False),
        ("$ printf 'a\\nb\\n'\na...\n", False),
    ],
)
def test_a_wrong_example_is_seen(block: str, fits: bool, tmp_path: Path) -> None:
    """Negative control: a session that prints something else does not pass."""
    printed = play(block, "```python\n# script.py\nport = 8000\n```\n", tmp_path)

    assert (sessions.expected(block).fullmatch(printed) is not None) == fits


def test_what_an_example_leaves_behind_is_ended(tmp_path: Path) -> None:
    """Negative control: a server in a session of its own, which outlives the shell, is found and killed."""
    printed = play("$ setsid sleep 60 >/dev/null 2>&1 & echo $!\n", "", tmp_path)

    assert not procs.alive(int(printed))
