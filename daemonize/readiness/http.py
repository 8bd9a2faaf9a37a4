"""`http://HOST[:PORT][/PATH]`: a GET is answered with a status of 2xx or 3xx.

One request at a time, on a connection of its own, to the server itself: no proxy of the environment is asked, no redirect
followed, and an answer of up to 64 KiB is read to its end, so that no server is left with what it could not send.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from daemonize.errors import UsageError
from daemonize.posix.sockets import is_local, resolve
from daemonize.readiness.checker import Check, Checked
from daemonize.readiness.port import Port

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPConnection
    from typing import NoReturn

    from daemonize.readiness import Launch

_LIMIT = 5.0  # seconds that an answer may take, with everything that comes before it
_READ = 65536
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class Http(Checked):
    """A checker asks, and loads what it needs for that while the server starts."""

    secure = False
    port = 80

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        self.host, self.port, self.target = parse_url(argument, self.port)
        self._listener: Port | None = None

    def prepare(self, launch: Launch) -> None:
        """On this machine somebody who listens there already would answer in the server's place."""
        super().prepare(launch)
        try:
            addresses = resolve(self.host)
        except OSError:
            return  # the name may be there when the server is
        if all(map(is_local, addresses)):
            host = f"[{self.host}]" if ":" in self.host else self.host
            self._listener = Port(f"port:{host}:{self.port}", f"{host}:{self.port}")
            self._listener.prepare(launch)

    def check(self) -> Check:
        """One request."""
        return _Get(self.host, self.port, self.target, secure=self.secure)

    def again(self, now: float, pause: float) -> None:
        """Whoever answers must still be the server."""
        if self._listener:
            self._listener.held = False
        super().again(now, pause)

    def confirm(self) -> str:
        """On this machine it must be the server that has answered."""
        listener = self._listener
        for _ in range(2):  # it believes what it has seen twice
            if listener and not listener.held:
                listener.tick(monotonic())
        return listener.problem if listener and not listener.held else ""


def parse_url(url: str, port: int) -> tuple[str, int, str]:
    """Host, port (where none is given: `port`) and what to ask for, of a URL without its scheme. Raises UsageError."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise UsageError("percent-encode what is not plain ASCII; a host name becomes punycode (xn--...)")
    if not url.startswith("//"):
        raise UsageError("// and a host come first")
    if "#" in url:
        raise UsageError("leave the fragment out: no server ever sees it")
    at = min((place for place in (url.find("/", 2), url.find("?")) if place > 0), default=len(url))
    authority, target = url[2:at], url[at:]
    if "@" in authority:
        raise UsageError("it cannot log in: use exec: with a client that can")
    host, colon, number = _split(authority)
    if colon:
        if number.startswith("{port"):
            raise UsageError(
                f"there is no socket whose port {number} could be; --listen gives the server one"
            )
        if not (number.isdigit() and len(number) < 6 and 0 < int(number) < 65536):
            raise UsageError(f"'{number}' is not a port: 1 to 65535")
        port = int(number)
    return host, port, target if target.startswith("/") else "/" + target


def _split(authority: str) -> tuple[str, str, str]:
    """Host, colon and port."""
    from _socket import AF_INET6, inet_pton

    if authority.startswith("["):
        host, closed, rest = authority[1:].partition("]")
        try:
            inet_pton(AF_INET6, host if closed else "")
        except OSError:
            raise UsageError(f"'{authority}' is not an IPv6 address in brackets") from None
        if rest and not rest.startswith(":"):
            raise UsageError(f"'{rest}' is not a port: 1 to 65535")
        return host, rest[:1], rest[1:]
    host, colon, number = authority.partition(":")
    if ":" in number:
        raise UsageError("an IPv6 address stands in brackets: [::1]")
    labels = host.removesuffix(".").split(".")
    if len(host) > 254 or not ({*host} <= _NAME and all(0 < len(label) < 64 for label in labels)):
        raise UsageError(f"'{host}' is not a host" if host else "it names no host")
    return host, colon, number


class _Get(Check):
    """Asks once."""

    def __init__(self, host: str, port: int, target: str, *, secure: bool) -> None:
        self._host, self._port, self._target, self._secure = host, port, target, secure
        self._context: ssl.SSLContext | None = None
        self._agent = "daemonize"

    def begin(self) -> None:
        """Load what it takes, before the time for an answer begins."""
        import http.client  # noqa: F401
        from importlib.metadata import PackageNotFoundError, version

        try:
            self._agent += f"/{version('daemonize-ready')}"
        except PackageNotFoundError:
            pass  # it is not installed, but used in place

    def run(self, tells: int) -> str:
        """The status, or why there is none."""
        import signal

        signal.signal(signal.SIGALRM, _too_late)
        signal.setitimer(signal.ITIMER_REAL, _LIMIT)
        try:
            connection = self._connection()
            try:
                return self._ask(connection)
            finally:
                connection.close()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _connection(self) -> HTTPConnection:
        if not self._secure:
            from http.client import HTTPConnection  # the other is not there in a Python without TLS

            return HTTPConnection(self._host, self._port, timeout=_LIMIT)
        import ssl
        from http.client import HTTPSConnection

        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return HTTPSConnection(self._host, self._port, timeout=_LIMIT, context=self._context)

    def _ask(self, connection: HTTPConnection) -> str:
        from http.client import BadStatusLine, RemoteDisconnected

        headers = {"Connection": "close", "User-Agent": self._agent}
        try:
            connection.request("GET", self._target, headers=headers)
            answer = connection.getresponse()
            if answer.length is not None and answer.length <= _READ:
                answer.read()
        except TimeoutError:
            _too_late()
        except RemoteDisconnected:
            return "it hangs up without an answer"
        except BadStatusLine:
            return "what answers does not speak HTTP"
        except OSError as error:
            if not self._secure:
                raise
            return _tls_problem(error)
        return "" if 200 <= answer.status < 400 else f"status {answer.status}"


def _too_late(*_: object) -> NoReturn:
    raise TimeoutError(f"no answer within {_LIMIT:g} s")


def _tls_problem(error: OSError) -> str:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"no TLS: {error.reason.replace('_', ' ').lower()}"
    raise error
