"""--listen: the server finds its sockets open, clients are never refused, and a launch that fails leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import daemonize
from daemonize.posix import binding
from tests.support import cli, ports, procs, users
from tests.support.launches import held_at
from tests.support.listening import as_nobody, handed, server, stranger
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.family import Family

READY = program("repoints", "ready")
#: Says in one line of JSON what it was given, is ready, and greets every client on every socket by the socket's number.
SERVES = """
import json
given = range(3, 3 + int(os.environ.get("LISTEN_FDS", "0")))
def about(fd):
    made = socket.socket(fileno=fd)
    kept.append(made)
    listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    flags = {"listens": listens, "blocks": os.get_blocking(fd), "inherited": os.get_inheritable(fd)}
    return {"name": str(made.getsockname()), **flags}
facts = {
    "sockets": [about(fd) for fd in given], "pid": os.getpid(), "arguments": sys.argv[1:],
    "environ": {name: value for name, value in os.environ.items() if name.startswith("LISTEN_")},
    "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
}
print(json.dumps(facts), flush=True)
null = os.open(os.devnull, os.O_RDWR)
os.dup2(null, 1)
os.dup2(null, 2)
while kept:
    for made in select.select(kept, [], [])[0]:
        client, _ = made.accept()
        client.sendall(b"%d" % made.fileno())
        client.close()
