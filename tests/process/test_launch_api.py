"""`daemonize.launch()`: the launch as a function, forked by the caller itself and through the keeper."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from daemonize import (
    Cancelled,
    Exited,
    LaunchError,
    Lost,
    NotExecuted,
    SetupError,
    StrictFailure,
    TimedOut,
    UsageError,
)
from daemonize.launcher import api
from daemonize.launcher.outputs import Outputs
from daemonize.posix.identity import Identity, current_boot_id
from tests.support import callers, procs
from tests.support.programs import SHELL, Trigger, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemonize.launcher.daemon import Daemon

    Launch = Callable[..., Daemon]


class Heard:
    """Where a launch relays to: two files."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.files = [
            stack.enter_context(contextlib.closing(io.FileIO(os.memfd_create("heard"), "r+")))
            for _ in range(2)
        ]

    @property
    def options(self) -> dict[str, Any]:
        """For launch()."""
        return {"relay_stdout": self.files[0], "relay_stderr": self.files[1]}

    @property
    def words(self) -> tuple[bytes, bytes]:
        """What came: stdout, stderr."""
        return tuple(os.pread(file.fileno(), 1 << 20, 0) for file in self.files)  # type: ignore[return-value]


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """Closed after the test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def heard(stack: contextlib.ExitStack) -> Heard:
    """Two files to relay to."""
    return Heard(stack)


@pytest.fixture(params=["direct", "keeper"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways a launch can go. The negative control: the caller's own child, or not."""
    monkeypatch.setattr(api, "_needs_keeper", lambda: request.param == "keeper")
    return str(request.param)


@pytest.fixture
def launch(way: str, stack: contextlib.ExitStack) -> Launch:
    """daemonize.launch, silent unless told otherwise; what it started is stopped after the test."""

    def launched(*command: str, **options: Any) -> Daemon:
        options = {"relay_stdout": None, "relay_stderr": None, **options}
        daemon = api.launch(command, **options)
        stack.callback(daemon.stop, 5.0)
        return daemon

    return launched


def drain_ended(daemon: Daemon) -> bool:
    """Whether its drain is gone."""
    return daemon.drain is None or procs.wait_ended(daemon.drain)


# -- ready ------------------------------------------------------------------------------------------------------------


def test_a_daemon_is_told_truthfully(launch: Launch, heard: Heard) -> None:
    """pid, identity, name, files and time are those of the server, which is no child of the caller."""
    began = time.monotonic()
    daemon = launch(*program("repoints", "hello"), **heard.options)
    took = time.monotonic() - began

    process = procs.stat(daemon.pid or 0)
    assert process is not None
    assert process.ppid != os.getpid()
    assert "repoints.py" in procs.command_line(process.pid)
    assert daemon.identity == Identity(process.pid, process.start, current_boot_id())
    assert daemon.is_running
    assert 0 < daemon.seconds <= took
    assert daemon.drain is None
    assert daemon.name == os.path.basename(sys.executable)
    state = os.environ["DAEMONIZE_STATE_DIR"]
    assert (daemon.stdout, daemon.stderr) == (f"{state}/{daemon.name}.out", f"{state}/{daemon.name}.err")
    assert str(daemon.pid) in repr(daemon)
    assert heard.words == (b"hello\n", b"")


def test_stop_ends_it(launch: Launch) -> None:
    """After stop it is gone, a second stop succeeds, and nobody has to reap it."""
    daemon = launch(*program("repoints"))
    daemon.stop()

    assert not daemon.is_running
    assert daemon.wait(0)
    daemon.stop()
    with pytest.raises(ChildProcessError):
        os.waitpid(daemon.pid or 0, os.WNOHANG)


def test_stop_kills_who_does_not_listen(launch: Launch) -> None:
    """SIGKILL after the timeout, and only after it."""
    daemon = launch(*program("ignores_term"))
    began = time.monotonic()
    daemon.stop(timeout=0.3)

    assert 0.3 <= time.monotonic() - began < 5
    assert not daemon.is_running


@pytest.mark.parametrize("forever", [math.inf, 1e9])
def test_a_patient_stop(launch: Launch, forever: float) -> None:
    """No timeout is too long for the system call behind it."""
    daemon = launch(*program("repoints"), stop_timeout=forever)
    daemon.stop(timeout=forever)

    assert not daemon.is_running


