"""Names that are claimed, in directories and files of every kind: nobody else's, never two of one, never followed."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import pytest

import daemonize
from daemonize.daemon_errors import BadRecord, NoSuchDaemon, NotPossible
from daemonize.errors import AlreadyRunning, SetupError, UsageError
from daemonize.posix import holders
from daemonize.posix.fds import Descriptors
from daemonize.registry import changes
from daemonize.registry import entry as entries
from daemonize.registry.changes import StopMark, forget
from daemonize.registry.entry import Entry, lock_path, new_path, open_lock, record_path
from daemonize.registry.names import check_name
from daemonize.registry.private import ensure_private
from daemonize.registry.record import Record, Registry
from tests.support import registered
from tests.support.forked import NOBODY, call, common_directory, holding, need_root, together
from tests.support.registered import HOSTILE, SAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = b'{"written": "by a launch"}\n'
PLACES = {"record": record_path, "lock": lock_path, "new": new_path}


@pytest.fixture
def directory() -> bytes:
    """Where the records are."""
    path = os.fsencode(registered.directory())
    ensure_private(path)
    return path


def claimed(wanted: str | None, owner: Descriptors, base: str = "web") -> Entry:
    """The name of a launch, claimed."""
    entry = Entry(wanted, base.encode(), os.environb)
    entry.claim(owner)
    return entry


def launched(entry: Entry, text: bytes = TEXT) -> None:
    """As a launch that goes well."""
    entry.prepare(text)
    entry.write(text)


def listed(directory: bytes) -> list[str]:
    """What lies there, locks left out: those stay."""
    return sorted(os.fsdecode(name) for name in os.listdir(directory) if not name.endswith(b".lock"))


# --- one at a time ---------------------------------------------------------------------------------------------------


def test_a_given_name_is_claimed_once(owner: Descriptors) -> None:
    """The second launch is told who starts it; when the first is over without a daemon, it may."""
    first = Descriptors()
    claimed("web", first)
    with pytest.raises(AlreadyRunning, match=rf"another launch of web is under way: .*\(pid {os.getpid()}\)"):
        claimed("web", owner)
    first.close()

    assert claimed("web", owner).problem is None


def test_a_name_that_is_made_is_numbered(owner: Descriptors) -> None:
    """While the first launch is under way, the next is web-2, then web-3; another command is not held up."""
    names = [claimed(None, owner).name for _ in range(3)]

    assert names == ["web", "web-2", "web-3"]
    assert claimed(None, owner, "other").name == "other"


def test_who_runs_has_his_name(owner: Descriptors, directory: bytes) -> None:
    """By the record, without a lock; a dead one, one of another boot and one whose pid is another's now have not."""
    mine = registered.of_process(os.getpid())
    registered.forge("web", **mine)
    with contextlib.closing(Descriptors()) as other, pytest.raises(AlreadyRunning) as caught:
        claimed("web", other)
    assert (caught.value.pid, caught.value.proven) == (os.getpid(), True)
    assert claimed(None, owner).name == "web-2"

    for change in ({"pid": 4194303}, {"start": 1}, {"boot_id": "another"}, {"pid": None}):
        registered.forge("web", **{**mine, **change})
        with contextlib.closing(Descriptors()) as other:
            assert claimed("web", other).problem is None


def test_a_given_name_is_kept_from_made_ones(owner: Descriptors, directory: bytes) -> None:
    """A daemon that has ended, and had been given its name, is not written over by a command that is called the same."""
    registered.forge("web", explicit=True)
    assert claimed(None, owner).name == "web-2"
    registered.forge("web", explicit=False)
    assert claimed(None, owner).name == "web"


def test_a_number_is_new_though_the_first_was_used_before(owner: Descriptors, directory: bytes) -> None:
    """The first is stale, and to be written anew, but its log is taken: the second has a record of its own."""
    before = registered.forge("web", explicit=False)
    entry = claimed(None, owner)
    assert entry.next()
    launched(entry)

    assert entry.problem is None
    assert listed(directory) == ["web-2.json", "web.json"]
    assert os.path.getsize(before) > len(TEXT)


