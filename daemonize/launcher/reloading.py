"""Let a daemon read its configuration again, and wait until it has where it says so.

A server that was given NOTIFY_SOCKET goes on sending to that address, also when the wrapper, who listened there, has left.
So whoever asks it to reload listens there anew, for that long, and hears RELOADING=1 and READY=1 (sd_notify(3)).
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

from daemonize.daemon_errors import NotPossible, NotReloaded
from daemonize.notify import listen, receive
from daemonize.posix.identity import GONE, is_below, read_file, read_stat, standing
from daemonize.posix.loop import POLLIN, Loop
from daemonize.posix.signals import SIGHUP

if TYPE_CHECKING:
    from daemonize.notify import Message
    from daemonize.posix.identity import Process
    from daemonize.registry.record import Record

#: Seconds within which a server that says anything of it says that it has begun.
_BEGINS = 1.0


def reload(record: Record, process: Process, timeout: float) -> bool:
    """Send SIGHUP to the main process; True if it has said that it has reloaded, False if it says nothing of that.

    timeout: seconds that it may take. Raises NotReloaded if it does not come to an end of it, NotPossible.
    """
    if not _handles(process.pid):
        why = "does not handle SIGHUP, which would end it; to send it all the same: daemonctl signal"
        raise NotPossible(record.name, f"{why} {record.name} HUP")
    stat = read_stat(process.pid)
    if stat and stat.state in "Tt":
        how = f"to let it go on: daemonctl signal {record.name} CONT"
        raise NotPossible(record.name, f"is suspended by a signal (SIGSTOP) and would not see it; {how}")
    fd = _listen(record)
    try:
        if not process.send(SIGHUP):
            raise NotPossible(record.name, f"is not running; to start it: daemonctl start {record.name}")
        return fd is not None and _Reload(record, process, fd).wait(timeout)
    except PermissionError:
        raise NotPossible(record.name, "may not be signalled by this user") from None
    finally:
        if fd is not None:
            os.close(fd)


def _handles(pid: int) -> bool:
    """Whether SIGHUP does not end the process (signal(7)): it is caught, ignored or blocked. True where nobody knows."""
    masks = {b"SigCgt:", b"SigIgn:", b"SigBlk:"}
    lines = [line.split() for line in (read_file(f"/proc/{pid}/status") or b"").splitlines()]
    values = [int(words[1], 16) for words in lines if words and words[0] in masks]
    return not values or any(value >> (SIGHUP - 1) & 1 for value in values)


def _listen(record: Record) -> int | None:
    if not record.notify_socket:
        return None
    try:
        return listen(os.fsencode(record.notify_socket))[0]
    except OSError:
        return None  # somebody else listens there: another daemonctl that waits for the same


class _Reload:
    """What is heard on the way. fd: the socket."""

    def __init__(self, record: Record, process: Process, fd: int) -> None:
        self._record, self._process, self._fd = record, process, fd
        self._reloading = self._ready = False

    def wait(self, timeout: float) -> bool:
        loop, began = Loop(), monotonic()
        loop.watch(self._fd, POLLIN, self._hear)
        if self._process.fd is not None:
            loop.watch(self._process.fd, POLLIN, lambda _events: None)
        while not self._ready:
            if self._process.ended:
                raise NotReloaded(self._record.name, "ended while it reloaded")
            left = began + (timeout if self._reloading else min(_BEGINS, timeout)) - monotonic()
            if left <= 0:
                break
            loop.run_once(left)
        if self._reloading and not self._ready:
            raise NotReloaded(self._record.name, f"has not reloaded within {timeout:g} s")
        return self._ready

    def _hear(self, _events: int) -> None:
        while not self._ready and (message := receive(self._fd)) is not None:
            if not self._believes(message):
                continue
            try:
                fields = message.fields()
            except ValueError:
                continue
            self._reloading = self._reloading or fields.get(b"RELOADING") == b"1"
            self._ready = self._reloading and fields.get(b"READY") == b"1"

    def _believes(self, message: Message) -> bool:
        """Of the daemon's processes; or of a script's helper that has already gone, of root's or this user's."""
        if message.pid and is_below(message.pid, self._process.pid):
            return True
        return bool(message.pid) and message.uid in (0, os.getuid()) and standing(message.pid) == GONE
