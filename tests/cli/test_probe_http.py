"""`--ready http://...` and `https://...`: what is asked, what counts as an answer, and whose it must be."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from daemonize import AlreadyRunning, TimedOut, UsageError
from daemonize.launcher import api
from daemonize.readiness import http, parse
from tests.support import callers, cli, ports, procs, users
from tests.support.programs import program
from tests.support.progress import assert_not_yet, await_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.family import Family
    from tests.support.programs import Trigger


@pytest.fixture
def port() -> int:
    """Where the server is going to listen."""
    return ports.free_port()


@contextlib.contextmanager
def launch(*words: cli.Word) -> Iterator[subprocess.Popen[bytes]]:
    """A launch that waits, until the end of the block, of a server that says when it does."""
    with cli.popen(*words) as wrapper:
        try:
            assert wrapper.stdout
            assert wrapper.stdout.readline() == b"waiting\n"
            yield wrapper
        finally:
            wrapper.kill()


def problem(spec: str, *command: str) -> str:
    """Why a server is not ready after 2 s."""
    with pytest.raises(TimedOut) as caught:
        api.launch(command, ready=spec, timeout=2, relay_stdout=None, relay_stderr=None)
    return caught.value.problems[spec]


# -- what is asked, and what counts ------------------------------------------------------------------------------------


def test_not_before_it_answers(port: int, trigger: Trigger, servers: Family) -> None:
    """A refused connection is no answer; the first that comes is."""
    spec = f"http://127.0.0.1:{port}/"
    with launch("-v", "-r", spec, "--", *program("answers", port, trigger.arg)) as wrapper:
        assert wrapper.stderr
        assert wrapper.stderr.readline().startswith(b"daemonize: started pid ")
        assert wrapper.stderr.readline() == f"daemonize: {spec}: not yet: connection refused\n".encode()
        trigger.release()
        out, err = wrapper.communicate(timeout=20)

    assert (wrapper.returncode, out) == (0, b"listening\n")
    assert err.startswith(b"daemonize: ready after ")
    assert b"200 OK" in ports.get(port)
    assert servers.only()


def test_one_request_after_the_other_until_it_is_2xx(port: int, tmp_path: Path, servers: Family) -> None:
    """No more than that: what is asked says who asks, and wants no connection kept."""
    notes = tmp_path / "notes"
    server = program("answers", port, "statuses=503,404,204", f"notes={notes}")
    done = cli.run("-v", "-r", f"http://localhost:{port}/health?deep=%20yes", "--", *server)

    assert done.status == 0
    assert b"not yet: status 503\n" in done.err
    assert b"not yet: status 404\n" in done.err
    requests = notes.read_text().strip().split("\n\n")
    assert len(requests) == 3
    for request in requests:
        line, *headers = request.lower().splitlines()
        assert line == "get /health?deep=%20yes http/1.1"
        assert f"host: localhost:{port}" in headers
        assert "connection: close" in headers
        assert any(header.startswith("user-agent: daemonize/") for header in headers)
    assert servers.only()


@pytest.mark.parametrize("status", [200, 204, 299, 301, 302, 399])
def test_statuses_that_hold(status: int, port: int, tmp_path: Path, servers: Family) -> None:
    """2xx and 3xx; a redirect is not followed."""
    notes = tmp_path / "notes"
    server = program("answers", port, f"statuses={status}", f"notes={notes}")
    done = cli.run("-r", f"http://127.0.0.1:{port}", "--", *server)

    assert (done.status, done.err) == (0, b"")
    assert notes.read_text().count("GET / HTTP/1.1") == 1
    assert "elsewhere" not in notes.read_text()
    assert servers.only()


@pytest.mark.parametrize("status", [400, 401, 503])
def test_statuses_that_do_not(status: int, port: int, family: Family) -> None:
    """All others, and they are named."""
    server = program("answers", port, f"statuses={status}")
    assert_not_yet(f"status {status}\n", "-r", f"http://127.0.0.1:{port}/", "--", *server)
    family.nobody()


@pytest.mark.parametrize("body", [0, 60_000])
def test_the_server_can_say_all_it_has_to(body: int, port: int, servers: Family) -> None:
    """Nothing in its log speaks of a client that hung up."""
    done = cli.run("-r", f"http://127.0.0.1:{port}/", "--", *program("answers", port, f"body={body}"))

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


def test_no_proxy_is_asked(port: int, servers: Family) -> None:
    """The variables that name one are for what lies beyond this machine."""
    proxy = f"http://127.0.0.1:{ports.free_port()}/"
    variables = {"http_proxy": proxy, "HTTP_PROXY": proxy, "all_proxy": proxy, "no_proxy": None}
    done = cli.run("-r", f"http://127.0.0.1:{port}/", "--", *program("answers", port), env=variables)

    assert done.status == 0
    assert servers.only()


def test_a_request_that_hangs_is_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch, servers: Family
) -> None:
    """After 5 s (here: less); the next one may be answered."""
    monkeypatch.setattr(http, "_LIMIT", 0.2)
    server = program("answers", port, "statuses=hang,200")
    api.launch(server, ready=f"http://127.0.0.1:{port}/", relay_stdout=None)
    assert servers.only()
    servers.end()

    server = program("answers", port, "statuses=hang")
    assert problem(f"http://127.0.0.1:{port}/", *server) == "no answer within 0.2 s"


#: Listens, and answers one byte at a time, so that something always comes.
TRICKLES = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    try:
        for byte in b"HTTP/1.1 200 OK\\r\\nX: " + 9999 * b"x":
            connection.send(bytes([byte]))
            time.sleep(0.02)
    except OSError:
        pass
"""
#: Listens, and answers anything with its argument.
SAYS = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(sys.argv[2].encode())
    connection.close()
