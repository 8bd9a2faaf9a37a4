"""What the server is started with: nothing of the caller's that would surprise it, and all that it was given."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import daemonize
from tests.support import cli, procs
from tests.support.programs import PYTHON, SHELL, program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.family import Family

PATH = "/usr/local/bin:/usr/bin:/bin"


def report(*options: cli.Word, words: tuple[cli.Word, ...] = (), **how: Any) -> dict[str, Any]:
    """What report_self.py says when it is started with these options."""
    done = cli.run(*options, *program("report_self"), *words, **how)
    assert (done.status, done.err) == (0, b"")
    value: dict[str, Any] = json.loads(done.out.splitlines()[0])
    return value


def through_shell(prologue: str, *args: cli.Word, **how: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `daemonize ARGS` from a shell that has run `prologue` before, as its own process."""
    return subprocess.run(
        [SHELL, "-c", f'{prologue}\nexec "$@"', SHELL, *cli.command(*args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
        **how,
    )


def env(name: str, value: str = "") -> list[str]:
    """-E NAME=VALUE."""
    return ["-E", f"{name}={value}"]


# --- the process ---------------------------------------------------------------------------------------------------


def test_session(servers: Family) -> None:
    """A session of its own, which it does not lead: it can never get a controlling terminal by opening one."""
    said = report()

    assert said["sid"] not in {os.getsid(0), said["pid"]}
    assert said["pgid"] != os.getpgid(0)
    assert said["pid"] != said["pgid"]
    assert procs.stat(said["sid"]) is None  # its leader, the intermediate parent, has left


def test_belongs_to_init_when_the_wrapper_returns(servers: Family) -> None:
    """When the caller goes on, the intermediate parent is gone and the server's parent is init (systemd checks this)."""
    said = report()

    now = procs.stat(said["pid"])
    assert now is not None
    assert now.ppid == 1
    assert procs.stat(said["ppid"]) is None


def test_no_controlling_terminal(servers: Family) -> None:
    """Not even one that it opens becomes its controlling terminal."""
    script = "import os; os.close(os.open('/dev/tty', os.O_RDWR))"
    done = cli.run(*PYTHON, "-c", script)

    assert done.status == 1
    assert b"No such device or address" in done.err


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_umask_is_the_callers(umask: int, servers: Family) -> None:
    """The umask is left alone."""
    said = json.loads(through_shell(f"umask {umask:o}", *program("report_self")).stdout)

    assert said["umask"] == umask


def test_directory_is_the_callers(tmp_path: Path, servers: Family) -> None:
    """The directory is the caller's (not /, as the C daemonize has it), or that of -c, relative to the caller's."""
    (tmp_path / "sub").mkdir()

    assert report(cwd=tmp_path)["cwd"] == str(tmp_path)
    assert report("-c", "sub", cwd=tmp_path)["cwd"] == f"{tmp_path}/sub"
    assert report(f"--chdir={tmp_path}/sub")["cwd"] == f"{tmp_path}/sub"


def test_limits_and_niceness_are_the_callers(servers: Family) -> None:
    """Nothing else of the process is changed: limits, niceness, ids."""
    prologue = "ulimit -n 222; ulimit -c 0"
    done = subprocess.run(
        [
            "nice",
            "-n",
            "5",
            SHELL,
            "-c",
            f'{prologue}; exec "$@"',
            SHELL,
            *cli.command(*program("report_self")),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )
    said = json.loads(done.stdout)

    assert said["nice"] == os.nice(0) + 5
    assert said["limits"]["Max open files"] == ["222", "222"]
    assert said["limits"]["Max core file size"] == ["0", "0"]
    assert (said["uid"], said["gid"], said["groups"]) == (os.getuid(), os.getgid(), sorted(os.getgroups()))


# --- descriptors -----------------------------------------------------------------------------------------------------


def test_descriptors(servers: Family) -> None:
    """0 is /dev/null, 1 and 2 are the wrapper's pipes, and there is no other (but the one that lists them)."""
    said = report()

    assert said["stdin"] == "/dev/null"
    assert [target.partition(":")[0] for _, target in sorted(said["descriptors"].items())][:3] == [
        "/dev/null",
        "pipe",
        "pipe",
    ]
    assert said["descriptors"].keys() == {"0", "1", "2"}


def test_leaked_descriptors_are_not_inherited(servers: Family) -> None:
    """What the caller leaks (5 and 9) ends with the wrapper; the negative control is a server started without it."""
    prologue = "exec 5</etc/passwd 9</etc/hostname"
    control = subprocess.run(
        [SHELL, "-c", f'{prologue}; timeout 1 "$@"', SHELL, *program("report_self")],
        capture_output=True,
        check=False,
    )
    said = json.loads(through_shell(prologue, *program("report_self")).stdout)

    assert {"5", "9"} <= json.loads(control.stdout)["descriptors"].keys()
    assert said["descriptors"].keys() == {"0", "1", "2"}


def test_keep_fd(servers: Family) -> None:
    """--keep-fd keeps exactly those; a close-on-exec flag on them does not count."""
    prologue = "exec 5</etc/passwd 9</etc/hostname 4<>/dev/null"
    done = through_shell(prologue, "--keep-fd", "5", "--keep-fd=4", *program("report_self"))
    said = json.loads(done.stdout)

    assert said["descriptors"].keys() == {"0", "1", "2", "4", "5"}
    assert said["descriptors"]["5"] == "/etc/passwd"
    assert said["descriptors"]["4"] == "/dev/null"


def test_keep_fd_from_python(servers: Family) -> None:
    """`launch(keep_fds=...)` keeps descriptors that Python has made non-inheritable, and leaves them so."""
    fd = os.open("/etc/passwd", os.O_RDONLY)
    read, write = os.pipe()
    try:
        daemonize.launch(program("report_self"), keep_fds=[fd], relay_stdout=write)
        assert not os.get_inheritable(fd)
    finally:
        os.close(write)
        os.close(fd)
    with open(read, "rb") as file:
        said = json.loads(file.read())
    assert said["descriptors"].keys() == {"0", "1", "2", str(fd)}


@pytest.mark.parametrize("number", range(3, 10))
@pytest.mark.parametrize("options", [(), ("-o", "out", "-r", "alive:200ms")])
def test_kept_descriptor_among_ours(
    number: int, options: tuple[str, ...], tmp_path: Path, servers: Family
) -> None:
    """A kept descriptor comes through next to all of ours, whatever its number, with pipes and with files."""
    words = (*options, "--keep-fd", str(number), *program("report_self"))
    done = through_shell(f"exec {number}</etc/passwd", *words, cwd=tmp_path)

    said = json.loads(done.stdout)
    assert said["descriptors"].keys() == {"0", "1", "2", str(number)}
    assert said["descriptors"][str(number)] == "/etc/passwd"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_standard_descriptors_are_always_there(closed: str, servers: Family) -> None:
    """0, 1 and 2 are occupied by what they should be, though the caller closed them."""
    path = f"{os.environ['HOME']}/said"
    script = f"ls -l /proc/self/fd >{shlex.quote(path)}; exec sleep 100 >/dev/null 2>&1"
    done = subprocess.run(
        [SHELL, "-c", f'"$@" {closed}', SHELL, *cli.command(SHELL, "-c", script)], timeout=30, check=False
    )

    assert done.returncode == 0
    with open(path) as file:
        lines = [line.split()[-3:] for line in file if "->" in line]
    found = {fd: target for fd, _, target in lines}
    assert found["0"] == "/dev/null"
    assert found["2"].startswith("pipe:")
    assert found.keys() == {"0", "1", "2", "3"}  # 3: the listing's own


def test_stdin_file(tmp_path: Path, servers: Family) -> None:
    """--stdin FILE is read from its beginning, and only read."""
    path = tmp_path / "in"
    path.write_text("first\nsecond\n")
    done = cli.run(
        "--stdin", path, SHELL, "-c", "cat; cat /proc/self/fdinfo/0; exec sleep 100 >/dev/null 2>&1"
    )

    assert done.status == 0
    assert done.out.startswith(b"first\nsecond\n")
    flags = next(line for line in done.out.splitlines() if line.startswith(b"flags:"))
    assert int(flags.split()[1], 8) & os.O_ACCMODE == os.O_RDONLY


def test_stdin_of_the_caller_is_not_touched(servers: Family) -> None:
    """A launcher that eats its caller's stdin eats the rest of a `while read` loop."""
    read, write = os.pipe()
    os.write(write, b"next line\n")
    os.close(write)
    with open(read, "rb") as file:
        done = cli.run(SHELL, "-c", "cat; exec sleep 100 >/dev/null 2>&1", stdin=file)
        assert (done.status, done.out) == (0, b"")
        assert file.read() == b"next line\n"


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prologue", ["", "trap '' HUP INT QUIT PIPE TERM USR1 CHLD TSTP TTIN TTOU", "trap '' RTMIN 2>/dev/null"]
)
def test_signals(prologue: str, servers: Family) -> None:
    """Nothing is blocked or ignored, whatever the caller ignores, and though Python itself ignores SIGPIPE."""
    done = through_shell(prologue, *program("report_signals.sh"))

    assert done.returncode == 0
    assert procs.dispositions(done.stdout) == procs.CLEAN


def test_signals_control() -> None:
    """The negative control: without `daemonize` such a caller's server does ignore them."""
    script = f"trap '' HUP INT PIPE; timeout 1 {' '.join(program('report_signals.sh'))}"
    done = subprocess.run([SHELL, "-c", script], stdout=subprocess.PIPE, check=False)

    assert procs.dispositions(done.stdout)["SigIgn"] & (1 << signal.SIGPIPE - 1 | 1)


def test_blocked_signals(servers: Family) -> None:
    """Nor is anything blocked that the caller had blocked; and the wrapper works with all signals blocked."""
    script = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals());"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *cli.command(*program("report_signals.sh"))],
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert procs.dispositions(done.stdout) == procs.CLEAN


@pytest.mark.parametrize("name", ["CHLD", "HUP", "PIPE", "CONT"])
def test_caller_that_ignores(name: str, servers: Family) -> None:
    """A caller that ignores SIGCHLD (its children vanish unreaped) or others still gets every status."""
    prologue = f"trap '' {name}"
    if name == "CHLD":
        script = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
        front = [sys.executable, "-c", script]
    else:
        front = [SHELL, "-c", f'{prologue}; exec "$@"', SHELL]
    for argv, status in ((program("crashes_early", 7), 7), (program("repoints"), 0)):
        done = subprocess.run([*front, *cli.command(*argv)], capture_output=True, timeout=30, check=False)
        assert done.returncode == status
    assert len(servers.living()) == 1


# --- environment -----------------------------------------------------------------------------------------------------

OUTER = {
    "NOTIFY_SOCKET": "/run/outer",
    "NOTIFY_FD": "3",
    "MAINPID": "1",
    "WATCHDOG_USEC": "1000",
    "WATCHDOG_PID": "1",
    "LISTEN_FDS": "1",
    "LISTEN_PID": "1",
    "LISTEN_FDNAMES": "web",
    "DAEMONIZE_ID": "outer",
    "DAEMONIZE_STREAMS": "1:2,1:3",
    "DAEMONIZE_TIMEOUT": "30s",
    "DAEMONIZE_WHATEVER": "x",
}


def test_variables_of_an_outer_manager_are_removed(servers: Family) -> None:
    """A server must not answer an outer manager in our name; every other variable is inherited."""
    said = report(env={**OUTER, "KEPT": "yes"})["environ"]

    left = {name: value for name, value in said.items() if name in OUTER}
    assert left.keys() == {"DAEMONIZE_ID", "DAEMONIZE_STREAMS"}
    assert left["DAEMONIZE_ID"] != "outer"
    assert left["DAEMONIZE_STREAMS"] != OUTER["DAEMONIZE_STREAMS"]
    assert said["KEPT"] == "yes"
    assert said["HOME"] == os.environ["HOME"]


@pytest.mark.parametrize("name", sorted(OUTER))
def test_variables_given_are_kept(name: str, servers: Family) -> None:
    """-E says that it is meant."""
    assert report(*env(name, "mine"), env=OUTER)["environ"][name] == "mine"


def test_env_replaces_and_adds(servers: Family) -> None:
    """-E NAME=VALUE: the last one counts; the value may be empty and may hold anything."""
    options = [*env("HOME", "/first"), *env("HOME", "/second"), *env("EMPTY"), *env("ODD", "a=b c\n\"'")]
    said = report(*options)["environ"]

    assert (said["HOME"], said["EMPTY"], said["ODD"]) == ("/second", "", "a=b c\n\"'")


def test_clear_env(servers: Family) -> None:
    """--clear-env: only -E and our own variables are left."""
    said = report("--clear-env", *env("A", "1"), env={"B": "2"})["environ"]

    ours = {"DAEMONIZE_ID", "DAEMONIZE_STREAMS", "DAEMONIZE_STDOUT", "DAEMONIZE_STDERR"}
    assert said.keys() - {"LC_CTYPE"} == {"A", *ours}  # LC_CTYPE: Python's own, in the C locale


def test_own_variables(servers: Family) -> None:
    """DAEMONIZE_ID differs from launch to launch; the streams' variables exist only under the streams protocol."""
    first, second = report()["environ"], report()["environ"]
    int(first["DAEMONIZE_ID"], 16)
    assert first["DAEMONIZE_ID"] != second["DAEMONIZE_ID"]

    done = cli.run("-r", "alive:300ms", *program("report_self"))
    said = json.loads(done.out)["environ"]
    assert "DAEMONIZE_ID" in said
    assert not {"DAEMONIZE_STREAMS", "DAEMONIZE_STDOUT", "DAEMONIZE_STDERR"} & said.keys()


def test_environment_that_is_not_utf8(servers: Family) -> None:
    """Bytes that are not UTF-8 in inherited and given variables arrive as they were."""
    outer = {b"ODD\xff": b"\xfe\x80", **{k.encode(): v.encode() for k, v in os.environ.items()}}
    done = subprocess.run(
        cli.command("-E", b"GIVEN=\xff\xfd", *program("report_self")),
        env=outer,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    said = json.loads(done.stdout)["environ"]

    assert os.fsencode(said[os.fsdecode(b"ODD\xff")]) == b"\xfe\x80"
    assert os.fsencode(said["GIVEN"]) == b"\xff\xfd"


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locale", ["C.UTF-8", "C", "POSIX"])
def test_arguments_that_are_not_utf8(locale: str, servers: Family) -> None:
    """Arguments arrive byte for byte: spaces, newlines, empty ones, and bytes that no encoding knows."""
    words = (b"", b" ", b"a b\n", b"\xff\xfe\x80", "ä€😀".encode(), b"--", b"-x")
    said = report(words=words, env={"LC_ALL": locale})

    assert [os.fsencode(word) for word in said["argv"]] == list(words)


def test_options_of_the_server_are_its_own(servers: Family) -> None:
    """The first operand ends the options, with and without `--`."""
    words = ("--timeout", "-q", "--help", "--", "-v")
    assert report(words=words)["argv"] == list(words)
    assert report("--", words=words)["argv"] == list(words)


def test_relative_command_with_chdir(tmp_path: Path, servers: Family) -> None:
    """A command with a slash is relative to the caller's directory, not to -c; so it is executed by its full path."""
    (tmp_path / "sub").mkdir()
    script(tmp_path / "server", "right")
    script(tmp_path / "sub" / "server", "wrong")

    done = cli.run("-c", "sub", "./server", cwd=tmp_path)
    assert (done.status, done.out) == (0, f"right {tmp_path}/sub {tmp_path}/./server\n".encode())


def test_path_search(tmp_path: Path, servers: Family) -> None:
    """A command without a slash is searched on the server's PATH: that of -E, where it is given."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        script(tmp_path / name / "server", name)
    inherited = cli.run("server", cwd=tmp_path, env={"PATH": f"{tmp_path}/a:{PATH}"})
    given = cli.run(
        "-E", f"PATH={tmp_path}/b:{PATH}", "server", cwd=tmp_path, env={"PATH": f"{tmp_path}/a:{PATH}"}
    )

    assert inherited.out.startswith(b"a ")
    assert given.out.startswith(b"b ")
    assert cli.run("-E", "PATH=/nonexistent", "server", env={"PATH": f"{tmp_path}/a:{PATH}"}).status == 127


@pytest.mark.parametrize(
    ("path", "found"),
    [("a", b"a"), ("./a", b"a"), (f"missing:a:{PATH}", b"a"), (f":{PATH}", b"."), (f"{PATH}:", b".")],
)
def test_relative_path_entries(path: str, found: bytes, tmp_path: Path, servers: Family) -> None:
    """Relative (and empty) PATH entries are relative to the caller's directory, not to -c."""
    for where in (".", "a", "sub", "sub/a"):
        (tmp_path / where).mkdir(exist_ok=True)
        script(tmp_path / where / "the-server", where)
    done = cli.run("-c", "sub", "-E", f"PATH={path}", "the-server", cwd=tmp_path)

    assert (done.status, done.out.split()[:1]) == (0, [found])


def test_path_search_goes_on(tmp_path: Path, servers: Family) -> None:
    """As execvp(3): what cannot be executed is passed over, and named only if nothing else is found."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "the-server").write_text("not executable")
    only = cli.run("the-server", env={"PATH": f"{tmp_path}/a:{PATH}"})
    assert only.status == 126
    assert f"{tmp_path}/a/the-server: Permission denied".encode() in only.err

    script(tmp_path / "b" / "the-server", "found")
    done = cli.run("the-server", env={"PATH": f"{tmp_path}/a:{tmp_path}/b:{PATH}"})
    assert (done.status, done.out.split()[0]) == (0, b"found")


def test_clear_env_and_path(servers: Family) -> None:
    """--clear-env clears PATH too: the system's default path is searched."""
    assert cli.run("--clear-env", "sh", "-c", "exec sleep 100 >/dev/null 2>&1").status == 0


def script(path: Path, word: str) -> None:
    """An executable that says the word, its directory and its own name, and is ready."""
    path.write_text(f'#!/bin/sh\necho {word} "$(/bin/pwd)" "$0"\nexec /bin/sleep 100 >/dev/null 2>&1\n')
    path.chmod(0o755)


def test_argv0(tmp_path: Path, servers: Family) -> None:
    """The server sees its command as it was typed."""
    done = cli.run("sh", "-c", 'tr "\\0" "|" </proc/$$/cmdline; exec sleep 100 >/dev/null 2>&1')

    assert done.out.startswith(b"sh|-c|")


def test_long_argument(servers: Family) -> None:
    """100,000 bytes arrive."""
    word = "x" * 100_000
    assert report(words=(word,))["argv"] == [word]


def test_too_many_arguments_for_exec(tmp_path: Path, family: Family) -> None:
    """What the kernel took for the wrapper, and with our variables refuses for the server: 126, and the reason."""
    state = f"{tmp_path}{'/directory' * 300}"  # it is in two of our variables
    many = ["x" * 100_000] * ((os.sysconf("SC_ARG_MAX") - 10_000) // 100_009)

    def start(padding: int) -> cli.Result | None:
        try:
            return cli.run("true", *many, "y" * padding, env={"DAEMONIZE_STATE_DIR": state})
        except OSError:
            return None

    low, high, done = 0, 131_000, None
    while high - low > 1000:
        middle = (low + high) // 2
        found = start(middle)
        low, high = (middle, high) if found else (low, middle)
        done = found or done

    assert done
    assert done.status == 126
    assert b"/true: Argument list too long" in done.err
    assert done.err.count(b"\n") == 1
    assert len(done.err) < 500
    family.nobody()


def test_too_long_argument_from_python(family: Family) -> None:
    """One argument that is longer than the kernel takes: NotExecuted, 126."""
    with pytest.raises(daemonize.NotExecuted, match="Argument list too long") as caught:
        daemonize.launch(["true", "x" * 200_000])
    assert caught.value.exit_status == 126
    family.nobody()


def test_modes_of_what_is_made(tmp_path: Path, servers: Family) -> None:
    """Files of -o follow the caller's umask; our own are private whatever it is."""
    out = tmp_path / "o"
    through_shell("umask 027", "-o", out, *program("repoints"))
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o640
    through_shell("umask 0", "-r", "alive:10ms", *program("ignores_term", "never"))
    state = os.environ["DAEMONIZE_STATE_DIR"]
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o700
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(state)} == {0o600}
