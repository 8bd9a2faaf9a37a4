"""Every error: one line for people, facts for programs, and the exit status that the table promises."""

from __future__ import annotations

import errno
import os
import pickle
import signal
from typing import TYPE_CHECKING

import pytest

import daemonize
from daemonize import channel_errors, child_errors, daemon_errors, errors, manager_errors, outcomes
from daemonize.channel_errors import (
    ChannelBroken,
    ChannelClosed,
    ChannelError,
    ChannelTimedOut,
    DescriptorsLost,
    MalformedMessage,
    MessageTooLarge,
    PeerGone,
    RemoteError,
    TruncatedMessage,
    UnexpectedMessage,
    UnknownMessage,
)
from daemonize.child_errors import ServerAlreadyStarted, ServerError, ServerNotStarted
from daemonize.daemon_errors import BadRecord, NoSuchDaemon, NotPossible, NotReloaded, NotYet
from daemonize.errors import (
    NAMELESS,
    AlreadyRunning,
    DaemonizeError,
    InvalidState,
    LaunchError,
    SetupError,
    StillRunning,
    UsageError,
    printable,
    signal_name,
)
from daemonize.launcher.words import needs_words
from daemonize.manager_errors import ChildDeath, TaskError, TaskTimedOut
from daemonize.outcomes import (
    Cancelled,
    CrashedOnStartup,
    Exited,
    Lost,
    NotExecuted,
    StrictFailure,
    TimedOut,
    Unsafe,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "evil\x1b[2J\nsecond line\r\x07\x9b\u202ename\udcff"


def exited(code: int) -> int:
    """The wait status of a process that exited with a code."""
    return code << 8


#: Where errors are.
MODULES = (errors, channel_errors, child_errors, daemon_errors, manager_errors, outcomes)


def launch_errors() -> list[tuple[LaunchError, int]]:
    """At least one of every kind, with the status that it has to have."""
    return [
        (Exited(exited(0)), 0),
        (Exited(exited(0), "exit"), 1),
        (Exited(exited(0), "alive:1s"), 1),
        (Exited(exited(7)), 7),
        (Exited(exited(7), "exit"), 7),
        (Exited(exited(255)), 255),
        (Exited(signal.SIGKILL), 137),
        (Exited(signal.SIGTERM), 143),
        (Exited(signal.SIGABRT | 0x80), 134),
        (StrictFailure(), 1),
        (StrictFailure(3), 3),
        (NotExecuted("exec", errno.ENOENT), 127),
        (NotExecuted("exec", errno.ENOTDIR, "", found=False), 127),
        (NotExecuted("exec", errno.EACCES, "/etc", found=True), 126),
        (NotExecuted("exec", errno.EACCES, "/etc/passwd", found=True), 126),
        (NotExecuted("exec", errno.ENOENT, "/etc/passwd", found=True), 126),
        (NotExecuted("exec", errno.ENOEXEC, "/etc/passwd", found=True), 126),
        (NotExecuted("exec", errno.E2BIG, "/bin/true", found=True), 126),
        (NotExecuted("directory", errno.ENOENT, "/nowhere"), 125),
        (Unsafe("/opt/server", "directory /opt can be written to by everybody"), 126),
        (NotExecuted("fork", errno.EAGAIN), 125),
        (TimedOut(["streams"], 90.0), 124),
        (TimedOut(["alive:1min", "exit"], 0.5), 124),
        (TimedOut(["streams"], 90.0, left=True), 124),
        (Cancelled(signal.SIGINT), 130),
        (Cancelled(signal.SIGTERM), 143),
        (Cancelled(signal.SIGHUP), 129),
        (Lost(), 125),
        (CrashedOnStartup(9 << 8), 9),
    ]


def every_error() -> list[DaemonizeError]:
    """Launch errors and the others."""
    others = [
        UsageError("this cannot be"),
        SetupError("open", "/a/file", OSError(errno.EACCES, "Permission denied")),
        StillRunning([(17, "stuck"), (18, "also stuck")]),
        AlreadyRunning("lock file", "/a/lock", 12, "nginx"),
        AlreadyRunning("lock file", "/a/lock", uid=0),
        AlreadyRunning("lock file", "/a/lock"),
        AlreadyRunning("pid file", "/a/pid", 12, "nginx", proven=True),
        AlreadyRunning("pid file", "/a/pid", 12),
        AlreadyRunning("pid file", "/a/pid", 77, "daemonize", launching=True),
        AlreadyRunning("port", "8080", 12, "nginx"),
        AlreadyRunning("port", "8080", uid=0),
        AlreadyRunning("port", "8080"),
        AlreadyRunning("socket", "/a/socket", 12, "nginx"),
        AlreadyRunning("name", "web", 12, "nginx", proven=True),
        AlreadyRunning("name", "web", 77, "daemonize", launching=True),
        NoSuchDaemon("wbe", ["web"]),
        NoSuchDaemon("web"),
        BadRecord("web", "/a/web.json", "it is damaged: it is no JSON"),
        NotPossible("web", "is not running"),
        NotYet("web", "is not ready after 90 s"),
        NotReloaded("web", "ended while it reloaded"),
        InvalidState("cannot start a server that has already been started"),
        ChannelClosed(),
        ChannelBroken(),
        PeerGone(),
        ChannelTimedOut("read", 0.5),
        ChannelTimedOut("write", 0),
        TruncatedMessage(3),
        TruncatedMessage(3, 5),
        MalformedMessage("no frame begins with 00"),
        MalformedMessage(HOSTILE),
        MessageTooLarge(5, 3),
        UnexpectedMessage("list", "scalar"),
        DescriptorsLost(),
        RemoteError("ValueError", "no such file", "open", "Traceback (most recent call last):\n"),
        RemoteError("evil.Error", HOSTILE, HOSTILE),
        RemoteError("KeyError", ""),
        UnknownMessage.of("open", ["close", "read"]),
        UnknownMessage.of(HOSTILE, []),
        ServerError("Helper", "it exited with status 3 before it was initialised", 3, "", HOSTILE),
        ServerError(HOSTILE, HOSTILE),
        ServerAlreadyStarted("Helper", 4711),
        ServerAlreadyStarted(HOSTILE),
        ServerNotStarted(HOSTILE),
        ChildDeath("render", 4711, 3),
        ChildDeath("render", 4711, 137, signal.SIGKILL),
        ChildDeath(HOSTILE, 4711),
        TaskTimedOut("render", 4711, 143, signal.SIGTERM, 2.5),
        TaskTimedOut(HOSTILE, 4711),
        TaskError("render", "KeyError", "'size'", "Traceback (most recent call last):\n"),
        TaskError(HOSTILE, "evil.Error", HOSTILE),
    ]
    return [*(error for error, _ in launch_errors()), *others]


def with_facts(error: LaunchError) -> LaunchError:
    """The same with every fact that a launch fills in."""
    error.command = ["/opt/server", "--config", "a file"]
    error.pid, error.seconds, error.output = 4711, 1.25, b"the last \xff words\n"
    error.log, error.drain, error.survivors = "/var/log/daemonize/server.err", 4712, [(4713, "stuck")]
    return error


def subclasses(kind: type) -> Iterator[type]:
    """All classes below this one."""
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def identify(error: object) -> str:
    """A name for a test."""
    return f"{type(error).__name__}-{error}"[:60] if isinstance(error, Exception) else str(error)


def test_no_error_is_forgotten_here() -> None:
    """Every class of errors is in the tables above, and is a public name."""
    kinds = {
        kind
        for kind in subclasses(DaemonizeError)
        if kind.__module__ in {module.__name__ for module in MODULES}
    }
    listed = {type(error) for error in every_error()}

    assert kinds - {LaunchError, ChannelError} == listed
    assert {kind.__name__ for kind in kinds} | {"DaemonizeError"} <= set(daemonize.__all__)


@pytest.mark.parametrize(("error", "status"), launch_errors(), ids=identify)
def test_the_status_is_the_one_of_the_table(error: LaunchError, status: int) -> None:
    """Exit statuses as documented, with facts and without."""
    assert error.exit_status == status
    assert with_facts(error).exit_status == status


@pytest.mark.parametrize("error", every_error(), ids=identify)
def test_an_error_is_one_line(error: DaemonizeError) -> None:
    """With facts and without, an error says itself in one printable line without a full stop."""
    for line in (str(error), str(with_facts(error)) if isinstance(error, LaunchError) else str(error)):
        assert line
        assert line.isprintable()
        assert not line.endswith(".")


@pytest.mark.parametrize(("error", "_status"), launch_errors(), ids=identify)
def test_an_error_names_the_log(error: LaunchError, _status: int) -> None:
    """A reader of the line knows where more is written; without a log nothing is said of one."""
    assert "(log" not in str(error)
    error.log = "/var/log/daemonize/server.err"
    assert "(log: /var/log/daemonize/server.err)" in str(error)


@pytest.mark.parametrize(("error", "_status"), launch_errors(), ids=identify)
def test_control_characters_never_reach_a_terminal(error: LaunchError, _status: int) -> None:
    """What comes from the server, its command line or the file system is shown escaped."""
    with_facts(error)
    error.command = [HOSTILE]
    error.log = HOSTILE
    error.survivors = [(1, HOSTILE)]
    if isinstance(error, NotExecuted):
        error.what = HOSTILE
    if isinstance(error, TimedOut):
        error.waiting_for = [HOSTILE]
    if isinstance(error, Exited):
        error.unmet = error.unmet and HOSTILE

    assert str(error).isprintable()
    assert "evil" in str(error)


@pytest.mark.parametrize("error", every_error(), ids=identify)
def test_an_error_survives_pickling(error: DaemonizeError) -> None:
    """A launch by the keeper, or in a worker process, gives the very same error: facts, status and text."""
    if isinstance(error, LaunchError):
        with_facts(error)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  (our own)

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.exit_status == error.exit_status
    assert facts(copy) == facts(error)


def facts(error: BaseException) -> dict[str, object]:
    """Everything it carries, comparable."""
    return {name: value for name, value in vars(error).items() if not isinstance(value, BaseException)}


@pytest.mark.parametrize("number", [*range(1, 32), 34, 63, 64])
def test_every_signal_has_a_name(number: int) -> None:
    """Signals without a name of their own are numbered."""
    name = signal_name(number)

    assert name == (signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}")


@pytest.mark.parametrize("status", [*range(256)])
def test_every_exit_status_is_handed_on(status: int) -> None:
    """0 to 255, as they are."""
    error = Exited(exited(status))

    assert (error.status, error.exit_status, error.signal) == (status, status, None)


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 11, 15, 31])
def test_every_signal_is_handed_on(number: int) -> None:
    """128+N, and the name in the line."""
    error = Exited(number)

    assert (error.status, error.exit_status, error.signal) == (128 + number, 128 + number, number)
    assert signal.Signals(number).name in str(error)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotExecuted("exec", errno.ENOENT), ["server", "not found"]),
        (NotExecuted("exec", errno.ENOENT, "/opt/script", found=True), ["/opt/script", "#!"]),
        (NotExecuted("exec", errno.ENOEXEC, "/opt/script", found=True), ["/opt/script", "#!"]),
        (NotExecuted("exec", errno.EACCES, "/etc", found=True), ["/etc", "Is a directory"]),
        (NotExecuted("exec", errno.EACCES, "/etc/passwd", found=True), ["/etc/passwd", "Permission denied"]),
        (NotExecuted("directory", errno.ENOENT, "/nowhere"), ["server", "/nowhere", "directory"]),
        (NotExecuted("fork", errno.EAGAIN), ["server", "fork", os.strerror(errno.EAGAIN)]),
    ],
    ids=identify,
)
def test_why_it_was_not_executed(error: NotExecuted, words: list[str]) -> None:
    """The line names the file and the reason."""
    error.command = ["server"]

    for word in words:
        assert word in str(error)


