"""ready(): the server's one call that tells whoever started it, by every protocol that is present.

    ready() ──▶ streams         1 and 2, and every other descriptor that is a pipe of the wrapper, go on in the log
            ──▶ NOTIFY_SOCKET   READY=1, STATUS=, MAINPID=
            ──▶ NOTIFY_FD       a newline (s6, dinit)

All of it happens in the server, in the thread that calls.
"""

from __future__ import annotations

import _thread
import atexit
import fcntl
import gc
import io
import os
import stat
import sys
from errno import ENXIO

from daemonize import notify
from daemonize.errors import printable
from daemonize.notify import STDERR, STDOUT, STREAMS, stream_id
from daemonize.posix.fds import opened, try_lock
from daemonize.posix.signals import SigpipeBlocked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import ClassVar, TextIO

_NULL = b"/dev/null"
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}
#: Descriptors to look at where nothing lists them (no /proc in a chroot): a limit may be a thousand million.
_LOOKED_AT = 4096


class _Memory:
    """What this process has said and opened. A process that it forks has the same: nothing is said twice.

    told: whether somebody knows that it is ready. spares: between spare_memory() and then, so many objects. logs: from
    open_logs(): variable -> (descriptor, what it leads to). holds: from hold_streams(): descriptor -> its copy.
    """

    told, spares = False, 0
    holds: ClassVar[dict[int, int]] = {}
    logs: ClassVar[dict[bytes, tuple[int, bytes]]] = {}


#: Never waited for: a signal handler may have interrupted the very call that holds it.
_busy = _thread.allocate_lock()


def ready(status: str | None = None, *, unset_environment: bool = False) -> bool:
    """Tell whoever is listening that this server is ready, once; True if somebody was told.

    Under `daemonize`, stdout and stderr go on in the log (or /dev/null), and descriptors 0, 1, 2 stay occupied; a manager
    behind NOTIFY_SOCKET or NOTIFY_FD is told. In a plain terminal run nothing happens.

    status: words for the manager to show; a second call sends just these. After `notify.reloading()` it says again that
    the server is ready. unset_environment: children that are started later do not find who is to be told; `notify` does.

    From any thread, signal handler or event loop. While another call is at work: False, at once.
    Raises TypeError for a status that is not text, and nothing for what it finds around it.
    """
    if not isinstance(status, str | None):
        raise TypeError(f"a status is text, not {type(status).__name__}")
    if not _busy.acquire(blocking=False):
        return False
    try:
        with SigpipeBlocked():
            _tell(status)
        if unset_environment:
            notify.unset_environment()
        return _Memory.told
    finally:
        _busy.release()


def hold_streams() -> None:
    """Hold the wrapper's pipes, until `give_back_streams`, whatever is done with 1 and 2 in the meantime."""
    for fd in _held((1, 2)):
        _Memory.holds[fd] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def give_back_streams() -> None:
    """1 and 2 are the wrapper's pipes again, as they are in a server that has been forked. Nothing without a hold."""
    for fd, hold in _Memory.holds.items():
        os.dup2(hold, fd, inheritable=True)
        os.close(hold)
    _Memory.holds.clear()


def open_logs() -> None:
    """Open now the files in which ready() is to go on: before the right to do so is given up. A second call does nothing."""
    with SigpipeBlocked():
        held = _held((1, 2))  # copies of them go on in the same files
        if held and not _Memory.logs:
            _Memory.logs.update({name: (fd, stream_id(fd)) for name, fd in _open(held).items()})


def spare_memory() -> None:
    """In a server just forked: until it is ready, garbage is looked for among what is new (gc.freeze).

    To look at an object is to write to it, and the first to write to a page that the wrapper has as well waits until it is
    copied: one look at all that a program has loaded takes longer than the launch. Nothing where the program does so itself.
    """
    if gc.isenabled() and not gc.get_freeze_count():
        gc.freeze()
        atexit.register(_spare_no_longer)  # what is frozen then is not finalized: files would not be written
        _Memory.spares = gc.get_freeze_count()


def _spare_no_longer() -> None:
    spared, _Memory.spares = _Memory.spares, 0
    # There are more if the program has done so itself meanwhile, as before it forks workers: that is to stay.
    if gc.get_freeze_count() <= spared:
        gc.unfreeze()


def _tell(status: str | None) -> None:
    if not _Memory.told:
        told = [_let_go(), notify.tell_ready(status), notify.tell_descriptor()]
        _Memory.told = any(told)
        _spare_no_longer()
    elif notify.is_reloading():
        notify.tell_ready(status)
    elif status is not None:
        notify.status(status)


# --- streams ------------------------------------------------------------------------------------------------------


