"""Messages and descriptors between two ends of a UNIX stream socket: `MessageChannel`, and `AsyncMessageChannel` (aio.py).

Lists of strings, byte strings (scalars), JSON objects and open files arrive one by one, in the order they were written, each
as what it was. Both ends may be threads, or processes.

    a message of another kind, or too large   UnexpectedMessage, MessageTooLarge; it is still there, to be read or skipped
    end of file between two messages          None
    end of file within one                    TruncatedMessage, from then on
    an error, sent by the other end           RemoteError, UnknownMessage; it has been taken off
    no message at all                         MalformedMessage; the next one is read, if there is any telling where it begins
"""

from daemonize.channel.blocking import MessageChannel

__all__ = ["MessageChannel"]
