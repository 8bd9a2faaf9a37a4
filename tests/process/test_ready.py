"""ready(): each listener is told, by its own protocol; what the server has and does goes on working."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import cli, procs
from tests.support.facts import Reports
from tests.support.forked import need_root
from tests.support.manager import Manager
from tests.support.users import open_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A server: it does what `code` says, reports `value` once it has no more to do, and stays.
PRELUDE = """
import contextlib, fcntl, json, logging, os, select, signal, socket, subprocess, sys, threading
import daemonize
from daemonize import announce, notify
signal.alarm(120)
value = None
def targets(*fds):
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in fds]
"""
EPILOGUE = """
with open(sys.argv[1], "w") as report:
    json.dump(value, report)
if sys.argv[2:] == ["stay"]:
    select.select([], [], [])
"""
NULL = os.devnull


def server(code: str, *args: str) -> list[str]:
    """The argument list of a server."""
    return [sys.executable, "-c", PRELUDE + code + EPILOGUE, *args]


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[Reports]:
    """Where a server reports its value."""
    found = Reports(str(tmp_path))
    found.open()
    yield found
    found.close()


@pytest.fixture
def common() -> Iterator[Reports]:
    """Where a server can report its value that has become another user."""
    need_root()
    with open_directory() as directory:
        found = Reports(directory)
        found.open()
        yield found
        found.close()


class Launched:
    """A server that `daemonize` has started. said: what reached the caller; value: what it reports."""

    def __init__(self, result: cli.Result, reports: Reports) -> None:
        self.report, self.said = result.json, result.err
        assert result.status == 0, result
        self.pid = self.report["pid"]
        self.value: Any = reports.read()

    @property
    def files(self) -> list[str]:
        """Paths of the logs."""
        return [self.report["files"]["stdout"], self.report["files"]["stderr"]]

    @property
    def logged(self) -> list[str]:
        """What is in the logs now."""
        return [procs.read(path).decode() for path in self.files]


@contextlib.contextmanager
def launched(reports: Reports, code: str, *options: str) -> Iterator[Launched]:
    """Start a server that takes part, with the real command; it is ended at the end of the block."""
    result = cli.run("--json", *options, *server(code, reports.path, "stay"))
    try:
        yield Launched(result, reports)
    finally:
        if result.status == 0:
            procs.stop(result.json["pid"])


def by_hand(reports: Reports, code: str, *, keep: tuple[int, ...] = (), **variables: str) -> Any:
    """Run a server without `daemonize` to its end; what it reports."""
    done = subprocess.run(
        server(code, reports.path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env={**os.environ, **variables},
        pass_fds=keep,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    return reports.read()


# --- streams ------------------------------------------------------------------------------------------------------


def test_streams_go_on_in_the_logs(reports: Reports) -> None:
    """What was said before is the caller's, flushed or not; what is said later the log's, at once."""
    code = """
print("before")
print("a warning", file=sys.stderr)
told = daemonize.ready()
print("after")
print("trouble", file=sys.stderr)
value = [told, *targets(0, 1, 2), *(os.get_inheritable(fd) for fd in (0, 1, 2))]
"""
    with launched(reports, code) as found:
        assert found.value == [True, NULL, *found.files, True, True, True]
        assert sorted(found.said.splitlines()) == [b"a warning", b"before"]
        assert found.logged == ["after\n", "trouble\n"]


def test_without_ready_it_is_not_ready(reports: Reports) -> None:
    """Negative control: it is this call that lets go."""
    done = cli.run("--timeout", "300ms", *server("", reports.path, "stay"))

    assert done.status == 124


def test_the_log_is_claimed(reports: Reports) -> None:
    """Its lock says that the name is taken, as long as the server lives."""
    with launched(reports, "daemonize.ready()") as found, open(found.files[0], "rb") as log:
        with pytest.raises(BlockingIOError):
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        procs.stop(found.pid)
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_one_file_for_both_is_opened_once(reports: Reports, tmp_path: Path) -> None:
    """So lines come in order, and a limit of open files is not stretched."""
    code = """