def test_stop_ends_what_belongs_to_it(launch: Launch, tmp_path: Path) -> None:
    """A worker of the server goes with it, also one that leads a session of its own."""
    script = "setsid sleep 100 >/dev/null 2>&1 & echo $!; exec >/dev/null 2>&1; wait"
    with open(tmp_path / "relayed", "w+b") as file:
        daemon = launch(SHELL, "-c", script, relay_stdout=file)
        file.seek(0)
        worker = int(file.read())
    assert procs.alive(worker)
    daemon.stop()

    assert not procs.alive(worker)


def test_wait(launch: Launch, tmp_path: Path) -> None:
    """False while it runs, at the timeout; True when it has ended, at once."""
    with Trigger(tmp_path) as trigger:
        daemon = launch(SHELL, "-c", f"exec >/dev/null 2>&1; read x <{trigger.path}")
        assert not daemon.wait(0)
        assert not daemon.wait(0.05)
        trigger.close()

        assert daemon.wait()
        assert daemon.wait(0)
        assert not daemon.is_running


@pytest.mark.parametrize("timeout", [math.inf, 1e9])
def test_wait_for_very_long(launch: Launch, timeout: float) -> None:
    """No timeout is too long for the system call behind it."""
    daemon = launch(*program("repoints"))
    procs.stop(daemon.pid or 0)

    assert daemon.wait(timeout)

    daemon = launch(*program("repoints"))
    killer = threading.Timer(0.05, procs.stop, (daemon.pid,))
    killer.start()
    ended = daemon.wait(timeout)
    killer.join()

    assert ended


# -- errors -----------------------------------------------------------------------------------------------------------


def test_it_exits(launch: Launch, heard: Heard) -> None:
    """The litmus test: its own status, its own words to the caller and in the error."""
    command = program("crashes_early", 7, "boom")
    with pytest.raises(Exited) as caught:
        launch(*command, **heard.options)
    error = caught.value

    assert (error.exit_status, error.status, error.signal) == (7, 7, None)
    assert error.output == b"boom\n"
    assert error.command == command
    assert error.pid
    assert not procs.alive(error.pid)
    assert error.seconds > 0
    assert error.log is None
    assert heard.words == (b"", b"boom\n")


@pytest.mark.parametrize("status", [1, 2, 64, 127, 254, 255])
def test_every_status(launch: Launch, status: int) -> None:
    """As the server said it."""
    with pytest.raises(Exited) as caught:
        launch(*program("dies_silently", status))

    assert caught.value.exit_status == status


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL, signal.SIGABRT]
)
def test_every_signal(launch: Launch, number: signal.Signals) -> None:
    """128+N, and N by itself."""
    with pytest.raises(Exited) as caught:
        launch(*program("dies_by_signal", int(number)))

    assert (caught.value.exit_status, caught.value.signal) == (128 + number, number)


def test_it_exits_0_and_nothing_is_left(launch: Launch) -> None:
    """Status 0, and yet no daemon: an error."""
    with pytest.raises(Exited) as caught:
        launch(*program("dies_silently", 0))

    assert caught.value.exit_status == 0
    assert "nothing is running" in str(caught.value)


def test_the_output_is_the_last_of_it(launch: Launch) -> None:
    """However much it said, the error has the last of each stream, and the pickled copy too."""
    with pytest.raises(Exited) as caught:
        launch(SHELL, "-c", "head -c 300000 /dev/zero; echo end; echo why >&2; exit 3")

    assert caught.value.output.endswith(b"\0end\nwhy\n")
    assert len(caught.value.output) <= 2 * api.KEPT_OUTPUT


@pytest.mark.parametrize(
    ("command", "status", "number"),
    [
        ("/no/such/file", 127, errno.ENOENT),
        ("no-such-command", 127, errno.ENOENT),
        ("/etc", 126, errno.EACCES),
        ("/etc/passwd", 126, errno.EACCES),
    ],
)
def test_it_cannot_be_executed(launch: Launch, command: str, status: int, number: int) -> None:
    """126 and 127, with stage and errno; nothing ran."""
    with pytest.raises(NotExecuted) as caught:
        launch(command)
    error = caught.value

    assert (error.exit_status, error.stage, error.errno, error.pid) == (status, "exec", number, None)
    assert command in str(error)


def test_a_directory_that_is_not_there(launch: Launch) -> None:
    """A step before exec failed: 125, and the line names it."""
    with pytest.raises(NotExecuted) as caught:
        launch("true", cwd="/no/such/directory")

    assert caught.value.exit_status == 125
    assert "/no/such/directory" in str(caught.value)


