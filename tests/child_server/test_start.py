"""`start` returns when the server is initialised, and else raises why it is not; nothing is left then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import ChildServer, ServerError, SetupError, UsageError, message_handler
from tests.support import procs
from tests.support.child_servers import Echo, ask
from tests.support.threads import interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class CustomError(Exception):
    """With arguments that it does not tell its base."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__()
        self.code, self.text = code, text

    def __reduce__(self) -> Any:
        return _custom, (self.code, self.text)


def _custom(code: int, text: str) -> CustomError:
    return CustomError(code, text=text)


class TooLateError(BaseException):
    """As KeyboardInterrupt."""


class UnreadableError(Exception):
    """Pickled, and cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Initializes(Echo):
    """Does something for a start."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(stop_timeout=1)
        self.work = work

    def initialize_server(self) -> None:
        """Whatever it is."""
        self.work()


def raising(error: BaseException) -> Callable[[], None]:
    """What raises it, having said something."""

    def work() -> None:
        sys.stderr.write("words on stderr\n")
        raise error

    return work


def test_start_returns_when_the_server_is_initialised() -> None:
    """And not before: what it does for that is done."""
    told, tell = os.pipe()
    server = Initializes(lambda: os.write(tell, b"done"))
    server._keep = (tell,)
    with server:
        os.set_blocking(told, False)
        assert os.read(told, 10) == b"done"
    os.close(told)
    os.close(tell)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("no port"), ValueError),
        (OSError(2, "nothing there", "/x"), FileNotFoundError),
        (CustomError(3, text="t"), CustomError),
    ],
    ids=["ValueError", "OSError", "Custom"],
)
def test_its_exception_is_raised_here(error: Exception, kind: type[Exception]) -> None:
    """Itself, with its facts; the cause has the traceback, and what was said on stderr."""
    with pytest.raises(kind) as caught:
        Initializes(raising(error)).start()

    cause = caught.value.__cause__
    assert vars(caught.value).items() >= vars(error).items() - {"__notes__": 0}.items()
    assert caught.value.args == error.args
    assert isinstance(cause, ServerError)
    assert cause.stderr == "words on stderr\n"
    assert "in work" in cause.traceback
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("words on stderr\n") == 1
    assert "raise error" in shown


def unpicklable() -> Exception:
    """One whose class is local."""

    class Hidden(Exception):
        pass

    return Hidden("who am I")


@pytest.mark.parametrize(
    "error", [unpicklable(), UnreadableError(1, 2), KeyboardInterrupt("mine"), GeneratorExit()], ids=repr
)
def test_an_exception_that_cannot_be_raised_here(error: BaseException) -> None:
    """Is told by a ServerError; or it ends the server, and the status is told."""
    with pytest.raises(ServerError) as caught:
        Initializes(raising(error)).start()

    assert "words on stderr" in caught.value.stderr
    assert type(error).__name__ in caught.value.traceback + caught.value.stderr


@pytest.mark.parametrize(
    ("work", "words", "status"),
    [
        (lambda: sys.exit(7), "exited with status 7", 7),
        (lambda: sys.exit(0), "exited with status 0", 0),
        (lambda: sys.exit("no config"), "exited with status 1", 1),
        (lambda: os._exit(3), "exited with status 3", 3),
        (lambda: os._exit(143), "exited with status 143", 143),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "died of SIGKILL", 137),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "died of SIGTERM", 143),
        (lambda: signal.raise_signal(signal.SIGSEGV), "died of SIGSEGV", 139),
    ],
    ids=["exit 7", "exit 0", "exit text", "_exit 3", "_exit 143", "KILL", "TERM", "SEGV"],
)
def test_a_server_that_ends_before_it_is_initialised(
    work: Callable[[], object], words: str, status: int
) -> None:
    """Its status, or its signal."""

    def says() -> None:
        os.write(2, b"last words\n")
        work()

    server = Initializes(says)
    for _ in range(2):
        with pytest.raises(
            ServerError, match=f"Initializes did not start: it {words} before it was initialised"
        ) as caught:
            server.start()
        assert caught.value.status == status
        assert caught.value.stderr.startswith("last words\n")
        assert not server.started