"""


def serves(*arguments: str) -> list[str]:
    """The words of that server."""
    return [*server(SERVES), *arguments]


def facts(done: cli.Result) -> dict[str, Any]:
    """What it said (with --json, which sends the server's stdout there, on stderr)."""
    assert done.status == 0, done
    value: dict[str, Any] = json.loads(done.err)
    return value


def greeted(address: str) -> str:
    """What a client is told at an address as --json has it."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect("\0" + path[1:] if path.startswith("@") else path)
            return client.recv(10).decode()
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), 10) as client:
        return client.recv(10).decode()


def refuses(address: str) -> bool:
    """Whether nobody listens there."""
    try:
        greeted(address)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The directory that the test is in, as the kernel calls it."""
    monkeypatch.chdir(tmp_path)
    return os.getcwd()


@pytest.fixture
def stale(there: str) -> str:
    """A socket file on which nobody listens."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("stale")
    return f"{there}/stale"


# --- what the server finds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("127.0.0.1:0", "127.0.0.1:"),
        ("localhost:0", "127.0.0.1:"),
        ("[::1]:0", "[::1]:"),
        ("0.0.0.0:0", "0.0.0.0:"),
        ("0", "[::]:"),
        ("unix:socket", "unix:{there}/socket"),
        ("unix:{there}/socket", "unix:{there}/socket"),
        ("unix:@daemonize-{pid}", "unix:@daemonize-{pid}"),
    ],
)
def test_forms(address: str, shown: str, there: str, servers: Family) -> None:
    """Clients reach the server at what --json tells."""
    names = {"there": there, "pid": os.getpid()}
    done = cli.run("--json", "--listen", address.format(**names), *serves())
    (listen,) = done.json["listen"]

    assert listen.startswith(shown.format(**names))
    assert not listen.endswith(":0")
    assert greeted(listen) == "3"


def test_without_a_host_ipv4_reaches_it_as_well(servers: Family) -> None:
    """One socket for both."""
    done = cli.run("--json", "--listen", "0", *serves())
    (listen,) = done.json["listen"]
    port = listen.removeprefix("[::]:")

    assert [greeted(f"{host}:{port}") for host in ("127.0.0.1", "[::1]")] == ["3", "3"]


def test_what_sd_listen_fds_finds(there: str, servers: Family) -> None:
    """The sockets in order, blocking, from 3 on; the variables; its own pid; and no other descriptor."""
    words = ["--listen", "http=127.0.0.1:0", "--listen", "unix:socket", "--listen", "[::1]:0"]
    done = cli.run(
        "--json", *words, *serves(), env={"LISTEN_FDS": "7", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x"}
    )
    found = facts(done)

    assert found["environ"] == {
        "LISTEN_FDS": "3",
        "LISTEN_PID": str(found["pid"]),
        "LISTEN_FDNAMES": "http:listen:listen",
    }
    assert found["pid"] == done.json["pid"]
    assert [made["name"] for made in found["sockets"]][1] == f"{there}/socket"
    assert all(made["listens"] and made["blocks"] and made["inherited"] for made in found["sockets"])
    assert set(found["descriptors"]) - {0, 1, 2, 3, 4, 5} in ({6}, set())  # that of the listing
    assert [greeted(listen) for listen in done.json["listen"]] == ["3", "4", "5"]


def test_with_an_empty_environment(servers: Family) -> None:
    """--clear-env does not take away what is the launch's own."""
    done = cli.run("--json", "--clear-env", "--listen", "127.0.0.1:0", *serves())

    assert facts(done)["environ"].keys() == {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}


def test_placeholders(there: str, servers: Family) -> None:
    """Those of the command, in every word of it, by the ports that there are in the end."""
    words = ["--listen", "unix:socket", "--listen", "127.0.0.1:0"]
    done = cli.run("--json", *words, *serves("--port={port2}", "{{fd}}", "${port}", "{x}"))
    port = done.json["listen"][1].rpartition(":")[2]

    assert facts(done)["arguments"] == [f"--port={port}", "{fd}", "${port}", "{x}"]


def test_who_is_told_by_a_word_is_not_told_by_the_variables(there: str, servers: Family) -> None:
    """Gunicorn would take the descriptor twice. Those variables are then free for the user."""
    words = ["--listen", "unix:socket", "--listen", "127.0.0.1:0", "-E", "LISTEN_FDS=x"]
    script = 'echo "$@" $(env | grep LISTEN_); exec >/dev/null 2>&1; exec sleep 100'
    done = cli.run(*words, SHELL, "-c", script, SHELL, "fd://{fd}", "{fd2}")

    assert (done.status, done.out) == (0, b"fd://3 4 LISTEN_FDS=x\n")


def test_a_port_that_was_just_in_use_can_be_taken_again(servers: Family) -> None:
    """Connections of the one before, which the kernel still remembers, are in nobody's way."""
    address = f"127.0.0.1:{ports.free_port()}"
    first = cli.run("--json", "--listen", address, *serves()).json
    greeted(address)  # the server hangs up first, so that it is at its end where the connection is remembered
    procs.stop(first["pid"], signal.SIGKILL)

    assert cli.run("--listen", address, *serves()).status == 0
    assert greeted(address) == "3"


def test_control_without_sockets_braces_are_braces(servers: Family) -> None:
    """Negative control: nothing is replaced, and no variable set."""
    found = facts(cli.run("--json", *serves("{fd}", "{{port}}")))

    assert (found["arguments"], found["environ"]) == (["{fd}", "{{port}}"], {})


def test_one_line_says_where(there: str, servers: Family) -> None:
    """Under -v; null in --json where there is nothing."""
    said = cli.run("-v", "--listen", "127.0.0.1:0", "--listen", "unix:socket", *serves()).err.decode()
    (line,) = [line for line in said.splitlines() if "listening on" in line]
    without = cli.run("--json", *READY)

    assert line.startswith("daemonize: listening on 127.0.0.1:")
    assert line.endswith(f", unix:{there}/socket")
    assert without.json["listen"] is None


def test_the_wrapper_keeps_no_copy(servers: Family, tmp_path: Path) -> None:
    """Clients of a dead server are refused: nobody else has the socket, not before the server runs, either."""
    with held_at("exec", tmp_path, ["-v", "--listen", "127.0.0.1:0", *READY]) as (wrapper, release):
        listen = listening_on(wrapper)
        (parent,) = procs.children(wrapper.pid)
        (child,) = procs.children(parent.pid)
        with socket.create_connection(("127.0.0.1", int(listen.rpartition(":")[2])), 10) as client:
            procs.send(child.pid, signal.SIGKILL, child.start)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        release.release()
        assert wrapper.wait(20) == 137

    assert refuses(listen)


def test_in_the_foreground_clients_of_a_dead_server_are_refused(family: Family) -> None:
    """Likewise: the wrapper, which stays, has closed its own."""
    with cli.popen("-v", "-f", "--listen", "127.0.0.1:0", SHELL, "-c", "echo $$; exec sleep 100") as wrapper:
        listen = listening_on(wrapper)
        assert wrapper.stdout is not None
        server = int(wrapper.stdout.readline())
        theirs, ours = procs.descriptors(server), procs.descriptors(wrapper.pid)
        procs.send(server, signal.SIGKILL)
        assert wrapper.wait(20) == -signal.SIGKILL

    assert theirs[3].startswith("socket:")
    assert theirs[3] not in ours.values()
    assert refuses(listen)


def listening_on(wrapper: subprocess.Popen[bytes]) -> str:
    """The address that a launch with -v tells."""
    assert wrapper.stderr is not None
    for line in iter(wrapper.stderr.readline, b""):
        if b"listening on " in line:
            return line.decode().strip().partition("listening on ")[2]
    raise AssertionError("it does not listen")


# --- readiness -------------------------------------------------------------------------------------------------------


HTTP = """
made = socket.socket(fileno=3)
while True:
    client, _ = made.accept()
    client.recv(9999)
    client.sendall(b"HTTP/1.0 204 No Content\\r\\n\\r\\n")
    client.close()
"""


@pytest.mark.parametrize("form", ["http://127.0.0.1:{port}/", "exec:test {port} -gt 1 && test {fd} = 3"])
def test_a_spec_with_a_port_that_the_kernel_chooses(form: str, servers: Family) -> None:
    """The placeholder is replaced there as well, and what is shown is what was waited for."""
    done = cli.run("-v", "--listen", "127.0.0.1:0", "-r", form, *server(HTTP))

    assert done.status == 0, done


def test_a_spec_that_does_not_hold_is_told_with_the_port(family: Family) -> None:
    """In the message of 124, which has no advice to wait for what is so already."""
    done = cli.run(
        "--json", "-t", "300ms", "--listen", "127.0.0.1:0", "-r", "exec:exit {port}", "sleep", "100"
    )
    port = done.json["listen"][0].rpartition(":")[2]

    assert done.status == 124
    assert done.json["waiting_for"] == [f"exec:exit {port}"]
    assert b"--ready port" not in done.err
    family.nobody()


def test_another_port_can_be_waited_for(servers: Family) -> None:
    """That one says something."""
    port = ports.free_port()
    done = cli.run("--listen", "127.0.0.1:0", "-r", f"port:{port}", *server(f"listen('127.0.0.1', {port})"))

    assert done.status == 0, done


@pytest.mark.parametrize(
    "words",
    [
        ("--listen", "127.0.0.1:0", "-r", "port"),
        ("--listen", "{port}", "-r", "port:{port}"),
        ("--listen", "{port}", "-r", "port:127.0.0.1:{port}"),
        ("--listen", "127.0.0.1:{port}", "-r", "port:localhost:{port}"),
        ("--listen", "unix:socket", "-r", "unix:{there}/./socket"),
        ("--listen", "unix:{there}/socket", "-r", "unix:socket"),
        ("--listen", "unix:@d-{pid}", "-r", "unix:@d-{pid}"),
    ],
)
def test_what_would_hold_at_once_is_refused(words: tuple[str, ...], there: str, family: Family) -> None:
    """2; what to wait for instead is said; and nothing was made."""
    names = {"there": there, "pid": os.getpid(), "port": ports.free_port()}
    done = cli.run("-l", "lock", *(word.format(**names) for word in words), "true")

    assert done.status == 2
    for word in (b"would hold before the server runs", b"--ready http://", b"--ready notify"):
        assert word in done.err
    assert os.listdir(there) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--listen", "nonsense"), "'nonsense' cannot be listened on: a port is a number from 0 to 65535; it can be"),
        (("--listen", "1=unix:"), "'1=unix:' cannot be listened on: it names no socket; it can be"),
        (("--listen", "0", "--keep-fd", "3"), "descriptor 3 cannot be kept: it is where the server finds a socket"),
        (("--listen", "0", "-r", "fd:3"), "fd:3: the server is to have something else at descriptor 3"),
        (("--listen", "0", "-r", "fdvar:LISTEN_FDS"), "fdvar:LISTEN_FDS: the server is to find something else"),
        (("--listen", "0", "-r", "fdvar:LISTEN_PID"), "fdvar:LISTEN_PID: the server is to find something else"),
        (("--listen", "0", "-E", "LISTEN_FDS=1"), "LISTEN_FDS cannot be given: it tells the server of its sockets"),
        (("--listen", "0", "-E", "LISTEN_FDNAMES=a"), "LISTEN_FDNAMES cannot be given"),
        (("--listen", "0", "echo", "{fd2}"), "{fd2}: the server is given 1 socket"),
        (("--listen", "unix:socket", "echo", "{port}"), "{port}: that socket has no port"),
        (("--listen", "0", "-r", "http://localhost:{port2}/"), "{port2}: the server is given 1 socket"),
        (("--listen", "0", "-r", "http://:{port}/"), "is not a readiness spec of the form http://HOST"),
        (("--listen", "8080", "--listen", "127.0.0.1:8080"), "the server cannot be given 127.0.0.1:8080 and [::]:8080"),
        (("--listen", "unix:a", "--listen", "unix:./a"), "/a: one takes the other's place"),
        (("--listen", "0", "-r", "port:{port}"), "would hold before the server runs"),
        (("-r", "http://127.0.0.1:{port}/"), "there is no socket whose port {port} could be"),
    ],
)  # fmt: skip
def test_what_cannot_be(words: tuple[str, ...], why: str, there: str, family: Family) -> None:
    """2, one line, and nothing is left."""
    argv = [SHELL, "-c", 'exec 3</dev/null; exec "$@"', SHELL, *cli.command(*words, "true")]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20)

    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert why in done.stderr.decode()
    assert os.listdir(there) == []


