"""`notify`: `READY=1` on the socket in NOTIFY_SOCKET, as sd_notify(3) sends it.

Whoever knows the address can send to it, so what comes is believed only from a process of the server's tree, or from one of
root's, our user's or the server's that has already gone: systemd-notify(1) in a script.

The socket is read as long as the launch lasts, also when this has held: a sender waits where the queue is full, and it
holds ten messages.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

from daemonize.errors import printable, user_name
from daemonize.notify import FOREVER, SOCKET, listen, number, receive
from daemonize.posix.identity import GONE, has_proc, read_stat, standing
from daemonize.posix.tree import children
from daemonize.readiness import Probe

if TYPE_CHECKING:
    from daemonize.notify import Message
    from daemonize.readiness import Launch

#: Messages that are read before the loop looks at anything else; those that are read when the server has ended: more than
#: a queue holds.
_AT_ONCE, _AT_THE_END = 64, 4096
#: The largest errno and pid, the largest exit status.
_ERRNO, _PID, _STATUS = 4095, (1 << 31) - 1, 255
_STRANGER = "a message from a stranger"


#: It asks, after READY=1, whether that has been read (BARRIER=1). If nobody listens any more it fails, and many a script
#: that has called it goes no further. It sends as itself or, as root, in the name of its parent.
_CLIENT = "systemd-notify"
_PAUSE = 0.001


class Notify(Probe):
    """Also tells the launch what else the server says: status, errors, its main process, that it needs more time."""

    needs_launch = True

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        self._launch: Launch
        self._fd = -1
        self._sender = 0  # of what was believed last
        self._suspected = False  # READY=1 has come from somebody who is not believed
        self._noted: set[str] = set()

    def prepare(self, launch: Launch) -> None:
        """Listen."""
        self._launch = launch
        fd, self.variables[SOCKET] = listen()
        self._fd = launch.owner.add(fd)
        launch.watch(self, fd, self._listen)

    def executed(self, now: float) -> None:
        """From now on something may come."""
        if not self.held and not self.problem:
            self.problem = "nothing has been sent to NOTIFY_SOCKET (some servers must be told to notify)"

    def ended(self) -> None:
        """What it said just before: why, most likely."""
        for _ in range(_AT_THE_END):
            if not self._read():
                return

    def _listen(self) -> None:
        """What comes after READY=1 is read when that has had its consequences."""
        before = self.held
        for _ in range(_AT_ONCE):
            if not self._read() or self.held != before:
                return

    def _read(self) -> bool:
        message = receive(self._fd)
        if message is not None:
            self._take(message)
        return message is not None

    def _take(self, message: Message) -> None:
        try:
            fields = message.fields()
        except ValueError as error:
            self._note(f"a message, since {error}", f"from pid {message.pid}")
            return
        if self._believes(message):
            self._sender = message.pid
            self._obey(fields)
            return
        if _STRANGER not in self._noted:
            self._note(_STRANGER, self._describe(message))
        if fields.get(b"READY") == b"1" and not (self.held or self._suspected):
            self._suspected, self.problem = True, f"READY=1 came from {self._describe(message)}"

    def _believes(self, message: Message) -> bool:
        pid = message.pid
        if pid and self._launch.owns(pid):
            return True  # whoever it has become by now (mariadbd --user=mysql)
        if not pid or message.uid not in self._users():
            return False
        # A second look: a process above it may have ended during the first, and left it to another.
        return standing(pid) == GONE or self._launch.owns(pid) or not has_proc()

    def _users(self) -> tuple[int, ...]:
        return 0, os.getuid(), self._launch.uid

    def _describe(self, message: Message) -> str:
        """Who is not believed, and why."""
        if not message.pid:
            return "a process that cannot be seen from here"
        if message.uid not in self._users():
            return f"pid {message.pid} of user {user_name(message.uid)}, who is neither root nor the server's user"
        return f"pid {message.pid}, which is none of the server's processes"

    def _obey(self, fields: dict[bytes, bytes]) -> None:
        for name, act in (
            (b"STATUS", self._status),
            (b"ERRNO", self._errno),
            (b"EXIT_STATUS", self._exit_status),
            (b"EXTEND_TIMEOUT_USEC", self._extend),
            (b"MAINPID", self._main),
        ):
            if name in fields and not act(fields[name]):
                shown = printable(os.fsdecode(fields[name]))[:40]
                self._note(f"{name.decode()} of no use", shown)
        self._launch.pass_on(fields)
        if fields.get(b"READY") == b"1":
            self.tick(monotonic())
        elif not self.held and not self._suspected:
            self.problem = "what has been sent to NOTIFY_SOCKET is not READY=1"

    def tick(self, now: float) -> None:
        """READY=1 has come: let systemd-notify(1) have its answer."""
        asking = (self._sender, *(children(self._sender) or ()))
        if any(stat.name == _CLIENT and not stat.exiting for stat in map(read_stat, asking) if stat):
            self.problem, self.due = f"{_CLIENT} has not ended", now + _PAUSE
        else:
            self.held, self.problem, self.due = True, "", None

    # Each says whether it could use the value.

    def _status(self, value: bytes) -> bool:
        self._launch.tell("status", value.decode("utf-8", "replace"))
        return True

    def _errno(self, value: bytes) -> bool:
        return self._tell("errno", number(value, _ERRNO))

    def _exit_status(self, value: bytes) -> bool:
        return self._tell("exit_status", number(value, _STATUS))

    def _tell(self, fact: str, value: int | None) -> bool:
        if value is not None:
            self._launch.tell(fact, value)
        return value is not None

    def _extend(self, value: bytes) -> bool:
        asked = number(value, FOREVER - 1)  # nobody can ask for an endless time, under systemd either
        if asked:
            self._launch.extend(asked / 1e6)
        return bool(asked)

    def _main(self, value: bytes) -> bool:
        pid = number(value, _PID)
        return bool(pid) and self._launch.name_main(pid or 0)

    def _note(self, kind: str, detail: str) -> None:
        """Once for every kind: there may be a flood of them."""
        if kind not in self._noted:
            self._noted.add(kind)
            self._launch.note(f"ignored on NOTIFY_SOCKET: {kind}: {detail}")