def test_it_may_be_tried_again() -> None:
    """A failed start leaves nothing in the way."""
    failing = [True]

    def sometimes() -> None:
        if failing:
            raise ValueError

    server = Initializes(sometimes)
    with pytest.raises(ValueError):
        server.start()
    failing.clear()
    with server:
        assert ask(server, "echo", "a") == ["a"]


def test_before_fork_may_fail() -> None:
    """Nothing has been made then."""

    class Fails(Echo):
        def before_fork(self) -> None:
            raise LookupError

    server = Fails()
    for _ in range(2):
        with pytest.raises(LookupError):
            server.start()
    assert not server.started


def test_what_a_failed_server_has_forked_is_ended() -> None:
    """Nothing is left of a start that failed: the guards look. A child of it that holds the report does not hold it up."""

    def work() -> None:
        subprocess.Popen(["sleep", "1000"])
        if os.fork() == 0:
            signal.pause()
        raise ValueError

    with pytest.raises(ValueError):
        Initializes(work).start()


def test_a_child_of_a_server_that_died_does_not_hold_it_up() -> None:
    """It holds the report open, and no end of file comes."""
    told, tell = os.pipe()

    def work() -> None:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        os.write(tell, str(pid).encode())
        os._exit(5)

    server = Initializes(work)
    server._keep = (tell,)
    with pytest.raises(ServerError, match="status 5"):
        server.start()
    procs.stop(int(os.read(told, 20)))
    os.close(told)
    os.close(tell)


def test_what_is_said_meanwhile_is_said_where_it_belongs(capfd: pytest.CaptureFixture[str]) -> None:
    """Of a server that did start: once, and before what it says later."""

    class Says(Echo):
        def initialize_server(self) -> None:
            os.write(2, b"early\n")
            sys.stderr.write("early, too\n")

        @message_handler
        def say(self) -> None:
            sys.stderr.write("late\n")
            self.client.write("said")

    with Says() as server:
        assert capfd.readouterr().err == "early\nearly, too\n"
        ask(server, "say")
    assert capfd.readouterr().err == "late\n"


def test_a_large_report() -> None:
    """More than a socket holds."""
    with pytest.raises(ValueError) as caught:
        Initializes(raising(ValueError("x" * 5_000_000))).start()

    assert len(str(caught.value)) == 5_000_000


def test_a_start_that_is_interrupted() -> None:
    """The child is ended and reaped, whatever it was doing; a second start works."""
    told, tell = os.pipe()
    wait = [True]

    def work() -> None:
        if wait:
            os.write(tell, b"waits")
            signal.pause()

    server = Initializes(work)
    server._keep = (tell,)
    interrupt(server, lambda: os.read(told, 20), KeyboardInterrupt)
    wait.clear()
    with server:
        assert ask(server, "echo", "a") == ["a"]
    os.close(told)
    os.close(tell)


@pytest.mark.parametrize("seconds", [0.00001, 0.001, 0.002, 0.003, 0.004, 0.3])
def test_a_handler_that_raises_while_the_server_starts(seconds: float) -> None:
    """It comes through, wherever start() is; the child is ended, and a second start works.

    Not an OSError, nor an Exception: those mean something where system calls are made, and other people's code is called.
    """
    wait = [True]

    def work() -> None:
        if wait:
            signal.pause()

    server = Initializes(work)
    interrupt(server, lambda: time.sleep(seconds), TooLateError)
    wait.clear()
    with server:
        assert ask(server, "echo", "a") == ["a"]


