"""Steps that no handler of a signal comes between, beside other threads or not."""

from __future__ import annotations

import _signal
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from daemonize.posix import signals
from daemonize.posix.blocked import Blocked
from tests.support import procs
from tests.support.threads import another_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Kill = Callable[..., object]

CAME = signal.SIGUSR1, signal.SIGUSR2


class Heard(list[int]):
    """What a handler has been called for. A negative number: it raises."""

    def handle(self, number: int, _frame: object) -> None:
        """Put it down."""
        self.append(number)

    def refuse(self, number: int, _frame: object) -> None:
        """Put it down, and raise."""
        self.append(number)
        raise InterruptedError(number)


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Handlers for both signals, which are at their default afterwards."""
    heard = Heard()
    for number in CAME:
        signal.signal(number, heard.handle)
    yield heard
    for number in CAME:
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(params=["alone", "beside a thread"])
def kill(request: pytest.FixtureRequest) -> Iterator[Kill]:
    """Sends signals to this process. If another thread lives here, it is the one that gets those that we block: at once."""
    with contextlib.ExitStack() as stack:
        if request.param == "alone":
            yield lambda *numbers: [os.kill(os.getpid(), number) for number in numbers]
            return
        stack.enter_context(another_thread())
        yield stack.enter_context(told())


@contextlib.contextmanager
def told() -> Iterator[Kill]:
    """Sends signals, and returns when each has come to whoever gets it: Python tells of it then (set_wakeup_fd)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno())
        try:

            def kill(*numbers: int) -> None:
                for number in numbers:
                    try:
                        os.kill(os.getpid(), number)
                    finally:  # its handler may have raised
                        assert ours.recv(1)[0] == number

            yield kill
        finally:
            signal.set_wakeup_fd(before)
        assert not procs.readable(ours.fileno(), 0)  # of each it has told once


def test_handlers_wait_until_the_end(heard: Heard, kill: Kill) -> None:
    """Each is called then, once; and as ever afterwards."""
    with Blocked():
        kill(*CAME)
        assert not heard
    assert sorted(heard) == sorted(CAME)

    assert signal.getsignal(CAME[0]) == heard.handle
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    kill(*CAME)
    assert sorted(heard) == sorted([*CAME, *CAME])


def test_control_without_it_handlers_are_called_at_once(heard: Heard, kill: Kill) -> None:
    """Negative control."""
    kill(*CAME)
    assert sorted(heard) == sorted(CAME)


def test_what_a_handler_raises_is_raised_at_the_end(heard: Heard, kill: Kill) -> None:
    """What is done is done by then, and handlers and mask are as they were."""
    signal.signal(CAME[0], heard.refuse)
    done = []
    with pytest.raises(InterruptedError), Blocked():
        done += [kill(CAME[0])]

    assert len(done) == 1
    assert heard == [CAME[0]]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.getsignal(CAME[0]) == heard.refuse


def test_all_handlers_are_called_though_one_raises(heard: Heard) -> None:
    """Beside a thread, where they are called by us. The first to raise is heard."""
    for number in CAME:
        signal.signal(number, heard.refuse)
    with another_thread(), told() as kill, pytest.raises(InterruptedError) as raised, Blocked():
        kill(*CAME)

    assert heard == list(CAME)
    assert raised.value.args == (CAME[0],)


def test_a_handler_that_installs_another(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before, when it had been looked which there are: what is new waits as well."""
    signal.signal(CAME[1], signal.SIG_DFL)
    signal.signal(CAME[0], lambda *_: signal.signal(CAME[1], heard.handle))
    look = signals.handled

    def handled() -> list[int]:
        found = look()
        if CAME[1] not in found:
            os.kill(os.getpid(), CAME[0])
        return found

    monkeypatch.setattr(signals, "handled", handled)
    with Blocked():
        os.kill(os.getpid(), CAME[1])
        assert not heard
    assert heard == [CAME[1]]


def test_what_came_is_called_though_a_handler_raises_as_it_is_let_go_of(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a thread. It comes to whoever has just got his handler back."""
    signal.signal(CAME[1], heard.refuse)
    install = _signal.signal

    def install_and_raise(number: int, handler: Any) -> Any:
        before = install(number, handler)
        if (number, handler) == (CAME[1], heard.refuse):
            monkeypatch.undo()
            handler(number, None)
        return before

    with another_thread(), told() as kill, pytest.raises(InterruptedError), Blocked():  # noqa: PT012
        kill(CAME[0])
        monkeypatch.setattr(_signal, "signal", install_and_raise)

    assert sorted(heard) == sorted(CAME)
    assert [signal.getsignal(number) for number in CAME] == [heard.handle, heard.refuse]


def test_a_handler_that_is_installed_within_stays(heard: Heard, kill: Kill) -> None:
    """As an import may do it; and the one before, which it has asked for, is the program's."""
    with Blocked():
        before = signal.signal(CAME[0], heard.refuse)

    assert signal.getsignal(CAME[0]) == heard.refuse
    assert callable(before)
    before(CAME[0], None)
    assert heard == [CAME[0]]


def test_what_another_thread_forks_meanwhile_has_the_handlers(heard: Heard) -> None:
    """They are not held there for ever."""
    done: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), CAME[0])
            os._exit(len(heard))
        done.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with another_thread(), Blocked():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CAME)  # a thread has the mask of who has started it
        forks = threading.Thread(target=fork)
        forks.start()
        forks.join()

    assert done == [1]


def test_lifted(heard: Heard, kill: Kill) -> None:
    """What is called so may be interrupted: by what had come before, and by what comes meanwhile."""
    seen: list[int] = []

    def lifted(argument: int) -> None:
        seen.append(len(heard))
        kill(*CAME)
        seen.append(len(heard) + argument)

    with Blocked() as blocked:
        kill(CAME[0])
        blocked.lift(lifted, 100)
        assert seen == [1, 103]
        kill(*CAME)
        assert len(heard) == 3
    assert len(heard) == 5


def test_lifted_and_raised(heard: Heard, kill: Kill) -> None:
    """What is raised meanwhile comes out, and it is as blocked as before."""
    signal.signal(CAME[0], heard.refuse)
    with Blocked() as blocked:
        with pytest.raises(InterruptedError):
            blocked.lift(kill, CAME[0])
        kill(CAME[1])
        assert heard == [CAME[0]]
    assert heard == list(CAME)


@pytest.mark.parametrize(
    "threads", ["", "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"]
)
def test_a_signal_without_a_handler_ends_the_process(threads: str) -> None:
    """At any time, as it would before and after."""
    code = (
        f"import os, signal; from daemonize.posix.blocked import Blocked; {threads}\n"
        "with Blocked(): os.kill(os.getpid(), signal.SIGTERM); print('still there')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=30)

    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")


def test_a_child_that_is_forked_meanwhile_hears_of_nothing(heard: Heard, kill: Kill) -> None:
    """What was for its parent is not for it: its handlers are its parent's until it has set its own."""
    with Blocked():
        kill(*CAME)
        pid = os.fork()
        if pid == 0:
            os._exit(len(heard))
        assert procs.wait_ended(pid)
        assert os.waitpid(pid, 0)[1] == 0
    assert len(heard) == 2
