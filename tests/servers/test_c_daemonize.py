"""Side by side with the C `daemonize` 1.7: the same options give the same process, but for the table below.

`there` is the C one, `here` is ours. Both start report_self.py in directories of their own, and what it reports, the
files it leaves and how the launcher ended are compared fact by fact. The table is what COMPATIBILITY in the manual page
is made of; a row that no longer shows fails, as does a difference without a row.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support import cli, facts, procs, users
from tests.support.facts import ABSENT, ANY
from tests.support.programs import PYTHON, SHELL
from tests.support.users import MEMBER, NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.family import Family

pytestmark = pytest.mark.servers

PATH = "/usr/local/bin:/usr/bin:/bin"


# --- the table -----------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One difference: what it is about, how it is there and here, why, and the facts that show it."""

    option: str
    there: str
    here: str
    why: str
    facts: Mapping[str, tuple[Any, Any]]


TABLE = {
    "session": Row(
        "always", "the server leads its session", "it does not",
        "a leader without a terminal gets one by opening it",
        {"leads its session": (True, False), "leads its group": (True, False)},
    ),
    "outer variables": Row(
        "always", "inherited", "DAEMONIZE_*, NOTIFY_SOCKET, LISTEN_*, ... of the caller are removed",
        "the server must not answer an outer manager in our name",
        {
            f"environ.{name}": (ANY, ABSENT)
            for name in ("DAEMONIZE_STATE_DIR", "DAEMONIZE_RUNTIME_DIR", "NOTIFY_SOCKET")
        },
    ),
    "own variables": Row(
        "always", "-", "DAEMONIZE_ID is set", "to find the server's processes",
        {"environ.DAEMONIZE_ID": (ABSENT, ANY)},
    ),
    "IFS": Row(
        "always", "IFS is set if it was not", "left alone", "no shell of today inherits it",
        {"environ.IFS": (" \t\n", ABSENT)},
    ),
    "PATH": Row(
        "always", "PATH is set if it was not", "left alone", "-E sets it",
        {"environ.PATH": (ANY, ABSENT)},
    ),
    "directory": Row(
        "no -c", "/", "the caller's", "a server started by hand belongs where it was started; -c / gives the same",
        {"cwd": ("/", "DIR/work")},
    ),
    "streams": Row(
        "no -o, no -e", "/dev/null; what the server says is lost",
        "pipes until the server closes them (ready); what it says is relayed",
        "readiness is the purpose",
        {
            "stdin.flags": ("read and write", "read"),
            "stdout.target": ("/dev/null", "pipe"), "stdout.flags": ("read and write", "write"),
            "stderr.target": ("/dev/null", "pipe"), "stderr.flags": ("read and write", "write"),
            "environ.DAEMONIZE_STREAMS": (ABSENT, ANY), "environ.DAEMONIZE_STDOUT": (ABSENT, ANY),
            "environ.DAEMONIZE_STDERR": (ABSENT, ANY),
            "out": ("", "out\n"), "err": ("", "err\n"),
        },
    ),
    "stdin": Row(
        "-o, -e", "stdin is /dev/null opened for writing: reading fails", "opened for reading: end of file",
        "a fault there",
        {"stdin.flags": ("write", "read")},
    ),
    "leaks": Row(
        "-o, -e", "further descriptors of these files are left open in the server", "0, 1 and 2 alone",
        "a fault there",
        {"descriptors": (ANY, [])},
    ),
    "append to stdout": Row(
        "-o without -a", "truncated and written from the beginning",
        "truncated and written in append mode", "two writers do not overwrite each other",
        {"stdout.flags": ("write", "write, append")},
    ),
    "append to stderr": Row(
        "-e without -a", "as -o", "as -o", "as -o",
        {"stderr.flags": ("write", "write, append")},
    ),
    "log for stderr": Row(
        "-o without -e", "stderr is /dev/null", "the daemon's own log", "its last words are needed most",
        {"stderr.target": ("/dev/null", ANY), "stderr.flags": ("write", "write, append")},
    ),
    "log for stdout": Row(
        "-e without -o", "stdout is /dev/null", "the daemon's own log", "likewise",
        {"stdout.target": ("/dev/null", ANY), "stdout.flags": ("write", "write, append")},
    ),
    "two names": Row(
        "-o f -e ./f", "opened twice: one overwrites the other", "both are kept", "a fault there",
        {"file out text": ("err\n", "out\nerr\n")},
    ),
    "lock beside leaks": Row(
        "-l with -o, -e", "as -o, -e", "0, 1, 2 and the lock file", "as -o, -e",
        {"descriptors": (ANY, ["DIR/work/lock"])},
    ),
    "pid file of the caller": Row(
        "-p FILE -c DIR", "an empty FILE where the caller is, and a second one with the pid in DIR",
        "one FILE, where the caller is", "a fault there",
        {
            "file pid text": ("", "PID\n"), "file sub/pid text": ("PID\n", ABSENT),
            "file sub/pid mode": ("0o644", ABSENT), "file sub/pid owner": ([0, 0], ABSENT),
        },
    ),
    "readable pid file": Row(
        "-p", "0644 as far as the umask allows", "0644", "whoever may ask for the state may read it",
        {"file pid mode": ("0o600", "0o644")},
    ),
    "mode of an old pid file": Row(
        "-p", "an old file is written into: owner and mode stay", "a new file is renamed into place",
        "nobody reads half a pid file", {"file pid mode": ("0o666", "0o644")},
    ),
    "pid file of the user": Row(
        "-p with -u", "belongs to the user", "belongs to root", "systemd and other readers trust a pid that root wrote",
        {"file pid owner": ([65_534, 65_534], [0, 0])},
    ),
    "-E before -u": Row(
        "-E with -u", "USER, LOGNAME, HOME are the user's", "-E goes before", "what is given by name is meant",
        {"environ.HOME": ("/nonexistent", "/mine")},
    ),
    "verbose": Row(
        "-v", "on stdout, and only if that is a terminal", "on stderr", "the stdout of a launcher is the server's",
        {"err": ("", ANY)},
    ),
    "ignored signals": Row(
        "always", "what the caller ignores is ignored", "every signal has its default action",
        "a server must not be deaf because it was started by nohup(1) or a script",
        {"signals.ignored": ([1, 10, 13, 25], [13, 25])},
    ),
    "blocked signals": Row(
        "always", "what the caller blocks is blocked", "no signal is blocked", "likewise",
        {"signals.blocked": (ANY, [])},
    ),
    "leaked descriptors": Row(
        "always", "open descriptors of the caller are inherited", "closed, but for --keep-fd",
        "a server that holds a pipe hangs $( ), ssh and CI",
        {"descriptors": (["/etc/passwd"], [])},
    ),
}  # fmt: skip

