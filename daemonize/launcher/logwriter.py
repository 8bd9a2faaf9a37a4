"""What the drain writes with: logs that are stamped and rotated, and a thread that waits for the disk in its place.

    Writer.put ──▶ buffer (ROOM bytes) ──▶ thread ──▶ Log.write ──▶ file

What cannot be written is counted, and noted in the log as soon as it can be written again:

    daemonize: 4711 bytes of output were lost here (No space left on device)

The bytes written and the bytes noted are together all that there were. After a loss the log goes on with a whole line.
"""

from __future__ import annotations

import os

from daemonize.logs import stamps
from daemonize.posix import rotation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes that may wait for the disk.
ROOM = 1 << 20
#: Seconds in which a disk must have taken something, or words are lost: it is not slow then, but hangs.
PATIENCE = 0.2
#: Why words are lost that were not even tried to be written.
HANGS = "the disk did not answer"
#: After a loss so many bytes at most are lost as well because no line has ended in them.
_LONGEST_LINE = 65536


class Log:
    """One log. fd: it is appended to, and stays that number when the log is rotated.

    place: (descriptor of its directory, its name there); None: it is never rotated. limit: bytes beyond which it is.
    keep: how many old ones stay. stamped: whether every line has its time before it.
    """

    def __init__(
        self,
        fd: int,
        *,
        place: tuple[int, bytes] | None = None,
        limit: int = 0,
        keep: int = 0,
        stamped: bool = False,
    ) -> None:
        self.fd, self.place, self._limit, self._keep, self._stamped = fd, place, limit, keep, stamped
        self._size = os.fstat(fd).st_size
        self._rotate_at = float(limit) if place and limit else float("inf")
        self._starts_line = True  # the next byte in the file is the first of a line
        self._lost, self._why = 0, ""
        self._skipping = 0  # bytes that may still be lost until a line begins
        if stamped:
            self._end_old_line()

    def _end_old_line(self) -> None:
        """The last words of an earlier server may have had no end of a line; a time stamp in a line is none."""
        try:
            fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                unended = self._size and os.pread(fd, 1, self._size - 1) != b"\n"
            finally:
                os.close(fd)
            self._size += os.write(self.fd, b"\n") if unended else 0
        except OSError:
            pass  # write-only for us; no /proc; a full disk

    def write(self, data: bytes, moment: float) -> None:
        """Append what was read at a moment (seconds since the epoch). Never raises: what cannot be written is lost."""
        if self._skipping:
            data = self._next_line(data)
        if not data:
            return
        note = self._note(moment)
        started = self._starts_line or bool(note)
        text = note + self._stamp(data, moment, started=started)
        kept = self._append_all(text, len(note))
        if kept >= len(note):
            self._lost = 0
        if kept < len(text):
            taken = text[len(note) : kept]
            stamped = taken.count(b"\n") - (not started) if self._stamped and b"\n" in taken else 0
            lost = len(data) - (len(taken) - stamped * stamps.LENGTH)
            self.lose(lost, self._why, ends_line=data.endswith(b"\n"))

    def lose(self, count: int, why: str, *, ends_line: bool) -> None:
        """So much cannot be written, and that is to be noted. ends_line: whether it was the end of a line."""
        self._lost += count
        self._why = why
        self._skipping = 0 if ends_line else _LONGEST_LINE

    def finish(self, moment: float) -> None:
        """There will be no more: note what was lost, if that can be written now."""
        note = self._note(moment)
        if note and self._append_all(note, len(note) - 1) == len(note):
            self._lost = 0

    def _next_line(self, data: bytes) -> bytes:
        """What follows the rest of a line that is lost; that rest is lost, too."""
        end = data.find(b"\n") + 1
        rest = end or min(len(data), self._skipping)
        self._lost += rest
        self._skipping = 0 if end else self._skipping - rest
        return data[rest:]

    def _note(self, moment: float) -> bytes:
        if not self._lost:
            return b""
        line = f"daemonize: {self._lost} bytes of output were lost here ({self._why})\n".encode()
        begin = b"" if self._starts_line else b"\n"
        return begin + (stamps.stamp(moment) if self._stamped else b"") + line

    def _stamp(self, data: bytes, moment: float, *, started: bool) -> bytes:
        """The data with a time stamp before every line that begins in it. started: one begins with it."""
        if not self._stamped:
            return data
        mark = stamps.stamp(moment)
        text = data.replace(b"\n", b"\n" + mark)
        if data.endswith(b"\n"):
            text = text[: -len(mark)]
        return mark + text if started else text

    def _append_all(self, text: bytes, note: int) -> int:
        """How much of the text is in the log now, whole lines of it; nothing, if that were no more than the note."""
        done = 0
        while done < len(text):
            end = self._fitting(text, done)
            kept = self._append(text[done:end], note if not done else 0)
            done += kept
            if kept:
                self._starts_line = text[done - 1 : done] == b"\n"
            if done < end:
                break
        return done

    def _fitting(self, text: bytes, start: int) -> int:
        """The end of what is to be written next, in this file or, where no line fits any more, in a new one."""
        room = self._rotate_at - self._size
        if len(text) - start <= room:
            return len(text)
        end = text.rfind(b"\n", start, start + int(room)) + 1 if room > 0 else 0
        if end > start:
            return end
        # A line that is longer than a whole log is divided: the disk is not for one line alone.
        is_due = self._starts_line or self._size >= self._rotate_at + self._limit
        if self._size and is_due and self._rotate():
            return self._fitting(text, start)
        end = text.find(b"\n", start) + 1
        return end if end > start else len(text)

    def _rotate(self) -> bool:
        """Begin a new file; False: go on in the same, and try again when as much again is in it."""
        before, self._rotate_at = self._size, float(self._limit)
        try:
            self._size = min(os.fstat(self.fd).st_size, before)  # somebody may have truncated it
            if self._size == before and self.place:
                new = rotation.rotate(*self.place, self.fd, self._keep)
                os.dup2(new, self.fd, inheritable=False)
                os.close(new)
                self._size = os.fstat(self.fd).st_size
        except OSError:
            self._rotate_at = float(self._size + self._limit)
        return self._size < before

    def _append(self, text: bytes, note: int) -> int:
        """write(2); how much of it is in the file now: if not all, then as many lines as are whole."""
        view, done = memoryview(text), 0
        try:
            while done < len(text):
                done += os.write(self.fd, view[done:])
        except OSError as error:
            self._why = error.strerror or str(error)
        kept = done
        if done < len(text):
            kept = text.rfind(b"\n", 0, done) + 1
            if not kept and not self._starts_line and not note:
                kept = done  # more of a line that is there already
            kept = kept if kept > note else 0
        self._size += kept
        if kept < done:
            self._cut(done - kept)
        return kept

    def _cut(self, excess: int) -> None:
        """Take the beginning of a line away again, if nobody has appended anything since."""
        try:
            if os.fstat(self.fd).st_size == self._size + excess:
                os.ftruncate(self.fd, self._size)
                return
        except OSError:
            pass
        self._size += excess
        self._starts_line = False


