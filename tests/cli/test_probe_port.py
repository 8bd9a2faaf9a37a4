"""port, port:[HOST:]PORT: a listener counts if it belongs to the server, and nothing connects to find that out."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from daemonize import AlreadyRunning, TimedOut
from daemonize.launcher import api
from daemonize.posix import sockdiag, sockets
from tests.support import cli, ports, procs, users
from tests.support.forked import need_root
from tests.support.listening import as_nobody, cpu_share, in_own_network, server, stranger
from tests.support.ports import HOST
from tests.support.progress import line_with

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger


@pytest.fixture
def port() -> int:
    """One that is free."""
    return ports.free_port()


# -- what counts ------------------------------------------------------------------------------------------------------


def test_nothing_connects(port: int, trigger: Trigger, tmp_path: Path, servers: Family) -> None:
    """The first connection that the server accepts is the test's own."""
    late = tmp_path / "late"
    code = (
        f"listen({HOST!r}, {port}); wait({trigger.path!r}); open({str(late)!r}, 'w').close()",
        "peer = kept[0].accept()[1]; kept[0].accept()[0].send(str(peer[1]).encode())",
    )
    with cli.popen("-v", "-r", f"port:{port}", "-r", f"file:{late}", *server(*code)) as wrapper:
        assert wrapper.stderr
        line_with(wrapper.stderr, b"there is no such file")
        trigger.release()
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    with ports.connected(port) as first, ports.connected(port) as second:
        assert second.recv(100) == str(first.getsockname()[1]).encode()
    assert servers.only()


def test_any_port_is_reported(servers: Family) -> None:
    """Bare `port`: under -v and in --json it is said which; all of them, in order, each once."""
    share = "listen('127.0.0.1', 0, reuse_port=True); listen(*kept[0].getsockname()[:2], reuse_port=True)"
    done = cli.run("-v", "--json", "-r", "port", *server(share))

    place = done.json["found"]["port"]
    host, _, number = place.rpartition(":")
    assert host == HOST
    assert ports.accepts(int(number))
    assert f"daemonize: port: {place}\n".encode() in done.err
    assert servers.only()


@pytest.mark.parametrize(
    ("host", "code"),
    [
        (f"{HOST}:", "listen('127.0.0.1', {port})"),
        ("localhost:", "listen('127.0.0.1', {port})"),
        ("127.0.0.9:", "listen('0.0.0.0', {port})"),
        ("[::1]:", "listen6('::1', {port})"),
        ("[::1]:", "listen6('::', {port})"),
        (f"{HOST}:", "listen6('::', {port}, dualstack_ipv6=True)"),
        (f"{HOST}:", "listen6('::ffff:127.0.0.1', {port}, dualstack_ipv6=True)"),
        ("[::ffff:127.0.0.1]:", "listen('127.0.0.1', {port})"),
        ("", "listen6('::1', {port})"),
        ("", "listen('127.0.0.7', {port})"),
    ],
)
def test_host(host: str, code: str, port: int, servers: Family) -> None:
    """It listens at the address, or at all addresses."""
    done = cli.run("-t", "10", "-r", f"port:{host}{port}", *server(code.format(port=port)))

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


@pytest.mark.parametrize(
    ("host", "code"),
    [
        (f"{HOST}:", "listen('127.0.0.2', {port})"),
        (f"{HOST}:", "listen6('::1', {port})"),
        (f"{HOST}:", "listen6('::', {port})"),
        ("[::1]:", "listen('0.0.0.0', {port})"),
        ("0.0.0.0:", "listen('127.0.0.1', {port})"),
        ("", "listen('127.0.0.1', {port} - 1)"),
        ("", "kept.append(socket.socket()); kept[0].bind(('127.0.0.1', {port}))"),
    ],
)
def test_elsewhere(host: str, code: str, family: Family) -> None:
    """Another address, another port, or bound and not listening: not ready."""
    while not _is_free((port := ports.free_port()) - 1):
        pass
    spec = f"port:{host}{port}"
    done = cli.run("-t", "300ms", "-r", spec, *server(code.format(port=port)))

    assert done.status == 124
    assert f"(waited for: {spec}: nobody listens there)".encode() in done.err
    family.nobody()