def test_a_path_that_is_too_long(there: str, family: Family) -> None:
    """2, with the limit."""
    done = cli.run("--listen", "unix:" + "a" * 107, "true")

    assert done.status == 2
    assert b"the path of a socket has at most 107" in done.err


@pytest.mark.parametrize("words", [("-r", "fd:4"), ("-r", "fdvar:X"), ("-l", "lock")], ids=" ".join)
def test_other_descriptors_make_room(words: tuple[str, ...], there: str, servers: Family) -> None:
    """What has a number of its own keeps it, what has not gets another."""
    said = 'eval "echo >&${X:-4}" 2>/dev/null; exec >/dev/null 2>&1; exec sleep 100'
    done = cli.run("--json", "--listen", "127.0.0.1:0", *words, SHELL, "-c", said)
    found = procs.descriptors(done.json["pid"])

    assert done.status == 0, done
    assert found[3].startswith("socket:")
    assert len(found) == 5


# --- what is taken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "{port}", "localhost:{port}"])
def test_a_port_that_is_taken(address: str, there: str, family: Family) -> None:
    """75, with the words of `port`; nothing was changed, and what was bound before it is free again."""
    port = ports.free_port()
    with stranger(f"listen('127.0.0.1', {port})") as pid:
        words = ["--listen", "unix:first", "--listen", address.format(port=port), "-o", "log", "-p", "pid"]
        done = cli.run("--json", *words, *READY)
        other = cli.run("-r", f"port:{port}", *READY)

    assert (done.status, done.json["outcome"], done.json["pid"]) == (75, "already-running", pid)
    assert done.err == other.err
    assert f"port {port} is already in use by python".encode() in done.err
    assert os.listdir(there) == []


