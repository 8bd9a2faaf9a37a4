"""Real servers as service users, as an init script would start them: pid file, lock, logs; stopped by the pid file.

Each with the spec that says when it serves, also as another user: its client asks once. (tests/support/known_servers.py has
more of them, in all their ways.)
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support import cli, ports, procs
from tests.support.programs import SHELL
from tests.support.servers import ROOT, need, prepare_nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.family import Family

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not ROOT, reason="only root can run a server as another user"),
]

#: Supplementary groups of the caller, which no server that runs as somebody else may keep.
CALLERS_GROUPS = [grp.getgrnam("adm").gr_gid, grp.getgrnam("disk").gr_gid]


class Place:
    """A directory for one service. `run` and `log` are root's, where others can only look; `data` is the service's own."""

    def __init__(self, path: str) -> None:
        self.run, self.log, self.data = (os.path.join(path, name) for name in ("run", "log", "data"))
        self.pid_file, self.lock_file = os.path.join(self.run, "pid"), os.path.join(self.run, "lock")
        self.log_file, self.state = os.path.join(self.log, "log"), os.path.join(path, "state")
        self.port = ports.free_port()
        for directory in (path, self.run, self.log, self.data):
            os.makedirs(directory, exist_ok=True)
            os.chmod(directory, 0o755)  # whatever the umask

    def give(self, user: str) -> None:
        """The data directory belongs to the user of the service, and only he gets in."""
        shutil.chown(self.data, user, pwd.getpwnam(user).pw_gid)
        os.chmod(self.data, 0o700)

    @property
    def pid(self) -> int:
        """What `kill $(cat ...)` would signal."""
        return int(read(self.pid_file))

    @property
    def words(self) -> str:
        """What is in the log."""
        return read(self.log_file)


@pytest.fixture
def place(family: Family) -> Iterator[Place]:
    """Not tmp_path: no other user can enter that."""
    with tempfile.TemporaryDirectory(prefix="daemonize-service-") as path:
        try:
            yield Place(path)
        finally:
            family.end()


# --- the services ----------------------------------------------------------------------------------------------------


class Service(NamedTuple):
    """One way to start one server.

    user: what `-u` is given; none: root starts it. runs_as: USER[:GROUP] of the main process. options: of daemonize, besides
    its files. prepare: write its data; the arguments of the server. program: what the main process executes. words: what its
    log says when it serves. ask: the pid of its main process, as a real client hears it; an AssertionError or OSError where
    nobody answers.
    """

    name: str
    user: str
    runs_as: str
    options: tuple[str, ...]
    prepare: Callable[[Place], list[str]]
    program: str
    words: str
    ask: Callable[[Place], int]


def prepare_memcached(*options: str) -> Callable[[Place], list[str]]:
    """In the foreground, telling what it does, unless the options say otherwise."""

    def prepare(place: Place) -> list[str]:
        return [need("memcached"), "-l", ports.HOST, "-p", str(place.port), "-U", "0", "-vv", *options]

    return prepare


def ask_memcached(place: Place) -> int:
    """Its statistics, in its text protocol."""
    lines = ports.ask(place.port, b"stats\r\nquit\r\n").splitlines()
    return next(int(line.split()[2]) for line in lines if line.startswith(b"STAT pid "))


def prepare_redis(*options: str) -> Callable[[Place], list[str]]:
    """In the foreground unless the options say otherwise. LOG in an option is the log file."""

    def prepare(place: Place) -> list[str]:
        place.give("redis")
        fixed = ("--bind", ports.HOST, "--port", str(place.port), "--save", "", "--supervised", "no")
        changed = (option.replace("LOG", place.log_file) for option in options)
        return [need("redis-server"), *fixed, *changed]

    return prepare


def redis_cli(place: Place, *words: str) -> str:
    """The answer of redis to one command."""
    return client(need("redis-cli"), "-h", ports.HOST, "-p", str(place.port), *words)


def ask_redis(place: Place) -> int:
    """Its information, through redis-cli."""
    lines = redis_cli(place, "INFO", "server").splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("process_id:"))


def prepare_database(place: Place) -> list[str]:
    """Options of a server on a new database, made by postgres: initdb refuses root, too."""
    place.give("postgres")
    initdb = [need("initdb"), "-D", "database", "-A", "trust", "--no-sync", "--no-instructions"]
    made = cli.run("-f", "-u", "postgres", "-c", place.data, *initdb)
    assert made.status == 0, made
    options = ("-h", ports.HOST, "-p", str(place.port), "-k", place.data, "-c", "fsync=off")
    return ["-D", "database", *options]


def prepare_postgres(place: Place) -> list[str]:
    """In the foreground."""
    return [need("postgres"), *prepare_database(place)]


def prepare_pg_ctl(place: Place) -> list[str]:
    """It exits when the server that it has started accepts connections. The server opens the log by itself."""
    postgres = " ".join(prepare_database(place)[2:])
    return [need("pg_ctl"), "start", "-w", "-D", "database", "-l", place.log_file, "-o", postgres]


def ask_postgres(place: Place) -> int:
    """What it has written down of itself, through psql."""
    query = r"SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)"
    where = ("-h", ports.HOST, "-p", str(place.port), "-U", "postgres")
    return int(client(need("psql"), *where, "--no-psqlrc", "-Atc", query))


def nginx(
    user: str = "", error_log: str = "stderr", pid_file: str = "nginx.pid"
) -> Callable[[Place], list[str]]:
    """It puts itself in the background. user: of its workers, if root starts it. LOG and PID are paths of ours."""

    def prepare(place: Place) -> list[str]:
        place.give("www-data")
        paths = (
            word.replace("LOG", place.log_file).replace("PID", place.pid_file)
            for word in (error_log, pid_file)
        )
        command = prepare_nginx(place.data, "", place.port, next(paths), user, next(paths))
        os.chmod(command[-1], 0o644)  # whatever the umask
        return command

    return prepare


def ask_nginx(place: Place) -> int:
    """It is a worker that answers, with its own pid; the main process is its parent."""
    worker = procs.stat(int(ports.get(place.port, "/pid").split()[-1]))
    assert worker
    return worker.ppid


def client(*argv: str) -> str:
    """What a client prints; an AssertionError with its words where it fails."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done
    return done.stdout


