"""`{fd}`, `{port}` in the words of a command: where the sockets are that the server is given.

`{fd}` and `{fd1}` are the first one's descriptor, `{port2}` the second one's port. `{{` is `{`, and the `}}` that belongs to
it `}`. All else in braces stays as it is, and so does what follows a `$`, which is the shell's: `${port}`.
"""

from __future__ import annotations

from daemonize.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FD, PORT = b"fd", b"port"
NAMES = (FD, PORT)
#: Longer than any placeholder; int() has a limit of its own.
_LONGEST = 16


def fill(
    word: bytes, fds: Sequence[int], ports: Sequence[int | None], names: Sequence[bytes] = NAMES
) -> bytes:
    """The word with its placeholders replaced. ports: None for a socket that has none. Raises UsageError.

    names: of the placeholders that there are.
    """
    parts, opened, at = [], 0, 0
    while (brace := _next_brace(word, at)) >= 0:
        parts.append(word[at:brace])
        two, inside = word[brace : brace + 2], _inside(word, brace, names)
        length = 2
        if two == b"{{":
            opened += 1
            parts.append(b"{")
        elif two == b"}}" and opened:
            opened -= 1
            parts.append(b"}")
        elif inside and word[brace - 1 : brace] != b"$":
            parts.append(b"%d" % _value(inside, fds, ports, names))
            length = len(inside) + 2
        else:
            parts.append(two[:1])
            length = 1
        at = brace + length
    return b"".join([*parts, word[at:]])


def _next_brace(word: bytes, at: int) -> int:
    return min((found for found in (word.find(b"{", at), word.find(b"}", at)) if found >= 0), default=-1)


def _inside(word: bytes, brace: int, names: Sequence[bytes]) -> bytes:
    """What stands between the braces there, if that is a placeholder."""
    if word[brace : brace + 1] != b"{":
        return b""
    inside = word[brace + 1 : brace + _LONGEST].partition(b"}")
    return inside[0] if inside[1] and inside[0].rstrip(b"0123456789") in names else b""


def _value(inside: bytes, fds: Sequence[int], ports: Sequence[int | None], names: Sequence[bytes]) -> int:
    name = inside.rstrip(b"0123456789")
    shown = f"{{{inside.decode('ascii')}}}"
    number = int(inside[len(name) :] or b"1")
    if not 1 <= number <= len(fds):
        if FD not in names:
            raise UsageError(
                f"{shown}: the ports are {{port}}, {{port2}} to {{port{len(fds)}}}; "
                f"to mean the text itself, write {{{shown}}}"
            )
        count = f"{len(fds)} socket" + "s" * (len(fds) > 1)
        raise UsageError(f"{shown}: the server is given {count}; to mean the text itself, write {{{shown}}}")
    value = fds[number - 1] if name == FD else ports[number - 1]
    if value is None:
        raise UsageError(f"{shown}: that socket has no port; to mean the text itself, write {{{shown}}}")
    return value