def test_not_ready_in_time(launch: Launch) -> None:
    """It has been stopped, the error says what was waited for, and nothing is left."""
    with pytest.raises(TimedOut) as caught:
        launch(SHELL, "-c", "echo starting; exec sleep 100", timeout=0.2)
    error = caught.value

    assert (error.exit_status, error.waiting_for, error.timeout, error.left) == (124, ["streams"], 0.2, False)
    assert error.output == b"starting\n"
    assert error.seconds >= 0.2
    assert not procs.alive(error.pid or 0)
    assert not error.survivors


def test_not_ready_in_time_and_left(launch: Launch, tmp_path: Path) -> None:
    """It runs on, may go on talking, and its words go to the log."""
    with Trigger(tmp_path) as trigger:
        with pytest.raises(TimedOut) as caught:
            launch(
                SHELL,
                "-c",
                f"echo starting; read x <{trigger.path}; echo more",
                timeout=0.2,
                on_timeout="leave",
            )
        error = caught.value
        assert error.left
        assert procs.alive(error.pid or 0)
        assert error.drain
        drain = procs.stat(error.drain)
        assert drain
        assert drain.ppid != os.getpid()
        trigger.close()
        assert procs.wait_ended(error.pid or 0)
        assert procs.wait_ended(error.drain, start=drain.start)

    assert error.output == b"starting\n"
    with open(os.path.join(os.environ["DAEMONIZE_STATE_DIR"], os.path.basename(SHELL) + ".out"), "rb") as log:
        assert log.read() == b"more\n"


def test_the_time_a_reader_takes_does_not_count(stack: contextlib.ExitStack) -> None:
    """While the server is blocked only by our own reader the timeout stands still, however it cuts its words."""
    code = "launch(command, timeout=1.0, ready='streams').stop()"
    script = "import os\nfor n in range(200): os.write(1, b'x' * 3000)\n"
    script += "os.closerange(1, 3); import signal; signal.pause()"
    caller = stack.enter_context(callers.popen(code, sys.executable, "-c", script, way="direct"))
    assert not procs.wait_ended(caller.pid, 2.5)
    out, err = caller.communicate(timeout=20)

    assert (len(out), err, caller.returncode) == (600_000, b"", 0)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ready": "nonsense"}, UsageError),
        ({"ready": ("streams", "alive:soon")}, UsageError),
        ({"timeout": 0}, UsageError),
        ({"on_timeout": "hope"}, UsageError),
        ({"keep_fds": [1]}, UsageError),
        ({"env": {"A=": "1"}}, UsageError),
        ({"append": True}, UsageError),
        ({"stdout": "/no/such/directory/file"}, SetupError),
        ({"stdin": "/no/such/file"}, SetupError),
    ],
)
def test_what_cannot_be_asked_for(launch: Launch, options: dict[str, Any], error: type[Exception]) -> None:
    """Typed, before anything is started."""
    with pytest.raises(error) as caught:
        launch("true", **options)

    assert str(caught.value).isprintable()


def test_a_string_is_no_command(way: str) -> None:
    """It would start a program called by its first letter."""
    with pytest.raises(UsageError):
        api.launch("true")