PORT, NOTIFY, EXIT = ("-r", "port"), ("-r", "notify"), ("-r", "exit")
MEMCACHED, REDIS, POSTGRES, NGINX = (
    ("memcached", "server listening", ask_memcached),
    ("redis-server", "Ready to accept connections", ask_redis),
    ("postgres", "database system is ready to accept connections", ask_postgres),
    ("nginx", "start worker process", ask_nginx),
)

SERVICES = [
    Service("memcached", "memcache", "memcache", PORT, prepare_memcached(), *MEMCACHED),
    Service("memcached-by-itself", "", "memcache", PORT, prepare_memcached("-u", "memcache"), *MEMCACHED),
    Service("memcached-d", "memcache:daemon", "memcache:daemon", (*EXIT, *PORT), prepare_memcached("-d"), *MEMCACHED),
    Service("redis", "redis", "redis", PORT, prepare_redis(), *REDIS),
    Service(
        "redis-daemonize", "redis", "redis", (*EXIT, *PORT),
        prepare_redis("--daemonize", "yes", "--pidfile", "redis.pid", "--logfile", "LOG"), *REDIS,
    ),
    Service("postgres", "postgres", "postgres", NOTIFY, prepare_postgres, *POSTGRES),
    Service("pg_ctl", "postgres", "postgres", EXIT, prepare_pg_ctl, *POSTGRES),
    Service("nginx", "", "root", EXIT, nginx("www-data"), *NGINX),
    Service("nginx-www-data", "www-data", "www-data", ("-r", "streams"), nginx("", "LOG"), *NGINX),
]  # fmt: skip
EVERY = pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)


def start(service: Service, place: Place, command: list[str], *options: str) -> cli.Result:
    """As an init script would start it, by a caller with supplementary groups."""
    user = ("-u", service.user) if service.user else ()
    files = ("-p", place.pid_file, "-o", place.log_file, "-e", place.log_file, "-a", "-c", place.data)
    return launch(place, *user, *files, *options, *service.options, *command)