def test_a_port_on_which_nobody_listens_yet(family: Family) -> None:
    """It is taken all the same; by whom, the kernel's table of listeners does not tell."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        done = cli.run("--listen", f"127.0.0.1:{port}", *READY)

    assert (done.status, done.err) == (75, b"daemonize: port %d is already in use\n" % port)


def test_the_lock_comes_first(there: str, servers: Family) -> None:
    """Who is second hears of the server, and not of its port."""
    words = ["-l", "lock", "--listen", f"127.0.0.1:{ports.free_port()}"]
    first, second = cli.run(*words, *READY), cli.run(*words, *READY)

    assert (first.status, second.status) == (0, 75)
    assert b"holds the lock file" in second.err


@pytest.mark.parametrize("what", ["path", "abstract"])
def test_a_unix_socket_that_is_taken(what: str, there: str, servers: Family) -> None:
    """75, by whom; and he goes on."""
    address = "unix:socket" if what == "path" else f"unix:@daemonize-{os.getpid()}"
    first = cli.run("--json", "--listen", address, *serves()).json
    second = cli.run("--json", "--listen", address, *READY)

    assert (second.status, second.json["pid"]) == (75, first["pid"])
    assert b"is already in use by python" in second.err
    assert greeted(first["listen"][0]) == "3"


@pytest.mark.parametrize(
    "kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM], ids=lambda kind: kind.name
)
def test_a_live_socket_of_another_network(kind: socket.SocketKind, there: str, family: Family) -> None:
    """Our tables do not show it (a container's, on a directory in common): it is connected to, and left alone."""
    if os.geteuid():
        pytest.skip("needs root")
    own_network = "import ctypes; assert not ctypes.CDLL(None).unshare(0x40000000)"
    listen = "" if kind == socket.SOCK_DGRAM else ".listen()"
    code = f"{own_network}; bind({there + '/socket'!r}, {int(kind)}){listen}"
    with stranger(code):
        before = os.stat("socket").st_ino
        done = cli.run("--listen", "unix:socket", *READY)
        after = os.stat("socket").st_ino

    assert (done.status, before) == (75, after)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET], ids=lambda kind: kind.name)