def test_a_file_is_followed_whatever_becomes_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between being opened and being followed the name is given to a fifo: the file itself is followed, and nobody waits."""
    path = tmp_path / "log"
    follow = Outputs._follow

    def swap(self: Outputs, stream: str, written: int) -> None:
        if path.exists() and not path.is_fifo():
            path.rename(tmp_path / "moved")
            os.mkfifo(path)
        follow(self, stream, written)

    monkeypatch.setattr(Outputs, "_follow", swap)
    with pytest.raises(Exited) as caught:
        api.launch([SHELL, "-c", "echo words; exit 7"], stdout=path, ready="alive:5s", relay_stdout=None)

    assert (caught.value.exit_status, caught.value.output) == (7, b"words\n")


def test_strict(launch: Launch) -> None:
    """A word on stderr, though it became ready: a failure, and it is stopped."""
    with pytest.raises(StrictFailure) as caught:
        launch(*program("warns_then_ready"), strict=True, stop_timeout=5)

    assert caught.value.exit_status == 1
    assert not procs.alive(caught.value.pid or 0)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ready", ["started", ["started"], ("started", "alive:1ms"), "alive:10ms"])
def test_ready_specs(launch: Launch, ready: Any) -> None:
    """One as text, several as a sequence; without `streams` the server keeps its streams, and they are files."""
    daemon = launch(SHELL, "-c", "exec sleep 100", ready=ready)

    assert daemon.is_running
    assert procs.descriptors(daemon.pid or 0)[1] == daemon.stdout


def test_the_adopted_daemon_is_the_one(launch: Launch, heard: Heard) -> None:
    """A server that daemonizes itself is followed to its daemon."""
    daemon = launch(*program("self_daemonizes"), **heard.options)
    pid = int(heard.words[0].split()[1])

    assert daemon.pid == pid
    assert daemon.is_running
    daemon.stop()
    assert not procs.alive(pid)


def test_exit_that_leaves_nothing(launch: Launch) -> None:
    """`exit` wants a daemon to be left: status 1 without."""
    with pytest.raises(Exited) as caught:
        launch("true", ready="exit")

    assert caught.value.exit_status == 1


def report(launch: Launch, heard: Heard, **options: Any) -> dict[str, Any]:
    """What a server finds when it starts."""
    import json

    launch(*program("report_self"), **heard.options, **options)
    words: dict[str, Any] = json.loads(heard.words[0])
    return words


def test_the_server_starts_clean(launch: Launch, heard: Heard) -> None:
    """A session of its own that it does not lead, /dev/null as stdin, no descriptor but 0 to 2, nothing blocked."""
    said = report(launch, heard)

    assert said["sid"] != os.getsid(0)
    assert said["sid"] != said["pid"]
    assert set(said["descriptors"]) - {"3"} == {"0", "1", "2"}
    assert said["stdin"] == "/dev/null"
    assert said["signals"]["blocked"] == []
    assert said["environ"]["DAEMONIZE_ID"]
    assert said["environ"]["DAEMONIZE_STREAMS"]
    assert said["cwd"] == os.getcwd()


def test_env_cwd_stdin_and_descriptors(
    launch: Launch, heard: Heard, tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    """What is given is what the server has."""
    (tmp_path / "input").write_bytes(b"words")
    kept = os.open(tmp_path / "input", os.O_RDONLY)
    stack.callback(os.close, kept)
    said = report(
        launch,
        heard,
        env={"GIVEN": "1", "DAEMONIZE_ID": "mine"},
        cwd=tmp_path,
        stdin=tmp_path / "input",
        keep_fds=[kept],
    )

    assert said["environ"]["GIVEN"] == "1"
    assert said["environ"]["DAEMONIZE_ID"] == "mine"
    assert said["environ"]["HOME"] == os.environ["HOME"]
    assert said["cwd"] == str(tmp_path)
    assert said["stdin"] == str(tmp_path / "input")
    assert said["descriptors"][str(kept)] == str(tmp_path / "input")


def test_clear_env(launch: Launch, heard: Heard) -> None:
    """Nothing but what is given and what is ours."""
    environ = report(launch, heard, env={"GIVEN": "1"}, clear_env=True)["environ"]
    assert {name for name in environ if not name.startswith("DAEMONIZE_")} - {"LC_CTYPE"} == {"GIVEN"}


def test_outer_managers_are_not_answered(
    launch: Launch, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NOTIFY_SOCKET and its kin stay with the caller."""
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "MAINPID", "DAEMONIZE_OTHER"):
        monkeypatch.setenv(name, "outer")
    environ = report(launch, heard)["environ"]

    assert "outer" not in environ.values()


def test_files(launch: Launch, heard: Heard, tmp_path: Path) -> None:
    """Stdout and stderr may go to files; what is said until ready is relayed all the same."""
    out, err = tmp_path / "out", tmp_path / "err"
    out.write_bytes(b"old words\n")
    command = (SHELL, "-c", "echo out; echo err >&2; exec sleep 100")
    daemon = launch(*command, stdout=out, stderr=err, ready="alive:200ms", **heard.options)

    assert (daemon.stdout, daemon.stderr) == (str(out), str(err))
    assert (out.read_bytes(), err.read_bytes()) == (b"out\n", b"err\n")
    assert heard.words == (b"out\n", b"err\n")


def test_files_to_append_to(launch: Launch, heard: Heard, tmp_path: Path) -> None:
    """What was there stays, and is not relayed."""
    out = tmp_path / "out"
    out.write_bytes(b"old words\n")
    launch(
        SHELL, "-c", "echo new; exec sleep 100", stdout=out, append=True, ready="alive:200ms", **heard.options
    )

    assert out.read_bytes() == b"old words\nnew\n"
    assert heard.words == (b"new\n", b"")