"""


def test_an_answer_that_trickles_in_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for all of it, not for each word."""
    monkeypatch.setattr(http, "_LIMIT", 0.2)
    server = (*program("answers", port)[:1], "-c", TRICKLES, str(port))
    assert problem(f"http://127.0.0.1:{port}/", *server) == "no answer within 0.2 s"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", "it hangs up without an answer"),
        ("220 mail.example.org ESMTP\r\n", "what answers does not speak HTTP"),
        ("HTTP/1.1 99999 OK\r\n\r\n", "what answers does not speak HTTP"),
        ("HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 200 + "\r\n", "got more than 100 headers"),
    ],
)
def test_what_is_no_answer(answer: str, expected: str, port: int, family: Family) -> None:
    """It is told apart, in words."""
    server = (*program("answers", port)[:1], "-c", SAYS, str(port), answer)
    assert_not_yet(expected + "\n", "-r", f"http://127.0.0.1:{port}/", "--", *server)
    family.nobody()


def test_a_name_that_is_not_there(family: Family) -> None:
    """It may come to be there; the resolver's own words."""
    with pytest.raises(socket.gaierror) as expected:
        socket.getaddrinfo("nowhere.invalid", 80)
    words = str(expected.value.strerror)
    assert_not_yet(words[:1].lower() + words[1:], "-r", "http://nowhere.invalid/", "--", "sleep", "60")
    family.nobody()


# -- whose answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_an_old_instance_is_refused(host: str, tmp_path: Path, family: Family) -> None:
    """Somebody who answers there already: 75, named, and nothing is started."""
    with ports.taken() as port:
        done = cli.run("-r", f"http://{host}:{port}/", "--", "touch", tmp_path / "started")

    assert (done.status, done.out) == (75, b"")
    assert f"port {port} is already in use by ".encode() in done.err
    assert f"(pid {os.getpid()})".encode() in done.err
    assert not os.path.exists(tmp_path / "started")
    family.nobody()


def test_one_that_listens_elsewhere_is_not(port: int, servers: Family) -> None:
    """Negative control: the same port of another address of this machine is free."""
    with socket.create_server(("127.0.0.2", port)):
        done = cli.run("-r", f"http://127.0.0.1:{port}/", "--", *program("answers", port))

    assert done.status == 0
    assert servers.only()