def _is_free(port: int) -> bool:
    with socket.socket() as trying:
        try:
            trying.bind((HOST, port))
        except OSError:
            return False
        return True


def test_a_worker_listens(port: int, servers: Family) -> None:
    """The parent does not have the socket at all."""
    done = cli.run("-r", f"port:{port}", *server(f"parent() or listen({HOST!r}, {port})"))

    assert done.status == 0
    assert ports.accepts(port)
    assert len(servers.living()) == 2


def test_a_thread_listens_when_the_first_has_left(port: int, family: Family) -> None:
    """The process is a zombie for those who look at its first thread only; the others have its descriptors."""
    code = (
        "say(os.getpid())",
        "import ctypes, threading",
        "leave = {'x86_64': 60, 'aarch64': 93, 'riscv64': 93, 'armv7l': 1, 'i686': 1}[os.uname().machine]",
        "def go_on():",
        "    while open(f'/proc/self/task/{os.getpid()}/stat').read().rpartition(') ')[2][0] != 'Z': pass",
        f"    listen({HOST!r}, {port})",
        "    stay()",
        "threading.Thread(target=go_on).start()",
        "ctypes.CDLL(None).syscall(leave, 0)",
    )
    done = cli.run("-t", "5", "-r", f"port:{port}", *server(*code))

    assert (done.status, done.err) == (0, b"")
    assert ports.accepts(port)
    pid = int(done.out)
    os.kill(pid, signal.SIGKILL)  # the family does not count it either
    assert procs.wait_ended(pid, 10)
    family.nobody()


def test_a_daemon_listens_after_its_parents_have_left(port: int, trigger: Trigger, servers: Family) -> None:
    """Forked twice, with a session of its own: it is the main process."""
    code = (
        "if parent(): os._exit(0)",
        "os.setsid()",
        "if parent(): os._exit(0)",
        f"say(os.getpid()); wait({trigger.path!r}); listen({HOST!r}, {port})",
    )
    with cli.popen("-v", "-r", f"port:{port}", *server(*code)) as wrapper:
        assert wrapper.stdout
        assert wrapper.stderr
        daemon = int(wrapper.stdout.readline())
        line_with(wrapper.stderr, b"left a daemon behind")
        trigger.release()
        _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert f": pid {daemon}\n".encode() in err
    assert servers.only().pid == daemon


def test_it_held_once(port: int, trigger: Trigger, tmp_path: Path, servers: Family) -> None:
    """A server that listened, stopped and listens again has been ready, whenever the other spec holds."""
    late = tmp_path / "late"
    again = f"listen({HOST!r}, {port}); wait({trigger.path!r}); kept.pop().close(); listen({HOST!r}, {port})"
    code = f"{again}; open({str(late)!r}, 'w').close()"
    with cli.popen("-v", "-r", f"port:{port}", "-r", f"file:{late}", *server(code)) as wrapper:
        assert wrapper.stderr
        line_with(wrapper.stderr, b"there is no such file")
        trigger.release()
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert servers.only()


def test_a_socket_of_the_callers(port: int, servers: Family) -> None:
    """One that the server inherits is no stranger's, and is its own."""
    with socket.create_server((HOST, port)) as listener:
        fd = listener.fileno()
        done = cli.run("--keep-fd", str(fd), "-r", f"port:{port}", *server(), pass_fds=(fd,))

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


@pytest.mark.parametrize("spec", ["port", "port:{port}"])
def test_a_network_of_its_own(spec: str, port: int, servers: Family) -> None:
    """A server that is in another network namespace is found there; a stranger in ours is not taken for it."""
    spec = spec.format(port=port)
    command = in_own_network(*server(f"listen({HOST!r}, {port})"))
    with ports.taken() as other:
        done = cli.run("--json", "-r", spec, *command)

    assert done.json["found"] == {spec: f"{HOST}:{port}"}
    assert other != port
    assert not ports.accepts(port)
    assert servers.only()


