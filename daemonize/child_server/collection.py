"""`ChildServerCollection`: servers by keys, each of which lives for as long as it is asked for."""

from __future__ import annotations

import threading
import warnings
from time import monotonic
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from daemonize.child_server.running import locking
from daemonize.child_server.server import ChildServer
from daemonize.errors import DaemonizeError, InvalidState, UsageError
from daemonize.offspring import forking
from daemonize.units import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

S = TypeVar("S", bound=ChildServer)


class _Entry(Generic[S]):
    """What a key has. server: None until it is started. busy: held while it is started or stopped."""

    def __init__(self) -> None:
        self.server: S | None = None
        self.used = monotonic()
        self.busy = threading.RLock()
        self.removed = self.making = False

    def refuse_factory(self) -> None:
        """Raises InvalidState: this is called by the factory that makes the server of this very key."""
        if self.making:
            raise InvalidState("a factory cannot ask for the key, nor stop the server, that it is making")


class ChildServerCollection(Generic[S]):
    """Servers by keys. max_idle_time: seconds (or "5min") after which one is stopped that was not looked up; 0: never.

    Any thread may use it. Looking up is what counts as use: a server is idle however busy it may be with what it was asked
    before. A context manager, which stops all of them. Raises UsageError.
    """

    def __init__(self, *, max_idle_time: float | str = 0) -> None:
        self.max_idle_time = seconds_of("max_idle_time", max_idle_time)
        self.renew_locks()
        locking[id(self)] = self

    def renew_locks(self) -> None:
        """Not for users: in a forked child, which has none of the servers."""
        self._entries: dict[Hashable, _Entry[S]] = {}
        self._changed = threading.Condition(threading.RLock())
        self._expirer: threading.Thread | None = None

    def lookup_or_add(self, key: Hashable, factory: Callable[[], S]) -> S:
        """The server of this key; where there is none, or it has died, what the factory makes, which is started.

        Who asks for the same key waits meanwhile, who asks for another does not. Raises UsageError, and what the factory and
        `start` raise; the key has no server then.
        """
        if not callable(factory):
            raise UsageError(f"a factory is called to make a server, and {factory!r} cannot be")
        while True:
            entry = self._entry_of(key)
            with entry.busy:
                if entry.removed:
                    continue
                try:
                    server = self._living(entry) or self._made(entry, factory)
                except BaseException:
                    self._remove(key, entry)
                    raise
                entry.server, entry.used = server, monotonic()
                self._expire_later()
                return server

    def _entry_of(self, key: Hashable) -> _Entry[S]:
        with self._changed:
            try:
                return self._entries.setdefault(key, _Entry())
            except TypeError:
                raise UsageError(f"a key is hashable, and {key!r} is not") from None

    @staticmethod
    def _made(entry: _Entry[S], factory: Callable[[], S]) -> S:
        entry.refuse_factory()
        entry.making = True
        try:
            return _made(factory)
        finally:
            entry.making = False

    @staticmethod
    def _living(entry: _Entry[S]) -> S | None:
        if entry.server and not entry.server.alive:
            _stop(entry.server)
            entry.server = None
        return entry.server

    def delete(self, key: Hashable) -> bool:
        """Stop the server of this key, and forget it; False: it has none. Raises StillRunning."""
        entry = self._entries.get(key) if key in self else None
        return entry is not None and self._end(key, entry)

    def _end(self, key: Hashable, entry: _Entry[S], unused_since: float | None = None) -> bool:
        """unused_since: only if it was not looked up since then."""
        with entry.busy:
            entry.refuse_factory()
            if entry.removed or (unused_since is not None and entry.used > unused_since):
                return False
            # Found until it has ended: whoever asks for the key, or cleans up, waits for that.
            try:
                if entry.server:
                    _stop(entry.server)
            finally:
                self._remove(key, entry)
            return True

    def _remove(self, key: Hashable, entry: _Entry[S]) -> None:
        with self._changed:
            entry.removed = True
            if self._entries.get(key) is entry:
                del self._entries[key]
            self._changed.notify_all()

    def cleanup(self) -> None:
        """Stop all of them; the collection is empty then, and may be used again.

        Raises the first StillRunning, when all have been told.
        """
        failure: DaemonizeError | None = None
        for key, entry in self._all():
            try:
                self._end(key, entry)
            except DaemonizeError as error:
                failure = failure or error
        if failure:
            raise failure

    def __contains__(self, key: object) -> bool:
        with self._changed:
            try:
                return key in self._entries
            except TypeError:
                raise UsageError(f"a key is hashable, and {key!r} is not") from None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Hashable]:
        return iter([key for key, _ in self._all()])

    def _all(self) -> list[tuple[Hashable, _Entry[S]]]:
        with self._changed:
            return list(self._entries.items())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    # -- idle ones ----------------------------------------------------------------------------------------------------

    def _expire_later(self) -> None:
        with self._changed:
            if not self.max_idle_time or (self._expirer and self._expirer.is_alive()):
                return
            self._expirer = threading.Thread(target=self._expire, name="idle servers", daemon=True)
            self._expirer.start()

    def _expire(self) -> None:
        """A thread, for as long as there is something to stop some time."""
        me = threading.get_ident()
        forking.harmless.add(me)
        try:
            while self._await_idle():
                since = monotonic() - self.max_idle_time
                for key, entry in self._all():
                    if entry.used <= since:
                        self._end_idle(key, entry, since)
        finally:
            forking.harmless.discard(me)

    def _await_idle(self) -> bool:
        """Until one is idle; False: there is none any more."""
        with self._changed:
            while self._entries:
                left = min(entry.used for entry in self._entries.values()) + self.max_idle_time - monotonic()
                if left <= 0:
                    return True
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            self._expirer = None
            return False

    def _end_idle(self, key: Hashable, entry: _Entry[S], since: float) -> None:
        try:
            self._end(key, entry, since)
        except DaemonizeError as error:
            warnings.warn(f"an idle server was not stopped: {error}", RuntimeWarning, stacklevel=2)


def _made(factory: Callable[[], S]) -> S:
    server = factory()
    if not isinstance(server, ChildServer):
        raise UsageError(f"a factory makes a ChildServer, and not {server!r}")
    if not server.started:
        server.start()
    return server


def _stop(server: ChildServer) -> None:
    if server.started:
        server.stop()
