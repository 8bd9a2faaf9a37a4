"""The servers that this process has started, and what becomes of them when it is forked, or loses one."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from daemonize.channel import MessageChannel
    from daemonize.offspring.process import Child


class Running:
    """A server that has been started. foreign: this process is not its owner, but has been forked from that."""

    def __init__(self, child: Child, channel: MessageChannel) -> None:
        self.child, self.channel, self.owner = child, channel, os.getpid()
        _all.add(self)

    @property
    def foreign(self) -> bool:
        """Whether it is another process's."""
        return os.getpid() != self.owner

    def close(self) -> None:
        """Give everything back."""
        self.channel.close()
        self.child.close()


class Locking(Protocol):
    """What has locks, which another thread may hold when this process is forked."""

    def renew_locks(self) -> None:
        """Nobody holds them here."""


_all: weakref.WeakSet[Running] = weakref.WeakSet()
#: By id: what users make of them need not be hashable.
locking: weakref.WeakValueDictionary[int, Locking] = weakref.WeakValueDictionary()
#: Children that nobody has stopped; they end by themselves.
lost: list[Child] = []


def reap_lost() -> None:
    """Those of them that have ended."""
    for _ in range(len(lost)):
        try:
            child = lost.pop(0)
        except IndexError:
            return  # another thread has taken it
        if child.look():
            child.close()
        else:
            lost.append(child)


def _let_go() -> None:
    """In a forked child: the servers are not its own, and must not wait for it when their owner closes their channels."""
    for running in list(_all):
        running.close()
    for child in lost:
        child.close()
    lost.clear()
    for one in list(locking.values()):
        one.renew_locks()


os.register_at_fork(after_in_child=_let_go)
