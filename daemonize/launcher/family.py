"""What the wrapper knows of the processes below it: told by the server until exec(2), and by the intermediate parent.

    report   (posix/child.py)            gate PID | failed STAGE ERRNO | end of file
    events   (launcher/intermediate.py)    forked PID | blind | failed STAGE ERRNO | reaped PID STATUS | adopted PID ... |
                                         end of file

Only facts; what they mean is decided by the wrapper.
"""

from __future__ import annotations

import os

from daemonize.posix.identity import EXITING, GONE, Process, read_stat, standing
from daemonize.posix.loop import POLLIN
from daemonize.posix.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from daemonize.posix.fds import Descriptors
    from daemonize.posix.loop import Loop


class Family:
    """The server, whoever takes its place, and what became of them.

    parent: pid of their parent. session: id of the session that was made for them, or None. server: pid, 0 if not known
    yet. since: its start time. main: the server, or the daemon it left behind; None until it is at the gate, or where
    /proc cannot say who it is. replaced: main is a daemon that the server left behind. ended: wait status of the main
    process, or None. left: pids that are left after it ended, None if that is not known (yet); see `nameless`.
    orphan_status: wait status of a daemon that failed before it could be followed, or 0. executed: exec(2) has succeeded.
    failed: (stage, errno) of the step that failed. reported: the report is at its end. lost: the intermediate parent has
    gone without being asked to. blind: on this system nobody adopts what the server leaves behind. follows: what a main
    process that exits 0 leaves behind takes its place; not when it has been told to end. helpers: pids of children of the
    wrapper that are not the server's. told: what the server said about itself (`status`, `errno`, `exit_status`).
    """

    def __init__(self, loop: Loop, owner: Descriptors, say: Callable[[str], None]) -> None:
        self._loop, self._owner, self._say = loop, owner, say
        self.parent = self.server = self.since = 0
        self.session: int | None = None
        self.main: Process | None = None
        self.ended: int | None = None
        self.left: list[int] | None = None
        self.orphan_status = 0
        self.failed: tuple[str, int] | None = None
        self.executed = self.lost = self.replaced = self.reported = self.blind = False
        self.follows = True
        self.helpers: set[int] = set()
        self.told: dict[str, str | int] = {}
        self._named: Process | None = None
        self._gate = -1
        self._lines = {"report": b"", "events": b""}

    @property
    def pid(self) -> int:
        """Of the main process; 0 if there was none."""
        return self.main.pid if self.main else self.server

    @property
    def nameless(self) -> bool:
        """Whether somebody is left, and no /proc says who. 0 is nobody's pid: to kill(2) it means our own group."""
        return self.left == [0]

    @property
    def gated(self) -> bool:
        """Whether the server is still held, or will be, at the gate."""
        return self._gate >= 0

    # -- report -------------------------------------------------------------------------------------------------------

    def watch_report(self, report: int, gate: int) -> None:
        """Listen to the server; `gate` is the end to let it go with."""
        self._gate = gate
        self._loop.watch(
            report, POLLIN, lambda _events: self._read(report, "report", self._note_report, self._executed)
        )

    def _read(
        self, fd: int, name: str, note: Callable[[list[bytes]], None], at_end: Callable[[], None]
    ) -> None:
        data = os.read(fd, 65536)
        *lines, self._lines[name] = (self._lines[name] + data).split(b"\n")
        for line in lines:
            note(line.split())
        if not data:
            self._loop.forget(fd)
            self._owner.shut(fd)
            at_end()

    def _note_report(self, words: list[bytes]) -> None:
        if words[0] == b"gate":
            self.let_through(int(words[1]))
        else:
            self.failed = (words[1].decode(), int(words[2]))

    def _executed(self) -> None:
        self.reported = True
        self.executed = self.main is not None and not self.failed and not self.gated
        if self.executed:
            self._say(f"started pid {self.pid}")

    def let_through(self, pid: int) -> None:
        """The server waits at its gate, or need not wait there. From here on it can be found and ended whatever happens."""
        if not self.gated:
            return  # the launch was given up in the meantime
        try:
            process = Process(pid)
        except ProcessLookupError:
            return  # killed at the gate; the intermediate parent tells
        if process.ppid not in (self.parent, 0):
            process.close()  # an orphan: the intermediate parent was killed, and a closed gate ends the server
            return
        self.since = process.start
        self._take(process)
        self._open_gate()

    def _open_gate(self) -> None:
        """Both must be there: the server at its gate, and a parent that adopts what the server leaves behind."""
        if not (self.main and self.server and self.gated):
            return
        try:
            os.write(self._gate, b"g")
        except BrokenPipeError:
            pass  # killed at the gate
        self.shut_gate()

    def shut_gate(self) -> None:
        """Nobody else will be let through; a server that waits at the gate exits."""
        if self.gated:
            self._owner.shut(self._gate)
            self._gate = -1

    def kill_unexecuted(self) -> None:
        """End a server that has not come to exec(2), or the intermediate parent that has not forked it."""
        try:
            process = Process(self.server or self.parent)
        except ProcessLookupError:
            return
        if process.pid == self.parent or process.ppid in (self.parent, 0):
            process.send(SIGKILL)
        process.close()

    # -- events -------------------------------------------------------------------------------------------------------

    def watch_events(self, events: int) -> None:
        """Listen to the intermediate parent."""
        self._loop.watch(
            events, POLLIN, lambda _events: self._read(events, "events", self.note, self._set_lost)
        )

    def _set_lost(self) -> None:
        self.lost = True

    def note(self, words: list[bytes]) -> None:
        """One line of events."""
        word, *rest = words
        if word == b"forked":
            self.server = int(rest[0])
            self._open_gate()
        elif word == b"blind":
            self.blind = True
        elif word == b"failed":
            self.failed = (rest[0].decode(), int(rest[1]))
        elif word == b"reaped":
            self._note_end(int(rest[0]), int(rest[1]))
        elif word == b"adopted":
            self.left = [0 if text == b"?" else int(text) for text in rest]
            if self.ended == 0 and self.follows:
                self._follow()

    def _note_end(self, pid: int, status: int) -> None:
        if pid == self.pid:
            self.ended, self.left = status, None
        elif status:
            # Also before the server's own end: a daemon may fail faster than its parent exits.
            self.orphan_status = status

    def follow_unknown(self) -> None:
        """The main process has exited 0, and somebody is left, but nobody can say who."""
        self.left = [0]
        self._take(None)

    def _follow(self) -> None:
        """The main process has exited 0: what it left behind is the main process now."""
        if self.nameless:
            self.follow_unknown()
            return
        living = [pid for pid in self.left or () if standing(pid) not in (EXITING, GONE)]
        named = self._named.pid if self._named else 0
        for pid in sorted(living, key=lambda pid: (pid != named, _rank(pid))):
            try:
                process = Process(pid)
            except ProcessLookupError:
                continue
            if not process.ended:
                self._take(process)
                self._say(f"the command exited 0 and left a daemon behind: {process.name} (pid {pid})")
                return
            process.close()
        # All are on their way out: there will be word of it.

    # -- the main process ---------------------------------------------------------------------------------------------

    def name_main(self, pid: int) -> bool:
        """The server says that this process of its tree is the main one; False if it is not there.

        It is the one that a ready launch is about. Until then the launch stands and falls with the one that was started,
        whose status is the server's.
        """
        try:
            process = Process(pid)
        except ProcessLookupError:
            return False
        self._forget_named()
        self._named = process
        return True

    @property
    def chosen(self) -> Process | None:
        """The main process of a server that is ready: the one that it has named itself, if that lives."""
        return self._named if self._named and _stays(self._named) else self.main

    def _forget_named(self) -> None:
        if self._named:
            self._named.close()
            self._named = None

    def _take(self, process: Process | None) -> None:
        """This is the main process now: be woken by its end; the status comes from its parent."""
        self.replaced = self.main is not None
        self.release()
        self.main, self.ended = process, None
        if process and process.fd is not None:
            fd = process.fd
            self._loop.watch(fd, POLLIN, lambda _events: self._loop.forget(fd))

    def release(self) -> None:
        """Give the hold on the main process up."""
        if self.main and self.main.fd is not None:
            self._loop.forget(self.main.fd)
            self.main.close()

    def close(self) -> None:
        """Give every hold up."""
        self.release()
        self._forget_named()

    @property
    def lives(self) -> bool:
        """The last look: whether the main process is there and not on its way out."""
        if self.ended is not None or self.lost:
            return False
        return self.main is None or _stays(self.main)


def _stays(process: Process) -> bool:
    """Whether it is there and not on its way out."""
    return not (process.ended or standing(process.pid) in (EXITING, GONE))


def _rank(pid: int) -> tuple[bool, int, int]:
    """Which of several processes is the daemon: one that leads its session; else the one that has been there longest.

    One that /proc does not show (hidepid, undumpable) is taken only if there is no other.
    """
    stat = read_stat(pid)
    return (stat.session != pid, stat.start, pid) if stat else (True, 1 << 62, pid)