def test_as_another_user(port: int, servers: Family) -> None:
    """`-u`: the socket is looked for all the same."""
    need_root()
    done = cli.run("-u", "nobody", "-r", f"port:{port}", *server(f"listen({HOST!r}, {port})"), cwd="/")

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


def test_in_the_foreground(port: int, trigger: Trigger, family: Family) -> None:
    """The server is the wrapper's own child there."""
    code = f"wait({trigger.path!r}); listen({HOST!r}, {port})"
    with cli.popen("-f", "-v", "-r", f"port:{port}", *server(code)) as wrapper:
        assert wrapper.stderr
        line_with(wrapper.stderr, b"nobody listens there")
        trigger.release()
        line_with(wrapper.stderr, f"port:{port}: {HOST}:{port}".encode())
        wrapper.send_signal(signal.SIGTERM)
        wrapper.communicate(timeout=20)

    family.nobody()


# -- strangers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["", f"{HOST}:", "0.0.0.0:", "localhost:"])
def test_a_stranger_before(host: str, port: int, tmp_path: Path, family: Family) -> None:
    """75 at once, and named; nothing is started."""
    touched = tmp_path / "started"
    with stranger(f"listen({HOST!r}, {port})") as pid:
        name = procs.status(pid)["Name"]
        done = cli.run("-r", f"port:{host}{port}", *server(f"open({str(touched)!r}, 'w')"))
        family.nobody(besides={pid})

    assert done.status == 75
    assert done.err == f"daemonize: port {port} is already in use by {name} (pid {pid})\n".encode()
    assert not touched.exists()


def test_a_stranger_through_the_library(port: int, family: Family) -> None:
    """As an error with facts; also when it is the caller himself."""
    with socket.create_server((HOST, port)), pytest.raises(AlreadyRunning) as caught:
        api.launch(server(), ready=f"port:{port}")

    assert (caught.value.what, caught.value.path, caught.value.pid) == ("port", str(port), os.getpid())
    assert caught.value.exit_status == 75
    family.nobody()


def test_no_strangers(port: int, servers: Family) -> None:
    """Another address, a connection that is left of an earlier server, one that has been closed: nobody is there."""
    with socket.create_server((HOST, port)) as before, ports.connected(port) as client:
        accepted, _ = before.accept()
        closed = ports.connected(port)
        before.accept()[0].close()  # TIME_WAIT is on this side
        closed.close()
        before.close()
        with socket.create_server(("127.0.0.2", port)), accepted:
            done = cli.run("-r", f"port:{HOST}:{port}", *server(f"listen({HOST!r}, {port})"))
        assert client

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


def test_a_stranger_during_start_up(port: int, trigger: Trigger, family: Family) -> None:
    """He is named, and never taken for the server, which fails by itself with its own status."""
    code = f"wait({trigger.path!r}); listen({HOST!r}, {port})"
    with cli.popen("-v", "-r", f"port:{port}", *server(code)) as wrapper:
        assert wrapper.stderr
        line_with(wrapper.stderr, b"nobody listens there")
        with stranger(f"listen({HOST!r}, {port})") as pid:
            name = procs.status(pid)["Name"]
            line_with(wrapper.stderr, f"it is held by {name} (pid {pid}), not by the server".encode())
            trigger.release()
            _, err = wrapper.communicate(timeout=20)
            family.nobody(besides={pid})

    assert wrapper.returncode == 1
    assert b"Address already in use" in err


def test_the_last_message_names_the_stranger(port: int, trigger: Trigger, family: Family) -> None:
    """A server that waits for ever: 124 says who is there."""
    with cli.popen("-v", "-t", "2s", "-r", f"port:{port}", *server(f"wait({trigger.path!r})")) as wrapper:
        assert wrapper.stderr
        line_with(wrapper.stderr, b"nobody listens there")
        with stranger(f"listen({HOST!r}, {port})") as pid:
            _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 124
    assert f"(waited for: port:{port}: it is held by ".encode() in err
    assert f"(pid {pid}), not by the server)".encode() in err
    family.nobody()