def test_a_listener_given_to_the_server_is_its_own(servers: Family) -> None:
    """`--keep-fd`: what the caller listens on for the server does not make it taken."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = (
            "import socket, sys\n"
            "listener = socket.socket(fileno=int(sys.argv[1]))\n"
            "while True:\n"
            "    connection, _ = listener.accept()\n"
            "    connection.recv(65536)\n"
            "    connection.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n')\n"
            "    connection.close()\n"
        )
        number, port = str(listener.fileno()), listener.getsockname()[1]
        words = ("--keep-fd", number, "-r", f"http://127.0.0.1:{port}/", "--", *program("answers", port)[:1])
        done = cli.run(*words, "-c", code, number, pass_fds=[listener.fileno()])

    assert (done.status, done.err) == (0, b"")
    assert servers.only()


def test_the_library_says_whose_it_is() -> None:
    """As facts."""
    with ports.taken() as port, pytest.raises(AlreadyRunning) as caught:
        api.launch(["true"], ready=f"https://127.0.0.1:{port}/")

    assert (caught.value.what, caught.value.path, caught.value.pid) == ("port", str(port), os.getpid())


# -- who asks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-f",)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_request_under_way_ends_with_the_launch(
    number: int, options: tuple[str, ...], port: int, tmp_path: Path, family: Family
) -> None:
    """However that ends; also in the middle of an answer that never comes."""
    notes = os.fspath(tmp_path / "notes")
    os.mkfifo(notes)
    server = program("answers", port, "statuses=hang", f"notes={notes}")
    with launch(*options, "-r", f"http://127.0.0.1:{port}/", "--", *server) as wrapper:
        with open(notes) as asked:
            assert asked.readline() == "GET / HTTP/1.1\n"
        assert len(family.living({wrapper.pid})) == (2 if options else 3)
        wrapper.send_signal(number)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == (-number if options or number == signal.SIGKILL else 128 + number)
    procs.eventually(family.nobody)


def alone(wrapper: int) -> None:
    """The server is its only child."""
    assert len(procs.children(wrapper)) == 1


def test_in_the_foreground_nobody_stays_beside_the_server(port: int, family: Family) -> None:
    """Who has asked is gone when it is ready."""
    with launch("-f", "-v", "-r", f"http://127.0.0.1:{port}/", "--", *program("answers", port)) as wrapper:
        await_line(wrapper, "ready after")
        procs.eventually(lambda: alone(wrapper.pid))
        wrapper.send_signal(signal.SIGTERM)
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == -signal.SIGTERM
    family.nobody()


def test_a_checker_that_is_killed(port: int, trigger: Trigger, servers: Family) -> None:
    """Another is started."""
    with launch(
        "-v", "-r", f"http://127.0.0.1:{port}/", "--", *program("answers", port, trigger.arg)
    ) as wrapper:
        _, checker = [process for process in procs.children(wrapper.pid) if process.sid == process.pid]
        procs.send(checker.pid, signal.SIGKILL, checker.start)
        await_line(wrapper, "has ended; another is started")
        trigger.release()
        wrapper.communicate(timeout=20)

    assert wrapper.returncode == 0
    assert servers.only()


def test_a_server_of_another_user(port: int, servers: Family) -> None:
    """Whoever it runs as: it is asked over the network."""
    if os.geteuid():
        pytest.skip("needs root")
    code = SAYS.replace("sys.argv[2]", "'HTTP/1.0 200 OK\\r\\n\\r\\n'")
    done = cli.run(
        "-u",
        users.NOBODY.name,
        "-r",
        f"http://127.0.0.1:{port}/",
        "--",
        "/usr/bin/python3",
        "-c",
        code,
        str(port),
    )

    assert (done.status, done.err) == (0, b"")
    assert procs.status(servers.only().pid)["Uid"].split()[0] == str(users.NOBODY.uid)


def test_a_package_that_is_not_installed(port: int, servers: Family) -> None:
    """Used in place, it does not know its version, and asks all the same."""
    command = [users.python(), "-S", "-m", "daemonize", "-r", f"http://127.0.0.1:{port}/", "--"]
    done = subprocess.run(
        [*command, *program("answers", port)], env=cli.environ(users.environ()), stdin=subprocess.DEVNULL,
        capture_output=True, check=False, timeout=20,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")
    assert servers.only()


def test_callers_with_threads(port: int, servers: Family) -> None:
    """The keeper asks, as the command does."""
    code = (
        "threading.Thread(target=signal.pause, daemon=True).start()\n"
        f"print(launch(command, ready='http://127.0.0.1:{port}/', relay_stdout=None).pid)"
    )
    status, out, err = callers.run(code, *program("answers", port))

    assert (status, err) == (0, b"")
    assert int(out) == servers.only().pid


def test_the_wrapper_loads_nothing_for_it() -> None:
    """What it takes to ask is loaded by who asks, while the server starts."""
    code = "import sys, daemonize.readiness as r; r.parse('https://localhost/'); print(*sorted(sys.modules))"
    done = subprocess.run([*program("answers")[:1], "-S", "-c", code], capture_output=True, check=True)

    loaded = set(done.stdout.decode().split())
    assert "daemonize.readiness.https" in loaded
    assert loaded & {"http.client", "ssl", "socket", "email", "signal", "urllib.parse"} == set()


# -- https -------------------------------------------------------------------------------------------------------------


def certificate(path: Path, name: str) -> str:
    """A self-made certificate with its key, made out to a name (IP:... or DNS:...)."""
    file = os.fspath(path / "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", f"subjectAltName={name}", "-keyout", file + ".key", "-out", file],
        check=True, capture_output=True,
    )  # fmt: skip
    with open(file + ".key") as key, open(file, "a") as both:
        both.write(key.read())
    return file


def test_https_with_a_certificate_that_is_trusted(port: int, tmp_path: Path, servers: Family) -> None:
    """SSL_CERT_FILE names a private one."""
    file = certificate(tmp_path, "IP:127.0.0.1")
    server = program("answers", port, f"certificate={file}", "statuses=503,200")
    done = cli.run("-v", "-r", f"https://127.0.0.1:{port}/", "--", *server, env={"SSL_CERT_FILE": file})

    assert done.status == 0
    assert b"not yet: status 503\n" in done.err
    assert servers.only()


@pytest.mark.parametrize(
    ("name", "trusted", "expected"),
    [
        ("IP:127.0.0.1", False, "certificate verify failed: self-signed certificate"),
        ("DNS:example.org", True, "certificate verify failed: IP address mismatch, certificate is not valid"),
    ],
)
def test_https_with_a_certificate_that_is_not(
    *, name: str, trusted: bool, expected: str, port: int, tmp_path: Path, family: Family
) -> None:
    """It never holds, and what is wrong with it is said."""
    file = certificate(tmp_path, name)
    server = program("answers", port, f"certificate={file}")
    variables = {"SSL_CERT_FILE": file if trusted else None}
    assert_not_yet(expected, "-r", f"https://127.0.0.1:{port}/", "--", *server, env=variables)
    family.nobody()


def test_https_where_http_is_spoken(port: int, family: Family) -> None:
    """Not a certificate, but the protocol is wrong."""
    server = (*program("answers", port)[:1], "-c", SAYS, str(port), "HTTP/1.0 200 OK\r\n\r\n")
    assert_not_yet("no TLS: ", "-r", f"https://127.0.0.1:{port}/", "--", *server)
    family.nobody()


def test_http_where_https_is_spoken(port: int, tmp_path: Path, family: Family) -> None:
    """The other way round: such a server hangs up, or resets the connection, or sends an alert."""
    server = program("answers", port, f"certificate={certificate(tmp_path, 'IP:127.0.0.1')}")
    assert problem(f"http://127.0.0.1:{port}/", *server) in (
        "it hangs up without an answer",
        "connection reset by peer",
        "what answers does not speak HTTP",
    )
    family.nobody()


# -- the spec ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "host", "port", "target"),
    [
        ("http://localhost", "localhost", 80, "/"),
        ("https://localhost", "localhost", 443, "/"),
        ("http://localhost/", "localhost", 80, "/"),
        ("http://localhost:8080/a/b?c=d&e=/f", "localhost", 8080, "/a/b?c=d&e=/f"),
        ("http://localhost?q=a@b:c", "localhost", 80, "/?q=a@b:c"),
        ("http://127.0.0.1:1", "127.0.0.1", 1, "/"),
        ("http://[::1]", "::1", 80, "/"),
        ("https://[::1]:65535/x", "::1", 65535, "/x"),
        ("http://xn--bcher-kva.example./%C3%A9", "xn--bcher-kva.example.", 80, "/%C3%A9"),
    ],
)
def test_what_a_url_says(spec: str, host: str, port: int, target: str) -> None:
    """Host, port, and what is asked for."""
    probe = parse(spec)

    assert isinstance(probe, http.Http)
    assert (probe.host, probe.port, probe.target) == (host, port, target)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "// and a host come first"),
        ("localhost:80/", "// and a host come first"),
        ("/localhost/", "// and a host come first"),
        ("//", "it names no host"),
        ("///path", "it names no host"),
        ("//:80/", "it names no host"),
        ("//?q", "it names no host"),
        ("//localhost:/", "'' is not a port"),
        ("//localhost:0/", "'0' is not a port"),
        ("//localhost:65536/", "'65536' is not a port"),
        ("//localhost:" + "9" * 5000, "is not a port"),
        ("//localhost:http/", "'http' is not a port"),
        ("//localhost:-1/", "'-1' is not a port"),
        ("//localhost:\N{SUPERSCRIPT TWO}/", "percent-encode"),
        ("//::1/", "stands in brackets"),
        ("//[::1/", "is not an IPv6 address"),
        ("//[::1]x/", "'x' is not a port"),
        ("//[::1%lo]/", "is not an IPv6 address"),
        ("//[127.0.0.1]/", "is not an IPv6 address"),
        ("//user:word@localhost/", "cannot log in"),
        ("//localhost/#part", "leave the fragment out"),
        ("//b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/", "punycode"),
        ("//localhost/\N{LATIN SMALL LETTER E WITH ACUTE}", "percent-encode"),
        ("//localhost/a b", "percent-encode"),
        ("//localhost/\r\nX: y", "percent-encode"),
        ("//localhost/\0", "percent-encode"),
        ("//localhost/\ud800", "percent-encode"),
        ("//local host/", "percent-encode"),
        ("//local\\host/", "is not a host"),
        ("//a..b/", "is not a host"),
        ("//" + "a" * 64 + "/", "is not a host"),
        ("//" + "a." * 130 + "/", "is not a host"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_no_url(scheme: str, url: str, expected: str) -> None:
    """A usage error that says what is wrong, in one line."""
    with pytest.raises(UsageError, match=expected) as caught:
        parse(f"{scheme}:{url}")

    assert str(caught.value).isprintable()


def test_a_python_without_tls(port: int, servers: Family) -> None:
    """http:// needs none; https:// says what it wants."""
    script = "import sys; sys.modules['_ssl'] = None; from daemonize.cli.main import main; main()"
    secure, plain = (
        subprocess.run(
            [sys.executable, "-c", script, "-r", f"{scheme}://127.0.0.1:{port}/", "-t", "1s", *program("answers", port)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False,
        )
        for scheme in ("https", "http")
    )  # fmt: skip
    assert secure.returncode == 124
    assert b"No module named '_ssl'" in secure.stderr or b"import of _ssl halted" in secure.stderr, secure
    assert (plain.returncode, plain.stderr) == (0, b"")