@pytest.mark.parametrize("way", ["O_PATH", "without"])
def test_a_socket_on_which_nobody_listens_yet(
    way: str, kind: socket.SocketKind, there: str, monkeypatch: pytest.MonkeyPatch, family: Family
) -> None:
    """It is somebody's all the same; to connect to it fails as if it were nobody's. Also by the path alone."""
    if way == "without":
        monkeypatch.setattr(binding, "O_PATH", 0)
    with socket.socket(socket.AF_UNIX, kind) as bound:
        bound.bind("socket")
        with pytest.raises(daemonize.AlreadyRunning, match="socket is already in use by somebody of user"):
            daemonize.launch(READY, listen="unix:socket")

    assert os.listdir(there) == ["socket"]


@pytest.mark.parametrize(("mode", "status"), [(0o755, 75), (0o777, 0)], ids=oct)
def test_a_socket_to_which_we_may_not_connect(mode: int, status: int, servers: Family) -> None:
    """It may be alive, in another network. Control: one that may be asked, and is stale, is replaced by anybody."""
    with users.open_directory() as directory, socket.socket(socket.AF_UNIX) as made:
        os.chmod(directory, 0o777)  # nobody may remove it
        path = f"{directory}/socket"
        made.bind(path)
        made.close()
        os.chmod(path, mode)
        with as_nobody("--listen", f"unix:{path}", *users.program("repoints", "ready")) as process:
            _, said = process.communicate(timeout=20)
        servers.end()

    assert process.returncode == status
    assert (
        status == 0
        or said == f"daemonize: socket {path} is already in use by somebody of user root\n".encode()
    )


def test_a_stale_socket_is_replaced(stale: str, servers: Family) -> None:
    """Nobody listens there any more."""
    done = cli.run("--json", "--listen", "unix:stale", *serves())

    assert facts(done)["sockets"][0]["name"] == stale
    assert greeted(f"unix:{stale}") == "3"


def test_the_next_launch_replaces_what_a_dead_server_left(there: str, servers: Family) -> None:
    """The file stays after a launch that went well, as a server's own would."""
    first = cli.run("--json", "--listen", "unix:socket", *serves()).json["pid"]
    procs.stop(first, signal.SIGKILL)
    assert os.listdir(there) == ["socket"]

    assert cli.run("--listen", "unix:socket", *serves()).status == 0
    assert greeted("unix:socket") == "3"


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "symlink", "dangling symlink"])
def test_what_is_no_socket_is_left_alone(kind: str, there: str, family: Family) -> None:
    """125, one line."""
    make: dict[str, Callable[[], object]] = {
        "file": lambda: os.close(os.open("it", os.O_CREAT)),
        "directory": lambda: os.mkdir("it"),
        "fifo": lambda: os.mkfifo("it"),
        "symlink": lambda: os.symlink("/dev/null", "it"),
        "dangling symlink": lambda: os.symlink("other", "it"),
    }
    make[kind]()
    before = os.lstat("it")
    done = cli.run("--listen", "unix:it", *READY)

    assert done.status == 125
    assert (
        done.err
        == f"daemonize: cannot listen on unix:{there}/it: it is there already, and no socket\n".encode()
    )
    assert os.path.samestat(os.lstat("it"), before)
    assert os.listdir(there) == ["it"]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("port:8080", "cannot find an address of the host 'port' of --listen port:8080: "),
        ("203.0.113.1:0", "cannot listen on 203.0.113.1:0: Cannot assign requested address"),
        (
            "unix:/no/such/directory/socket",
            "cannot listen on unix:/no/such/directory/socket: No such file or directory",
        ),
        ("unix:/proc/socket", "cannot listen on unix:/proc/socket: "),
        ("unix:/tmp/", "cannot listen on unix:/tmp/: Is a directory"),
    ],
)
def test_what_cannot_be_bound(address: str, why: str, family: Family) -> None:
    """125, one line."""
    done = cli.run("--listen", address, *READY)

    assert (done.status, done.err.count(b"\n")) == (125, 1)
    assert done.err.decode().startswith(f"daemonize: {why}")


def test_a_port_that_only_root_may_have(family: Family) -> None:
    """125, to an ordinary user."""
    if int(procs.read("/proc/sys/net/ipv4/ip_unprivileged_port_start") or 0) <= 1:
        pytest.skip("everybody may have every port")
    with as_nobody("--listen", "127.0.0.1:1", "true") as process:
        _, said = process.communicate(timeout=20)

    assert process.returncode == 125
    assert said == b"daemonize: cannot listen on 127.0.0.1:1: Permission denied\n"