def test_a_search_ends(owner: Descriptors, directory: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all numbers are taken, there is no record, and a word why."""
    monkeypatch.setattr(entries, "_MOST_NUMBERS", 3)
    for name in ("web", "web-2", "web-3"):
        registered.forge(name, explicit=True)

    assert "a free number for web" in str(claimed(None, owner).problem)


def test_many_at_once(directory: bytes) -> None:
    """Fifty processes at one moment: one has the given name, and fifty have fifty names of the made ones."""
    found = together(50, lambda: claimed("web", Descriptors()).name)
    assert found.count("web") == 1
    assert sum(isinstance(answer, AlreadyRunning) and answer.launching for answer in found) == 49

    found = together(50, lambda: claimed(None, Descriptors(), "sleep").name)
    assert {*found} == {"sleep", *(f"sleep-{number}" for number in range(2, 51))}


# --- who only looks --------------------------------------------------------------------------------------------------


def look_for_ever(directory: bytes) -> None:
    """As many a daemonctl does: ask whether it is being started."""
    pid = os.fork()
    if pid == 0:
        registry = Registry()
        while os.getppid() != 1:
            registry.launcher("web")
    _LOOKERS.append(pid)


_LOOKERS: list[int] = []


@pytest.fixture
def lookers(directory: bytes) -> Iterator[None]:
    """Two processes that look all the time whether `web` is being started."""
    os.close(open_lock(directory, "web") or 0)
    for _ in range(2):
        look_for_ever(directory)
    yield
    while _LOOKERS:
        pid = _LOOKERS.pop()
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_a_look_is_no_claim(lookers: None, directory: bytes) -> None:
    """Whoever asks whether a name is taken has its lock for a moment: a launch does not take him for another launch."""
    for _ in range(300):
        with contextlib.closing(Descriptors()) as owner:
            assert claimed("web", owner).problem is None


def test_a_stop_is_put_down_though_others_look(lookers: None, directory: bytes) -> None:
    """It says `stopped`, not `dead`."""
    for _ in range(100):
        registered.forge("web")
        StopMark(Registry().read("web")).put_down()
        assert Registry().read("web").stopped is not None


def test_a_stop_is_put_down_though_one_starts_it(
    owner: Descriptors, directory: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch that finds the name taken has the lock until it has said so: that makes no `dead` of `stopped`."""
    registered.forge("web")
    claimed("web", owner)
    monkeypatch.setattr(changes, "sleep", lambda _seconds: owner.close())

    StopMark(Registry().read("web")).put_down()

    assert Registry().read("web").stopped is not None


def test_who_is_done_while_he_is_looked_for(owner: Descriptors, monkeypatch: pytest.MonkeyPatch) -> None:
    """`daemonctl stop` has the lock while it puts the end down: it is not taken for a launch that is under way."""
    other = Descriptors()
    claimed("web", other)
    find = holders.holder_of

    def found(fd: int) -> holders.Holder:
        holder = find(fd)
        other.close()
        return holder

    monkeypatch.setattr(holders, "holder_of", found)
    assert claimed("web", owner).descriptors


# --- records that are written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["web", None], ids=["given", "made"])
def test_a_record_is_written(wanted: str | None, owner: Descriptors, directory: bytes) -> None:
    """In its place at once, and nothing else; the name is free for whoever looks at the record; then again, as with -f."""
    entry = claimed(wanted, owner)
    launched(entry)
    assert listed(directory) == ["web.json"]
    assert not entry.descriptors
    assert not owner.all

    entry.write(b"{}\n")
    assert listed(directory) == ["web.json"]
    with open(record_path(directory, "web"), "rb") as file:
        assert file.read() == b"{}\n"
    assert not owner.all


@pytest.mark.parametrize("wanted", ["web", None], ids=["given", "made"])
@pytest.mark.parametrize("old", [None, "web"])
def test_a_failed_launch_leaves_what_was_there(
    wanted: str | None, old: str | None, owner: Descriptors, directory: bytes
) -> None:
    """Byte for byte, the very file; and nothing of its own."""
    if old:
        registered.forge(old, explicit=wanted is not None)
    before = {
        name: (os.stat(os.path.join(directory, os.fsencode(name))).st_ino) for name in listed(directory)
    }
    text = open_and_read(directory)
    entry = claimed(wanted, owner)
    entry.prepare(TEXT)
    entry.abandon()

    assert {
        name: os.stat(os.path.join(directory, os.fsencode(name))).st_ino for name in listed(directory)
    } == before
    assert open_and_read(directory) == text


def open_and_read(directory: bytes) -> bytes | None:
    """The record of `web`; None if there is none."""
    try:
        with open(record_path(directory, "web"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277, 0o777], ids=oct)
def test_modes(umask: int) -> None:
    """0600 in 0700, whatever the umask, also for a user whom modes keep out; and the next launch can use them."""
    need_root()
    with common_directory(0o777) as base:
        os.environ["DAEMONIZE_RUNTIME_DIR"] = os.fsdecode(base + b"/run")

        def launch() -> str:
            os.umask(umask)
            owner = Descriptors()
            for _ in range(2):
                entry = claimed("web", owner)
                launched(entry, registered.content.write({**SAMPLE, "stopped": None}))
                assert entry.problem is None
            return Registry().read("web").name

        assert call(launch, NOBODY) == "web"
        modes = {
            name: stat.S_IMODE(os.lstat(os.path.join(base, b"run", name)).st_mode)
            for name in os.listdir(base + b"/run")
        }
        assert modes == {b"web.json": 0o600, b".web.lock": 0o600}
        assert stat.S_IMODE(os.stat(base + b"/run").st_mode) == 0o700


def test_directories_on_the_way(tmp_path: os.PathLike[str]) -> None:
    """Those that have to be made are nobody else's to write to: he could put a directory of his in the place of ours."""
    deep = os.path.join(os.fsencode(tmp_path), b"a/b/c/run")
    before = os.umask(0)
    try:
        ensure_private(deep)
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE(os.stat(os.path.join(os.fsencode(tmp_path), part)).st_mode)
        for part in (b"a", b"a/b", b"a/b/c")
    ]

    assert modes == [0o755] * 3