daemonize.ready()
print("one"); print("two", file=sys.stderr); print("three")
fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_NONBLOCK)
value = bool(fcntl.fcntl(2, fcntl.F_GETFL) & os.O_NONBLOCK)
"""
    log = str(tmp_path / "log")
    with launched(reports, code, "-o", log, "-e", log, "-r", "streams") as found:
        assert found.value is True
        assert found.logged[0] == "one\ntwo\nthree\n"


@pytest.mark.parametrize("order", ["2>&1", "1>&2"])
def test_streams_that_were_joined_before_are_let_go_both(reports: Reports, order: str) -> None:
    """Either pipe may be at either descriptor."""
    fds = "1, 2" if order == "2>&1" else "2, 1"
    code = f"os.dup2({fds}); daemonize.ready(); value = targets(1, 2)"
    with launched(reports, code) as found:
        assert found.value == [found.files[0 if order == "2>&1" else 1]] * 2


def test_copies_in_other_hands_are_let_go_too(reports: Reports) -> None:
    """Handlers of logging that were set up before go on in the log; a copy keeps its own inheritable flag."""
    code = """
logging.basicConfig()
copy, kept = os.dup(1), os.dup(2)
os.set_inheritable(kept, True)
handler = logging.StreamHandler(open(copy, "w"))
logging.getLogger("copy").addHandler(handler)
daemonize.ready()
logging.getLogger("copy").warning("both")
value = [os.get_inheritable(copy), os.get_inheritable(kept), *targets(copy, kept)]
"""
    with launched(reports, code) as found:
        assert found.value == [False, True, *found.files]
        assert found.logged == ["both\n", "WARNING:copy:both\n"]
        assert found.said == b""


def test_sockets_opened_later_are_none_of_the_first_three(reports: Reports) -> None:
    """Also where the server has closed some of them itself."""
    code = """
os.close(0); os.close(2)
daemonize.ready()
value = [socket.socket().detach(), socket.socket().detach(), os.get_inheritable(0), *targets(0, 1, 2)]
"""
    with launched(reports, code) as found:
        assert min(found.value[:2]) > 2
        assert found.value[2:] == [True, NULL, found.files[0], NULL]


def test_who_has_closed_both_streams_has_told_already(reports: Reports) -> None:
    """Nobody is told a second time; the descriptors are occupied all the same."""
    code = (
        "os.close(1); os.close(2); told = daemonize.ready(); value = [told, *targets(1, 2)]; print('unheard')"
    )
    with launched(reports, code) as found:
        assert found.value == [False, NULL, NULL]


def test_without_ready_a_closed_descriptor_is_the_next_socket(reports: Reports) -> None:
    """Negative control: this is what a server that closes its streams must fear."""
    with launched(reports, "os.close(1); os.close(2); value = socket.socket().detach()") as found:
        assert found.value == 1


def test_a_full_disk_does_not_stop_it(reports: Reports) -> None:
    """It is ready, and serves; who prints is told by an OSError, as anywhere, and logging goes on."""
    code = """
logging.basicConfig()
print("before")
told = daemonize.ready()
logging.warning("lost")
try:
    print("lost")