def test_relay_to_a_descriptor_number(launch: Launch) -> None:
    """An int is a descriptor; both streams may go to one."""
    read, write = os.pipe()
    try:
        launch(
            SHELL,
            "-c",
            "echo out; echo err >&2; exec >/dev/null 2>&1 sleep 100",
            relay_stdout=write,
            relay_stderr=write,
        )
        words = os.read(read, 100)
    finally:
        os.close(read)
        os.close(write)

    assert sorted(words.split()) == [b"err", b"out"]


def test_relay_to_a_socket(launch: Launch) -> None:
    """Anything with a descriptor."""
    near, far = socket.socketpair()
    with near, far:
        launch(*program("repoints", "hello"), relay_stdout=near)

        assert far.recv(100) == b"hello\n"


def test_what_was_written_before_comes_before(launch: Launch, tmp_path: Path) -> None:
    """A buffered file is flushed before the server's words are put behind."""
    with open(tmp_path / "file", "w") as file:
        file.write("before\n")
        launch(*program("repoints", "server"), relay_stdout=file)
        file.write("after\n")

    assert (tmp_path / "file").read_text() == "before\nserver\nafter\n"


def test_an_endless_reader_that_left_does_no_harm(launch: Launch) -> None:
    """A closed pipe of the caller's: the server becomes ready all the same."""
    read, write = os.pipe()
    os.close(read)
    try:
        daemon = launch(*program("writes_much", 100_000), relay_stdout=write, relay_stderr=write)
    finally:
        os.close(write)

    assert daemon.is_running


def test_the_drain_of_a_server_that_keeps_its_streams(launch: Launch, heard: Heard) -> None:
    """A daemon that still holds its pipes is ready; a drain takes what it says, and ends with it."""
    daemon = launch(*program("self_daemonizes", "holds"), **heard.options)
    assert daemon.drain
    process = procs.stat(daemon.drain)
    assert process
    assert process.ppid != os.getpid()
    assert process.sid != os.getsid(0)
    daemon.stop()

    assert procs.wait_ended(daemon.drain, start=process.start)


def test_a_drain_can_be_ended(launch: Launch) -> None:
    """A shutdown of the machine ends a drain by SIGTERM like everything else; it blocks no signals."""
    daemon = launch(*program("self_daemonizes", "holds"))
    assert daemon.drain
    drain = daemon.drain

    def check() -> None:
        # It says its pid as soon as it is there, and unblocks a moment later.
        assert int(procs.status(drain)["SigBlk"], 16) == 0

    procs.eventually(check)
    procs.stop(drain)


# -- the caller stays as it was ---------------------------------------------------------------------------------------


def test_nothing_of_the_caller_is_changed(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers, mask, umask, directory, descriptors and wakeup descriptor: ready, failed and timed out."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    called: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: called.append(number))
    signal.set_wakeup_fd(write)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        launch(*program("repoints"))
        for options in ({"timeout": 0.1}, {"timeout": 5, "cwd": "/no/such"}):
            with pytest.raises(LaunchError):
                launch("sleep", "100", **options)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR2}
        assert signal.set_wakeup_fd(-1) == write
        os.kill(os.getpid(), signal.SIGUSR1)
        assert called == [signal.SIGUSR1]
    finally:
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        signal.signal(signal.SIGUSR1, before)
        os.close(read)
        os.close(write)


def test_the_callers_children_are_left_alone(launch: Launch) -> None:
    """A child of the caller's that ends during a launch is still the caller's to reap."""
    children = [os.fork() for _ in range(1)]
    if not children[0]:
        os._exit(42)
    with subprocess.Popen([SHELL, "-c", "exit 43"]) as other:
        launch(*program("repoints"))
        with pytest.raises(Exited):
            launch("false")

        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 42
    assert other.returncode == 43


def test_exit_handlers_and_buffers_once(way: str) -> None:
    """Whatever becomes of the launch, the caller's atexit handlers run once and buffered words are written once."""
    code = """
sys.stdout = open(1, "w", buffering=1 << 16)
print("buffered")
atexit.register(lambda: os.write(2, b"at exit\\n"))
for options in ({}, {"timeout": 0.2, "ready": "exit"}, {"cwd": "/no/such"}):
    try:
        launch(command, relay_stdout=None, **options).stop()
    except daemonize.LaunchError as error:
        print(type(error).__name__)
try:
    launch(["/no/such/file"])
except daemonize.LaunchError as error:
    print(type(error).__name__)
"""
    status, out, err = callers.run(code, *program("repoints"), way=way)

    assert (status, err) == (0, b"at exit\n")
    assert out == b"buffered\nTimedOut\nNotExecuted\nNotExecuted\n"


