"""The examples of daemonize.7, and the run script of daemonize.1, work as they are printed.

A comment that names a file comes before each: it is saved under that name. `session` is what is typed and what comes out
(tests/support/sessions.py). Port 8000 is replaced by one that is free, and /usr/bin/server by a server of the page.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import cli, ports, procs, s6, sessions

ROOT = Path(__file__).parents[2]
PAGE, COMMAND_PAGE, README = (
    (ROOT / name).read_text() for name in ("man/daemonize.7", "man/daemonize.1", "README.md")
)


def examples(page: str) -> list[tuple[str, str]]:
    """The examples of a page that have names, and these."""
    found = re.findall(r"^\.\\\" ([\w.-]+)\n\.EX\n(.*?)^\.EE$", page, re.MULTILINE | re.DOTALL)
    return [(name, text.replace("\\-", "-").replace("\\e", "\\")) for name, text in found]


EXAMPLES = examples(PAGE)
SESSIONS = [text for name, text in EXAMPLES if name == "session"]
FILES = {name: text for name, text in EXAMPLES if name != "session"}


def save(directory: Path) -> int:
    """Save the files of the page. Returns the port that they have in place of 8000."""
    port = ports.free_port()
    server = shlex.join([sys.executable, str(directory / "serve.py")])
    for name, text in FILES.items():
        (directory / name).write_text(text.replace("8000", str(port)).replace("/usr/bin/server", server))
    return port


def test_the_page_has_examples() -> None:
    """Negative control: one whose comment is lost would not be run."""
    assert list(FILES) == [
        "run",
        "notification-fd",
        "server.sh",
        "server.c",
        "serve.py",
        "given.py",
        "argserve.py",
    ]
    assert len(SESSIONS) == 5
    assert PAGE.count("\n$ daemonize ") + PAGE.count("\n$ python3 ") == 6


@pytest.mark.parametrize("session", SESSIONS, ids=sessions.commands)
def test_a_session_prints_what_the_page_shows(session: str, tmp_path: Path) -> None:
    """Exactly that."""
    port = str(save(tmp_path))
    mark = f"TEST_SESSION_{secrets.token_hex(8)}"
    printed = sessions.played(sessions.commands(session), mark, tmp_path).replace(port, "8000")

    assert sessions.expected(session).fullmatch(printed), printed


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_shell_server_lets_go_of_each_stream_by_itself(stream: str, tmp_path: Path) -> None:
    """One that somebody has redirected stays where it is; the other goes on in its log."""
    save(tmp_path)
    redirected = f"exec sh server.sh greeter {1 if stream == 'stdout' else 2}>elsewhere"
    report = cli.run("--json", "sh", "-c", redirected, cwd=tmp_path).json
    found = procs.descriptors(report["pid"])
    procs.stop(report["pid"])
    other = "stderr" if stream == "stdout" else "stdout"

    assert report["outcome"] == "ready"
    assert found[1 if stream == "stdout" else 2] == str(tmp_path / "elsewhere")
    assert found[2 if stream == "stdout" else 1] == report["files"][other]


def test_the_shell_server_answers_in_its_log(tmp_path: Path) -> None:
    """It greets whoever wrote into the fifo, once it is ready, and the caller does not hear it."""
    save(tmp_path)
    result = cli.run("--json", "sh", "server.sh", "greeter", cwd=tmp_path)
    (tmp_path / "greeter").write_text("world\n")

    def answered() -> None:
        assert Path(result.json["files"]["stdout"]).read_text() == "hello, world\n"

    procs.eventually(answered)
    procs.stop(result.json["pid"])

    assert result.err == b"write a name to greeter\n"


@pytest.fixture
def compiled(tmp_path: Path) -> str:
    """The server in C."""
    if not shutil.which("cc"):
        pytest.skip("there is no cc (make test-servers)")
    save(tmp_path)
    words = ["cc", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o", "server", "server.c"]
    subprocess.run(words, cwd=tmp_path, check=True, stdin=subprocess.DEVNULL, timeout=50)
    return str(tmp_path / "server")


@pytest.mark.servers
def test_the_server_in_c_listens_when_daemonize_returns(compiled: str) -> None:
    """It can be connected to, and its streams lead to its logs."""
    result = cli.run("--json", compiled)
    with ports.connected(int(result.err.split()[-1])) as client:
        hung_up = client.recv(1)
    found = procs.descriptors(result.json["pid"])
    procs.stop(result.json["pid"])

    assert hung_up == b""
    assert [found[1], found[2]] == [result.json["files"]["stdout"], result.json["files"]["stderr"]]


@pytest.mark.servers
def test_the_server_in_c_complains_of_its_log(compiled: str, tmp_path: Path) -> None:
    """To the caller, who still can hear it; and is ready."""
    result = cli.run("--json", "-E", f"DAEMONIZE_STDERR={tmp_path}/missing/log", compiled)
    found = procs.descriptors(result.json["pid"])
    procs.stop(result.json["pid"])

    assert result.status == 0
    assert result.err.endswith(f"server: {tmp_path}/missing/log: No such file or directory\n".encode())
    assert found[2] == os.devnull


@pytest.mark.servers
def test_the_run_script_of_s6(tmp_path: Path) -> None:
    """`s6-svwait -U` returns when it listens. The README has the same script."""
    port = save(tmp_path)
    with s6.Service(str(tmp_path / "service"), ["sh", str(tmp_path / "run")]) as service:
        service.control("u")
        status = service.wait("U")
        with ports.connected(port) as client:
            answer = client.recv(100)

    assert int(FILES["notification-fd"]) == s6.NOTIFICATION_FD
    assert FILES["run"] in README
    assert status == 0
    assert answer == b"hello\n"


@pytest.mark.servers
def test_the_run_script_of_s6_for_a_server_that_knows_nothing_of_it(tmp_path: Path) -> None:
    """`s6-svwait -U` returns when it listens: daemonize writes the newline. The README has the same script."""
    ((name, script),) = examples(COMMAND_PAGE)
    port = ports.free_port()
    command = shlex.join([sys.executable, "-m", "http.server", "--bind", ports.HOST, str(port)])
    typed = script.replace("exec daemonize", f"exec {cli.COMMAND}").replace("8080", str(port))
    (tmp_path / name).write_text(typed.replace("/usr/bin/server", command))
    with s6.Service(str(tmp_path / "service"), ["sh", str(tmp_path / name)]) as service:
        service.control("u")
        status = service.wait("U")
        answer = ports.get(port)

    assert script in README
    assert status == 0
    assert answer.startswith(b"HTTP/1.0 200 OK")


@pytest.mark.servers
def test_control_a_run_script_that_says_nothing_of_the_descriptor(tmp_path: Path) -> None:
    """Negative control: it is the variable by which the server knows whom to tell."""
    port = save(tmp_path)
    (tmp_path / "run").write_text(
        (tmp_path / "run").read_text().replace("NOTIFY_FD=3 exec", "exec env -u NOTIFY_FD")
    )
    with s6.Service(str(tmp_path / "service"), ["sh", str(tmp_path / "run")]) as service:
        service.control("u")
        ports.wait_listening(port)
        status = service.wait("U", 100)

    assert status == s6.TIMED_OUT