def test_a_missing_path_is_no_missing_command() -> None:
    """A command with a slash was not searched for: the reason is the file's."""
    error = NotExecuted("exec", errno.ENOENT)
    error.command = ["/no/such/server"]

    assert str(error) == "cannot execute /no/such/server: No such file or directory"


@pytest.mark.parametrize(
    ("command", "hints"), [("sleep 60", True), ("/bin/sleep 60", True), ("sleep", False)]
)
def test_a_command_line_in_one_word_is_recognised(command: str, hints: bool) -> None:
    """Who quotes too much is told so."""
    error = NotExecuted("exec", errno.ENOENT)
    error.command = [command]

    assert ("a word of its own" in str(error)) == hints


def test_a_timeout_says_how_to_do_better() -> None:
    """A server that never closes its streams needs another spec, and the line names some."""
    error = with_facts(TimedOut(["streams"], 90.0))

    assert "--ready" in str(error)
    assert "90 s" in str(error)
    assert "--ready" not in str(with_facts(TimedOut(["alive:1h"], 90.0)))


@pytest.mark.parametrize(
    "error",
    [
        Exited(exited(3)),
        Exited(exited(0), "notify"),
        StrictFailure(),
        TimedOut(["notify"], 1.0),
        Cancelled(signal.SIGINT),
    ],
)
def test_what_the_server_said_about_itself(error: LaunchError) -> None:
    """In every error of a launch in which it may have said something; an empty status, and 0, say nothing."""
    error.told = {"status": "no \x1b[2Jroom", "errno": errno.ENOSPC, "exit_status": 3}
    assert (
        "; it last said: no \\x1b[2Jroom; its error: No space left on device; it announced exit status 3"
        in str(error)
    )

    error.told = {"status": "", "errno": 0, "exit_status": 0}
    assert "its " not in str(error)
    assert "announced" not in str(error)


