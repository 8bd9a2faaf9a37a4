"""unix:PATH: the socket there counts if it belongs to the server, whatever the server calls it."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from daemonize import AlreadyRunning, TimedOut
from daemonize.launcher import api
from daemonize.posix import sockdiag
from tests.support import cli, procs, users
from tests.support.forked import need_root
from tests.support.listening import as_nobody, in_own_network, server, stranger
from tests.support.progress import line_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger


def fail(*_: object) -> object:
    """As where there is no such thing."""
    raise FileNotFoundError(2, "No such file or directory")


@pytest.fixture(params=["sock_diag", "proc"])
def launch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """`launch()`, with the fast table and without it."""
    if request.param == "proc":
        monkeypatch.setattr(sockdiag.Tables, "ask", fail)
    function: Callable[..., object] = api.launch
    return function


@pytest.mark.parametrize(
    "code",
    [
        "bind('socket').listen()",
        "bind('./socket').listen()",
        "bind({path!r} + '/socket').listen()",
        "os.chdir('/'); bind({path!r} + '/socket').listen()",
        "os.mkdir('real'); os.symlink('real/socket', 'socket'); bind('real/socket').listen()",
        "bind('socket', socket.SOCK_SEQPACKET).listen()",
        "bind('socket', socket.SOCK_DGRAM)",
        "bind('socket', socket.SOCK_DGRAM); socket.socket(1, 2).connect('socket')",
        "parent() or bind('socket').listen()",
    ],
)
@pytest.mark.parametrize("spec", ["unix:socket", "unix:{path}/socket"])
def test_what_it_may_be(
    spec: str,
    code: str,
    launch: Callable[..., object],
    tmp_path: Path,
    servers: Family,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A path of any kind for the same file; a stream or a seqpacket socket that listens, or a datagram socket."""
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path)
    launch(server(code.format(path=path)), ready=spec.format(path=path), cwd=path, relay_stdout=None)

    assert servers.living()


def test_renamed_into_place(tmp_path: Path, servers: Family) -> None:
    """What it was called before does not matter."""
    path = tmp_path / "socket"
    code = f"bind({str(path)!r} + '.new').listen(); os.rename({str(path)!r} + '.new', {str(path)!r})"
    done = cli.run("-r", f"unix:{path}", *server(code))

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("", "there is no such socket"),
        ("open('socket', 'w').close()", "it is no socket"),
        ("os.mkdir('socket')", "it is no socket"),
        ("bind('socket')", "nobody listens there"),
        ("bind('other').listen(); bind('socket')", "nobody listens there"),
        (
            "bind('socket'); os.rename('socket', 'old'); kept[0].listen(); bind('socket')",
            "nobody listens there",
        ),
        ("bind('\\0socket').listen()", "there is no such socket"),
    ],
)
def test_what_it_may_not_be(code: str, why: str, tmp_path: Path, family: Family) -> None:
    """Not ready, and it is said why."""
    done = cli.run("-t", "300ms", "-r", "unix:socket", "-c", tmp_path, *server(code), cwd=tmp_path)

    assert done.status == 124
    assert f"(waited for: unix:socket: {why})".encode() in done.err
    family.nobody()


def test_an_abstract_name(launch: Callable[..., object], servers: Family) -> None:
    """It has no file; the next who wants it is told who has it."""
    name = f"daemonize-test@{os.getpid()}"
    launch(server(f"bind('\\0{name}').listen()"), ready=f"unix:@{name}", relay_stdout=None)
    with pytest.raises(AlreadyRunning) as caught:
        launch(server(), ready=f"unix:@{name}")

    assert str(caught.value).startswith(f"socket @{name} is already in use by ")
    assert f"(pid {servers.only().pid})" in str(caught.value)


def test_an_abstract_name_with_all_that_follows(servers: Family) -> None:
    """Many a program gives the kernel the NULs after the name as well."""
    name = f"daemonize-test-{os.getpid()}"
    done = cli.run("-r", f"unix:@{name}", *server(f"bind(('\\0{name}').ljust(108, '\\0')).listen()"))

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


def test_nothing_connects(tmp_path: Path, trigger: Trigger, servers: Family) -> None:
    """The first that the server accepts is the test."""
    path, late = str(tmp_path / "socket"), tmp_path / "late"
    code = (
        f"bind({path!r}).listen(); wait({trigger.path!r}); open({str(late)!r}, 'w').close()",
        "peer = kept[0].accept()[0]; peer.send(peer.recv(100))",
    )
    with cli.popen("-v", "-r", f"unix:{path}", "-r", f"file:{late}", *server(*code)) as wrapper:
        assert wrapper.stderr
        line_with(wrapper.stderr, b"there is no such file")
        trigger.release()
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(path)
        first.send(b"first")
        assert first.recv(100) == b"first"
    assert servers.only()