def test_a_stranger_who_is_hidden(port: int, family: Family) -> None:
    """An ordinary user is told whose process it is, as far as the kernel tells."""
    need_root()
    with stranger(f"listen({HOST!r}, {port})") as pid:
        with as_nobody("-r", f"port:{port}", *server()) as wrapper:
            _, err = wrapper.communicate(timeout=20)
        family.nobody(besides={pid})

    assert wrapper.returncode == 75
    assert err == f"daemonize: port {port} is already in use by somebody of user root\n".encode()


def test_any_port_is_not_that_of_a_stranger(family: Family) -> None:
    """Where a server hides its descriptors from an ordinary user: any new socket of root's would do."""
    need_root()
    hides = (
        "import ctypes",
        "ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)",
        "print('hidden', flush=True)",
        "signal.pause()",
    )
    with as_nobody("-v", "-t", "2s", "-r", "port", *server(*hides)) as wrapper:
        assert wrapper.stdout
        assert wrapper.stdout.readline() == b"hidden\n"
        with ports.taken():
            _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 124
    assert b"may not be read: name the port" in err
    family.nobody()


def test_a_stranger_beside_children_that_end(port: int, family: Family) -> None:
    """A process on its way out shows its descriptors to root alone: that is not a server that hides."""
    need_root()
    churn = (
        "size = bytearray(100 << 20)",
        "while True:",
        "    pid = os.fork()",
        "    pid or os._exit(0)",
        "    if len(kept) > 20: os.waitpid(kept.pop(0), 0)",
        "    kept.append(pid)",
    )
    with as_nobody("-v", "-t", "3s", "-r", f"port:{port}", *server(*churn)) as wrapper:
        assert wrapper.stderr
        line_with(wrapper.stderr, b"nobody listens there")
        with stranger(f"listen({HOST!r}, {port})"):
            _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 124
    assert b"may not be read" not in err
    family.nobody()


# -- where less can be seen -------------------------------------------------------------------------------------------


def test_a_server_that_hides(port: int, servers: Family) -> None:
    """Its descriptors may not be read: a new listener of its user will do, nothing connects, and -v says so."""
    need_root()
    with as_nobody("-v", "-r", f"port:{port}", *server(f"hide(); listen({HOST!r}, {port})")) as wrapper:
        _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert b"may not be read: a socket of its user, or of root, will do" in err
    assert servers.only()


@pytest.mark.parametrize("account", [users.MEMBER, users.NOBODY], ids=["another user", "seen"])
def test_a_stranger_beside_a_server_that_hides(account: users.Account, port: int, family: Family) -> None:
    """One of a foreign user, or one who is seen to have the socket himself, is still refused."""
    need_root()
    with as_nobody("-v", "-t", "3s", "-r", f"port:{port}", *server("hide()")) as wrapper:
        assert wrapper.stderr
        line_with(wrapper.stderr, b"nobody listens there")
        with stranger(f"listen({HOST!r}, {port})", account=account) as pid:
            line_with(wrapper.stderr, b"not yet: it is held by ")
            _, err = wrapper.communicate(timeout=20)

    who = f"(pid {pid})" if account == users.NOBODY else f"somebody of user {account.uid}"
    assert wrapper.returncode == 124
    assert f"{who}, not by the server".encode() in err
    family.nobody()


def fail(*_: object) -> object:
    """As where there is no such thing."""
    raise FileNotFoundError(2, "No such file or directory")


def test_without_sock_diag(port: int, monkeypatch: pytest.MonkeyPatch, servers: Family) -> None:
    """/proc/net/tcp shows the same."""
    monkeypatch.setattr(sockdiag.Tables, "_send", fail)
    launched = api.launch(
        server(f"listen({HOST!r}, {port})"), ready=["port", f"port:{port}"], relay_stdout=None
    )

    assert launched.found == dict.fromkeys(["port", f"port:{port}"], f"{HOST}:{port}")
    with pytest.raises(AlreadyRunning):
        api.launch(server(), ready=f"port:{port}")
    assert servers.only()


