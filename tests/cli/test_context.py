"""What the server is, by every option that changes it: exactly what the option says, and nothing else.

The default launch is made with the lightest means, the others with a context (launcher/context.py). That both give the
same process is shown by the same comparison: a context that is told what is so already changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support import callers, cli, facts, procs, users
from tests.support.facts import ABSENT
from tests.support.programs import DIRECTORY, SHELL
from tests.support.users import MEMBER, NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.facts import Facts
    from tests.support.family import Family

LAUNCH = "import ast, sys, daemonize\ndaemonize.launch(sys.argv[2:], **ast.literal_eval(sys.argv[1]))"


def nothing(_before: Facts) -> Facts:
    """No change."""
    return {}


def no_words(_directory: str) -> list[str]:
    """Nothing before the launcher."""
    return []


class Setting(NamedTuple):
    """Options of the command and keywords of launch() that mean the same; `@` stands for the directory of the launch.

    after: the facts that are to be different, made from those of the default launch. front: words before the launcher.
    """

    words: tuple[str, ...]
    keywords: dict[str, Any]
    after: Callable[[Facts], Facts] = nothing
    front: Callable[[str], list[str]] = no_words


# --- what is expected ----------------------------------------------------------------------------------------------


def limit(name: str, soft: str | None = None, hard: str | None = None) -> Callable[[Facts], Facts]:
    """A limit that is changed; None: as it was."""

    def after(before: Facts) -> Facts:
        was = before[f"limits.{name}"]
        return {f"limits.{name}": [soft or was[0], hard or was[1]]}

    return after


def core(before: Facts) -> Facts:
    """Soft as hard."""
    return {"limits.Max core file size": [before["limits.Max core file size"][1]] * 2}


def login(account: users.Account) -> Facts:
    """What a user finds in the environment."""
    return {"environ.USER": account.name, "environ.LOGNAME": account.name, "environ.HOME": account.home}


def run_as(account: users.Account, gid: int | None = None) -> Callable[[Facts], Facts]:
    """Another user, by root: ids, groups, environment; no capability is left; and logs of that user's."""

    def after(before: Facts) -> Facts:
        group = account.gid if gid is None else gid
        return {
            **(login(account) if account.name else {}),
            **{
                name: before[name].replace("/state/", f"/state-{account.name or account.uid}/")
                for name in ("environ.DAEMONIZE_STDOUT", "environ.DAEMONIZE_STDERR")
                if name in before  # not in the foreground
            },
            "uids": [str(account.uid)] * 4,
            "gids": [str(group)] * 4,
            "groups": sorted({group, *account.groups}),
            "capabilities.CapEff": "0" * 16,
            "capabilities.CapPrm": "0" * 16,
        }

    return after


def cleared(before: Facts) -> Facts:
    """Only what is given, and what is ours; LC_CTYPE is Python's own, in the C locale."""
    ours = {
        "environ.DAEMONIZE_ID",
        "environ.DAEMONIZE_STREAMS",
        "environ.DAEMONIZE_STDOUT",
        "environ.DAEMONIZE_STDERR",
    }
    gone = {key: ABSENT for key in before if key.startswith("environ.") and key not in ours}
    return {**gone, "environ.A": "1", "environ.LC_CTYPE": "C.UTF-8"}


def of_all(before: Facts) -> Facts:
    """All that can be combined."""
    return {
        **run_as(NOBODY)(before), **limit("Max open files", "333", "444")(before), "environ.HOME": "/mine",
        "limits.Max core file size": ["0", "0"], "nice": before["nice"] + 3, "umask": 0o27, "cwd": "DIR/sub",
        "descriptors": ["DIR/lock"],
    }  # fmt: skip


