"""The fork of a program: by posix/child.py, which tells over a pipe why it could not be executed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daemonize.offspring import mortal, settling
from daemonize.offspring.process import Child
from daemonize.posix import child, fds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemonize.manager.holdings import Holdings
    from daemonize.manager.tasks import Streams
    from daemonize.outcomes import NotExecuted


class _Context(child.Directory):
    """A directory, and a limit of memory in bytes, or None."""

    def __init__(self, path: bytes | None, memory: int | None) -> None:
        super().__init__(path)
        self._memory = memory

    def open(self) -> None:
        """Raises OSError."""
        super().open()
        if self._memory is not None:
            self.stage = "memory"
            settling.limit_memory(self._memory)

    def describe(self, stage: str) -> str:
        """The directory, or the limit."""
        return f"limited to {self._memory} bytes" if stage == "memory" else super().describe(stage)


class Command:
    """words: the command. directory: None: the owner's. memory: bytes, or None."""

    def __init__(
        self,
        words: list[bytes],
        environment: Mapping[bytes, bytes],
        directory: bytes | None,
        streams: Streams,
        memory: int | None,
    ) -> None:
        self._streams = streams
        self._program = child.Program(
            words,
            child.search(words[0], environment, directory and os.path.abspath(directory)),
            environment,
            context=_Context(directory, memory),
            dies_with_parent=True,
        )

    def bear(self, held: Holdings) -> tuple[Child, None, tuple[Command, int]]:
        """Fork it. With it, a descriptor from which `failure` reads. In `Blocked`. Raises OSError.

        It is let go before it is born: there is nobody who would have to be told of it first.
        """
        owned, kept = fds.Descriptors(), fds.Descriptors()
        try:
            fds.occupy_standard(owned)
            report, tells = os.pipe()
            kept.add(report), owned.add(tells)
            os.set_blocking(report, False)
            gate, lets = owned.pipe()
            os.write(lets, b"g")
            self._place(owned)
            pid = mortal.lastingly(lambda: child.fork(self._program, tells, gate))
        except BaseException:
            kept.close()
            raise
        finally:
            owned.close()
        return Child(pid, held.reaping), None, (self, report)

    def _place(self, owned: fds.Descriptors) -> None:
        """What is to be stdin, stdout and stderr: copies, none of which is what another is to become."""
        given = [None if fd is None else owned.add(os.dup(fd)) for fd in self._streams]
        stdin, stdout, stderr = given
        self._program.stdin = stdin
        self._program.stdout = 1 if stdout is None else stdout
        self._program.stderr = 2 if stderr is None else stderr

    def failure(self, report: int) -> NotExecuted | None:
        """Why it was not executed, where its process has ended."""
        stage, number, told = "", 0, b""
        try:
            told = os.read(report, 4096)
        except BlockingIOError:
            pass  # another child has a copy of the other end, whom another thread forked just then
        for line in told.splitlines():
            word, *rest = line.split()
            if word == b"failed":
                stage, number = rest[0].decode(), int(rest[1])
        if not stage:
            return None
        error = child.not_executed(self._program, None, stage, number)
        error.command = [os.fsdecode(word) for word in self._program.argv]
        return error