def test_finalizers_of_the_callers_garbage_run_once() -> None:
    """Garbage of the caller's is the caller's to finalize: never in a process that was forked off."""
    code = """
import gc
class Finalized:
    def __init__(self): self.me = self
    def __del__(self): os.write(2, b"finalized in %d\\n" % (os.getpid() == caller))
caller, fork = os.getpid(), os.fork
def fork_with_garbage():
    os.fork = fork  # only once: what is made in the child is the child's own
    gc.disable()
    for _ in range(10): Finalized()
    pid = fork()
    gc.set_threshold(20)
    gc.enable()
    return pid
os.fork = fork_with_garbage
try:
    launch(command, timeout=0.2, relay_stdout=None, relay_stderr=None)
except daemonize.TimedOut:
    pass
os.fork = fork
"""
    _, _, err = callers.run(code, "sleep", "100", way="direct")

    assert set(err.split(b"\n")) == {b"finalized in 1", b""}


def test_children_of_an_ignored_sigchld(way: str) -> None:
    """A caller that leaves its children to the kernel gets the same statuses."""
    code = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
daemon = launch(command)
assert daemon.is_running
daemon.stop()
assert not daemon.is_running
try:
    launch(["sh", "-c", "exit 9"])
except daemonize.Exited as error:
    print(error.exit_status)
"""
    assert callers.run(code, *program("self_daemonizes", "holds"), way=way)[0::2] == (0, b"")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_caller_without_streams(way: str, closed: tuple[int, ...], tmp_path: Path) -> None:
    """A daemon that calls launch() has closed its own 0, 1 or 2: they are not mixed up with pipes of ours."""
    code = f"""
before = sorted(os.listdir("/proc/self/fd"))
for fd in {closed}: os.close(fd)
now = sorted(os.listdir("/proc/self/fd"))
daemon = launch(command)
ok = daemon.is_running
daemon.stop()
try:
    launch(["sh", "-c", "exit 9"])
except daemonize.Exited as error:
    status = error.exit_status
left = sorted(os.listdir("/proc/self/fd"))
with open({str(tmp_path / "result")!r}, "w") as file:
    print(ok, status, left == now, file=file)
os._exit(0)
"""
    callers.run(code, *program("repoints", "hello"), way=way)

    assert (tmp_path / "result").read_text() == "True 9 True\n"


def test_a_reader_that_left_a_caller_with_default_sigpipe(way: str) -> None:
    """A caller that does not ignore SIGPIPE, as command-line tools do, is not killed by our relaying."""
    code = """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
read, write = os.pipe()
os.close(read)
launch(command, relay_stdout=write, relay_stderr=write).stop()
print("alive")
"""
    status, out, _ = callers.run(code, *program("repoints", "hello"), way=way)

    assert (status, out) == (0, b"alive\n")


# -- interrupted ------------------------------------------------------------------------------------------------------

NEVER_READY = "import os, time; os.write(1, b'%d\\n' % os.getpid()); time.sleep(100)"


def interrupt(caller: subprocess.Popen[bytes], number: int) -> int:
    """Send a signal to a caller whose server says its pid; that pid."""
    assert caller.stdout
    server = int(caller.stdout.readline())
    caller.send_signal(number)
    return server


def test_keyboard_interrupt(way: str) -> None:
    """Ctrl-C during a launch: the server has been stopped when KeyboardInterrupt comes out of it."""
    code = """
try:
    launch(command)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        print("no child left", flush=True)
"""
    with callers.popen(code, sys.executable, "-c", NEVER_READY, way=way) as caller:
        server = interrupt(caller, signal.SIGINT)
        out, err = caller.communicate(timeout=20)
        ended = not procs.alive(server)

    assert out == b"interrupted\nno child left\n", err
    assert ended


@pytest.mark.parametrize("late", [False, True])
def test_keyboard_interrupt_between_the_forks(late: bool) -> None:
    """Ctrl-C while the intermediate parent is being forked, or right after: nothing is left, no child, no server."""
    code = f"""
fork = os.fork
def interrupted_fork():
    pid = fork()
    if pid and {not late}:
        os.kill(os.getpid(), signal.SIGINT)
    return pid
os.fork = interrupted_fork
from daemonize.launcher.family import Family
watch = Family.watch_events
def interrupted_watch(self, events):
    watch(self, events)
    if {late}:
        signal.raise_signal(signal.SIGINT)