def _let_go() -> bool:
    """Go on in the logs; False where none of our descriptors is a pipe of the wrapper."""
    held = _held()
    if not held:
        return False
    _flush(sys.stdout)
    _flush(sys.stderr)
    kept = _kept()
    files = {**_open({fd: name for fd, name in held.items() if name not in kept}), **kept}
    for fd, name in held.items():
        _repoint(fd, files[name])
    for fd in {*files.values()}:
        if fd > 2:
            os.close(fd)
    buffer_lines(held)
    return True


def _pipes() -> dict[bytes, bytes]:
    """The wrapper's pipes: what identifies each, and the variable that names the file to go on in."""
    ids = notify.variable(STREAMS).split(b",")
    return dict(zip(ids, (STDOUT, STDERR), strict=True)) if len(ids) == 2 else {}


def _held(among: Collection[int] | None = None) -> dict[int, bytes]:
    """Which of our descriptors are pipes of the wrapper, and the variable of each. None of 0, 1 and 2 is closed afterwards.

    among: where to look; else 1 and 2 and copies of them in other hands, those of logging handlers and faulthandler.
    """
    found: dict[int, bytes] = {}
    pipes = _pipes()
    if not pipes:
        return found
    _occupy_standard()
    for fd in opened(_LOOKED_AT) if among is None else among:
        try:
            name = pipes.get(stream_id(fd))
        except OSError:
            continue  # it was closed by another thread, or is that of the listing itself
        if name:
            found[fd] = name
    return found


def _occupy_standard() -> None:
    """Put /dev/null on those of 0, 1 and 2 that are closed: else the next socket would be one of them."""
    try:
        while (fd := os.open(_NULL, os.O_RDWR | os.O_CLOEXEC)) <= 2:
            os.set_inheritable(fd, True)
        os.close(fd)
    except OSError:
        pass  # there is none in here


def _flush(stream: TextIO) -> None:
    """Hand on what Python keeps; what cannot be written stays where it is."""
    try:
        stream.flush()
    except Exception:  # noqa: BLE001, S110
        pass  # of anybody's making, None, closed, or in the middle of the write that this signal handler interrupts


def buffer_lines(descriptors: Collection[int]) -> None:
    """A line is out when it is written, if stdout leads to one of these descriptors.

    People read it, in a log or while the server starts, and no terminal is there to tell Python so.
    """
    try:
        if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.fileno() in descriptors:
            sys.stdout.reconfigure(line_buffering=True)
    except (OSError, ValueError, RuntimeError):
        pass  # it is closed, or cannot write what it still has


def _kept() -> dict[bytes, int]:
    """What open_logs() has opened, but for what somebody has closed since: its number may be another's by now."""
    found = {}
    for name, (fd, same) in _Memory.logs.items():
        try:
            if stream_id(fd) == same:
                found[name] = fd
        except OSError:
            pass
    _Memory.logs.clear()
    return found


def _open(held: Mapping[int, bytes]) -> dict[bytes, int]:
    """The files to go on in, for the variables in `held`: one descriptor for both streams if they have one name."""
    wanted: dict[bytes, list[bytes]] = {}
    for name in (STDOUT, STDERR):
        if name in held.values():
            wanted.setdefault(notify.variable(name) or _NULL, []).append(name)
    files = {}
    for path, names in wanted.items():
        fd = _open_log(
            path, " and ".join(_NAMES[name] for name in names), voice=2 if 2 in held else min(held)
        )
        files.update(dict.fromkeys(names, fd))
    return files


def _open_log(path: bytes, streams: str, voice: int) -> int:
    """A descriptor of the file, else of /dev/null, else 0. `voice`: where to say that it cannot be opened."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    for file in (path, _NULL):
        try:
            fd = os.open(file, flags | (0 if file == _NULL else os.O_CREAT), 0o600)
        except OSError as error:
            if file is path:
                _complain(error, streams, voice)
            continue
        _claim(fd)
        return fd
    return 0  # /dev/null, opened for reading, where the wrapper has put one; no room has less, and none needs more


def _complain(error: OSError, streams: str, voice: int) -> None:
    reason = "nobody reads this fifo" if error.errno == ENXIO else error.strerror
    line = (
        f"daemonize: cannot open {printable(os.fsdecode(error.filename))}: {reason}; name another log file, "
    )
    line += f"or what the server says on {streams} from now on is lost\n"
    try:
        os.write(voice, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody listens


def _claim(fd: int) -> None:
    """A log in use is locked by who writes to it (registry.Logs); one that another has is used all the same."""
    try:
        os.set_blocking(fd, True)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            try_lock(fd)
    except OSError:
        pass  # a file system without locks


def _repoint(fd: int, file: int) -> None:
    try:
        if stream_id(fd) in _pipes():  # still: other threads may close, and open
            os.dup2(file, fd, inheritable=fd <= 2 or os.get_inheritable(fd))
    except OSError:
        pass