class Writer:
    """A thread that writes to a log what is put into its buffer, so that who puts it there need not wait for the disk."""

    def __init__(self, log: Log) -> None:
        import threading  # in the drain, while the server starts

        self._log = log
        self._changed = threading.Condition()
        self._jobs: list[tuple[int, Callable[[], None]]] = []
        self._waiting = self._written = 0  # bytes
        self._hangs = self._closing = False
        self._refused, self._refused_line = 0, False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, data: bytes, moment: float) -> None:
        """Have it written. It is lost if the disk takes nothing for PATIENCE seconds while the buffer is full."""
        with self._changed:
            if not self._has_room(len(data)):
                self._refused += len(data)
                self._refused_line = data.endswith(b"\n")
                return
            self._tell_refused()
            self._add(len(data), lambda: self._log.write(data, moment))

    def close(self, moment: float) -> None:
        """Wait until everything is written, with a note where something was lost."""
        with self._changed:
            self._tell_refused()
            self._closing = True
            self._add(0, lambda: self._log.finish(moment))
        self._thread.join()

    def _add(self, size: int, job: Callable[[], None]) -> None:
        self._jobs.append((size, job))
        self._waiting += size
        self._changed.notify_all()

    def _tell_refused(self) -> None:
        count, ends_line = self._refused, self._refused_line
        if count:
            self._refused = 0
            self._add(0, lambda: self._log.lose(count, HANGS, ends_line=ends_line))

    def _has_room(self, size: int) -> bool:
        # While the disk takes something, who writes faster than that waits for it, as he would without us.
        while self._waiting + size > ROOM and not self._hangs:
            self._hangs = not self._wait_for_progress()
        return self._waiting + size <= ROOM

    def _wait_for_progress(self) -> bool:
        before = self._written
        return self._changed.wait_for(lambda: self._written > before, PATIENCE)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                jobs, self._jobs = self._jobs, []
            if not jobs:
                return
            for size, job in jobs:
                job()
                with self._changed:
                    self._waiting -= size
                    self._written += size
                    self._hangs = False
                    self._changed.notify_all()