Family.watch_events = interrupted_watch
try:
    launch(command)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    try:
        print("left", os.waitpid(-1, 0))
    except ChildProcessError:
        print("no child left", flush=True)
"""
    status, out, err = callers.run(code, "sleep", "100", way="direct")

    assert (status, out) == (0, b"interrupted\nno child left\n"), err


def test_any_exception_stops_the_server(way: str) -> None:
    """A handler of the caller's may raise what it likes: it comes out of launch(), and the server is gone."""
    code = """
class Enough(Exception): pass
def raise_it(*_): raise Enough
signal.signal(signal.SIGUSR1, raise_it)
try:
    launch(command)
except Enough:
    print("enough", flush=True)
"""
    with callers.popen(code, sys.executable, "-c", NEVER_READY, way=way) as caller:
        server = interrupt(caller, signal.SIGUSR1)
        out, err = caller.communicate(timeout=20)
        ended = not procs.alive(server)

    assert out == b"enough\n", err
    assert ended


def test_a_handler_that_returns_does_not_disturb(way: str) -> None:
    """A signal that the caller handles without raising leaves the launch alone."""
    code = """
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"handled\\n"))
try:
    launch(command)
except daemonize.Exited as error:
    print("status", error.exit_status)
"""
    script = "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.write(1, b'%d\\n' % os.getpid()); "
    script += "signal.sigwait([15]); os._exit(5)"
    with callers.popen(code, sys.executable, "-c", script, way=way) as caller:
        server = interrupt(caller, signal.SIGUSR1)
        assert caller.stdout
        assert caller.stdout.readline() == b"handled\n"
        procs.send(server, signal.SIGTERM)
        out, _ = caller.communicate(timeout=20)

    assert out == b"status 5\n"


def test_sigkill_to_the_caller_leaves_nothing(way: str) -> None:
    """A server that nobody waits for is not left half-started, however its caller went."""
    with callers.popen("launch(command)", sys.executable, "-c", NEVER_READY, way=way) as caller:
        server = interrupt(caller, signal.SIGKILL)
        # End of file on the streams: every process that held them is gone.
        caller.communicate(timeout=20)

        assert procs.wait_ended(server)


def test_sigkill_to_the_caller_of_a_stubborn_server(way: str) -> None:
    """Also one that ignores SIGTERM: the intermediate parent takes the stop timeout along."""
    with callers.popen(
        "launch(command, stop_timeout=0.2)",
        *(sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); " + NEVER_READY),
        way=way,
    ) as caller:
        server = interrupt(caller, signal.SIGKILL)

        assert procs.wait_ended(server, 5)


# -- threads, size, many at once --------------------------------------------------------------------------------------


def test_who_goes_through_the_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread makes the difference; so does size; a small caller with one thread is its own wrapper."""
    assert not api._needs_keeper()
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    with_thread = api._needs_keeper()
    done.set()
    thread.join()
    monkeypatch.setattr(api, "LARGE", 1 << 20)

    assert with_thread
    assert api._needs_keeper()


def test_a_caller_with_threads() -> None:
    """Whatever the other threads do and hold, the launch goes through, and they go on."""
    code = """
import logging, queue
stop, locked = threading.Event(), threading.Lock()
def busy():
    while not stop.is_set():
        with locked: sum(range(1000))
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads: thread.start()
daemon = launch(command)
print(daemon.is_running, flush=True)
daemon.stop()
try:
    launch(["sh", "-c", "echo boom >&2; exit 9"])
except daemonize.Exited as error:
    print(error.exit_status, error.output.decode().strip())
stop.set()
for thread in threads: thread.join()
"""
    status, out, err = callers.run(code, *program("repoints", "hello"))

    assert (status, out, err) == (0, b"hello\nTrue\n9 boom\n", b"boom\n")


def test_twenty_at_once() -> None:
    """Launches in parallel threads know nothing of each other: every one has its own server and its own words."""
    code = """
import tempfile
results = {}
def one(number):
    with tempfile.TemporaryFile() as file:
        daemon = launch([*command, str(number)], relay_stdout=file)
        file.seek(0)
        results[number] = (daemon, file.read())
threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
daemons = [daemon for daemon, _ in results.values()]
print(len({daemon.pid for daemon in daemons}), all(daemon.is_running for daemon in daemons))
print(all(words == b"%d\\n" % number for number, (_, words) in results.items()))
for daemon in daemons: daemon.stop()
print(any(daemon.is_running for daemon in daemons))
"""
    status, out, err = callers.run(code, *program("repoints"))

    assert (status, out, err) == (0, b"20 True\nTrue\nFalse\n", b"")


def test_daemons_at_once_do_not_share_a_log() -> None:
    """The same command several times at the same time: every daemon has a name, and a log, of its own."""
    code = """
