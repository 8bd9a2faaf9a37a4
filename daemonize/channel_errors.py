"""What goes wrong on a channel: errors apart from the others, because no launch needs them."""

from __future__ import annotations

from daemonize.errors import STATUS_TIMED_OUT, DaemonizeError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self


class ChannelError(DaemonizeError):
    """Something about a `MessageChannel`, or a message of it."""


class ChannelClosed(ChannelError, ValueError):
    """This end of the channel has been closed here, before the call or meanwhile."""

    def __str__(self) -> str:
        """One line."""
        return "the channel has been closed"


class ChannelBroken(ChannelError):
    """Nothing more can be written: an earlier message was cut off, as its time was over or a signal handler raised."""

    def __str__(self) -> str:
        """One line."""
        return "nothing more can be written to the channel: an earlier message was cut off; close it, and make another one"


class PeerGone(ChannelError, BrokenPipeError):
    """Nobody can read what is written: the other end has been closed, or its process has died."""

    def __str__(self) -> str:
        """One line."""
        return "nobody reads what is written to the channel: its other end has been closed"


class ChannelTimedOut(ChannelError, TimeoutError):
    """Nothing came, or nobody read, in time. action: `read` or `write`. timeout: seconds."""

    exit_status = STATUS_TIMED_OUT

    def __init__(self, action: str, timeout: float) -> None:
        self.action, self.timeout = action, timeout
        Exception.__init__(self, action, timeout)  # two arguments of an OSError would be errno and text

    def __str__(self) -> str:
        """One line."""
        what = "no whole message came" if self.action == "read" else "the message was not taken"
        return f"{what} within {self.timeout:g} s"


class TruncatedMessage(ChannelError):
    """The stream ended within a message. received: bytes of it. size: of how many (None: that had not come yet)."""

    def __init__(self, received: int, size: int | None = None) -> None:
        self.received, self.size = received, size
        super().__init__(received, size)

    def __str__(self) -> str:
        """One line."""
        where = f"after {self.received} of {self.size} bytes" if self.size is not None else "in its head"
        return f"a message was cut off {where}: its sender has died, or given it up"


class MalformedMessage(ChannelError):
    """What came is no message. reason: why not."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        """One line."""
        return f"what came is no message: {printable(self.reason)}"


class MessageTooLarge(ChannelError):
    """A message of `size` bytes, and `limit` are allowed. One that came is still there, to be read with more, or skipped."""

    def __init__(self, size: int, limit: int) -> None:
        self.size, self.limit = size, limit
        super().__init__(size, limit)

    def __str__(self) -> str:
        """One line."""
        return f"the message is too large: {self.size} bytes, and {self.limit} are allowed (max_size)"


class UnexpectedMessage(ChannelError):
    """A message of another kind than was asked for, which is still there, to be read as what it is, or skipped.

    wanted, found: `list`, `scalar`, `object` or `descriptor`.
    """

    def __init__(self, wanted: str, found: str) -> None:
        self.wanted, self.found = wanted, found
        super().__init__(wanted, found)

    def __str__(self) -> str:
        """One line."""
        return f"the next message is of the kind '{self.found}', and not '{self.wanted}'"


class RemoteError(ChannelError):
    """Instead of an answer, the other end sent an error (`MessageChannel.write_error`), which has been taken off.

    type: of the error there, with its module unless that is Python's own. text: what it says. message: the name of the
    message that it answers, "" if none was told. traceback: as Python shows it, of the other process, in the middle of
    which something may be left out.
    """

    def __init__(self, type: str, text: str, message: str = "", traceback: str = "") -> None:  # noqa: A002 (its name)
        self.type, self.text, self.message, self.traceback = type, text, message, traceback
        super().__init__(type, text, message, traceback)

    def __str__(self) -> str:
        """One line."""
        what = f"the message '{printable(self.message)}'" if self.message else "a message"
        text = " ".join(self.text.split())
        return (
            f"{what} was answered with an error: {printable(f'{self.type}: {text}' if text else self.type)}"
        )


class UnknownMessage(RemoteError):
    """The server has no handler for a message of this name."""

    @classmethod
    def of(cls, message: str, known: Iterable[str]) -> Self:
        """known: the names of those for which it has one."""
        handled = ", ".join(sorted(known)) or "none"
        return cls(cls.__name__, f"messages with a handler: {handled}", message)

    def __str__(self) -> str:
        """One line."""
        return f"there is no handler for the message '{printable(self.message)}' ({printable(self.text)})"


class DescriptorsLost(ChannelError):
    """A message came, and the kernel could not hand over its descriptors; whatever did come was closed."""

    def __str__(self) -> str:
        """One line."""
        return "the descriptors of a message were lost: this process may have no more open (ulimit -n)"