def launch(place: Place, *args: str) -> cli.Result:
    """Run `daemonize` with its own logs in a state directory that other users can reach."""
    return cli.run(*args, extra_groups=CALLERS_GROUPS, env={"DAEMONIZE_STATE_DIR": place.state})


def stop(place: Place) -> None:
    """`kill $(cat PIDFILE)`, as a script has it; returns when nothing of the service runs any more."""
    main = procs.stat(place.pid)
    assert main, "it has ended before"
    everyone = [main, *procs.tree(main.pid)]
    client(SHELL, "-c", 'kill "$(cat "$0")"', place.pid_file)
    for process in everyone:
        assert procs.wait_ended(process.pid, start=process.start), f"{process} still runs"


@contextlib.contextmanager
def running(service: Service, place: Place, command: list[str], *options: str) -> Iterator[int]:
    """The service, from its start to its stop; the pid that its client was told."""
    started = start(service, place, command, "-l", place.lock_file, *options)
    assert started.status == 0, started
    try:
        yield service.ask(place)
    finally:
        stop(place)


def is_locked(path: str) -> bool:
    """Whether somebody has the lock."""
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def ids(user: str) -> dict[str, list[int]]:
    """The ids of a process of USER[:GROUP], as /proc/PID/status has them: real, effective, saved, of files; groups."""
    name, _, group = user.partition(":")
    entry = pwd.getpwnam(name)
    gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    groups = sorted(os.getgrouplist(name, gid)) if name != "root" else CALLERS_GROUPS
    return {"Uid": [entry.pw_uid] * 4, "Gid": [gid] * 4, "Groups": groups}


def ids_of(pid: int) -> dict[str, list[int]]:
    """The ids that a process has."""
    status = procs.status(pid)
    return {key: [int(number) for number in status[key].split()] for key in ("Uid", "Gid", "Groups")}


def access(path: str) -> tuple[str, str, int]:
    """User, group and mode of a file."""
    info = os.stat(path)
    return pwd.getpwuid(info.st_uid).pw_name, grp.getgrgid(info.st_gid).gr_name, stat.S_IMODE(info.st_mode)


def read(path: str) -> str:
    """The content of a file."""
    with open(path) as file:
        return file.read()


def said(words: str, place: Place) -> str:
    """The log, once these words are in it: a server may write them after it has answered."""
    text = place.words
    assert words in text
    return text


@EVERY
def test_the_pid_file_names_the_main_process(service: Service, place: Place) -> None:
    """Exactly its pid: the process that answers, of the right program, user and groups; the file is root's, for all to read.

    root's own groups stay with nobody but a server that root runs: that is the negative control. What changes its user by
    itself (memcached -u) keeps none at all.
    """
    command = service.prepare(place)
    with running(service, place, command) as pid:
        text = read(place.pid_file)
        program, identity = os.path.realpath(f"/proc/{pid}/exe"), ids_of(pid)
        owner = access(place.pid_file)

    assert text == f"{pid}\n"
    assert program == os.path.realpath(need(service.program))
    wanted = ids(service.runs_as)
    if not service.user and service.runs_as != "root":
        wanted["Groups"] = []
    assert identity == wanted
    assert owner == ("root", "root", 0o644)


@EVERY
def test_the_log_holds_its_words_and_belongs_to_its_user(service: Service, place: Place) -> None:
    """The log lies in a directory of root's: it is made for the user, who can open it again (redis, nginx and pg_ctl do)."""
    with running(service, place, service.prepare(place)):
        words = procs.eventually(lambda: said(service.words, place))
        owner = access(place.log_file)

    entry = ids(service.user or "root")
    assert service.words in words
    assert owner[:2] == (pwd.getpwuid(entry["Uid"][0]).pw_name, grp.getgrgid(entry["Gid"][0]).gr_name)