@pytest.mark.parametrize("error", [TimedOut(["exit"], 1.0), Exited(6 << 8)], ids=lambda error: error.outcome)
def test_survivors_are_named(error: LaunchError) -> None:
    """Whatever could not be stopped is in the line, by name and pid; no pid is made up for who has none that is known."""
    assert "stuck (pid 4713)" in str(with_facts(error))
    assert "has been stopped" not in str(error)

    error.survivors = [NAMELESS]
    assert "user may do: somebody whom only /proc could name (log" in str(error)


def test_a_server_that_never_ran_was_not_stopped() -> None:
    """Without a pid there was nothing to stop."""
    error = Cancelled(signal.SIGINT)
    error.command = ["server"]

    assert "server was not started" in str(error)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ümlaut 漢字", "plain ümlaut 漢字"),
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x7f\x9b", r"\x7f\x9b"),
        ("\u202e", r"\u202e"),
        ("\udcff", r"\udcff"),
        ("", ""),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """What can be printed stays, everything else is escaped."""
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_usage_errors_are_value_errors() -> None:
    """So that a caller who knows nothing of us catches what he expects."""
    assert issubclass(UsageError, ValueError)
    assert UsageError.exit_status == 2


def test_errors_of_channels_are_what_others_know() -> None:
    """A time-out is a TimeoutError, with the status of one; nobody there is a BrokenPipeError, and closed a ValueError."""
    assert issubclass(ChannelTimedOut, TimeoutError)
    assert issubclass(PeerGone, BrokenPipeError)
    assert issubclass(ChannelClosed, ValueError)
    assert [ChannelTimedOut("read", 1).exit_status, PeerGone().exit_status] == [124, 125]