# --- what may lie there instead --------------------------------------------------------------------------------------


def put_in_the_way(directory: bytes, place: str, kind: str) -> str:
    """Something hostile at the path of a record, a lock or what is to become a record; its path."""
    if kind in {"device", "another user's"}:
        need_root()
    path = os.fsdecode(PLACES[place](directory, "web"))
    registered.clear(path)
    HOSTILE[kind](path)
    return path


def seen(path: str) -> tuple[object, ...]:
    """What lies there, and where it leads."""
    status = os.lstat(path)
    target = os.readlink(path) if os.path.islink(path) else ""
    content = b""
    if target and os.path.exists(path):
        with open(path, "rb") as file:
            content = file.read()
    return status.st_ino, status.st_mode, status.st_uid, status.st_size, target, content


@pytest.mark.parametrize("place", ["record", "lock"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_in_the_place_of_a_record_or_a_lock(
    kind: str, place: str, owner: Descriptors, directory: bytes
) -> None:
    """It is not touched, not followed, not waited for. A given name is refused, in one line; a made one is another."""
    path = put_in_the_way(directory, place, kind)
    before = seen(path)
    with pytest.raises(SetupError) as caught, contextlib.closing(Descriptors()) as other:
        claimed("web", other)
    line = str(caught.value)
    assert line.startswith(f"cannot use {path}: ")
    assert "see 'daemonctl forget web'" in line
    assert line.isprintable()
    entry = claimed(None, owner)
    launched(entry)

    assert (entry.name, entry.problem) == ("web-2", None)
    assert seen(path) == before
    assert Registry().launcher("web") is None


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("wanted", ["web", None], ids=["given", "made"])
def test_in_the_place_of_what_becomes_a_record(
    kind: str, wanted: str | None, owner: Descriptors, directory: bytes
) -> None:
    """Whatever it is, it is only a name: it goes, and nothing that it leads to is touched."""
    path = put_in_the_way(directory, "new", kind)
    launched(claimed(wanted, owner))

    assert open_and_read(directory) == TEXT
    assert not os.path.lexists(path)
    if kind == "symlink":
        with open(f"{path}.target", "rb") as file:
            assert file.read() == b"precious"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", HOSTILE)
def test_forget_cures(kind: str, place: str, owner: Descriptors, directory: bytes) -> None:
    """Whatever it is, and whatever it leads to stays; afterwards the name can be had."""
    path = put_in_the_way(directory, place, kind)
    forget("web")

    assert not os.path.lexists(path)
    assert not os.path.exists(f"{path}.target") or os.path.getsize(f"{path}.target") == len(b"precious")
    assert claimed("web", owner).problem is None


@pytest.mark.parametrize("place", PLACES)
def test_a_directory_with_something_in_it(place: str, owner: Descriptors, directory: bytes) -> None:
    """Nobody removes that unasked: it is said what is in the way."""
    path = put_in_the_way(directory, place, "directory")
    os.mkdir(f"{path}/precious")
    with pytest.raises(SetupError, match="Directory not empty") as caught:
        forget("web")

    assert path in str(caught.value)
    assert os.path.isdir(f"{path}/precious")
    assert claimed(None, owner).problem is None or place == "new"


def test_a_hard_link(owner: Descriptors, directory: bytes) -> None:
    """Whoever else has a name for the record finds in it what was there before."""
    registered.forge("web")
    other = os.fsdecode(directory) + "-other"
    os.link(record_path(directory, "web"), other)
    before = open_and_read(directory)
    launched(claimed("web", owner))

    assert open_and_read(directory) == TEXT
    with open(other, "rb") as file:
        assert file.read() == before


def test_records_that_are_too_large(owner: Descriptors, directory: bytes) -> None:
    """A terabyte of nothing is not read to its end."""
    os.truncate(registered.put("web", b""), 1 << 40)
    with pytest.raises(SetupError, match="too large"):
        claimed("web", owner)
    with pytest.raises(BadRecord, match="too large"):
        Registry().read("web")


# --- names that are asked for ----------------------------------------------------------------------------------------

ODD = [
    "",
    "/",
    "a/b",
    "../web",
    "a\0b",
    "\ud800",
    "x" * 300,
    "漢" * 90,
    "\udcff",
    ".",
    "..",
    "*",
    "we b",
    "-web",
]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_name_that_nobody_can_have(name: str, directory: bytes) -> None:
    """Whoever asks for it is told that there is none: not an error of ours, and nothing outside is looked at."""
    with open(os.path.join(os.path.dirname(directory), b"web.json"), "wb") as file:
        file.write(TEXT)
    registry = Registry()

    assert not registry.has(name)
    assert registry.launcher(name) is None
    with pytest.raises(NoSuchDaemon) as caught:
        registry.read(name)
    assert str(caught.value).isprintable()
    with pytest.raises(NoSuchDaemon):
        forget(name)


@pytest.mark.parametrize("name", [*ODD, "a\nb", "a\x1b[m", "x" * 101, 5, b"web", ["web"]], ids=ascii)
def test_a_name_that_cannot_be_given(name: object) -> None:
    """A usage error in one line, from Python too; what can be in a file name may be given."""
    if name == "*":
        assert check_name("*") == "*"
        return
    with pytest.raises(UsageError) as caught:
        daemonize.launch(["true"], name=name)  # type: ignore[arg-type]
    assert str(caught.value).isprintable()


def test_a_record_of_another_name(directory: bytes) -> None:
    """A copy of a record is nobody's: who stops `copy` must not stop `web`."""
    registered.forge("web")
    os.link(record_path(directory, "web"), record_path(directory, "copy"))

    with pytest.raises(BadRecord, match="it is the record of web"):
        Registry().read("copy")
    assert [daemon.name for daemon in daemonize.daemons()] == ["web"]


# --- forget ----------------------------------------------------------------------------------------------------------


def test_forget_leaves_nothing(owner: Descriptors, directory: bytes) -> None:
    """Record, lock, and what a killed launch left; a second time there is no such daemon."""
    registered.forge("web")
    os.close(open_lock(directory, "web") or 0)
    with open(new_path(directory, "web"), "wb"):
        pass
    forget("web")

    assert os.listdir(directory) == []
    with pytest.raises(NoSuchDaemon):
        forget("web")


def test_forget_refuses(owner: Descriptors, directory: bytes) -> None:
    """What runs, and what is being started, by whomever; the control: what has ended goes."""
    registered.forge("web", **registered.of_process(os.getpid()))
    with pytest.raises(NotPossible, match="is running"):
        forget("web")
    registered.forge("web")
    entry = claimed("web", owner)
    with pytest.raises(NotPossible, match="is being started"):
        forget("web")
    entry.abandon()
    owner.close()
    forget("web")


def test_a_launch_that_waits_while_the_name_is_forgotten(directory: bytes) -> None:
    """The lock that it got is not that of the name any more: it takes the new one, so that there are never two."""
    found = together(20, lambda: _forget_and_claim(directory))

    assert found.count(0) + found.count(1) == 20, found
    assert found.count(1) <= 1  # none, where each met another who was just forgetting


def _forget_and_claim(directory: bytes) -> int:
    for _ in range(30):
        with contextlib.suppress(NoSuchDaemon, NotPossible):
            os.rename(registered.put(f"x{os.getpid()}", b""), registered.path("web"))
            forget("web")
    while True:
        try:
            claimed("web", Descriptors())
        except AlreadyRunning:
            return 0
        except SetupError:
            with contextlib.suppress(NoSuchDaemon, NotPossible):
                forget("web")
        else:
            return 1


# --- stops that are put down -----------------------------------------------------------------------------------------


def test_a_stop_is_put_down(directory: bytes) -> None:
    """Nothing else of the record changes; nothing is left beside it."""
    registered.forge("web")
    before = Registry().read("web")
    mark = StopMark(before)
    mark.put_down()
    after = Registry().read("web")

    assert after.stopped is not None
    assert {**after.fields, "stopped": None} == before.fields
    assert listed(directory) == ["web.json"]
    StopMark(after).take_back()  # who comes second changes nothing
    assert Registry().read("web").stopped == after.stopped
    mark.take_back()
    assert Registry().read("web").fields == before.fields


def test_a_stop_of_another(directory: bytes) -> None:
    """A daemon that has been started under that name meanwhile was not stopped; neither is one whose record is gone."""
    registered.forge("web", token="DAEMONIZE_ID=0000000000000001")
    StopMark(Record({**SAMPLE})).put_down()
    assert Registry().read("web").stopped is None
    forget("web")
    StopMark(Record({**SAMPLE})).put_down()
    assert listed(directory) == []


def test_a_stop_while_it_is_started_again(owner: Descriptors, directory: bytes) -> None:
    """It is the launch's record now."""
    registered.forge("web")
    claimed("web", owner)
    StopMark(Record({**SAMPLE})).put_down()

    assert Registry().read("web").stopped is None


def test_a_stop_where_there_is_no_registry() -> None:
    """It never raises."""
    for directory in ("/nonexistent", "/dev/null", "/tmp"):
        os.environ["DAEMONIZE_RUNTIME_DIR"] = directory
        StopMark(Record({**SAMPLE})).put_down()


# --- two users -------------------------------------------------------------------------------------------------------


def test_a_lock_of_another_user_says_whose(owner: Descriptors) -> None:
    """Never met in a private directory, but told apart: who looks may not look into the process that has the name."""
    need_root()

    def claim() -> str:
        return claimed("web", Descriptors()).name

    with common_directory(0o777) as base:
        os.environ["DAEMONIZE_RUNTIME_DIR"] = os.fsdecode(base + b"/run")
        with holding(claim, NOBODY) as (_, name):
            assert name == "web"
            with pytest.raises(
                SetupError, match="it must be a directory of this user's that nobody else can write to"
            ):
                claimed("web", owner)
            assert "it must be a directory" in str(claimed(None, owner).problem)