@EVERY
def test_a_second_start_is_refused_and_the_first_serves_on(service: Service, place: Place) -> None:
    """75, by the lock and by the pid file alone; either names the server. Nothing is touched."""
    command = service.prepare(place)
    with running(service, place, command) as pid:
        before = os.stat(place.pid_file)
        by_lock = start(service, place, command, "-l", place.lock_file)
        by_pid_file = start(service, place, command)
        after, still = os.stat(place.pid_file), service.ask(place)

    says = f"daemonize: already running: {service.program} (pid {pid})"
    assert (by_lock.status, by_pid_file.status) == (75, 75)
    assert by_lock.err.decode() == f"{says} holds the lock file {place.lock_file}\n"
    assert by_pid_file.err.decode() == f"{says}, says the pid file {place.pid_file}\n"
    assert still == pid
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@EVERY
def test_stopped_by_the_pid_file_it_can_be_started_again(
    service: Service, place: Place, family: Family
) -> None:
    """Nothing of it is left but the stale pid file, which is in nobody's way; the lock is free."""
    command = service.prepare(place)
    with running(service, place, command) as first:
        locked = is_locked(place.lock_file)
    family.nobody()
    free, stale = not is_locked(place.lock_file), place.pid
    with running(service, place, command) as second:
        pid = place.pid

    assert locked
    assert free
    assert stale == first
    assert pid == second
    assert second != first


def test_postgres_refuses_root(place: Place) -> None:
    """Its own words and status are the caller's, and no pid file is left."""
    command = prepare_postgres(place)
    result = launch(place, "-p", place.pid_file, "-l", place.lock_file, "-c", place.data, *command)

    assert result.status == 1
    assert b'"root" execution of the PostgreSQL server is not permitted.' in result.err
    assert b"daemonize: " not in result.err
    assert not os.path.exists(place.pid_file)
    assert not is_locked(place.lock_file)


# --- nginx and its own pid file --------------------------------------------------------------------------------------

SAME = Service("nginx", "", "root", EXIT, nginx("www-data", pid_file="PID"), *NGINX)
SAME_WWW_DATA = SAME._replace(user="www-data", runs_as="www-data", prepare=nginx(pid_file="PID"))


@pytest.mark.parametrize("service", [SAME, SAME_WWW_DATA], ids=["root", "www-data"])
def test_nginx_may_write_the_same_pid_file(service: Service, place: Place) -> None:
    """Ours is there in the end, whole and root's. nginx removes it when it ends, which is in nobody's way either."""
    if service.user:
        place.pid_file = os.path.join(place.data, "pid")
    command = service.prepare(place)
    pids = []
    for _ in range(2):
        with running(service, place, command) as pid:
            pids.append((pid, place.pid, access(place.pid_file)))
            again = start(service, place, command)
        assert again.status == 75
        assert not os.path.exists(place.pid_file)

    assert [(written, owner) for _, written, owner in pids] == [
        (pid, ("root", "root", 0o644)) for pid, _, _ in pids
    ]


def test_nginx_ends_where_only_root_can_write_its_pid_file(place: Place, family: Family) -> None:
    """Its first process has exited 0 by then: its status and words are the caller's all the same, and nothing is left."""
    result = start(SAME_WWW_DATA, place, SAME_WWW_DATA.prepare(place))

    assert result.status == 1
    assert f'open() "{place.pid_file}" failed (13: Permission denied)' in result.out.decode()
    assert os.listdir(place.run) == []
    family.nobody()


# --- logs ------------------------------------------------------------------------------------------------------------

REOPENS = 'exec >>"$0" 2>&1; echo reopened; exec sleep 1000'
CONTINUES = """
echo starting
exec >>"$DAEMONIZE_STDOUT"
echo serving
echo worried >>"$DAEMONIZE_STDERR"
exec 2>>"$DAEMONIZE_STDERR"
exec sleep 1000
"""


def test_a_log_in_a_directory_of_roots_can_be_reopened(place: Place) -> None:
    """By the user that it was made for, though that user can make no file there."""
    server = (SHELL, "-c", REOPENS, place.log_file)
    words = ("-u", "www-data", "-p", place.pid_file, "-e", place.log_file, "-r", "log:^reopened$")
    result = launch(place, *words, *server)
    assert result.status == 0, result
    stop(place)

    assert access(place.log_file)[:2] == ("www-data", "www-data")