def current_umask() -> int:
    """That of this process, which every launch inherits."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


# --- another root --------------------------------------------------------------------------------------------------


def other_root(directory: str) -> list[str]:
    """A root beside the real one, DIR/root, in which everything of the real one is found, and a directory `only-here`.

    In a mount namespace of its own. Skips the test where there can be none.
    """
    root = f"{directory}/root"
    mount = f"""
        mkdir -p '{root}/only-here'
        for name in /*; do
            if [ -L "$name" ]; then cp -P "$name" '{root}/'
            elif [ -d "$name" ]; then mkdir -p "{root}$name" && mount --bind "$name" "{root}$name"
            fi || exit
        done
    """
    return users.in_private_mounts(mount)


def in_other_root(_before: Facts) -> Facts:
    """Its own /; the names of our logs mean nothing there."""
    names = {"environ.DAEMONIZE_STDOUT": ABSENT, "environ.DAEMONIZE_STDERR": ABSENT}
    return {**names, "cwd": "/", "is another root": True}


# --- the settings --------------------------------------------------------------------------------------------------

KEEPING = 'unset PWD; exec "$@" 7</etc/passwd'
UMASK = f"{current_umask():o}"
#: For everybody.
PLAIN = {
    "nothing": Setting((), {}),
    "umask": Setting(("--umask", "027"), {"umask": 0o27}, lambda _: {"umask": 0o27}),
    "umask 0": Setting(("--umask=0",), {"umask": 0}, lambda _: {"umask": 0}),
    "umask as it is": Setting(("--umask", UMASK), {"umask": current_umask()}),
    "nice": Setting(("--nice", "3"), {"nice": 3}, lambda before: {"nice": before["nice"] + 3}),
    "nice 0": Setting(("--nice", "0", "--umask", UMASK), {"nice": 0, "umask": current_umask()}),
    "core": Setting(("--core",), {"core": True}, core),
    "no core": Setting(("--no-core",), {"core": False}, limit("Max core file size", "0", "0")),
    "nocore": Setting(("--nocore",), {"core": False}, limit("Max core file size", "0", "0")),
    "soft limit": Setting(("--limit", "nofile=333"), {"limits": {"nofile": 333}}, limit("Max open files", "333")),
    "limit": Setting(
        ("--limit", "nofile=333:444"), {"limits": {"nofile": (333, 444)}}, limit("Max open files", "333", "444")
    ),
    "limits": Setting(
        ("--limit=nofile=333:444", "--limit=fsize=1M:unlimited"),
        {"limits": {"nofile": (333, 444), "fsize": (1 << 20, -1)}},
        lambda before: {
            **limit("Max open files", "333", "444")(before),
            **limit("Max file size", "1048576", "unlimited")(before),
        },
    ),
    "few descriptors": Setting(
        ("--limit", "nofile=6"), {"limits": {"nofile": 6}}, limit("Max open files", "6")
    ),
    "safe": Setting(("--safe",), {"safe": True}),
    "directory": Setting(("-c", "sub"), {"cwd": "sub"}, lambda _: {"cwd": "DIR/sub"}),
    "directory and context": Setting(
        ("-c", "sub", "--umask", UMASK), {"cwd": "sub", "umask": current_umask()}, lambda _: {"cwd": "DIR/sub"}
    ),
    "variable": Setting(("-E", "A=1", "-E", "HOME=/mine"), {"env": {"A": "1", "HOME": "/mine"}},
                        lambda _: {"environ.A": "1", "environ.HOME": "/mine"}),
    "no other variable": Setting(("--clear-env", "-E", "A=1"), {"clear_env": True, "env": {"A": "1"}}, cleared),
    "stdin": Setting(("--stdin", "input"), {"stdin": "input"},
                     lambda _: {"stdin.target": "DIR/input", "stdin.flags": "read"}),
    "pid file": Setting(("-p", "pid"), {"pid_file": "pid"}),
    "lock file": Setting(("-l", "lock"), {"lock_file": "lock"}, lambda _: {"descriptors": ["DIR/lock"]}),
    "one file": Setting(
        ("-p", "both", "--lock-file=@/both"), {"pid_file": "@/both", "lock_file": "both"},
        lambda _: {"descriptors": ["DIR/both"]},
    ),
    "files and context": Setting(
        ("--pid-file", "pid", "-llock", "--umask", UMASK),
        {"pid_file": "pid", "lock_file": "lock", "umask": current_umask()},
        lambda _: {"descriptors": ["DIR/lock"]},
    ),
    "kept descriptor": Setting(("--keep-fd", "7"), {"keep_fds": [7]}, lambda _: {"descriptors": ["/etc/passwd"]},
                               lambda _: [SHELL, "-c", KEEPING, SHELL]),
    "kept descriptor and context": Setting(
        ("--keep-fd", "7", "--umask", UMASK), {"keep_fds": [7], "umask": current_umask()},
        lambda _: {"descriptors": ["/etc/passwd"]}, lambda _: [SHELL, "-c", KEEPING, SHELL],
    ),
}  # fmt: skip
#: For root.
BY_ROOT = {
    "nice -3": Setting(("--nice", "-3"), {"nice": -3}, lambda before: {"nice": before["nice"] - 3}),
    "user": Setting(("-u", NOBODY.name), {"user": NOBODY.name}, run_as(NOBODY)),
    "user by number": Setting(("-u", str(NOBODY.uid)), {"user": str(NOBODY.uid)}, run_as(NOBODY)),
    "user and group": Setting(("--user=nobody:0",), {"user": "nobody:0"}, run_as(NOBODY, 0)),
    "user with groups": Setting(("-u", MEMBER.name), {"user": MEMBER.name}, run_as(MEMBER), users.with_accounts),
    "user without an entry": Setting(
        ("-u", "54399:54398"), {"user": "54399:54398"}, run_as(users.Account("", 54_399, 54_398, (), "")),
    ),
    "user with variables": Setting(
        ("-u", NOBODY.name, "-E", "HOME=/mine"), {"user": NOBODY.name, "env": {"HOME": "/mine"}},
        lambda before: {**run_as(NOBODY)(before), "environ.HOME": "/mine"},
    ),
    "root": Setting(("--chroot", "@/root"), {"chroot": "@/root"}, in_other_root, other_root),
    "directory in a root": Setting(
        ("--chroot", "root", "-c", "/only-here"), {"chroot": "root", "cwd": "/only-here"},
        lambda before: {**in_other_root(before), "cwd": "/only-here"}, other_root,
    ),
    "relative directory in a root": Setting(
        ("--chroot", "root", "-c", "only-here"), {"chroot": "root", "cwd": "only-here"},
        lambda before: {**in_other_root(before), "cwd": "/only-here"}, other_root,
    ),
    "user in a root": Setting(
        ("--chroot", "@/root", "-u", NOBODY.name), {"chroot": "@/root", "user": NOBODY.name},
        lambda before: {**run_as(NOBODY)(before), **in_other_root(before)}, other_root,
    ),
    "groups of the old root": Setting(
        ("--chroot", "@/root", "-u", MEMBER.name), {"chroot": "@/root", "user": MEMBER.name},
        lambda before: {**run_as(MEMBER)(before), **in_other_root(before)},
        lambda directory: [*other_root(directory), *users.with_accounts(directory)],
    ),
    "all": Setting(
        ("-u", "nobody", "--umask", "027", "--nice=3", "--no-core", "--limit", "nofile=333:444", "--safe", "-c", "@/sub",
         "-E", "HOME=/mine", "-p", "pid", "-l", "lock"),
        {"user": "nobody", "umask": 0o27, "nice": 3, "core": False, "limits": {"nofile": (333, 444)}, "safe": True,
         "cwd": "@/sub", "env": {"HOME": "/mine"}, "pid_file": "pid", "lock_file": "lock"},
        of_all,
    ),
}  # fmt: skip
#: For an ordinary user, who is nobody.
BY_NOBODY = {
    "user": Setting(("-u", NOBODY.name), {"user": NOBODY.name}, lambda _: login(NOBODY)),
    "user by number": Setting(("-u", "65534:65534"), {"user": "65534:65534"}, lambda _: login(NOBODY)),
    "all": Setting(
        ("-u", "nobody", "--umask", "027", "--nice=3", "--no-core", "--limit", "nofile=333:444", "--safe", "-c", "@/sub",
         "-E", "HOME=/mine", "-p", "pid", "-l", "lock"),
        {"user": "nobody", "umask": 0o27, "nice": 3, "core": False, "limits": {"nofile": (333, 444)}, "safe": True,
         "cwd": "@/sub", "env": {"HOME": "/mine"}, "pid_file": "pid", "lock_file": "lock"},
        lambda before: {**of_all(before), **{name: before[name] for name in
                        ("uids", "gids", "groups", "capabilities.CapEff", "capabilities.CapPrm",
                         "environ.DAEMONIZE_STDOUT", "environ.DAEMONIZE_STDERR") if name in before}},
    ),
}  # fmt: skip

CASES = {
    f"{who}-{name}-{how}": (who, how, setting)
    for who, settings, ways in (
        ("root", PLAIN | BY_ROOT, ("command", "direct", "keeper", "foreground")),
        # The keeper would not find there what this package depends on, unless it is installed for everybody.
        ("nobody", PLAIN | BY_NOBODY, ("command", "direct", "foreground")),
    )
    for name, setting in settings.items()
    for how in ways
}


# --- the launch ----------------------------------------------------------------------------------------------------

#: The environment of a launch, besides the mark of the guards.
VARIABLES = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/home/of/caller",
    **users.environ(),
}
#: These differ from launch to launch, or are the guards' own.
UNCOMPARED = {"environ.DAEMONIZE_ID", "environ.DAEMONIZE_STREAMS", "limits.Max realtime timeout"}


def launcher(who: str, how: str, setting: Setting) -> list[str]:
    """The command, or a program that calls launch(), directly or so that it needs the keeper."""
    python = sys.executable if who == "root" else users.python()
    if how == "command":
        return [python, "-m", "daemonize", *setting.words]
    if how == "foreground":
        return [python, "-m", "daemonize", "-f", *setting.words]
    return [python, "-c", callers.WAYS[how] + LAUNCH, repr(setting.keywords)]


@contextlib.contextmanager
def starting(
    who: str, how: str, setting: Setting
) -> Iterator[tuple[subprocess.Popen[bytes], facts.Reports, str]]:
    """A launch that has begun, whose server can report, and the directory it was begun in."""
    with users.open_directory() as base:
        os.mkdir(f"{base}/sub")
        os.chmod(f"{base}/sub", 0o755)
        with open(f"{base}/input", "w"):
            pass
        words = [word.replace("@", base) for word in launcher(who, how, setting)]
        front = [*setting.front(base), *(users.become(NOBODY) if who == "nobody" else [])]
        marks = {name: value for name, value in os.environ.items() if name.startswith("TEST_MARK")}
        reports = facts.Reports(base)
        try:
            with subprocess.Popen(
                [*front, *words, *users.program("report_self", reports.arg)],
                cwd=base, env={
                    **marks, **VARIABLES, "DAEMONIZE_STATE_DIR": f"{base}/state", "DAEMONIZE_RUNTIME_DIR": f"{base}/run",
                },
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            ) as process:  # fmt: skip
                reports.open()
                yield process, reports, base
        finally:
            reports.close()


def table(report: dict[str, Any], base: str) -> Facts:
    """The facts that can be compared; the number of a name is that of another server which still runs."""
    found = facts.relative_to(facts.facts(report), base)
    for name in ("environ.DAEMONIZE_STDOUT", "environ.DAEMONIZE_STDERR"):
        if name in found:
            found[name] = re.sub(r"-\d+(?=\.\w+$)", "", found[name])
    found["is another root"] = report["root_inode"] != os.stat("/").st_ino
    return {key: value for key, value in found.items() if key not in UNCOMPARED and "TEST_MARK" not in key}


def launched(who: str, how: str, setting: Setting) -> Facts:
    """The facts of a server that is launched so."""
    with starting(who, how, setting) as (process, reports, base):
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, b"out\n", b"err\n")
        report = reports.read()
        pid_file = content(f"{base}/pid")
    server = procs.stat(report["pid"])
    assert server
    assert server.ppid == 1  # whatever it was started with
    assert pid_file == (f"{server.pid}\n" if setting.keywords.get("pid_file") == "pid" else None)
    return table(report, base)


def in_the_foreground(who: str, how: str, setting: Setting) -> Facts:
    """The facts of a server that is launched with -f, and ended."""
    with starting(who, how, setting) as (process, reports, base):
        report = reports.read()
        procs.stop(report["pid"])
        process.communicate(timeout=20)
    return table(report, base)


def content(path: str) -> str | None:
    """What is in a file; None: there is no such file."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


@pytest.fixture(scope="module")
def defaults() -> dict[tuple[str, str], Facts]:
    """The facts of the default launch, by who launches and how; found when they are first needed."""
    return {}


@pytest.mark.parametrize("case", CASES)
def test_it_changes_what_it_says(case: str, defaults: dict[tuple[str, str], Facts], servers: Family) -> None:
    """Against the default launch by the same user: what the option says, and nothing else."""
    who, how, setting = CASES[case]
    start = in_the_foreground if how == "foreground" else launched
    if (who, how) not in defaults:
        defaults[who, how] = start(who, how, PLAIN["nothing"])
    before = defaults[who, how]
    pairs = {key: (before.get(key, ABSENT), value) for key, value in setting.after(before).items()}
    expected = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}

    assert facts.unexpected(facts.changes(before, start(who, how, setting)), expected) == {}


# --- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [(), ("--umask", "022"), ("-u", "nobody"), ("--nice=1", "--no-core")], ids=" ".join
)
def test_signals(words: tuple[str, ...], servers: Family) -> None:
    """Nothing is blocked, ignored or caught, whatever the caller ignores (Python would hide what it changes itself)."""
    if "-u" in words and os.geteuid():
        pytest.skip("needs root")
    script = "trap '' HUP INT QUIT PIPE TERM USR1 TSTP TTIN TTOU; exec \"$@\""
    reporter = [SHELL, os.path.join(DIRECTORY, "report_signals.sh")]
    done = subprocess.run(
        [SHELL, "-c", script, SHELL, *cli.command(*words, *reporter)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=20, check=False,
    )  # fmt: skip

    assert procs.dispositions(done.stdout) == procs.CLEAN


# --- groups --------------------------------------------------------------------------------------------------------


def in_groups(_directory: str) -> list[str]:
    """Root that is in supplementary groups, as after a login."""
    return [*users.become(users.Account("root", 0, 0, (4, 27), "/root"))]


@pytest.mark.parametrize("how", ["command", "direct", "keeper"])
@pytest.mark.parametrize(
    ("words", "keywords", "groups"),
    [
        ((), {}, [4, 27]),
        (("--umask", "022"), {"umask": 0o22}, [4, 27]),
        (("-u", "nobody"), {"user": "nobody"}, [65_534]),
        (("-u", "nobody:27"), {"user": "nobody:27"}, [27]),
        (("-u", "54399:54398"), {"user": "54399:54398"}, [54_398]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_supplementary_groups(
    words: tuple[str, ...], keywords: dict[str, Any], groups: list[int], how: str, servers: Family
) -> None:
    """They are the user's own, never those of root; who stays root keeps his (that he has some is the control)."""
    assert launched("root", how, Setting(words, keywords, front=in_groups))["groups"] == groups


# --- limits --------------------------------------------------------------------------------------------------------


def lowered(_directory: str) -> list[str]:
    """A caller whose limits are low."""
    return [SHELL, "-c", 'unset PWD; ulimit -n 200; exec "$@"', SHELL]


def test_a_soft_limit_alone_lifts_the_hard_one(servers: Family) -> None:
    """If it must, and may."""
    may = [*lowered(""), SHELL, "-c", "ulimit -n 300"]
    if subprocess.run(may, check=False, capture_output=True).returncode:
        pytest.skip("root may not lift limits here")
    found = launched("root", "command", Setting(("--limit", "nofile=300"), {}, front=lowered))

    assert found["limits.Max open files"] == ["300", "300"]


def test_a_soft_limit_alone_stays_below_the_hard_one(servers: Family) -> None:
    """The hard one is not touched; without the option both are the caller's."""
    given = launched("nobody", "command", Setting(("--limit", "nofile=100"), {}, front=lowered))
    control = launched("nobody", "command", Setting((), {}, front=lowered))

    assert given["limits.Max open files"] == ["100", "200"]
    assert control["limits.Max open files"] == ["200", "200"]


# --- what cannot be ------------------------------------------------------------------------------------------------


def failing(who: str, words: tuple[str, ...], directory: str, cwd: str | None = None) -> cli.Result:
    """Run the command so, with a server that needs nothing."""
    front = users.become(NOBODY) if who == "nobody" else []
    python = sys.executable if who == "root" else users.python()
    argv = [*front, python, "-m", "daemonize", *words, "-r", "alive:10ms", "sleep", "60"]
    variables = {**users.environ(), "DAEMONIZE_STATE_DIR": f"{directory}/state"}
    done = subprocess.run(
        argv, cwd=cwd or directory, env=cli.environ(variables), stdin=subprocess.DEVNULL, capture_output=True,
        timeout=20, check=False,
    )  # fmt: skip
    return cli.Result(done.returncode, done.stdout, done.stderr, 0.0)


ONLY_ROOT = "only root can run a server as another user or group"
FAILURES = {
    "limits": ("nobody", ("--limit", "nofile=unlimited"),
               "cannot start sleep: limits nofile=unlimited: Operation not permitted"),
    "second limit": ("nobody", ("--limit", "fsize=1M", "--limit", "nofile=5:unlimited"),
                     "cannot start sleep: limits nofile=5:unlimited: Operation not permitted"),
    "nice": ("nobody", ("--nice", "-5"), "cannot start sleep: nice -5: Operation not permitted"),
    "root of nobody": ("nobody", ("--chroot", "/"), "cannot start sleep: root /: Operation not permitted"),
    "no root": ("root", ("--chroot", "/nonexistent"), "cannot start sleep: root /nonexistent: No such file or directory"),
    "root that is a file": ("root", ("--chroot", "/etc/passwd"), "cannot start sleep: root /etc/passwd: Not a directory"),
    "directory": ("root", ("--umask", "022", "-c", "/nonexistent"),
                  "cannot start sleep: directory /nonexistent: No such file or directory"),
    "directory in a root": ("root", ("--chroot", "/usr", "-c", "/usr/bin"),
                            "cannot start sleep: directory /usr/bin: No such file or directory"),
    "another user": ("nobody", ("-u", "daemon"), f"cannot run as daemon: {ONLY_ROOT}"),
    "root again": ("nobody", ("-u", "0:0"), f"cannot run as 0:0: {ONLY_ROOT}"),
    "another group": ("nobody", ("-u", "nobody:daemon"), f"cannot run as nobody:daemon: {ONLY_ROOT}"),
    "no user": ("root", ("-u", "nonexistent"), "cannot run as nonexistent: no such user"),
    "no group": ("root", ("-u", "nobody:nonexistent"), "cannot run as nobody:nonexistent: no such group"),
    "no entry": ("root", ("-u", "54399"),
                 "cannot run as 54399: no such user, and without an entry it needs a group: USER:GROUP"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_step_that_fails(name: str, family: Family) -> None:
    """Status 125, one line that names the step, on what, and why; nothing runs."""
    who, words, says = FAILURES[name]
    with users.open_directory() as directory:
        done = failing(who, words, directory)

    assert (done.status, done.out, done.err.decode()) == (125, b"", f"daemonize: {says}\n")
    family.nobody()


def test_nothing_in_the_new_root_is_read(family: Family) -> None:
    """Whoever can write there must not decide who the user is, nor have root load his libraries, nor hold it up."""
    with users.open_directory() as directory:
        os.mkdir(f"{directory}/etc")
        for name in ("passwd", "group", "nsswitch.conf"):
            os.mkfifo(f"{directory}/etc/{name}")
        for words in (
            ("--chroot", directory),
            ("--chroot", directory, "-u", "nobody"),
            ("--chroot", directory, "-u", "7:7"),
        ):
            done = failing("root", ("-t", "5s", *words), directory)
            assert (done.status, done.err) == (127, b"daemonize: cannot execute sleep: command not found\n")
    family.nobody()


def test_a_directory_is_entered_as_the_user(family: Family) -> None:
    """A symlink of his leads where he may go himself, and not where root may."""
    with users.open_directory() as directory:
        os.makedirs(f"{directory}/private/open")
        os.chmod(f"{directory}/private", 0o700)
        os.symlink("private/open", f"{directory}/link")
        os.lchown(f"{directory}/link", NOBODY.uid, NOBODY.gid)
        control = cli.run("-r", "exit", "-c", f"{directory}/link", "true")
        done = cli.run("-u", NOBODY.name, "-c", f"{directory}/link", "true")

        assert control.status == 1
        assert (done.status, done.err.decode()) == (
            125, f"daemonize: cannot start true: directory {directory}/link: Permission denied\n",
        )  # fmt: skip
    family.nobody()


def test_a_program_that_is_not_in_the_new_root(family: Family) -> None:
    """The command is looked for inside: 127, as anywhere."""
    with users.open_directory() as directory:
        done = failing("root", ("--chroot", "/usr/share"), directory)

    assert (done.status, done.err) == (127, b"daemonize: cannot execute sleep: command not found\n")
    family.nobody()


@pytest.mark.parametrize("number", ["0", "3"])
def test_a_limit_that_leaves_no_descriptor(number: str, family: Family) -> None:
    """The server gets it (and may make do with it), or the step is named: it is not the server that failed."""
    with users.open_directory() as directory:
        done = failing("root", ("--limit", f"nofile={number}"), directory)
    family.end()

    assert b"exited with status 125" not in done.err


@pytest.mark.parametrize(
    "words", [(), ("--umask", "022"), ("-u", "nobody")], ids=["default", "context", "user"]
)
def test_a_directory_that_cannot_be_entered(words: tuple[str, ...], servers: Family) -> None:
    """Who stays where he is needs no permission to go there, on either path."""
    with users.open_directory() as directory:
        os.mkdir(f"{directory}/closed", 0o700)
        done = failing("nobody", words, directory, f"{directory}/closed")

    assert (done.status, done.err) == (0, b"")


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_another_users_output_to_a_descriptor_of_ours(path: str, family: Family) -> None:
    """-o /dev/stdout, as in a container: it is what the caller has open, and no symlink of a stranger's."""
    done = cli.run("-u", NOBODY.name, "-o", path, "-r", "alive:5s", SHELL, "-c", "echo said; exit 3")

    assert (done.status, done.out) == (3, b"said\n")
    family.nobody()


def test_another_user_can_reopen_its_streams(family: Family) -> None:
    """/dev/stderr is opened by name in many a configuration; a pipe is its owner's alone to open again."""
    done = cli.run("-u", NOBODY.name, SHELL, "-c", "echo said >/dev/stderr")
    control = cli.run(SHELL, "-c", "echo said >/dev/stderr; exit 1")

    assert control.err == b"said\n"
    assert done.err.startswith(b"said\n")


@pytest.mark.parametrize("words", [(), ("--umask", "022")], ids=["default", "context"])
def test_a_user_without_a_number(words: tuple[str, ...], family: Family) -> None:
    """In a user namespace without a mapping nobody can become anybody, himself included; nor need he."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-U", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace here")
    with users.open_directory() as directory:
        done = subprocess.run(
            [unshare, "-U", users.python(), "-m", "daemonize", *words, "-r", "alive:10ms", "sleep", "60"],
            env=cli.environ({**users.environ(), "DAEMONIZE_STATE_DIR": f"{directory}/state"}),
            cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False,
        )  # fmt: skip
    family.end()

    assert done.returncode == 0
