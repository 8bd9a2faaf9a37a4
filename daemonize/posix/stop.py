"""Stop plans: an ordered list of (signal, grace) that ends with every process gone, or with the names of the survivors.

The first signal goes to the main process alone, so that it can end its workers its own way; when it has ended, what is
left of its tree gets the same signal for the rest of the grace. Every later step goes to the whole tree at once. Between
two steps nothing polls: the plan waits on pidfds, in the loop of its caller.
"""

from __future__ import annotations

from time import monotonic

from daemonize.posix.identity import Process
from daemonize.posix.loop import POLLIN
from daemonize.posix.signals import SIGCONT, SIGKILL, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemonize.posix.loop import Loop
    from daemonize.posix.tree import Tree

#: Seconds that SIGKILL is given: it ends everything that is not stuck inside the kernel.
KILL_GRACE = 5.0
_LOOKS = 3  # so many times in a row nobody must be seen, where a look may have missed somebody
_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05


def default_plan(grace: float, first: int = SIGTERM) -> tuple[tuple[int, float], ...]:
    """SIGTERM, `grace` seconds, SIGKILL."""
    return ((first, grace), (SIGKILL, KILL_GRACE))


class Stop:
    """One stop plan under way. `begin`, then run the loop and call `advance` after each round until `done`.

    main: (pid, start time) of the main process, or None if it has ended. had_main: it was there, and has been told.
    survivors: (pid, name), when done and not everything is gone.
    """

    def __init__(
        self, loop: Loop, tree: Tree, main: tuple[int, int] | None, plan: Sequence[tuple[int, float]]
    ) -> None:
        self.done = self.had_main = False
        self.survivors: list[tuple[int, str]] = []
        self._loop, self._tree, self._main = loop, tree, main
        self._plan = list(plan)
        self._members: dict[tuple[int, int], Process] = {}
        self._signalled: set[tuple[int, int]] = set()
        self._signal, self._deadline = 0, 0.0
        self._looked = False
        self._gone: list[tuple[int, int]] = []
        self._forbidden: set[tuple[int, int]] = set()
        self._wait = _FIRST_WAIT

    def begin(self) -> None:
        """Take the first step."""
        self._next_step()
        for pid in self._tree.known:
            self._hold_unseen(pid)
        if self._main is not None:
            self._hold(*self._main)
            if self._main in self._members:
                self.had_main = True
                self._send(self._main)
                try:
                    self._tree.living()  # while there is time: when it has ended, only who is new will be read
                except OSError:
                    pass  # no descriptors: it has had its signal, and is not to have it twice
        self.advance()

    @property
    def timeout(self) -> float:
        """Seconds until `advance` wants to be called even if nothing happens."""
        left = max(self._deadline - monotonic(), 0)
        return left if all(p.fd is not None for p in self._members.values()) else min(self._wait, left)

    def hurry(self) -> None:
        """Do not wait for the grace to pass: SIGKILL now."""
        while self._plan and self._signal != SIGKILL:
            self._next_step()
        self._main = None
        self.advance()

    def advance(self) -> None:
        """See who has ended; signal who is new; take the next step when its time has come."""
        self._drop_ended()
        while not self.done:
            if self._main not in self._members:
                self._main = None
            # Looking through /proc is the dear part: once a step, and whenever everybody known has ended.
            if self._main is None and not (self._looked and self._members):
                self._signal_tree()
                self._looked = True
                if not self._members:
                    self._finish()
                    return
            if self._members and self._forbidden >= self._members.keys():
                self._finish()  # nobody is left whom we may signal: waiting would not help
                return
            if monotonic() < self._deadline:
                self._wait = min(self._wait * 2, _LONGEST_WAIT)
                return
            self._main = None
            if not self._plan:
                self._finish()
                return
            self._next_step()

    def close(self) -> None:
        """Give up the plan: nothing more is signalled or watched."""
        for key in list(self._members):
            self._drop(key)
        self.done = True

    def _next_step(self) -> None:
        self._signal, grace = self._plan.pop(0)
        self._deadline = monotonic() + grace
        self._signalled.clear()
        self._looked = False

    def _signal_tree(self) -> None:
        """Signal every member that has not had this step's signal, until a look finds nobody new.

        Whoever was seen and is gone a moment later may have had children meanwhile: that counts as new.
        """
        fresh, looks = True, 0
        while fresh or (self._tree.torn and not self._members and looks < _LOOKS):
            fresh, looks = False, looks + 1
            try:
                for stat in self._tree.living():
                    if (stat.pid, stat.start) not in self._members and not self._hold(stat.pid, stat.start):
                        fresh = True
            finally:
                # Without descriptors nobody can be looked for, and those that are known are signalled all the same.
                fresh = self._send_to_new() or fresh
            if monotonic() >= self._deadline:
                return  # somebody is born with every look: the next step does not wait for an end of it

    def _send_to_new(self) -> bool:
        """Whether there are any who have not had this step's signal yet."""
        new = [key for key in self._members if key not in self._signalled]
        for key in new:
            self._send(key)
        return bool(new)

    def _send(self, key: tuple[int, int]) -> None:
        self._signalled.add(key)
        process = self._members[key]
        try:
            process.send(self._signal)
            if self._signal != SIGKILL:
                process.send(SIGCONT)  # a stopped process would never see the signal
        except PermissionError:
            self._forbidden.add(key)  # it has become another user's

    def _hold_unseen(self, pid: int) -> None:
        """Get hold of a member whose parent says that it is there; all that /proc shows is found anyway."""
        try:
            process = Process(pid)
        except ProcessLookupError:
            return
        start = process.start
        process.close()
        if start == 0:
            self._hold(pid, start)

    def _hold(self, pid: int, start: int) -> bool:
        """Get hold of the process that was seen; False if it has ended, and perhaps another has its pid by now."""
        try:
            process = Process(pid)
        except ProcessLookupError:
            return False
        key = (pid, start)
        if process.start != start or process.ended:
            process.close()
            return False
        self._members[key] = process
        if process.fd is not None:
            # Only put down: a handler of a signal that raises in the middle of the rest would leave half of it undone.
            self._loop.watch(process.fd, POLLIN, lambda _events: self._gone.append(key))
        return True

    def _drop_ended(self) -> None:
        unwatched = [key for key, process in self._members.items() if process.fd is None and process.ended]
        while self._gone:
            unwatched.append(self._gone.pop())
        for key in unwatched:
            self._tree.ended.add(key[0])
            self._drop(key)

    def _drop(self, key: tuple[int, int]) -> None:
        process = self._members.get(key)
        if process is None:
            return
        if process.fd is not None:
            self._loop.forget(process.fd)
        del self._members[key]
        process.close()

    def _finish(self) -> None:
        self.survivors = sorted((process.pid, process.name) for process in self._members.values())
        self.close()


def run(
    loop: Loop,
    tree: Tree,
    main: tuple[int, int] | None,
    plan: Sequence[tuple[int, float]],
    reap: Callable[[], object] = lambda: None,
) -> list[tuple[int, str]]:
    """Carry a stop plan out, with nothing else to wait for. Returns the survivors: (pid, name).

    `reap` is called after every wait, for a parent: without a pidfd, a child that is not reaped never seems to end.
    """
    stop = Stop(loop, tree, main, plan)
    stop.begin()
    while not stop.done:
        loop.run_once(stop.timeout)
        reap()
        stop.advance()
    return stop.survivors