def interrupt(server: ChildServer, moment: Callable[[], object], error: type[BaseException]) -> None:
    """Start it; then a handler raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(error), interrupted(moment, error):
            server.start()
    assert not server.started


@pytest.mark.parametrize("what", ["socketpair", "memfd_create", "fork"])
def test_a_system_that_gives_no_more(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """One line, and nothing leaks."""
    import socket

    def refuses(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket if what == "socketpair" else os, what, refuses)
    with pytest.raises(SetupError, match="cannot start Echo: Too many open files"):
        Echo().start()


def test_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower, and all the same: start, failing start, stop, a server that must be killed."""
    monkeypatch.delattr(os, "pidfd_open")
    with Echo() as server:
        assert ask(server, "echo", "a") == ["a"]
    assert server.exit_status == 0
    with pytest.raises(ServerError, match="status 3"):
        Initializes(lambda: os._exit(3)).start()
    with pytest.raises(ValueError):
        Initializes(raising(ValueError())).start()
    busy = Echo(stop_timeout=0.1).start()
    ask(busy, "hang")
    busy.stop()
    assert busy.exit_status == 143


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stop_timeout": -1}, "stop_timeout must be 0 or more seconds"),
        ({"stop_timeout": "soon"}, "'soon' is not a duration"),
        ({"stop_timeout": None}, "stop_timeout must be 0 or more seconds"),
        ({"stop_timeout": float("nan")}, "stop_timeout must be 0 or more seconds"),
        ({"stop_timeout": 10**400}, "stop_timeout is more seconds than can be counted: write 'infinity'"),
        ({"keep_fds": 3}, "keep_fds is a list of descriptors or files"),
        ({"max_size": -1}, "max_size is a number of bytes"),
        ({"max_size": "1K"}, "max_size is a number of bytes"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    """What is wrong, and what would be right."""
    with pytest.raises(UsageError, match=words):
        Echo(**settings)


@pytest.mark.parametrize("keep", [[999], [-1], ["3"], [None], [1 << 40]])
def test_descriptors_that_are_none(keep: Any) -> None:
    """Are found before anything is forked."""
    with pytest.raises(UsageError, match="open"):
        Echo(keep_fds=keep).start()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "no process can handle SIGKILL"),
        (signal.SIGSTOP, "no process can handle SIGSTOP"),
        (signal.SIGRTMAX, "tells a server that its owner has ended"),
        (0, "there is no signal 0"),
        (999, "there is no signal 999"),
        ("SIGNOTHING", "there is no signal 'SIGNOTHING'"),
        (None, "there is no signal None"),
        ("SIG_IGN", "there is no signal 'SIG_IGN'"),
        ("_SETMASK", "there is no signal '_SETMASK'"),
    ],
)
def test_signals_that_cannot_be_handled(number: Any, words: str) -> None:
    """Each is refused."""
    with pytest.raises(UsageError, match=words):
        Echo().define_signal_handler(number, lambda *_: None)


def test_handlers_that_are_none() -> None:
    """Neither functions nor names of methods; two of one message."""
    with pytest.raises(UsageError, match="a handler of a signal is called with"):
        Echo().define_signal_handler(signal.SIGUSR1, "text")  # type: ignore[arg-type]
    for handler in ("no_such_method", "started", 3, None):
        with pytest.raises(UsageError, match="a handler is a function, or the name of a method"):
            Echo().define_message_handler("a", handler)  # type: ignore[arg-type]
    for name in (3, b"bytes"):
        with pytest.raises(UsageError, match="the name of a message is text"):
            Echo().define_message_handler(name, print)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="the name of a message is text"):
            message_handler(name)(print)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="Twice has two handlers for the message 'a': one and two"):

        class Twice(ChildServer):
            @message_handler("a")
            def one(self) -> None: ...

            @message_handler("a")
            def two(self) -> None: ...


def test_handlers_that_nobody_would_go_on_with() -> None:
    """async, generators: a call of them does nothing; and methods that a server has for something else."""

    async def later() -> None:
        """Never."""

    def piecemeal() -> Iterator[int]:
        yield 1

    for function in (later, piecemeal):
        for define in (
            message_handler,
            message_handler("a"),
            lambda f: Echo().define_message_handler("a", f),
        ):
            with pytest.raises(UsageError, match="is async, or a generator"):
                define(function)
    with pytest.raises(UsageError, match=r"stop is something else .* @message_handler\('stop'\)"):

        class Stops(Echo):
            @message_handler
            def stop(self) -> None:
                """Not this one."""


def test_a_handler_named_after_its_method() -> None:
    """With and without brackets."""

    class Both(Echo):
        @message_handler()
        def one(self) -> None:
            self.client.write("1")

    with Both() as server:
        assert ask(server, "one") == ["1"]