def test_many_launches_over_a_stale_socket_have_one_winner(stale: str, servers: Family) -> None:
    """None takes the file away from another that has just made it."""
    count = 12
    with contextlib.ExitStack() as stack:
        launches = [stack.enter_context(cli.popen("--listen", "unix:stale", *serves())) for _ in range(count)]
        statuses = sorted(launch.wait(30) for launch in launches)

    assert statuses == [0] + [75] * (count - 1)
    assert servers.only()
    assert greeted(f"unix:{stale}") == "3"


# --- whose it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "mode"), [((), 0o755), (("--umask", "077"), 0o700), (("--umask", "0"), 0o777)]
)
def test_the_mode_is_that_of_the_servers_umask(
    options: tuple[str, ...], mode: int, there: str, servers: Family
) -> None:
    """As if it had made the file itself."""
    assert cli.run(*options, "--listen", "unix:socket", *serves(), umask=0o022).status == 0

    assert stat.S_IMODE(os.stat("socket").st_mode) == mode


def test_the_owner_is_the_user_that_the_server_is(servers: Family) -> None:
    """Also in a directory that is the user's own; and a failed launch takes it away there, too."""
    users.become(users.NOBODY)  # skips
    with users.open_directory() as directory:
        os.chown(directory, users.NOBODY.uid, users.NOBODY.gid)
        words = ["-u", "nobody", "--listen", f"unix:{directory}/socket", "--listen", "127.0.0.1:0"]
        failed = cli.run(*words, "false")
        left = os.listdir(directory)
        done = cli.run("--json", *words, *serves())
        status = os.stat(f"{directory}/socket")
        greetings = [greeted(address) for address in done.json["listen"]]
        servers.end()

    assert (failed.status, left) == (1, [])
    assert (status.st_uid, status.st_gid) == (users.NOBODY.uid, users.NOBODY.gid)
    assert greetings == ["3", "4"]


def test_nobodys_symlink_does_not_lead_root(there: str, family: Family) -> None:
    """A directory on the way that a stranger has put there, and that leads elsewhere, is refused."""
    users.become(users.NOBODY)  # skips
    with users.open_directory() as directory:
        os.symlink(there, f"{directory}/way")
        os.lchown(f"{directory}/way", users.NOBODY.uid, -1)
        done = cli.run("--listen", f"unix:{directory}/way/socket", *READY)

    assert done.status == 125
    assert b"is a symlink of another user's (nobody)" in done.err
    assert os.listdir(there) == []


def test_the_path_is_outside_of_a_new_root(there: str, servers: Family) -> None:
    """It is the caller's, as he sees it."""
    users.become(users.NOBODY)  # skips
    os.mkdir("root")
    done = cli.run(
        "--json",
        "--chroot",
        "root",
        "--listen",
        "unix:socket",
        "-r",
        "alive:50ms",
        "-c",
        "/",
        "/sleep",
        "100",
    )
    assert (done.status, os.listdir(".")) == (127, ["root"])

    words = ["--chroot", "/", "-c", "/tmp", "--listen", "unix:socket"]
    assert facts(cli.run("--json", *words, *serves()))["sockets"][0]["name"] == f"{there}/socket"
    assert greeted("unix:socket") == "3"


# --- launches that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((SHELL, "-c", "exit 7"), 7),
        (("-r", "exit", "true"), 1),
        (("-t", "200ms", "sleep", "100"), 124),
        (("-c", "/no/such/directory", "true"), 125),
        (("--listen", "203.0.113.1:0", "true"), 125),
        (("/etc/passwd",), 126),
        (("/no/such/program",), 127),
        (("-o", "/no/such/directory/log", "true"), 125),
        (("-f", SHELL, "-c", "exit 7"), 7),
        (("-f", "true"), 0),
        (("-f", SHELL, "-c", "kill -KILL $$"), -signal.SIGKILL),
        (("-f", "-r", "alive:50ms", SHELL, "-c", "sleep 0.2; exit 3"), 3),
    ],
    ids=str,
)
def test_a_failed_launch_leaves_no_socket(
    words: tuple[str, ...], status: int, there: str, family: Family
) -> None:
    """Nor its file; in the foreground not after the server's end either."""
    port = ports.free_port()
    done = cli.run("--listen", "unix:socket", "--listen", f"127.0.0.1:{port}", *words)

    assert done.status == status
    assert os.listdir(there) == []
    assert refuses(f"127.0.0.1:{port}")
    family.nobody()


