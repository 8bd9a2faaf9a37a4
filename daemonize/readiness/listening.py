"""What `port` and `unix` have in common: a socket of the server's tree takes what is sent to it.

Nothing connects: the kernel's tables show the sockets, and /proc/PID/fd whose they are. No event tells when one begins to
listen, so it is looked for, often at first; the tables come first, because as long as nothing is there nobody needs to
be asked for his descriptors.
"""

from __future__ import annotations

import os
from time import monotonic, thread_time
from typing import TYPE_CHECKING

from daemonize.errors import AlreadyRunning, SetupError, printable, user_name
from daemonize.posix.identity import EXITING, GONE, has_proc, read_stat, standing
from daemonize.posix.sockets import holder_of, open_here, open_of
from daemonize.readiness import Probe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemonize.posix.sockdiag import Bound, Listener
    from daemonize.readiness import Launch

#: Seconds between two looks: at first, the most in the first EARLY seconds, and the most afterwards.
_FIRST, _OFTEN, _SELDOM, _EARLY = 0.001, 0.001, 0.02, 10.0
#: Of the time since the launch was prepared, looking never takes more than a tenth.
_SHARE = 0.1


class Listening(Probe):
    """what, shown: how an error names what is waited for; shown is empty where it may be any.

    nothing: what is said if there is no such socket. asks_members: once in so many looks `there` is told of the server's
    tree.
    """

    needs_launch = True
    what = shown = ""
    nothing = "it does not listen"
    asks_members = 1

    def __init__(self, spec: str, argument: str) -> None:
        super().__init__(spec, argument)
        self._launch: Launch
        self._before: set[int] = set()
        self._called: dict[int, str] = {}
        self._seen: set[int] = set()
        self._told = False
        self._turn = 0
        self._began = self._until = self._spent = 0.0
        self._pause, self._most = _FIRST, _OFTEN

    def prepare(self, launch: Launch) -> None:
        """Nobody else may be there. What the server is given by its caller is its own."""
        self._launch, self._began = launch, monotonic()
        self._before = {socket.inode for socket in self.refuse_taken(launch.kept)}

    def refuse_taken(self, kept: Iterable[int]) -> Sequence[Listener | Bound]:
        """Raises AlreadyRunning if somebody is there. Where any would do, those that are there.

        kept: descriptors of sockets that are not meant. Raises SetupError, too, and OSError.
        """
        own = open_here(kept)
        try:
            there = [socket for socket in self.there((), wide=True) if socket.inode not in own]
        except SetupError:
            if not self.shown:
                raise  # one cannot connect to whatever port it may be
            if self.answers():
                raise AlreadyRunning(self.what, self.shown) from None
            return []
        if self.shown and there:
            raise AlreadyRunning(self.what, self.shown, *holder_of(there[0].inode, there[0].uid))
        return there

    def executed(self, now: float) -> None:
        """From now on it may be there."""
        self._until = now + _EARLY
        self.tick(now)

    def tick(self, now: float) -> None:
        """Look. An OSError means that one cannot."""
        before, seen = thread_time(), self._seen
        try:
            self._look()
        finally:
            self._spent += thread_time() - before
            self._most = _OFTEN if now < self._until else _SELDOM
            # What was found is looked at again at once, to see whether it stays.
            self.due = None if self.held else now if self._seen is not seen else self._next(now)

    def _next(self, now: float) -> float:
        """When (monotonic) to look again."""
        pause, self._pause = self._pause, min(self._pause * 1.5, self._most)
        return max(now + pause, self._began + self._spent / _SHARE)

    def there(self, members: Sequence[int], *, wide: bool = False) -> Sequence[Listener | Bound]:
        """The sockets that would do, if they were the server's. wide: those as well that leave it no place.

        Raises SetupError where the kernel does not tell.
        """
        raise NotImplementedError  # pragma: no cover (both probes have their own)

    def answers(self) -> str:
        """Connect, without waiting: who was reached, as shown to people; empty: nobody."""
        raise NotImplementedError  # pragma: no cover (both probes have their own)

    # -- look ---------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._turn += 1
        members: Sequence[int] = () if self._turn % self.asks_members else self._launch.members()
        try:
            there = self.there(members)
        except SetupError as error:
            self._connect(error)
            return
        if not there:
            self.problem = self.nothing
            return
        if stays := [socket for socket in there if socket.inode in self._seen]:
            self._hold(", ".join(sorted({printable(str(socket)) for socket in stays})))
            return
        members = members or self._launch.members()
        own, hider = self._own(members, {socket.inode for socket in there})
        sure = own or not hider
        found = [s for s in there if s.inode in own] if sure else self._possible(there, hider)
        if found:
            # Many a program listens for a moment only to find out whether the port is free.
            self._seen = {socket.inode for socket in found}
        elif self.shown:
            self.problem = f"it is held by {self._call(there[0])}, not by the server"
        else:
            self.problem = self.nothing

    def _possible(self, there: Sequence[Listener | Bound], hider: str) -> list[Listener | Bound]:
        """Those that may be the server's, where that cannot be said: none, if any port of the machine would do."""
        why = f"the descriptors of {hider} may not be read"
        if not self.shown:
            self._tell(f"{why}: name the port")
            return []
        self._tell(f"{why}: a socket of its user, or of root, will do")
        return [socket for socket in there if self._may_be_own(socket)]

    def _hold(self, found: str) -> None:
        self.held, self.found = True, found
        self.close()  # in the foreground the launch goes on

    def _own(self, members: Sequence[int], inodes: set[int]) -> tuple[set[int], str]:
        """Which of the sockets the server's tree has open; and whose descriptors may not be read, as shown to people."""
        own: set[int] = set()
        main = self._launch.main
        hider = "the server" if not has_proc() or (main and _is_hidden(main)) else ""
        for pid in members:
            try:
                own |= open_of(pid, inodes)
            except PermissionError:
                # A process on its way out is root's; it has nothing open any more, or soon.
                if standing(pid) not in (EXITING, GONE):
                    hider = f"pid {pid}"
            except OSError:
                pass  # it has ended
            if own == inodes:
                break
        return own, hider

    def _may_be_own(self, socket: Listener | Bound) -> bool:
        """Whether a socket that nobody else is known to have is new, and of somebody whom the server may be."""
        if socket.inode in self._before or socket.uid not in (None, 0, os.getuid(), self._launch.uid):
            return False
        pid, _, _ = holder_of(socket.inode, socket.uid)
        return pid is None

    def _call(self, socket: Listener | Bound) -> str:
        # Looking through all processes for it takes long: once.
        if socket.inode not in self._called:
            pid, name, uid = holder_of(socket.inode, socket.uid)
            other = "somebody else" if uid is None else f"somebody of user {user_name(uid)}"
            self._called[socket.inode] = other if pid is None else f"{printable(name)} (pid {pid})"
        return self._called[socket.inode]

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            self._launch.note(f"{self.spec}: {text}")

    # -- where the kernel does not tell -------------------------------------------------------------------------------

    def _connect(self, error: SetupError) -> None:
        self._tell(f"{error}: it is connected to")
        found = self.answers()
        if found:
            self._hold(found)
        else:
            self.problem = "nobody answers there"


def _is_hidden(pid: int) -> bool:
    """Whether there is a process that /proc does not show (hidepid)."""
    if read_stat(pid):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