except OSError as error:
    value = [told, error.errno]
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
"""
    with launched(
        reports, code, "-E", "DAEMONIZE_STDOUT=/dev/full", "-E", "DAEMONIZE_STDERR=/dev/full"
    ) as found:
        assert found.value == [True, 28]
        assert found.said == b"before\n"


@pytest.mark.parametrize("both", [False, True])
def test_a_log_that_cannot_be_opened_is_said_while_somebody_listens(
    reports: Reports, tmp_path: Path, both: bool
) -> None:
    """One line says which file, why, and what is lost; the server is ready all the same."""
    log = str(tmp_path / "missing" / "log")
    options = ["-E", f"DAEMONIZE_STDOUT={log}", *(["-E", f"DAEMONIZE_STDERR={log}"] if both else [])]
    with launched(reports, "daemonize.ready(); print('lost'); value = targets(1, 2)", *options) as found:
        assert found.value == [NULL, NULL if both else found.files[1]]
        assert found.said.decode() == (
            f"daemonize: cannot open {log}: No such file or directory; name another log file, or what the server says on "
            f"{'stdout and stderr' if both else 'stdout'} from now on is lost\n"
        )


def test_a_fifo_that_nobody_reads_holds_nothing_up(reports: Reports, tmp_path: Path) -> None:
    """Opening it is not waited for."""
    os.mkfifo(tmp_path / "fifo")
    with launched(reports, "daemonize.ready()", "-E", f"DAEMONIZE_STDOUT={tmp_path}/fifo") as found:
        assert b"nobody reads this fifo" in found.said


def test_a_fifo_with_a_reader_is_a_log(reports: Reports, tmp_path: Path) -> None:
    """Lines arrive as they are printed; the descriptor blocks, as a stream of a server should."""
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    code = "daemonize.ready(); print('here'); value = os.get_blocking(1)"
    with launched(reports, code, "-E", f"DAEMONIZE_STDOUT={tmp_path}/fifo") as found:
        assert found.value is True
        assert os.read(fifo, 100) == b"here\n"
    os.close(fifo)


def test_a_grandchild_that_inherited_the_variables_does_nothing(reports: Reports) -> None:
    """Its streams are not the wrapper's; the server itself is not ready by that."""
    code = """
child = "import os, daemonize; print(daemonize.ready(), os.readlink('/proc/self/fd/1')[:5])"
said = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
held = targets(1)[0][:5]
daemonize.ready()
value = [said.stdout, said.stderr, held]
"""
    with launched(reports, code) as found:
        assert found.value == ["False pipe:\n", "", "pipe:"]


def test_logs_can_be_opened_before_rights_are_given_up(common: Reports) -> None:
    """open_logs() as root, ready() as nobody: it goes on in root's log, and nothing is left open."""
    code = "announce.open_logs(); announce.open_logs(); os.setuid(65534); daemonize.ready(); print('kept'); "
    code += "value = [int(fd) for fd in os.listdir('/proc/self/fd')]"
    with launched(common, code) as found:
        assert found.logged[0] == "kept\n"
        assert found.said == b""
        assert found.value == [0, 1, 2, 3]  # 3: of the listing


def test_without_opening_them_before_they_are_out_of_reach(common: Reports) -> None:
    """Negative control: nobody cannot open a log of root's."""
    code = "announce; os.setuid(65534); daemonize.ready()"
    with launched(common, code) as found:
        assert b"Permission denied; name another log file" in found.said


def test_numbers_that_somebody_has_closed_are_not_trusted(reports: Reports) -> None:
    """A program that closes all it does not know closes the opened logs; they are opened anew, and no socket is stdout."""
    code = """
announce.open_logs()
os.closerange(3, 100)
sockets = [socket.socket() for _ in range(5)]
daemonize.ready()
value = targets(1, 2)
"""
    with launched(reports, code) as found:
        assert found.value == found.files


def test_logs_opened_before_are_none_of_the_first_three(reports: Reports) -> None:
    """Though some of these were closed: no log is opened as the stdout that is let go later."""
    code = "os.close(1); announce.open_logs(); daemonize.ready(); value = targets(0, 1, 2)"
    with launched(reports, code) as found:
        assert found.value == [NULL, NULL, found.files[1]]


# --- managers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_manager_is_told(reports: Reports, tmp_path: Path, kind: str) -> None:
    """Once; later words alone are sent as words; a status is one line."""
    code = (
        "value = [os.getpid(), daemonize.ready('serving\\nall'), daemonize.ready(), daemonize.ready('busy')]"
    )
    with Manager(tmp_path if kind == "path" else None) as manager:
        value = by_hand(reports, code, **manager.environ)
        said = manager.rest()

    assert value[1:] == [True, True, True]
    assert said == [
        {"READY": "1", "STATUS": "serving all", "MAINPID": str(value[0])},
        {"STATUS": "busy"},
    ]


def test_after_reloading_it_says_ready_again(reports: Reports) -> None:
    """Once."""
    with Manager() as manager:
        by_hand(
            reports, "daemonize.ready(); notify.reloading(); daemonize.ready('again'); daemonize.ready()",
            **manager.environ,
        )  # fmt: skip
        said = [list(message) for message in manager.rest()]

    assert said == [["READY", "MAINPID"], ["RELOADING", "MONOTONIC_USEC"], ["READY", "STATUS", "MAINPID"]]