def test_a_file_that_somebody_else_has_put_there_stays(there: str, family: Family) -> None:
    """Only what is ours is taken away."""
    done = cli.run("--listen", "unix:socket", SHELL, "-c", "rm socket; echo hello >socket; exit 7")

    assert done.status == 7
    with open("socket") as file:
        assert file.read() == "hello\n"


def test_a_server_left_running_keeps_its_socket(there: str, servers: Family) -> None:
    """--on-timeout=leave."""
    done = cli.run("--json", "-t", "300ms", "--on-timeout=leave", "--listen", "unix:socket", "sleep", "100")

    assert (done.status, os.listdir(there)) == (124, ["socket"])
    assert done.json["listen"] == [f"unix:{there}/socket"]


STEPS = ("intermediate", "streams", "gate", "exec")


@pytest.mark.parametrize(
    ("who", "step"),
    [*(("wrapper", step) for step in (*STEPS, "detach")), *(("parent", step) for step in STEPS)],
)
def test_a_kill_leaves_no_socket(who: str, step: str, tmp_path: Path, family: Family) -> None:
    """SIGKILL to the wrapper or the intermediate parent at every step before the end: no file, and clients are refused."""
    os.mkdir(tmp_path / "run")
    words = ["-v", "--listen", f"unix:{tmp_path}/run/socket", "--listen", "127.0.0.1:0", *READY]
    with held_at(step, tmp_path, words) as (wrapper, release):
        listen = listening_on(wrapper).split(", ")
        assert os.listdir(tmp_path / "run") == ["socket"]
        (parent,) = procs.children(wrapper.pid)
        procs.send(wrapper.pid if who == "wrapper" else parent.pid, signal.SIGKILL)
        release.release()
        wrapper.wait(20)
        assert procs.wait_ended(parent.pid, start=parent.start)

    family.nobody()
    assert os.listdir(tmp_path / "run") == []
    assert all(map(refuses, listen))


def test_an_interrupt_leaves_no_socket(there: str, family: Family) -> None:
    """128+N, no server, no file."""
    with cli.popen("--listen", "unix:socket", SHELL, "-c", "echo started; exec sleep 100") as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == b"started\n"
        wrapper.send_signal(signal.SIGINT)
        assert wrapper.wait(20) == 130

    family.nobody()
    assert os.listdir(there) == []


# --- those that we were handed ourselves -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [(), ("-f",)], ids=["background", "foreground"])
def test_what_we_were_handed_is_passed_on(mode: tuple[str, ...], there: str, servers: Family) -> None:
    """Before our own, with their names; clients of the manager's socket reach the server."""
    addresses = [("127.0.0.1", port := ports.free_port()), "theirs"]
    options = ["--json", *mode, "--listen", "mine=unix:ours"]
    words = handed(["web", "api"], *map(str, cli.command(*options, *serves("{port}"))), addresses=addresses)
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as wrapper:
        assert wrapper.stdout
        assert wrapper.stderr
        found, report = json.loads(wrapper.stderr.readline()), json.loads(wrapper.stdout.readline())
        greetings = [greeted(address) for address in report["listen"]]
        servers.end()

    names = {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:api:mine", "LISTEN_PID": str(report["pid"])}
    assert report["listen"] == [f"127.0.0.1:{port}", "unix:theirs", f"unix:{there}/ours"]
    assert (found["environ"], found["arguments"]) == (names, [str(port)])
    assert greetings == ["3", "4", "5"]


USELESS = "it, or LISTEN_FDNAMES, is not as sd_listen_fds(3) has it"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"LISTEN_PID": "1"}, "LISTEN_PID says that it is for another process"),
        ({"LISTEN_FDS": "2"}, USELESS),  # what is there is our own by now
        ({"LISTEN_FDS": "9"}, USELESS),
        ({"LISTEN_FDS": "garbage"}, USELESS),
        ({"LISTEN_FDNAMES": "a:b:c"}, USELESS),
    ],
    ids=str,
)
def test_what_is_not_for_us_or_of_no_use_is_ignored(
    changes: dict[str, str], said: str, servers: Family
) -> None:
    """With a line under -v; the server is told of nothing, and its braces are left alone."""
    words = handed(["web"], *map(str, cli.command("-v", *serves("{fd}"))), environment=changes)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=20)
    found = json.loads(done.stdout)

    assert f"LISTEN_FDS is ignored: {said}\n".encode() in done.stderr
    assert (found["environ"], found["arguments"]) == ({}, ["{fd}"])
    assert 3 not in found["descriptors"] or len(found["descriptors"]) == 4  # that of the listing