def test_a_stale_file(tmp_path: Path, servers: Family) -> None:
    """What a dead server has left is nobody's, and a new one takes its place."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    done = cli.run("-r", f"unix:{path}", *server(f"os.unlink({path!r}); bind({path!r}).listen()"))

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_a_stranger_before(kind: str, tmp_path: Path, family: Family) -> None:
    """75 at once, and named; nothing is started."""
    path, touched = str(tmp_path / "socket"), tmp_path / "started"
    code = (
        f"bind({path!r}, socket.{kind}).listen()"
        if kind == "SOCK_STREAM"
        else f"bind({path!r}, socket.{kind})"
    )
    with stranger(code) as pid:
        name = procs.status(pid)["Name"]
        done = cli.run("-r", f"unix:{path}", *server(f"open({str(touched)!r}, 'w')"))
        family.nobody(besides={pid})

    assert done.status == 75
    assert done.err == f"daemonize: socket {path} is already in use by {name} (pid {pid})\n".encode()
    assert not touched.exists()


def test_a_stranger_during_start_up(tmp_path: Path, family: Family) -> None:
    """He is never taken for the server, and named."""
    path = str(tmp_path / "socket")
    with cli.popen("-v", "-t", "2s", "-r", f"unix:{path}", *server()) as wrapper:
        assert wrapper.stderr
        line_with(wrapper.stderr, b"there is no such socket")
        with stranger(f"bind({path!r}).listen()") as pid:
            _, err = wrapper.communicate(timeout=20)

    assert wrapper.returncode == 124
    assert f"(pid {pid}), not by the server)".encode() in err
    family.nobody()


def test_hidden(family: Family) -> None:
    """For an ordinary user: a stranger by his uid; a server whose descriptors may not be read by its own."""
    need_root()
    with users.open_directory() as directory:
        path = f"{directory}/socket"
        with stranger(f"bind({path!r}).listen()") as pid:
            with as_nobody("-r", f"unix:{path}", *server()) as wrapper:
                _, err = wrapper.communicate(timeout=20)
            family.nobody(besides={pid})
        assert err == f"daemonize: socket {path} is already in use by somebody of user root\n".encode()
        os.unlink(path)
        with as_nobody("-v", "-r", f"unix:{path}", *server(f"hide(); bind({path!r}).listen()")) as wrapper:
            _, err = wrapper.communicate(timeout=20)
        assert wrapper.returncode == 0
        assert b"may not be read: a socket of its user, or of root, will do" in err
        family.end()


def test_the_same_number_in_another_file_system(tmp_path: Path, family: Family) -> None:
    """A socket of the same name and inode, on another device, is another one: two new tmpfs count alike."""
    need_root()
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    dead = server(f"bind('{here}/socket'); print(os.stat('{here}/socket').st_ino); sys.exit()")
    lives = server(f"bind('{there}/socket').listen(); print(os.stat('{there}/socket').st_ino, flush=True)")
    mount = f"mount -t tmpfs none {here} && mount -t tmpfs none {there} && {shlex.join(dead)}"
    launch = shlex.join(cli.command("-t", "300ms", "-r", f"unix:{here}/socket", *lives))  # type: ignore[arg-type]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec {launch}"],
        capture_output=True,
        check=False,
        timeout=20,
    )
    if done.stderr.startswith((b"unshare", b"mount")):
        pytest.skip("no mount namespace here")

    dead_one, living_one = done.stdout.split()
    assert dead_one == living_one
    assert done.returncode == 124
    assert b": nobody listens there)" in done.stderr
    family.nobody()


def test_the_same_path_in_mounts_of_its_own(tmp_path: Path, family: Family) -> None:
    """The file that a dead server has left is not the one that the server has made at its own path of that name."""
    need_root()
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    front = ["unshare", "-n", "-m", "sh", "-c", f'mount -t tmpfs none {tmp_path} && exec "$@"', "sh"]
    if subprocess.run([*front, "true"], capture_output=True, check=False, timeout=20).returncode:
        pytest.skip("no namespaces here")
    done = cli.run(
        "-t", "1s", "-r", f"unix:{path}", *front, *server(f"bind({str(path)!r}).listen(); say('done')")
    )

    assert done.status == 124
    assert done.out == b"done\n"
    assert b": nobody listens there)" in done.err
    family.nobody()


def test_in_another_root(tmp_path: Path, launch: Callable[..., object], servers: Family) -> None:
    """PATH is the caller's; the server calls it by what it is in its own root."""
    need_root()
    root = tmp_path / "root"
    (root / "run").mkdir(parents=True)
    code = f"os.chroot({str(root)!r}); os.chdir('/'); bind('/run/socket').listen()"
    launch(server(code), ready=f"unix:{root}/run/socket", relay_stdout=None)

    assert servers.only()


def test_as_another_user(servers: Family) -> None:
    """`-u`: the socket is looked for all the same."""
    need_root()
    with users.open_directory() as directory:
        path = f"{directory}/socket"
        done = cli.run("-u", "nobody", "-r", f"unix:{path}", *server(f"bind({path!r}).listen()"), cwd="/")

        assert (done.status, done.err) == (0, b"")
        assert servers.only()


def test_a_network_of_its_own(tmp_path: Path, servers: Family) -> None:
    """Each network namespace has its own table of UNIX sockets; files are seen from everywhere."""
    path = str(tmp_path / "socket")
    done = cli.run("-r", f"unix:{path}", *in_own_network(*server(f"bind({path!r}).listen()")))

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_SEQPACKET", "SOCK_DGRAM"])
def test_without_tables(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Family) -> None:
    """Where the kernel shows no sockets at all it is connected to."""
    monkeypatch.setattr(sockdiag.Tables, "ask", fail)
    monkeypatch.setattr(sockdiag, "bound_near", fail)
    spec = f"unix:{tmp_path}/socket"
    listens = f"bind({spec[5:]!r}, socket.{kind})" + (".listen()" if kind != "SOCK_DGRAM" else "")
    with pytest.raises(TimedOut) as timed_out:
        api.launch(server(f"bind({spec[5:]!r})" if kind == "SOCK_STREAM" else ""), ready=spec, timeout=0.3)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    api.launch(server(listens), ready=spec, relay_stdout=None)

    why = "nobody answers there" if kind == "SOCK_STREAM" else "there is no such socket"
    assert timed_out.value.problems == {spec: why}
    with pytest.raises(AlreadyRunning) as caught:
        api.launch(server(), ready=spec)
    assert str(caught.value) == f"socket {spec[5:]} is already in use"
    assert servers.only()