def test_a_log_that_was_there_is_not_given_away(place: Place) -> None:
    """Negative control: root's own file stays root's; the server writes to it, and cannot open it again."""
    with open(place.log_file, "w"):
        os.chmod(place.log_file, 0o600)
    server = (SHELL, "-c", REOPENS, place.log_file)
    result = launch(place, "-u", "www-data", "-e", place.log_file, "-r", "alive:10s", *server)

    assert result.status == 2
    assert "Permission denied" in place.words
    assert access(place.log_file) == ("root", "root", 0o600)


@pytest.mark.parametrize("given", [True, False], ids=["given", "own"])
def test_a_server_continues_in_the_files_that_it_is_told(given: bool, place: Place) -> None:
    """A shell of www-data's finds DAEMONIZE_STDOUT and DAEMONIZE_STDERR ready for it, where it could make neither."""
    own = (f"{place.state}-www-data/sh.out", f"{place.state}-www-data/sh.err")
    out, err = (f"{place.log}/out", f"{place.log}/err") if given else own
    options = ("-o", out, "-e", err) if given else ()
    server = (SHELL, "-c", CONTINUES)
    result = launch(place, "-u", "www-data", "-p", place.pid_file, "-r", "streams", *options, *server)
    assert result.status == 0, result
    stop(place)

    assert (result.out, result.err) == (b"starting\n", b"")
    assert (read(out), read(err)) == ("serving\n", "worried\n")
    assert access(out)[:2] == access(err)[:2] == ("www-data", "www-data")


def test_logs_of_its_own_are_its_users(place: Place) -> None:
    """Without -o and -e redis writes to a directory of root's beside root's own, which only its group can pass through."""
    server = prepare_redis()(place)
    result = launch(place, "-u", "redis", "-p", place.pid_file, "-c", place.data, *PORT, *server)
    assert result.status == 0, result
    directory = f"{place.state}-redis"
    log = f"{directory}/redis-server.out"
    try:
        pid = ask_redis(place)
        streams = [procs.descriptors(pid)[number] for number in (1, 2)]
    finally:
        stop(place)

    assert streams == [log, f"{directory}/redis-server.err"]
    assert "Ready to accept connections" in read(log)
    assert access(directory) == ("root", "root", 0o711)
    assert access(log) == ("redis", "redis", 0o600)
    assert [opened(log, user) for user in ("redis", "nobody")] == [True, False]


def opened(path: str, user: str) -> bool:
    """Whether a user can open a file for writing."""
    test = [SHELL, "-c", 'exec 2>/dev/null; : >>"$0"', path]
    return (
        subprocess.run(
            test, user=user, group=pwd.getpwnam(user).pw_gid, extra_groups=[], check=False
        ).returncode
        == 0
    )


# --- limits ----------------------------------------------------------------------------------------------------------


def test_limits_reach_the_server(place: Place) -> None:
    """As the kernel has them, and as redis finds them: fewer clients, and a dump that only its group can read.

    The control is what redis makes of itself without them.
    """
    options = ("--limit", "nofile=512:512", "--no-core", "--umask", "027", "--nice", "5")
    limited = observed(f"{place.log}/limited", *options)
    free = observed(f"{place.log}/free")

    assert limited == {
        "files": ["512", "512"],
        "core": ["0", "0"],
        "nice": min(os.nice(0) + 5, 19),
        "clients": 480,
        "dump": 0o640,
    }
    assert all(limited[key] != free[key] for key in ("files", "nice", "clients", "dump"))


def observed(path: str, *options: str) -> dict[str, object]:
    """What a redis in this directory is limited to, and what it makes of that."""
    place = Place(path)
    redis = next(service for service in SERVICES if service.name == "redis")
    with running(redis, place, redis.prepare(place), *options) as pid:
        redis_cli(place, "SAVE")
        limits = os.fsdecode(procs.read(f"/proc/{pid}/limits")).splitlines()
        return {
            "files": limit(limits, "Max open files"),
            "core": limit(limits, "Max core file size"),
            "nice": os.getpriority(os.PRIO_PROCESS, pid),
            "clients": int(redis_cli(place, "CONFIG", "GET", "maxclients").split()[-1]),
            "dump": access(os.path.join(place.data, "dump.rdb"))[2],
        }


def limit(lines: list[str], name: str) -> list[str]:
    """Soft and hard."""
    return next(line[len(name) :].split()[:2] for line in lines if line.startswith(name))