def test_a_setup_error_keeps_errno() -> None:
    """The number and the reason are facts of their own."""
    error = SetupError("open", "/a/file", OSError(errno.EACCES, "Permission denied"))

    assert (error.errno, error.reason, error.exit_status) == (errno.EACCES, "Permission denied", 125)
    assert str(error) == "cannot open /a/file: Permission denied"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            AlreadyRunning("lock file", "/run/x.lock", 12, "nginx"),
            "already running: nginx (pid 12) holds the lock file /run/x.lock",
        ),
        (
            AlreadyRunning("lock file", "/run/x.lock", uid=0),
            "already running: somebody of user root holds the lock file /run/x.lock",
        ),
        (
            AlreadyRunning("lock file", "/run/x.lock", uid=3999999999),
            "already running: somebody of user 3999999999 holds the lock file /run/x.lock",
        ),
        (
            AlreadyRunning("lock file", "/run/x.lock"),
            "already running: the lock file /run/x.lock is held (by whom, the kernel does not tell this user)",
        ),
        (
            AlreadyRunning("pid file", "/run/x.pid", 12, "nginx", proven=True),
            "already running: nginx (pid 12), says the pid file /run/x.pid",
        ),
        (
            AlreadyRunning("pid file", "/run/x.pid", 12, "nginx"),
            "already running: nginx (pid 12), says the pid file /run/x.pid; if that is something else, remove the file",
        ),
        (
            AlreadyRunning("pid file", "/run/x.pid", 12),
            "already running: pid 12, says the pid file /run/x.pid; if that is something else, remove the file",
        ),
        (
            AlreadyRunning("pid file", "/run/x.pid", 77, "daemonize", launching=True),
            "another launch is using the pid file /run/x.pid (daemonize, pid 77)",
        ),
        (
            AlreadyRunning("pid file", "/run/x.pid", launching=True),
            "another launch is using the pid file /run/x.pid",
        ),
        (
            AlreadyRunning("lock file", HOSTILE, 12, HOSTILE),
            f"already running: {printable(HOSTILE)} (pid 12) holds the lock file {printable(HOSTILE)}",
        ),
    ],
    ids=identify,
)
def test_already_running_says_by_whom(error: AlreadyRunning, line: str) -> None:
    """The whole line, for all that can be known of who is in the way; nothing is guessed, everything is escaped."""
    assert str(error) == line
    assert (error.exit_status, error.outcome) == (75, "already-running")


def test_who_is_left_is_told_though_the_server_has_spoken() -> None:
    """It has said why it ended, and not that some of it still runs."""
    ended = Exited(3 << 8)
    ended.spoke = True
    assert not needs_words(ended)
    ended.survivors = ((4711, "sleep"),)
    assert needs_words(ended)
    assert "sleep" in str(ended)