def test_a_worker_does_not_speak_for_the_server(reports: Reports) -> None:
    """A forked worker that calls ready() again says nothing: it is not the main process."""
    code = """
daemonize.ready()
if (pid := os.fork()) == 0:
    daemonize.ready()
    os._exit(0)
os.waitpid(pid, 0)
notify.status("over")
"""
    with Manager() as manager:
        by_hand(reports, code, **manager.environ)
        said = [list(message) for message in manager.rest()]

    assert said == [["READY", "MAINPID"], ["STATUS"]]


def descriptor(reports: Reports, code: str, value: str | None = None) -> tuple[Any, bytes]:
    """What a server reports that has a pipe for NOTIFY_FD (or `value` in it), and what it wrote there to its end."""
    read, write = os.pipe()
    try:
        found = by_hand(reports, code, keep=(write,), NOTIFY_FD=str(write) if value is None else value)
    finally:
        os.close(write)
    with open(read, "rb") as pipe:
        return found, pipe.read()


def test_the_descriptor_of_s6_and_dinit_gets_a_newline_and_is_closed(reports: Reports) -> None:
    """Once."""
    code = "fd = int(os.environ['NOTIFY_FD']); told = [daemonize.ready(), daemonize.ready()]\n"
    code += "try: os.fstat(fd)\nexcept OSError: value = told"

    assert descriptor(reports, code) == ([True, True], b"\n")


@pytest.mark.parametrize("value", ["", "three", "-1", "3.0", "99", "9" * 30, "9" * 5000, "0"])
def test_a_descriptor_that_cannot_be_meant_is_left_alone(reports: Reports, value: str) -> None:
    """Not a number, not open, not a pipe: nobody is told, and nothing happens."""
    assert descriptor(reports, "value = daemonize.ready()", value) == (False, b"")


def test_a_regular_file_is_no_descriptor_to_notify(reports: Reports, tmp_path: Path) -> None:
    """No newline in somebody's data."""
    with open(tmp_path / "data", "wb") as file:
        told = by_hand(
            reports, "value = daemonize.ready()", keep=(file.fileno(),), NOTIFY_FD=str(file.fileno())
        )

    assert told is False
    assert (tmp_path / "data").read_bytes() == b""


@pytest.mark.parametrize("fd", ["1", "2"])
def test_a_standard_descriptor_is_told_and_stays(reports: Reports, fd: str) -> None:
    """NOTIFY_FD=1: the newline is written, and the descriptor is not given up to the next socket."""
    told = by_hand(reports, f"value = [daemonize.ready(), targets({fd})[0][:5]]", NOTIFY_FD=fd)

    assert told == [True, "pipe:"]


def test_a_reader_that_has_left_does_not_kill(reports: Reports) -> None:
    """Not even a server with SIGPIPE at its default."""
    read, write = os.pipe()
    os.close(read)
    code = "signal.signal(signal.SIGPIPE, signal.SIG_DFL); value = daemonize.ready()"
    told = by_hand(reports, code, keep=(write,), NOTIFY_FD=str(write))
    os.close(write)

    assert told is False


def test_everybody_is_told_together(reports: Reports) -> None:
    """The wrapper, a manager, and a descriptor."""
    read, write = os.pipe()
    code = f"""
os.environ["NOTIFY_FD"] = "{write}"
value = [daemonize.ready("serving"), *targets(1, 2)]
"""
    options = ["--keep-fd", str(write)]
    with Manager() as manager:
        options += ["-E", f"NOTIFY_SOCKET={manager.address}"]
        result = cli.run("--json", *options, *server(code, reports.path, "stay"), pass_fds=[write])
        os.close(write)
        found = Launched(result, reports)
        procs.stop(found.pid)
        said = manager.rest()
    with open(read, "rb") as pipe:
        assert pipe.read() == b"\n"

    assert found.value == [True, *found.files]
    assert said == [{"READY": "1", "STATUS": "serving", "MAINPID": str(found.pid)}]


