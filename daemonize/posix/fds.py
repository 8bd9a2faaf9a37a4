"""Who owns a descriptor, and what must be true of 0, 1 and 2."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

#: Where the kernel lists the descriptors of the process that asks (Linux; macOS and the BSDs).
_LISTS = ("/proc/self/fd", "/dev/fd")


def is_writable(fd: int) -> bool:
    """Whether writing a little to fd would not have to wait (also when it would fail)."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def is_inherited(fd: int) -> bool:
    """Whether fd was open when this process was executed: what it opens itself is closed by exec(2)."""
    try:
        return os.get_inheritable(fd)
    except (OSError, OverflowError):
        return False  # it is not open


class Descriptors:
    """Descriptors with one owner: what is left in here is closed when the owner is done, on every path."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def add(self, fd: int) -> int:
        """Take ownership of fd."""
        self._open.add(fd)
        return fd

    def open(self, path: str | bytes, flags: int, mode: int = 0o600) -> int:
        """open(2), never inherited by a program that is executed."""
        return self.add(os.open(path, flags | os.O_CLOEXEC, mode))

    def open_in(self, directory: int, name: bytes, flags: int, mode: int = 0o600) -> int:
        """openat(2). flags: as they are."""
        return self.add(os.open(name, flags, mode, dir_fd=directory))

    def pipe(self) -> tuple[int, int]:
        """pipe(2): (read end, write end), never inherited by a program that is executed."""
        read, write = os.pipe()
        return self.add(read), self.add(write)

    @property
    def all(self) -> frozenset[int]:
        """What is open."""
        return frozenset(self._open)

    def shut(self, *fds: int) -> None:
        """Close these now; a second time does nothing."""
        for fd in fds:
            if fd in self._open:
                self._open.discard(fd)
                os.close(fd)

    def close(self) -> None:
        """Close all that is left."""
        self.shut(*self._open)


def occupy_standard(owner: Descriptors) -> None:
    """Put /dev/null on those of 0, 1 and 2 that are closed.

    Otherwise the next pipe would become the caller's stdout, and what the server says would be read as a command.
    """
    for fd in (0, 1, 2):
        if not _is_open(fd):
            owner.open("/dev/null", os.O_RDWR)


#: How many descriptors are looked at where nothing lists them (no /proc in a chroot): a limit may be a thousand million.
_MOST = 65536


def opened(most: int = _MOST) -> list[int]:
    """The open descriptors of this process, some of them closed again.

    Where nothing lists them: the first `most` of all that could be.
    """
    listed = _listed()
    return list(range(os.sysconf("SC_OPEN_MAX"))[:most]) if listed is None else listed


def _listed() -> list[int] | None:
    for path in _LISTS:
        try:
            return [int(name) for name in os.listdir(path)]
        except OSError:
            continue
    return None


def still_open() -> set[int]:
    """The open descriptors of this process: all are, when this returns."""
    return {fd for fd in opened() if _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def sweep(keep: Collection[int]) -> None:
    """Close every descriptor of this process but 0, 1, 2 and `keep`. For a freshly forked child only."""
    listed = _listed()
    if listed is None:
        kept = sorted({0, 1, 2, *keep})
        for below, above in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(below + 1, above)
        return
    for fd in listed:
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass  # the descriptor of the listing itself, closed already


def point_at_null(*fds: int) -> None:
    """Make these descriptors /dev/null. Called in children that must not hold the caller's streams."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in fds:
        os.dup2(null, fd, inheritable=True)
    os.close(null)


def away(fd: int, numbers: Collection[int]) -> int:
    """fd, or a copy of it whose number is none of these, to make room. The copy is not inherited."""
    import fcntl

    # Not simply above the highest: that may be the last number there is.
    least = 3
    while fd in numbers:
        copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
        if copy not in numbers:
            return copy
        os.close(copy)
        least = copy + 1
    return fd


def write_all(fd: int, data: bytes) -> None:
    """write(2) until everything is written. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def is_locked(fd: int) -> bool:
    """Whether somebody has the flock(2) of the open file. For a moment it is ours to share. Raises OSError."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def lock(fd: int) -> None:
    """Take the flock(2) of the open file, and wait for it. What a handler of a signal raises ends that. Raises OSError."""
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_EX)


def unlock(fd: int) -> None:
    """Give the flock(2) of the open file back, whoever has a copy of the descriptor. Raises OSError."""
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_UN)


def try_lock(fd: int) -> bool:
    """Take the flock(2) of the open file, without waiting; False if somebody else has it. Raises OSError."""
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