ALWAYS = ("session", "outer variables", "own variables", "IFS")
OUT = ("stdin", "leaks", "append to stdout")
ERR = ("stdin", "leaks", "append to stderr")


# --- both sides ----------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """Options, and the rows that show. `{}` stands for the directory.

    existing: files before the start. environment: changes to it. words: arguments of the server. front: words before the
    launcher. nobody: an ordinary user launches. member: there is an account that is in groups. waits: ours waits for the
    server (no -o, no -e).
    """

    options: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    existing: Mapping[str, str] = {}
    environment: Mapping[str, str | None] = {}
    words: tuple[str, ...] = ()
    front: tuple[str, ...] = ()
    nobody: bool = False
    member: bool = False
    waits: bool = False


def c_daemonize() -> str:
    """The compiled one: ours may come first on PATH. The test is skipped where it is not installed."""
    for directory in [*os.get_exec_path(), "/usr/bin", "/usr/sbin"]:
        path = shutil.which("daemonize", path=directory)
        if path:
            with open(path, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    return path
    pytest.skip("the C daemonize is not installed (make test-servers)")


def ours() -> list[str]:
    """Our command, run by an interpreter that ordinary users can reach as well."""
    return [users.python(), "-m", "daemonize"]


class Side:
    """One launch, in a directory of its own, by one of the two."""

    def __init__(self, launcher: list[str], case: Case, base: str) -> None:
        self._case, self._base, self._work = case, base, f"{base}/work"
        for name in (self._work, f"{self._work}/sub"):
            os.mkdir(name)
            os.chmod(name, 0o1777)
        for name, text in case.existing.items():
            with open(f"{self._work}/{name}", "w") as file:
                file.write(text)
            os.chmod(f"{self._work}/{name}", 0o666)
        options = [option.replace("{}", self._work) for option in case.options]
        accounts = users.with_accounts(base) if case.member else []
        user = users.become(NOBODY) if case.nobody else []
        self._argv = [*accounts, *case.front, *user, *launcher, *options]

    def facts(self) -> facts.Facts:
        """What is found: of the server, of the launcher, of the files."""
        reports = facts.Reports(self._base)
        argv = [*self._argv, *users.program("report_self", reports.arg, *self._case.words)]
        try:
            with self._popen(argv) as launcher:
                if self._case.waits:
                    reports.open()
                out, err = launcher.communicate(timeout=20)
            if not self._case.waits:
                # Only now, so that what ours relays is not a matter of chance.
                reports.open()
            report = reports.read()
        finally:
            reports.close()
        found = facts.facts(report)
        parent = procs.stat(report["pid"])
        found |= {"status": launcher.returncode, "out": out.decode(), "err": err.decode()}
        found |= {"parent": parent and parent.ppid, **self._files(report["pid"])}
        return facts.relative_to(found, self._base)

    def _popen(self, argv: list[str]) -> subprocess.Popen[bytes]:
        variables = {
            **users.environ(), "PATH": PATH, "HOME": "/home/of/caller", "NOTIFY_SOCKET": "/run/outer",
            "DAEMONIZE_STATE_DIR": f"{self._base}/state", "DAEMONIZE_RUNTIME_DIR": f"{self._base}/run",
            **self._case.environment,
        }  # fmt: skip
        return subprocess.Popen(
            argv, cwd=self._work, env=cli.environ(variables), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def _files(self, pid: int) -> facts.Facts:
        found = {}
        for directory, _, names in os.walk(self._work):
            for name in names:
                path = os.path.join(directory, name)
                info = os.lstat(path)
                with open(path) as file:
                    text = file.read().replace(str(pid), "PID")
                key = f"file {os.path.relpath(path, self._work)}"
                found |= {f"{key} mode": oct(stat.S_IMODE(info.st_mode)), f"{key} text": text}
                found[f"{key} owner"] = [info.st_uid, info.st_gid]
        return found


def compare(case: Case) -> tuple[dict[str, tuple[Any, Any]], dict[str, tuple[Any, Any]]]:
    """The differences found, and those expected of the case."""
    with users.open_directory() as one, users.open_directory() as other:
        there = Side([c_daemonize()], case, one).facts()
        here = Side(ours(), case, other).facts()
    expected: dict[str, tuple[Any, Any]] = {}
    for name in (*ALWAYS, *case.rows):
        expected |= TABLE[name].facts
    return facts.changes(there, here), expected


BLOCKS = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [1, 15, 17]); os.execv(sys.argv[1], sys.argv[1:])"
CASES = {
    "nothing": Case((), ("streams", "directory"), waits=True),
    "-c": Case(("-c", "{}/sub"), ("streams",), waits=True),
    "-c /": Case(("-c", "/"), ("streams",), waits=True),
    "-cdir": Case(("-c{}/sub",), ("streams",), waits=True),
    "-c twice": Case(("-c", "/nonexistent", "-c", "{}/sub"), ("streams",), waits=True),
    "-E": Case(
        ("-E", "A=1", "-E", "B=", "-EC=a=b c", "-E", "A=2", "-E", "HOME=/mine"), ("streams", "directory"), waits=True
    ),
    "no PATH": Case((), ("streams", "directory", "PATH"), environment={"PATH": None}, waits=True),
    "-v": Case(("-v", "-c/", "-o", "out"), (*OUT, "log for stderr", "verbose")),
    "-o": Case(("-c/", "-o", "out"), (*OUT, "log for stderr")),
    "-e": Case(("-c/", "-e", "err"), (*ERR, "log for stdout")),
    "-o -e": Case(("-c/", "-o", "out", "-e", "err"), (*OUT, *ERR)),
    "-oout -eerr": Case(("-c/", "-oout", "-eerr"), (*OUT, *ERR)),
    "-o absolute": Case(("-c/", "-o", "{}/sub/out", "-e", "{}/sub/err"), (*OUT, *ERR)),
    "-o is of the caller's directory": Case(("-c", "{}/sub", "-o", "out", "-e", "err"), (*OUT, *ERR)),
    "-o f -e f": Case(("-c/", "-o", "out", "-e", "out"), (*OUT, *ERR)),
    "-o f -e ./f": Case(("-c/", "-o", "out", "-e", "./out"), (*OUT, *ERR, "two names")),
    "-a": Case(("-a", "-c/", "-o", "out", "-e", "err"), ("stdin", "leaks"), existing={"out": "old\n"}),
    "-a -o f -e f": Case(("-a", "-c/", "-o", "out", "-e", "out"), ("stdin", "leaks"), existing={"out": "old\n"}),
    "-a -o f -e ./f": Case(("-a", "-c/", "-o", "out", "-e", "./out"), ("stdin", "leaks")),
    "-a last": Case(("-c/", "-o", "out", "-e", "err", "-a"), ("stdin", "leaks"), existing={"out": "old\n", "err": "old\n"}),
    "-a -a": Case(("-a", "-a", "-c/", "-o", "out", "-e", "err"), ("stdin", "leaks")),
    "truncated": Case(("-c/", "-o", "out", "-e", "err"), (*OUT, *ERR), existing={"out": "old\n" * 99, "err": "old\n"}),
    "-va": Case(("-va", "-c/", "-o", "out", "-e", "err"), ("stdin", "leaks", "verbose"), existing={"out": "old\n"}),
    "-vaoout": Case(("-vaoout", "-c/", "-eerr"), ("stdin", "leaks", "verbose"), existing={"out": "old\n"}),
    "-o twice": Case(("-c/", "-o", "other", "-o", "out", "-e", "err"), (*OUT, *ERR)),
    "-o /dev/null": Case(("-c/", "-o", "/dev/null", "-e", "/dev/null"), (*OUT, *ERR)),
    "-o -x": Case(("-c/", "-o", "-x", "-e", "--"), (*OUT, *ERR)),
    "--": Case(("-c/", "-o", "out", "-e", "err", "--"), (*OUT, *ERR)),
    "the command ends the options": Case(
        ("-c/", "-o", "out", "-e", "err"), (*OUT, *ERR), words=("-o", "mine", "-v", "--", "-", "", "--help")
    ),
    "ignored signals": Case(
        ("-c/", "-o", "out", "-e", "err"), (*OUT, *ERR, "ignored signals"),
        front=(SHELL, "-c", 'trap "" HUP USR1; exec "$@"', SHELL),
    ),
    "blocked signals": Case(
        ("-c/", "-o", "out", "-e", "err"), (*OUT, *ERR, "blocked signals"),
        front=(*PYTHON, "-c", BLOCKS),
    ),
    "leaked descriptors": Case(
        ("-c/",), ("streams", "leaked descriptors"), front=(SHELL, "-c", 'exec "$@" 7</etc/passwd', SHELL), waits=True
    ),
    "closed stdin": Case(
        ("-c/",), ("streams",), front=(SHELL, "-c", 'exec "$@" <&-', SHELL), waits=True
    ),
    "-p -c": Case(("-c", "{}/sub", "-p", "pid"), ("streams", "pid file of the caller"), waits=True),
    "-p absolute": Case(("-c", "{}/sub", "-p{}/pid"), ("streams",), waits=True),
    "-p -o -e": Case(("-p", "{}/pid", "-c/", "-o", "out", "-e", "err"), (*OUT, *ERR)),
    "-p of an old one": Case(
        ("-c/", "-p", "{}/pid"), ("streams", "mode of an old pid file"), existing={"pid": "4194304999\n"}, waits=True
    ),
    "-p and umask": Case(
        ("-c/", "-p", "{}/pid"), ("streams", "readable pid file"), front=(SHELL, "-c", 'umask 077; exec "$@"', SHELL),
        waits=True,
    ),
    "-l": Case(("-c/", "-l", "lock"), ("streams",), waits=True),
    "-l -c": Case(("-c", "{}/sub", "-l", "lock"), ("streams",), waits=True),
    "-l of an old one": Case(("-c/", "-l", "lock"), ("streams",), existing={"lock": "anything\n"}, waits=True),
    "-l -o -e": Case(("-c/", "-llock", "-o", "out", "-e", "err"), (*OUT, *ERR, "lock beside leaks")),
    "-p -l": Case(("-c/", "-p", "{}/pid", "-l", "{}/lock"), ("streams",), waits=True),
    "-p x -l x": Case(("-c/", "-p", "{}/both", "-l", "{}/both"), ("streams",), waits=True),
    "-l x -p x": Case(("-c/", "-l", "{}/both", "-p", "{}/both"), ("streams",), waits=True),
    "-u": Case(("-c/", "-u", "nobody"), ("streams",), waits=True),
    "-unobody": Case(("-c/", "-unobody"), ("streams",), waits=True),
    "-u with groups": Case(("-c/", "-u", MEMBER.name), ("streams",), member=True, waits=True),
    "-u root": Case(("-c/", "-u", "root"), ("streams",), waits=True),
    "-u -E": Case(("-c/", "-E", "HOME=/mine", "-u", "nobody"), ("streams", "-E before -u"), waits=True),
    "-u -o -e": Case(
        ("-c/", "-u", "nobody", "-o", "out", "-e", "err"), (*OUT, *ERR)
    ),
    "-u -a -o": Case(
        ("-c/", "-a", "-u", "nobody", "-o", "out", "-e", "out"), ("stdin", "leaks"), existing={"out": "old\n"}
    ),
    "-u -p -l": Case(
        ("-c/", "-u", "nobody", "-p", "{}/pid", "-l", "{}/lock"), ("streams", "pid file of the user"), waits=True
    ),
    "all": Case(
        ("-avunobody", "-c", "{}/sub", "-o", "out", "-e", "out", "-p", "{}/pid", "-l", "{}/lock", "-E", "A=1"),
        ("stdin", "lock beside leaks", "verbose", "pid file of the user"), existing={"out": "old\n"},
    ),
    "nobody: nothing": Case((), ("streams", "directory"), nobody=True, waits=True),
    "nobody: -o -e": Case(("-c/", "-o", "out", "-e", "err"), (*OUT, *ERR), nobody=True),
    "nobody: -p -l": Case(("-c/", "-p", "{}/pid", "-l", "{}/lock"), ("streams",), nobody=True, waits=True),
    "nobody: -va": Case(
        ("-va", "-c", "{}/sub", "-o", "out", "-e", "out", "-E", "A=1"), ("stdin", "leaks", "verbose"), nobody=True,
        existing={"out": "old\n"},
    ),
    "umask and limits": Case(
        ("-c/", "-o", "out", "-e", "err"), (*OUT, *ERR),
        front=(SHELL, "-c", 'umask 027; ulimit -n 222; exec nice -n 3 "$@"', SHELL),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_process(name: str, servers: Family) -> None:
    """The same options give the same server, but for the rows of the table."""
    found, expected = compare(CASES[name])

    assert facts.unexpected(found, expected) == {}


def test_every_row_is_shown() -> None:
    """No row without a case: a row that a case names and that does not show fails there."""
    named = {name for case in CASES.values() for name in case.rows}

    assert named | set(ALWAYS) == TABLE.keys()


# --- how the launcher ends -----------------------------------------------------------------------------------------


class Ending(NamedTuple):
    """How both end: status and words on stderr (a part of them) of each, and why they differ.

    words: the arguments, `{}` stands for the directory.
    """

    words: tuple[str, ...]
    there: tuple[int, str]
    here: tuple[int, str]
    why: str


#: The Debian build crashes where it should print its usage and exit 1.
USAGE = -signal.SIGSEGV
CODES = "statuses that say whose fault it was (2 usage, 125 daemonize, 126 and 127 the command)"

ENDINGS = {
    "nothing": Ending((), (USAGE, ""), (2, "no command was given"), CODES),
    "only options": Ending(("-v", "-c/"), (USAGE, ""), (2, "no command was given"), CODES),
    "unknown option": Ending(("-x", "/bin/true"), (USAGE, "illegal option -- x"), (2, "No such option"), CODES),
    "unknown in a cluster": Ending(("-vx", "/bin/true"), (USAGE, "illegal option -- x"), (2, "No such option"), CODES),
    "no argument": Ending(("-o",), (USAGE, "option requires an argument -- o"), (2, "requires an argument"), CODES),
    "-E without =": Ending(("-E", "A", "/bin/true"), (1, 'Argument to -E ("A") is not of the form name=value.'),
                           (2, "'A' is not of the form NAME=VALUE"), CODES),
    "-E without a name": Ending(("-E", "=A", "/bin/true"), (0, ""), (2, "'=A' is not of the form NAME=VALUE"),
                                "it is silently ignored there"),
    "-a alone": Ending(("-a", "/bin/true"), (0, ""), (2, "name a file for stdout or stderr"),
                       "it is silently ignored there"),
    "relative command": Ending(("true",), (1, "must be an absolute path name"), (0, ""), "PATH is searched here"),
    "-": Ending(("-",), (1, "must be an absolute path name"), (127, "cannot execute -: command not found"), CODES),
    "missing command": Ending(("/nonexistent",), (1, 'File "/nonexistent" is not executable.'),
                              (127, "/nonexistent: No such file or directory"), CODES),
    "directory": Ending(("/etc",), (1, 'File "/etc" is not regular file.'), (126, "/etc: "), CODES),
    "not executable": Ending(("/etc/passwd",), (1, 'File "/etc/passwd" is not executable.'),
                             (126, "/etc/passwd: Permission denied"), CODES),
    "no interpreter": Ending(("{}/lost",), (0, ""), (126, "the interpreter of its #! line"),
                             "a failed exec is silent there"),
    "script without #!": Ending(("{}/plain",), (0, ""), (126, "a script without a #! line?"),
                                "/bin/sh is guessed there"),
    "-c missing": Ending(("-c", "/nonexistent", "/bin/true"), (1, "Can't change working directory to \"/nonexistent\""),
                         (125, "/nonexistent: No such file or directory"), CODES),
    "-c empty": Ending(("-c", "", "/bin/true"), (1, "Can't change working directory"), (2, "a path cannot be empty"), CODES),
    "-o missing": Ending(("-o", "/nonexistent/o", "/bin/true"), (1, "Can't open \"/nonexistent/o\" for stdout"),
                         (125, "/nonexistent/o: No such file or directory"), CODES),
    "-e missing": Ending(("-e", "/nonexistent/e", "/bin/true"), (1, "Can't open \"/nonexistent/e\" for stderr"),
                         (125, "/nonexistent/e: No such file or directory"), CODES),
    "-o directory": Ending(("-o", "/etc", "/bin/true"), (1, "Is a directory"), (125, "Is a directory"), CODES),
    "-o empty": Ending(("-o", "", "/bin/true"), (1, 'Can\'t open "" for stdout'), (2, "a path cannot be empty"), CODES),
    "the first fault counts": Ending(("-c/nonexistent", "-o/nonexistent/o", "/nonexistent"),
                                     (1, 'File "/nonexistent" is not executable.'), (125, "/nonexistent/o"), CODES),
    "an early death": Ending(("/bin/sh", "-c", "echo boom >&2; exit 7"), (0, ""), (7, "boom"), "the purpose"),
    "an early death by signal": Ending(("/bin/sh", "-c", "kill -9 $$"), (0, ""), (137, "killed by SIGKILL"), "likewise"),
    "an early end": Ending(("/bin/true",), (0, ""), (0, "exited 0"), "a line says that nothing is running"),
    "-p missing": Ending(("-p", "/nonexistent/p", "/bin/true"), (1, 'Can\'t create PID file "/nonexistent/p"'),
                         (125, "/nonexistent/p: No such file or directory"), CODES),
    "-p directory": Ending(("-p", "{}/sub", "/bin/true"), (1, "Is a directory"), (125, "{}/sub: "), CODES),
    "-p that is no pid file": Ending(("-p", "{}/plain", "/bin/true"), (0, ""), (125, "{}/plain: "),
                                     "it is overwritten there"),
    "-l missing": Ending(("-l", "/nonexistent/l", "/bin/true"), (1, 'Can\'t create lock file "/nonexistent/l"'),
                         (125, "/nonexistent/l: No such file or directory"), CODES),
    "-l directory": Ending(("-l", "{}/sub", "/bin/true"), (1, "Is a directory"), (125, "{}/sub: "), CODES),
    "no such user": Ending(("-u", "nonexistent", "/bin/true"), (1, 'Can\'t find user "nonexistent" in password file.'),
                           (125, "cannot run as nonexistent: no such user"), CODES),
    "a number for a user": Ending(("-u", "65534", "/bin/true"), (1, "Can't find user"), (0, ""), "names alone there"),
    "-c of root's": Ending(("-u", "nobody", "-c", "{}/private", "/bin/true"), (1, "Can't change working directory"),
                           (125, "directory {}/private: Permission denied"), CODES),
    "-o in a directory of root's": Ending(
        ("-u", "nobody", "-o", "{}/private/out", "/bin/true"), (1, "Permission denied"), (0, ""),
        "opened as the user there, by root here: logs are in directories that only root can write to",
    ),
    "--version": Ending(("--version",), (USAGE, "illegal option"), (0, ""), "long options are unknown there"),
}  # fmt: skip


@pytest.fixture
def directory() -> Iterator[str]:
    """One in which everybody can make files, with two faulty scripts."""
    with users.open_directory() as path:
        for name, text in (("lost", "#!/nonexistent/sh\n"), ("plain", ": nothing\n")):
            with open(f"{path}/{name}", "w") as file:
                file.write(text)
            os.chmod(f"{path}/{name}", 0o755)
        os.mkdir(f"{path}/sub")
        os.mkdir(f"{path}/private", 0o700)
        yield path


def end(launcher: list[str], words: tuple[str, ...], directory: str) -> tuple[int, str]:
    """How a launcher ends that is started with these words: its status and what it says on stderr."""
    done = subprocess.run(
        [*launcher, *(word.replace("{}", directory) for word in words)],
        cwd=directory, env=cli.environ(users.environ()), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, timeout=20, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize("name", ENDINGS)
def test_endings(name: str, directory: str, family: Family) -> None:
    """Each ends as the table says."""
    case = ENDINGS[name]
    here = end(ours(), case.words, directory)
    there = end([c_daemonize()], case.words, directory)  # it may spoil what it finds

    # A build that prints its usage exits 1.
    assert there[0] in ({1, USAGE} if case.there[0] == USAGE else {case.there[0]})
    assert case.there[1] in there[1]
    assert here[0] == case.here[0]
    assert case.here[1].replace("{}", directory) in here[1]
    for process in family.living():
        assert procs.wait_ended(process.pid, start=process.start)


BY_NOBODY = {
    "another user": Ending(("-u", "daemon", "/bin/true"), (1, "Must be root to specify a different user."),
                           (125, "cannot run as daemon: only root can run a server as another user"), CODES),
    "himself": Ending(("-u", "nobody", "/bin/true"), (1, "Must be root to specify a different user."), (0, ""),
                      "a script need not ask who runs it"),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_NOBODY)
def test_endings_of_an_ordinary_user(name: str, directory: str, family: Family) -> None:
    """Each ends as the table says."""
    case, user = BY_NOBODY[name], users.become(NOBODY)
    there = end([*user, c_daemonize()], case.words, directory)
    here = end([*user, *ours()], case.words, directory)

    assert (there[0], here[0]) == (case.there[0], case.here[0])
    assert case.there[1] in there[1]
    assert case.here[1] in here[1]


@pytest.fixture(params=["-l", "-p"])
def claim(request: pytest.FixtureRequest, directory: str) -> tuple[str, str]:
    """An option, and its file."""
    return request.param, f"{directory}/claim"


def test_the_second_instance(claim: tuple[str, str], directory: str, servers: Family) -> None:
    """A lock is refused by both, whoever of the two holds it; a pid file is overwritten there, and refused here."""
    option, path = claim
    words = ("-c/", "-o", "/dev/null", option, path, "/bin/sleep", "60")
    ends = {}
    for name, first in (("there", [c_daemonize()]), ("here", ours())):
        assert end(first, words, directory)[0] == 0
        ends[name] = (end(ours(), words, directory), end([c_daemonize()], words, directory))
        servers.end()

    for here, there in ends.values():
        assert here[0] == 75
        assert path in here[1]
        assert there == ((1, LOCKED.format(path)) if option == "-l" else (0, ""))


LOCKED = 'Can\'t lock the lock file "{}". Is another instance running?\n'


def test_relative_directory(directory: str, servers: Family) -> None:
    """A relative -c: there it is gone into twice, so the server is not started, and nobody is told; here it is."""
    words = ("-c", "sub", "-o", "out", "-e", "err", "/bin/sh", "-c", "pwd; exec sleep 60")
    there = end([c_daemonize()], words, directory)
    for process in servers.living():
        assert procs.wait_ended(process.pid, start=process.start)
    with open(f"{directory}/err") as file:
        said = file.read()
    here = end(ours(), words, directory)

    assert (there, said) == ((0, ""), 'Can\'t change working directory to "sub": No such file or directory\n')
    assert here == (0, "")
    # `started` is before the shell executes it.
    assert procs.eventually(lambda: servers.running(["sleep", "60"]))