def test_children_find_nothing_when_asked(reports: Reports) -> None:
    """Who is to be told is no longer in the environment; the server itself still reaches the manager."""
    code = """
daemonize.ready(unset_environment=True)
said = subprocess.run(["env"], capture_output=True, text=True).stdout.splitlines()
names = ("NOTIFY_", "WATCHDOG_", "DAEMONIZE_")
value = [sorted(line.partition("=")[0] for line in said if line.startswith(names)),
         notify.status("still here"), notify.watchdog_interval(), daemonize.ready()]
"""
    with Manager() as manager:
        options = ["-E", f"NOTIFY_SOCKET={manager.address}", "-E", "WATCHDOG_USEC=3000000"]
        with launched(reports, code, *options) as found:
            said = [list(message) for message in manager.rest()]

    assert found.value == [["DAEMONIZE_ID"], True, 1.5, True]
    assert said == [["READY", "MAINPID"], ["STATUS"]]


# --- from anywhere ------------------------------------------------------------------------------------------------


def test_in_a_plain_run_nothing_happens(reports: Reports) -> None:
    """Nobody is told; the streams are what they were."""
    code = """
before = [os.fstat(fd) for fd in (0, 1, 2)]
value = [daemonize.ready("serving"), [os.fstat(fd) for fd in (0, 1, 2)] == before, sys.stdout.line_buffering]
"""

    assert by_hand(reports, code) == [False, True, False]


def test_from_a_thread(reports: Reports) -> None:
    """Which need not be the one that prints."""
    code = """
thread = threading.Thread(target=daemonize.ready)
thread.start(); thread.join()
print("after")
value = targets(1, 2)
"""
    with launched(reports, code) as found:
        assert found.value == found.files
        assert found.logged[0] == "after\n"


def test_from_the_loop(reports: Reports) -> None:
    """Of asyncio, as a callback."""
    code = """
import asyncio
async def main():
    asyncio.get_running_loop().call_soon(daemonize.ready)
    await asyncio.sleep(0)
asyncio.run(main())
value = targets(1, 2)
"""
    with launched(reports, code) as found:
        assert found.value == found.files


def test_from_a_signal_handler_while_it_runs(reports: Reports) -> None:
    """The call that was interrupted goes on; that of the handler returns at once, with nothing done."""
    code = """
answers = []
signal.signal(signal.SIGUSR1, lambda *_: answers.append(daemonize.ready()))
class Interrupting:
    def flush(self):
        signal.raise_signal(signal.SIGUSR1)
sys.stdout = Interrupting()
answers.append(daemonize.ready())
value = [answers, targets(1, 2)]
"""
    with launched(reports, code) as found:
        assert found.value == [[False, True], found.files]


def test_streams_that_are_not_pythons_own(reports: Reports) -> None:
    """None, closed, or of somebody's making: what is at 1 and 2 is let go all the same."""
    code = """
class Odd:
    def flush(self):
        raise ZeroDivisionError
sys.stdout, sys.stderr = None, Odd()
value = [daemonize.ready(), *targets(1, 2)]
"""
    with launched(reports, code) as found:
        assert found.value == [True, *found.files]


def test_in_a_root_without_dev_null(reports: Reports, tmp_path: Path) -> None:
    """The streams are let go all the same: what is said is lost, as a line says."""
    if os.geteuid():
        pytest.skip("needs root to change the root")
    (tmp_path / "jail").mkdir()
    code = f"""
report = open(sys.argv[1], "w")
os.chroot("{tmp_path}/jail")
json.dump([daemonize.ready(), os.fstat(1).st_rdev == os.fstat(0).st_rdev], report)
report.close()
select.select([], [], [])
"""
    with launched(reports, code) as found:
        assert found.value == [True, True]
        assert found.said.count(b"\n") == 2
        assert b"cannot open" in found.said


@pytest.mark.parametrize("streams", ["", "1:1", "1:1,", ",", "1:1,1:1,1:1", "x" * 1000])
def test_a_variable_that_says_nothing_changes_nothing(reports: Reports, streams: str) -> None:
    """Not what the wrapper writes: nobody is told."""
    assert by_hand(reports, "value = daemonize.ready()", DAEMONIZE_STREAMS=streams) is False


def test_wrong_arguments_are_the_callers(reports: Reports) -> None:
    """A status that is not text is said at once, and nobody has been told."""
    code = """
try:
    daemonize.ready(b"bytes")
except TypeError as error:
    value = str(error)
"""
    with Manager() as manager:
        assert by_hand(reports, code, **manager.environ) == "a status is text, not bytes"
        assert manager.rest() == []
