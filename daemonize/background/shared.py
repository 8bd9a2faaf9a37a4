"""One server for several processes, such as the workers of one test run: the first starts it, and it ends with the last.

    process A ── keeper ── wrapper ── server
    process B ── connects ───▲  ▲
    process C ── connects ──────┘

They meet at an abstract UNIX socket, named after the user, the test run and the server. To bind it is what makes a
process the first: the kernel lets one do that. The wrapper listens there until the server is gone, so that there is never
a second one beside the first. No file is left by whoever is killed.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from errno import EADDRINUSE
from typing import TYPE_CHECKING

from daemonize.errors import SetupError
from daemonize.launcher.owner import private
from daemonize.posix.sockets import peer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Set by pytest-xdist in the workers of one run, and inherited by what they start.
_RUN = "PYTEST_XDIST_TESTRUNUID"
_QUEUE = 128
#: Seconds between two tries while somebody is just coming or going.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
#: Seconds for which a name may be taken, and nobody listen: one of ours does so in the same breath.
_LONGEST_SILENCE = 5.0


class Place:
    """Where the processes that share a server meet. name: of the server. Raises SetupError."""

    def __init__(self, name: str) -> None:
        if sys.platform != "linux":
            raise SetupError("share", name, OSError(0, "there are no abstract UNIX sockets on this system"))
        key = hashlib.sha256(f"{os.environ.get(_RUN, '')}\0{name}".encode("utf-8", "surrogatepass"))
        self.name, self._address = name, f"\0daemonize/shared/{os.geteuid()}/{key.hexdigest()[:32]}"

    def meet(self, check: Callable[[], None]) -> Iterator[tuple[socket.socket, bool]]:
        """A socket, and whether this process is the first: others are going to connect to it; else it is to whoever was.

        Goes on with another one as long as the caller has no use for the one before. check: called before each, to raise
        what ends this. Raises SetupError.
        """
        pause, since = _FIRST_PAUSE, time.monotonic()
        while True:
            check()
            if listener := self._claim():
                yield listener, True
            elif sock := self._connect():
                since = time.monotonic()
                yield sock, False
            elif time.monotonic() - since > _LONGEST_SILENCE:
                raise SetupError("share", self.name, OSError(0, "somebody has its name, and does not listen"))
            time.sleep(pause)  # somebody binds that name, or lets go of it, in this moment: no event tells
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _claim(self) -> socket.socket | None:
        """What others are going to connect to, if this process is the first; else None. Raises SetupError."""
        listener = private(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            listener.bind(self._address)
            listener.listen(_QUEUE)
        except OSError as error:
            listener.close()
            if error.errno == EADDRINUSE:
                return None
            raise SetupError("share", self.name, error) from None
        return listener

    def _connect(self) -> socket.socket | None:
        """To whoever was the first; None: it has just gone, or is not there yet. Raises SetupError if it is a stranger."""
        sock = private(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            sock.connect(self._address)
        except OSError:
            sock.close()
            return None
        _, uid = peer_of(sock)
        if uid != os.geteuid():
            sock.close()
            raise SetupError("share", self.name, OSError(0, f"user {uid} has its name"))
        return sock