daemons = []
threads = [
    threading.Thread(target=lambda: daemons.append(launch(command, ready="alive:300ms", relay_stdout=None)))
    for _ in range(8)
]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(daemons), len({daemon.name for daemon in daemons}), len({daemon.stdout for daemon in daemons}))
for daemon in daemons: daemon.stop()
"""
    status, out, err = callers.run(code, "sleep", "100")

    assert (status, out, err) == (0, b"8 8 8\n", b"")


def test_daemons_one_after_the_other_do_not_share_a_log(launch: Launch) -> None:
    """While the first runs, the second has another name; when it has ended, its name is free."""
    first = launch("sleep", "100", ready="started")
    second = launch("sleep", "100", ready="started")
    first.stop()
    third = launch("sleep", "100", ready="started")

    assert [first.name, second.name, third.name] == ["sleep", "sleep-2", "sleep"]


def test_a_large_caller() -> None:
    """400 MB of the caller's are neither copied nor in the way."""
    code = """
memory = bytearray(os.urandom(1 << 20)) * 400
print(api._needs_keeper(), flush=True)
daemon = launch(command)
print(daemon.is_running, daemon.seconds < 5)
daemon.stop()
"""
    status, out, err = callers.run(
        "from daemonize.launcher import api\n" + code, *program("repoints", "hello")
    )

    assert (status, out, err) == (0, b"True\nhello\nTrue True\n", b"")


def test_a_killed_wrapper(stack: contextlib.ExitStack) -> None:
    """An error, not a hang, and no server is left."""
    code = """
try:
    launch(command)
except daemonize.DaemonizeError as error:
    print(type(error).__name__, error.exit_status, error)
"""
    caller = stack.enter_context(callers.popen(code, sys.executable, "-c", NEVER_READY, way="keeper"))
    assert caller.stdout
    server = int(caller.stdout.readline())
    wrapper = procs.stat(_parent(_parent(server)))
    assert wrapper
    procs.send(wrapper.pid, signal.SIGKILL, wrapper.start)
    out, err = caller.communicate(timeout=20)

    assert out.startswith(b"SetupError 125 "), err
    assert b"killed" in out
    assert procs.wait_ended(server)


def _parent(pid: int) -> int:
    process = procs.stat(pid)
    assert process
    return process.ppid


def test_a_killed_intermediate_parent(way: str, stack: contextlib.ExitStack) -> None:
    """Lost: reported, the server stopped."""
    code = """
try:
    launch(command)
except daemonize.Lost as error:
    print("lost", error.exit_status, error.pid)
"""
    caller = stack.enter_context(callers.popen(code, sys.executable, "-c", NEVER_READY, way=way))
    assert caller.stdout
    server = int(caller.stdout.readline())
    process = procs.stat(server)
    assert process
    procs.send(process.ppid, signal.SIGKILL)
    out, err = caller.communicate(timeout=20)

    assert out == b"lost 125 %d\n" % server, err
    assert not procs.alive(server)


def test_every_outcome_has_its_error() -> None:
    """The public errors of a launch, all of one family."""
    for kind in (Exited, NotExecuted, TimedOut, Cancelled, Lost, StrictFailure):
        assert issubclass(kind, LaunchError)


# -- reused pids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["start", "boot_id"])
def test_a_pid_that_was_given_away(launch: Launch, other: str, stack: contextlib.ExitStack) -> None:
    """Somebody else has the pid now: the daemon does not run, and stopping it touches nobody."""
    daemon = launch(*program("repoints"))
    daemon.stop()
    bystander = stack.enter_context(subprocess.Popen(["sleep", "100"]))
    stack.callback(bystander.kill)
    process = procs.stat(bystander.pid)
    assert process
    start, boot = process.start, current_boot_id()
    record = daemon.record
    record.pid, record.start = bystander.pid, start - 1 if other == "start" else start
    record.boot_id = "another" if other == "boot_id" else boot

    assert not daemon.is_running
    assert daemon.wait(0)
    daemon.stop(0.1)
    assert bystander.poll() is None

    record.start, record.boot_id = start, boot  # the negative control
    assert daemon.is_running
    daemon.stop(5)
    assert bystander.wait() == -signal.SIGTERM