def test_a_port_that_was_handed_over_is_there_already(family: Family) -> None:
    """As with our own."""
    words = handed(["web"], *map(str, cli.command("-r", "port", "true")))
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20)

    assert done.returncode == 2
    assert b"port would hold before the server runs" in done.stderr


def test_one_port_of_ipv4_and_ipv6_can_be_handed_over(servers: Family) -> None:
    """Two sockets, as units with BindIPv6Only=ipv6-only have them: they are there, so there can be both."""
    port = ports.free_port()
    addresses = [("0.0.0.0", port), ("::", port)]
    words = handed(["four", "six"], *map(str, cli.command("--json", *serves())), addresses=addresses)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=20)

    assert json.loads(done.stdout)["listen"] == [f"0.0.0.0:{port}", f"[::]:{port}"]
    assert [greeted(f"127.0.0.1:{port}"), greeted(f"[::1]:{port}")] == ["3", "4"]


def test_a_fifo_can_be_handed_over(servers: Family) -> None:
    """Systemd has more than sockets; a placeholder for its port is a mistake."""
    script = 'exec 3<>fifo; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    with users.open_directory() as directory:
        os.mkfifo(f"{directory}/fifo")
        words = [SHELL, "-c", script, SHELL, *cli.command("--json", *READY)]
        done = subprocess.run(words, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        report = json.loads(done.stdout)

    assert report["listen"] == ["fd:3"]
    assert procs.environment(report["pid"])["LISTEN_FDNAMES"] == "unknown"
    assert procs.descriptors(report["pid"])[3].startswith(f"{directory}/fifo")


# --- the API ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [False, True], ids=["direct", "keeper"])
def test_the_api(threads: bool, there: str, servers: Family) -> None:
    """launch() takes one or several, tells where they listen, and raises AlreadyRunning with the facts."""
    release = threading.Event()
    other = threading.Thread(target=release.wait)
    if threads:
        other.start()
    try:
        with daemonize.launch(
            serves("{port2}"), listen=["unix:socket", "b=127.0.0.1:0"], relay_stdout=None
        ) as daemon:
            greetings = [greeted(address) for address in daemon.listen]
            with pytest.raises(daemonize.AlreadyRunning) as caught:
                daemonize.launch(READY, listen="unix:socket")
        without = daemonize.launch(READY)
        with pytest.raises(daemonize.Exited) as failed:
            daemonize.launch(["false"], listen="127.0.0.1:0")
    finally:
        release.set()
        if threads:
            other.join()

    assert (greetings, daemon.listen[0], without.listen) == (["3", "4"], f"unix:{there}/socket", [])
    assert (caught.value.what, caught.value.path, caught.value.pid) == (
        "socket",
        f"{there}/socket",
        daemon.pid,
    )
    assert failed.value.listen[0].startswith("127.0.0.1:")


@pytest.mark.parametrize("given", [5, [5], b"80"], ids=str)
def test_the_api_refuses_what_is_no_text(given: Any) -> None:
    """UsageError, and no other."""
    with pytest.raises(daemonize.UsageError, match="listen"):
        daemonize.launch(["true"], listen=given)


def test_the_sockets_of_a_program_that_calls_launch_are_its_own(servers: Family) -> None:
    """They are not passed on: it can keep_fds them."""
    code = f"import daemonize; daemonize.launch({serves('{fd}')!r})"
    words = handed(["web"], sys.executable, "-c", code)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=20)
    found = json.loads(done.stdout)

    assert (found["environ"], found["arguments"]) == ({}, ["{fd}"])


def test_curl_is_answered_however_early_it_comes(there: str, servers: Family) -> None:
    """A client that has connected before there is a server waits, and is served."""
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    with Trigger(there) as trigger:
        held_back = [f"wait({trigger.path!r})", HTTP]
        with cli.popen(
            "-v", "--listen", "127.0.0.1:0", "-r", "http://127.0.0.1:{port}/", *server(*held_back)
        ) as wrapper:
            url = f"http://{listening_on(wrapper)}/"
            client = ["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", url]
            with subprocess.Popen(client, stdout=subprocess.PIPE) as asking:
                trigger.release()
                assert asking.communicate(timeout=20)[0] == b"204"
            assert wrapper.wait(20) == 0