def test_without_tables(
    port: int, monkeypatch: pytest.MonkeyPatch, servers: Family, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the kernel shows no sockets at all it is connected to; any port cannot be."""
    monkeypatch.setattr(sockdiag.Tables, "_send", fail)
    monkeypatch.setattr(sockdiag, "listeners_near", fail)
    with pytest.raises(TimedOut) as timed_out:
        api.launch(server(), ready=f"port:{port}", timeout=0.2)
    launched = api.launch(server(f"listen({HOST!r}, {port})"), ready=f"port:{port}")

    assert timed_out.value.problems == {f"port:{port}": "nobody answers there"}
    assert launched.found == {f"port:{port}": f"{HOST}:{port}"}
    with pytest.raises(AlreadyRunning) as caught:
        api.launch(server(), ready=f"port:{HOST}:{port}")
    assert str(caught.value) == f"port {port} is already in use"
    with pytest.raises(Exception, match="cannot read the kernel's table of sockets: No such file"):
        api.launch(server(), ready="port")
    assert servers.only()


# -- what it costs ----------------------------------------------------------------------------------------------------

CROWD = """
import resource
least = {connections} // 4
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
for _ in range(4):
    if not parent():
        listen("127.0.0.1", 0)
        for _ in range(least):
            kept.append(socket.create_connection(kept[0].getsockname()))
            kept.append(kept[0].accept()[0])
        say("crowded")
        stay()
"""


def crowd(connections: int) -> list[str]:
    """Four processes with so many connections among themselves."""
    return server(CROWD.format(connections=connections))


@pytest.mark.parametrize("way", ["sock_diag", "proc"])
def test_twenty_thousand_connections(way: str, port: int, trigger: Trigger, servers: Family) -> None:
    """What it costs to look is bounded: of one CPU the wrapper uses a fifth at most, and finds the server all the same."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    connections = min(20_000, 2 * (most - 100))
    code = f"wait({trigger.path!r}); listen({HOST!r}, {port})"
    listens = server(code) if way == "sock_diag" else ["unshare", "-n", *server(code)]
    command = [cli.COMMAND, "-v", "-r", f"port:{port}", *listens]
    network = in_own_network()
    reading, writing = os.pipe()
    with (
        subprocess.Popen([*network, *crowd(connections)], stdout=writing) as many,
        open(reading, "rb", buffering=0) as lines,
    ):
        os.close(writing)
        try:
            for _ in range(4):
                assert lines.readline() == b"crowded\n"
            enter = ["nsenter", f"--net=/proc/{many.pid}/ns/net", "--"]
            with subprocess.Popen(
                [*enter, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ) as wrapper:
                assert wrapper.stderr
                line_with(wrapper.stderr, b"nobody listens there")
                share = cpu_share(wrapper.pid, 1.0)
                trigger.release()
                wrapper.communicate(timeout=20)
        finally:
            servers.end()

    assert wrapper.returncode == 0
    assert share <= 0.2


def test_a_share_is_seen() -> None:
    """Negative control: a process that does nothing but look uses much more than that."""
    with subprocess.Popen([*server()[:-1], "while True: open('/proc/net/tcp').read()"]) as busy:
        try:
            assert cpu_share(busy.pid, 0.5) > 0.2
        finally:
            busy.kill()


def test_json_of_a_taken_port() -> None:
    """The outcome and the message; there is no name of a daemon."""
    with ports.taken() as taken:
        report = cli.run("--json", "-r", f"port:{taken}", *server()).json

    assert (report["outcome"], report["status"], report["name"]) == ("already-running", 75, None)
    assert report["message"].startswith(f"port {taken} is already in use by ")


# -- for others -------------------------------------------------------------------------------------------------------


def test_who_listens() -> None:
    """What the message of a timeout tells: where these processes listen, and nobody else."""
    with ports.taken() as port:
        (found,) = sockets.listeners_of([os.getpid(), 1 << 22])

        assert str(found) == f"{HOST}:{port}"
        assert sockets.holder_of(found.inode, found.uid)[0] == os.getpid()
        assert sockets.listeners_of([]) == []


def test_addresses_of_this_machine() -> None:
    """And of others."""
    assert [sockets.is_local(address) for address in ("127.0.0.2", "192.0.2.1")] == [True, False]
