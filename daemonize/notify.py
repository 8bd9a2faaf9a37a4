"""What a server and whoever started it say to each other: the wire formats of readiness.

The streams protocol: `DAEMONIZE_STREAMS` names both pipes of the wrapper as `DEV:INO,DEV:INO` (stdout, stderr; decimal,
as JOURNAL_STREAM does in systemd.exec(5)), so that a process can tell whether a descriptor of its own still is one.

sd_notify(3): lines of `NAME=value` in one datagram to the socket in `NOTIFY_SOCKET`. The functions for servers return
whether somebody was told. Nobody is, and nothing happens, where there is no manager, or none that can be reached: a server
that is started by hand calls them all the same.
"""

from __future__ import annotations

import os
import stat
import sys

from daemonize.posix.fds import is_writable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import ClassVar

STREAMS = b"DAEMONIZE_STREAMS"
STDOUT = b"DAEMONIZE_STDOUT"
STDERR = b"DAEMONIZE_STDERR"
ID = b"DAEMONIZE_ID"
#: The name of the daemon that a program with an option to daemonize is to start.
NAME = b"DAEMONIZE_NAME"
DESCRIPTOR = b"NOTIFY_FD"
SOCKET = b"NOTIFY_SOCKET"
WATCHDOG, _WATCHED = b"WATCHDOG_USEC", b"WATCHDOG_PID"

#: What a child of the server must not answer in its name. ID stays: by it a stop finds what the server has started.
_SERVERS_OWN = (SOCKET, DESCRIPTOR, WATCHDOG, _WATCHED, STREAMS, STDOUT, STDERR)
#: Bytes. A longer message is dropped altogether, by systemd too, and with a STATUS= that is too long the READY=1 beside it.
_LONGEST_MESSAGE = 4096
_LONGEST_STATUS = 2048
#: Digits of a number of microseconds: it has 64 bits.
_LONGEST_LIMIT = 20
#: The largest of them means infinity.
FOREVER = (1 << 64) - 1
#: Bytes of a struct ucred: pid, uid, gid (unix(7)).
_CREDENTIALS = 12
#: Seconds that a manager may leave its socket full; the second for what is said again and again, by loops that serve.
_PATIENCE, _LITTLE = 5.0, 0.1


class _Memory:
    """What a process has to remember. removed: variables that are no longer in the environment."""

    removed: ClassVar[MutableMapping[bytes, bytes]] = {}
    reloading = False


# --- the streams protocol -----------------------------------------------------------------------------------------


def stream_id(fd: int) -> bytes:
    """`DEV:INO` of what a descriptor leads to. Raises OSError."""
    status = os.fstat(fd)
    return b"%d:%d" % (status.st_dev, status.st_ino)


def streams_value(stdout: int, stderr: int) -> bytes:
    """The value of DAEMONIZE_STREAMS for two descriptors."""
    return stream_id(stdout) + b"," + stream_id(stderr)


# --- for servers --------------------------------------------------------------------------------------------------


def status(text: str) -> bool:
    """Say in a few words what the server is doing, as `systemctl status` shows it."""
    return _send(status_line(text), patience=_LITTLE)


def extend_timeout(seconds: float) -> bool:
    """Ask for more time to start, reload or stop: so many seconds from now. Raises UsageError."""
    if not 0 < seconds < float("inf"):
        from daemonize.errors import UsageError

        raise UsageError(f"{seconds!r} is no time to ask for; write a number of seconds above 0")
    return _send(b"EXTEND_TIMEOUT_USEC=%d" % max(1, int(seconds * 1e6)))


def stopping() -> bool:
    """Say that the server has begun to stop."""
    return _send(b"STOPPING=1")


