"""Functions in forked children, as other users: the kernel's own answers to who may do what."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import shutil
import tempfile
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Two ordinary users.
DAEMON, NOBODY = 1, 65534
_PR_SET_DUMPABLE = 4
T = TypeVar("T")


def need_root() -> None:
    """Skip where this process cannot become another user."""
    if os.geteuid():
        pytest.skip("needs root to become other users")


@contextlib.contextmanager
def common_directory(mode: int) -> Iterator[bytes]:
    """A directory that other users can reach (those of pytest they cannot), with this mode."""
    path = tempfile.mkdtemp(prefix="daemonize-test-", dir="/tmp")
    os.chmod(path, mode)
    try:
        yield os.fsencode(os.path.realpath(path))
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def holding(function: Callable[[], T], uid: int | None = None) -> Iterator[tuple[int, T]]:
    """The pid of a child that has called the function and lives until the end of the block, and what it returned.

    Raises what it raised. uid: the user whom the child becomes first.
    """
    answer, say = os.pipe()
    hold, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        os.close(release)
        _answer(function, uid, say)
        os.read(hold, 1)
        os._exit(0)
    os.close(say)
    os.close(hold)
    try:
        with open(answer, "rb") as file:
            returned, value = pickle.loads(file.read() or _DIED)  # noqa: S301  (our own child's)
        if not returned:
            raise value
        yield pid, value
    finally:
        os.close(release)
        os.waitpid(pid, 0)


_DIED = pickle.dumps((False, AssertionError("the child died")))


def _answer(function: Callable[[], object], uid: int | None, say: int) -> None:
    try:
        if uid is not None:
            _become(uid)
        answer = (True, function())
    except BaseException as error:  # noqa: BLE001  (the parent raises it)
        answer = (False, error)
    with open(say, "wb") as file:
        pickle.dump(answer, file)


def _become(uid: int) -> None:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    # As after exec: else not even its own user may look into it.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def call(function: Callable[[], T], uid: int | None = None) -> T:
    """What the function returns, or raises, in a child that becomes this user first."""
    with holding(function, uid) as (_, value):
        return value


def together(count: int, function: Callable[[], object]) -> list[object]:
    """What each of many children returned or raised that called the function at one moment; none ends before the last."""
    gate, start = os.pipe()
    hold, release = os.pipe()
    pids, answers = [], []
    for _ in range(count):
        answer, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(start)
            os.close(release)
            os.read(gate, 1)
            _answer(function, None, say)
            os.read(hold, 1)
            os._exit(0)
        os.close(say)
        pids.append(pid)
        answers.append(answer)
    for fd in (gate, hold, start):
        os.close(fd)
    found = []
    for answer in answers:
        with open(answer, "rb") as file:
            found.append(pickle.loads(file.read() or _DIED)[1])  # noqa: S301  (our own child's)
    os.close(release)
    for pid in pids:
        os.waitpid(pid, 0)
    return found
