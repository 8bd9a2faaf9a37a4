"""Which processes belong to a server.

Three sources, and none of them is proof of absence: descendants (of the server, of whoever adopts its orphans), the
session it was started in, and a token in the environment (a server may overwrite its own: nginx does).
"""

from __future__ import annotations

import os
from time import monotonic

from daemonize.posix.identity import (
    EXITING,
    GONE,
    PF_KTHREAD,
    all_pids,
    has_proc,
    read_file,
    read_stat,
    standing,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from daemonize.posix.identity import Stat

#: So many times in one look /proc is listed at most, where new processes are born all the time.
_MOST_LISTINGS = 20
#: Seconds in which nobody uses up all pids that there are: 32,768 at least.
_MOMENT = 1.0


class Tree:
    """What to look for. roots: pids; their descendants belong to the tree, and they themselves unless in `exclude`.

    known: pids of members that /proc may not show (hidepid). session: the session id, or None. tokens: each a `NAME=value`
    of the environment; since: when the first that has it started, in clock ticks since boot. torn: during the last
    look some process was just executing another program, or new ones were born all the time, so that a member may have been
    missed: a look through /proc is not atomic.
    """

    def __init__(
        self,
        roots: Collection[int],
        session: int | None = None,
        tokens: Collection[bytes] = (),
        exclude: Collection[int] = (),
        known: Collection[int] = (),
        since: int = 0,
    ) -> None:
        # 0 is what everybody has whose session began outside of this pid namespace, as in a container: it tells nothing.
        self.roots, self.session, self.tokens = set(roots), session or None, set(tokens)
        self.known, self._since = set(known), since
        self.exclude = {os.getpid(), *exclude}
        self.torn = False
        #: Members whose end was waited for, by pid.
        self.ended: set[int] = set()
        #: The inode of /proc/PID of each process that was found to be none of them: a later one with its pid has another.
        self._strangers: dict[int, int] = {}
        self._inodes: dict[int, int] = {}
        self._last_look: tuple[float, int] | None = None
        self._unsure: set[int] = set()
        #: Who was found in the last look, and is no stranger.
        self._others: set[int] = set()

    def living(self) -> list[Stat]:
        """All members that have not ended, by pid. Without /proc: none."""
        stats, marked = self._look()
        members = self.roots | marked
        while grown := {s.pid for s in stats if s.pid not in members and s.ppid in members}:
            members |= grown
        self._remember_strangers(stats, members)
        return sorted((s for s in stats if s.pid in members and not _ended(s)), key=lambda s: s.pid)

    def _look(self) -> tuple[list[Stat], set[int]]:
        """Everybody but `exclude` and known strangers, and the pids of those that bear a mark.

        Who forks and ends between being listed and being read has a child that is listed next: when nobody new is, nobody
        was missed. One look alone, again and again, misses a process that is never long the same for many looks in a row.
        """
        seen, marked = {os.getpid()}, set[int]()
        stats: list[Stat] = []
        self.torn, self._unsure, before, self._inodes = False, set(), self._strangers, {}
        self._strangers = {}
        newest = self._newest_then()
        if newest:
            seen |= self.ended
        else:
            self.ended.clear()
        for _ in range(_MOST_LISTINGS):
            fresh = set(all_pids()) - seen
            if not fresh:
                return stats, marked
            seen |= fresh
            if newest:
                known = fresh & before.keys()
                self._strangers.update((pid, before[pid]) for pid in known)
                fresh -= known
            living = {pid for pid in sorted(fresh) if self._read(pid, before.get(pid), stats, marked)}
            if newest and living == fresh and self._missed_nobody(living, newest):
                return stats, marked
        self.torn = True
        return stats, marked

    def _read(self, pid: int, stranger: int | None, stats: list[Stat], marked: set[int]) -> bool:
        """Add one that was listed to what was found; False if it has ended. stranger: the inode of one with its pid."""
        inode = _inode(pid)
        if inode and stranger == inode:
            self._strangers[pid] = inode
            return True
        stat = read_stat(pid)
        if stat:
            self._inodes[pid] = inode
        if stat and pid not in self.exclude:
            stats.append(stat)
            if self._is_marked(stat):
                marked.add(pid)
        return stat is not None and not stat.exiting

    def _missed_nobody(self, living: set[int], newest: int) -> bool:
        """Whether one listing was enough, of which all that were read live. newest: the newest pid as of the last look.

        /proc lists by number, and the kernel counts up: who is born since the last look comes after its parent. Who was not
        listed all the same has a parent that was there at the last look already, and ended while this one was taken. None
        of those did that were no strangers then: they live, or their end had been waited for before.
        """
        return self._others <= living | self.ended and newest <= _newest_pid()

    def _newest_then(self) -> int:
        """The newest pid as of the last look, if no pid was given to another since; else 0.

        The kernel counts up, and not once around so soon.
        """
        now, newest = monotonic(), _newest_pid()
        then, self._last_look = self._last_look, (now, newest)
        return then[1] if then and now - then[0] < _MOMENT and newest >= then[1] else 0

    def _remember_strangers(self, stats: list[Stat], members: set[int]) -> None:
        """Nobody becomes a member later: the next look, which somebody waits for, need not read them again.

        Not of one whose parent has gone meanwhile, or is unsure: that may have been a member.
        """
        for stat in sorted(stats, key=lambda stat: stat.start):  # parents first
            known = stat.ppid <= 1 or stat.ppid in self._strangers
            if known and stat.pid not in members and stat.pid not in self._unsure:
                self._strangers[stat.pid] = self._inodes[stat.pid]
        self._others = self._inodes.keys() - self._strangers.keys()

    def _is_marked(self, stat: Stat) -> bool:
        if self.session is not None and stat.session == self.session:
            return True
        if not self.tokens or stat.start < self._since or stat.state in "ZX" or stat.flags & PF_KTHREAD:
            return False
        environment = read_file(f"/proc/{stat.pid}/environ")
        if environment == b"":
            self.torn = True
            self._unsure.add(stat.pid)
        return environment is not None and not self.tokens.isdisjoint(environment.split(b"\0"))


class Offspring(Tree):
    """What to look for where all of the tree is below this process, which adopts orphans (PR_SET_CHILD_SUBREAPER).

    Nobody gets away from there, and who has no children (waitid(2) says so) has no descendants. besides: children that are
    not of it. reap: reaps what has ended.
    """

    def __init__(self, besides: Collection[int], reap: Callable[[], object]) -> None:
        super().__init__({os.getpid()}, exclude=besides)
        self._reap = reap

    def living(self) -> list[Stat]:
        """All members that have not ended, by pid.

        Of one that forks and ends between being listed and being read, the child is ours by then: there is another look, as
        long as there are children and nobody is seen.
        """
        found: list[Stat] = []
        for _ in range(_MOST_LISTINGS):
            self._reap()
            found = [stat for stat in map(read_stat, descendants(os.getpid(), self.exclude)) if stat]
            self.torn = not found and not _has_no_children()
            if not self.torn:
                break
        return found


def _has_no_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _newest_pid() -> int:
    """The last pid that the kernel gave away (proc(5), /proc/loadavg); 0 where it does not tell."""
    words = (read_file("/proc/loadavg") or b"").split()
    return int(words[4]) if len(words) > 4 and words[4].isdigit() else 0


def _inode(pid: int) -> int:
    """The inode of /proc/PID, of this process and no later one with its pid; 0: it has gone."""
    try:
        return os.stat(f"/proc/{pid}").st_ino
    except OSError:
        return 0


def descendants(root: int, besides: Collection[int] = ()) -> list[int]:
    """Pids of all that are below a process and have not ended, but for `besides` and what is below those.

    Much cheaper than a Tree where the kernel lists children (CONFIG_PROC_CHILDREN), on a machine with many processes.
    """
    found: list[int] = []
    waiting = children(root)
    if waiting is None:
        return [stat.pid for stat in Tree({root}, exclude={root, *besides}).living()]
    while waiting:
        pid = waiting.pop()
        if pid in besides or pid in found:
            continue
        waiting += children(pid) or []
        stat = read_stat(pid)
        if stat and not _ended(stat):
            found.append(pid)
    return sorted(found)


def children(pid: int) -> list[int] | None:
    """The children of a process, of all its threads; None where the kernel does not list them."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task") if has_proc() else []
    except OSError:
        return []
    lists = [read_file(f"/proc/{pid}/task/{task}/children") for task in tasks]
    if tasks and all(listed is None for listed in lists):
        return None
    return [int(child) for listed in lists for child in (listed or b"").split()]


def _ended(stat: Stat) -> bool:
    # A zombie leader whose threads live on still serves; its task directory tells.
    return stat.state in "ZX" and (stat.threads < 2 or standing(stat.pid) in (EXITING, GONE))