def reloading() -> bool:
    """Say that the server reads its configuration again. The next `daemonize.ready()` says that it has."""
    import time

    _Memory.reloading = True
    return _send(b"RELOADING=1", b"MONOTONIC_USEC=%d" % (time.monotonic_ns() // 1000))


def watchdog() -> bool:
    """Say that the server is alive and well. To be called every `watchdog_interval()` seconds."""
    return _send(b"WATCHDOG=1", patience=_LITTLE)


def watchdog_interval() -> float | None:
    """How often to call `watchdog()`, in seconds: half of the manager's limit. None: nobody waits for this process."""
    limit, pid = variable(WATCHDOG), variable(_WATCHED)
    if not limit.isdigit() or len(limit) > _LONGEST_LIMIT or pid not in {b"", b"%d" % os.getpid()}:
        return None
    return int(limit) / 2e6 if 0 < int(limit) < FOREVER else None


def unset_environment() -> None:
    """Remove from the environment what children that are started from now on must not answer.

    This process remembers: the functions here go on reaching the manager.
    """
    for name in _SERVERS_OWN:
        value = os.environb.pop(name, None)
        if value is not None:
            _Memory.removed[name] = value


# --- for ready() --------------------------------------------------------------------------------------------------


def is_reloading() -> bool:
    """Whether `reloading()` was called, and `tell_ready` not since."""
    return _Memory.reloading


def tell_ready(text: str | None = None) -> bool:
    """Tell the manager that this process is ready, and is the main process; True if it was told."""
    _Memory.reloading = False
    return _send(*ready_lines(text))


def ready_lines(text: str | None) -> list[bytes]:
    """What a manager is told of this process when it, or what it stands for, is ready."""
    words = [] if text is None else [status_line(text)]
    return [b"READY=1", *words, b"MAINPID=%d" % os.getpid()]


def status_line(text: str) -> bytes:
    """One line, and no NUL, for which systemd would drop the whole message."""
    line = "".join(max(c, " ") for c in text).encode("utf-8", "replace")
    return b"STATUS=" + line[:_LONGEST_STATUS].decode("utf-8", "ignore").encode()


def variable(name: bytes) -> bytes:
    """What the environment says, or said before `unset_environment`; nothing: b""."""
    return os.environb.get(name) or _Memory.removed.get(name, b"")


def tell_descriptor() -> bool:
    """A newline to NOTIFY_FD, as s6 and dinit want it, if that can be what the variable means; True if it was written."""
    fd = descriptor()
    try:
        # A pipe that is full, of a manager that does not read, would be waited for for ever.
        if fd is None or not is_writable(fd) or os.write(fd, b"\n") != 1:
            return False
        if fd > 2:
            os.close(fd)
    except OSError:
        return False
    return True


def has_socket() -> bool:
    """Whether there is a manager that NOTIFY_SOCKET leads to, of a kind that we know."""
    return variable(SOCKET).startswith((b"/", b"@"))


def descriptor() -> int | None:
    """NOTIFY_FD, if it can be what somebody waits at for a newline."""
    value = variable(DESCRIPTOR)
    try:
        fd = int(value) if value.isdigit() else -1
        mode = os.fstat(fd).st_mode
    except (OSError, OverflowError, ValueError):
        return None
    return fd if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def _send(*lines: bytes, patience: float = _PATIENCE) -> bool:
    """Send one message to the manager; whether it has it."""
    if not has_socket():
        return False  # no manager, or one behind a kind of socket that we do not know (vsock)
    import socket

    name = variable(SOCKET)
    address = b"\0" + name[1:] if name.startswith(b"@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(patience)
            # Connected: poll(2) says of any other datagram socket that it is writable, be the receiver's queue full or not.
            manager.connect(address)
            manager.send(b"\n".join(lines))
    except OSError:
        return False
    return True


# --- for whoever started the server -------------------------------------------------------------------------------


class Message:
    """One datagram. data: its text, of a `cut` one only the beginning. pid, uid: of its sender, 0 and -1 where not known."""

    def __init__(self, data: bytes, pid: int, uid: int, *, cut: bool) -> None:
        self.data, self.pid, self.uid, self.cut = data, pid, uid, cut

    def fields(self) -> dict[bytes, bytes]:
        """What it says; of several lines of one name the first. Raises ValueError, which says what is wrong with it."""
        text = self.data.removesuffix(b"\0")  # systemd, too, permits this one
        if self.cut:
            raise ValueError(f"it has more than {_LONGEST_MESSAGE} bytes")
        if b"\0" in text:
            raise ValueError("there is a NUL in it")
        found: dict[bytes, bytes] = {}
        for line in text.split(b"\n"):
            name, equals, value = line.partition(b"=")
            if name and equals:
                found.setdefault(name, value)
        if not found:
            raise ValueError("there is no NAME=value in it")
        return found


def listen(again: bytes = b"") -> tuple[int, bytes]:
    """A socket to hear a server on, which nobody inherits and no read waits on; and what NOTIFY_SOCKET is to say.

    Its address is abstract: other users, and servers in another root, reach it. again: what NOTIFY_SOCKET has said all the
    time, of a server that runs. Raises OSError.
    """
    import _socket

    address = again[1:] or b"daemonize/" + os.urandom(8).hex().encode()
    made = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    try:
        # Before there is an address: else the first message may come without its sender.
        made.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        made.bind(b"\0" + address)
        return made.detach(), b"@" + address
    finally:
        made.close()


def receive(fd: int) -> Message | None:
    """The next message, or None: there is none. Raises OSError.

    There is room for the sender's credentials only: descriptors that come with a message are closed by the kernel, when
    all that was sent before has been received. That is the whole answer to BARRIER=1, and nobody can fill our table.
    """
    import _socket

    # For this call only: a socket that is forgotten closes its number, which may be another's by then.
    held = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK, 0, fd)
    try:
        data, ancillary, flags, _ = held.recvmsg(_LONGEST_MESSAGE, _socket.CMSG_SPACE(_CREDENTIALS))
    except BlockingIOError:
        return None
    finally:
        held.detach()
    pid, uid = 0, -1
    for level, kind, content in ancillary:
        if (level, kind, len(content)) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS, _CREDENTIALS):
            pid, uid = (int.from_bytes(content[at : at + 4], sys.byteorder) for at in (0, 4))
    return Message(data, pid, uid, cut=bool(flags & _socket.MSG_TRUNC))


def number(value: bytes, most: int) -> int | None:
    """A decimal number of a message; None where it is none, or larger than that."""
    if not value.isdigit() or len(value) > _LONGEST_LIMIT or int(value) > most:
        return None
    return int(value)
