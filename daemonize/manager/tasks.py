"""What may be asked for of a `ProcessManager`, checked before anything is forked."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple, TypeAlias

from daemonize.channel import codec
from daemonize.errors import UsageError
from daemonize.posix import signals
from daemonize.units import UNLIMITED, parse_amount, seconds_of

#: A function, or the words of a command.
Task: TypeAlias = Callable[..., Any] | Sequence[str | bytes | os.PathLike[str]]
Path: TypeAlias = str | bytes | os.PathLike[str]
#: Seconds between SIGTERM and SIGKILL.
GRACE = 10.0
#: Bytes of the largest limit that can be said (setrlimit(2)).
_MOST_MEMORY = (1 << 63) - 1
#: Of a code object: that of a coroutine function.
_COROUTINE = inspect.CO_COROUTINE
#: What only a command has.
_FOR_COMMANDS = ("environment", "directory", "stdin", "stdout", "stderr")


class Options(NamedTuple):
    """See `ProcessManager.create_process`. timeout: None: for ever. memory: None: as the owner's."""

    timeout: float | None
    grace: float
    memory: int | None
    usage: bool


class Streams(NamedTuple):
    """Descriptors for 0, 1 and 2; None: the owner's own."""

    stdin: int | None
    stdout: int | None
    stderr: int | None


#: Of most tasks: what is made once is not copied for each.
DEFAULTS = Options(None, GRACE, None, usage=False)


def checked_options(
    timeout: float | str | None, grace: float | str, memory: int | str | None, usage: bool = False
) -> Options:
    """Raises UsageError."""
    return Options(
        None if timeout is None else seconds_of("timeout", timeout, above=True),
        seconds_of("grace", grace),
        _bytes_of(memory),
        usage,
    )


def _bytes_of(memory: int | str | None) -> int | None:
    most = parse_amount(memory) if isinstance(memory, str) else memory
    if most is None or (most == UNLIMITED and isinstance(memory, str)):
        return None
    if type(most) is not int or not 0 < most <= _MOST_MEMORY:
        raise UsageError(f"memory is a number of bytes, text such as '512M', or None, and not {memory!r}")
    return most


def checked_name(task: Task, name: object) -> str:
    """What is given, or its own. Raises UsageError."""
    if not isinstance(name, str | None):
        raise UsageError(f"the name of a task is text, and {name!r} is not")
    return name or name_of(task)


def name_of(task: Task) -> str:
    """As shown to people."""
    if callable(task):
        for attribute in ("__qualname__", "__name__"):
            try:
                name = getattr(task, attribute, None)
            except Exception:  # noqa: BLE001, S112 (an object may answer for its attributes as it likes)
                continue
            if isinstance(name, str) and name:
                return name
        return type(task).__name__
    return os.fsdecode(task[0])


def check_callbacks(**callbacks: Any) -> None:
    """Each is None, or can be called. Raises UsageError."""
    for keyword, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise UsageError(f"{keyword} is called, and {callback!r} cannot be")


def checked_signal(number: Any) -> int:
    """Raises UsageError."""
    if not isinstance(number, int) or number not in signals.valid():
        raise UsageError(f"there is no signal {number!r}: write signal.SIGTERM")
    return int(number)


def takes_channel(function: Callable[..., Any]) -> bool:
    """Whether it has to be given an argument. Raises UsageError: more than one."""
    if type(function) is FunctionType and not vars(function):
        # Most are, and `inspect` takes as long as a tenth of a fork.
        code = function.__code__
        required = code.co_argcount - len(function.__defaults__ or ())
        if required < 2 and not code.co_kwonlyargcount and not code.co_flags & _COROUTINE:
            return required == 1
    refuse_coroutine(function)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return False  # some of those in C do not tell
    asked = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(asked) > 1 or not set(asked) <= set(positional):
        raise UsageError(
            f"a task is called with a channel, or with nothing, and {name_of(function)} wants {', '.join(asked)}: "
            "use functools.partial, or a lambda"
        )
    return bool(asked)


def refuse_coroutine(function: Callable[..., Any]) -> None:
    """Who calls one has nothing yet. Raises UsageError."""
    try:
        is_one = inspect.iscoroutinefunction(function)
    except Exception:  # noqa: BLE001 (an object may answer for its attributes as it likes)
        return
    if is_one:
        raise UsageError(
            f"a task is a function, and {name_of(function)} is a coroutine function: give one that calls asyncio.run"
        )


def checked_words(task: Any) -> list[bytes]:
    """Raises UsageError."""
    if isinstance(task, (str, bytes)) or not isinstance(task, Sequence):
        raise UsageError(f"a task is a function, or a list of words such as ['sleep', '1'], and not {task!r}")
    try:
        words = [os.fsencode(word) for word in task]
    except (TypeError, UnicodeEncodeError):
        raise UsageError(f"the words of a command are text, bytes or paths, and not {task!r}") from None
    if not words or not words[0]:
        raise UsageError("a command has a name, which is its first word")
    if any(b"\0" in word for word in words):
        raise UsageError(f"no word of a command can have a NUL in it: {task!r}")
    return words


def checked_environment(environment: Any) -> dict[bytes, bytes]:
    """None: the owner's. Raises UsageError."""
    if environment is None:
        return dict(os.environb)
    if not isinstance(environment, Mapping):
        raise UsageError(f"environment is a mapping of names to values, and not {environment!r}")
    try:
        found = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
    except (TypeError, UnicodeEncodeError):
        raise UsageError(f"names and values of the environment are text, and not {environment!r}") from None
    for name, value in found.items():
        if not name or b"=" in name or b"\0" in name + value:
            raise UsageError(
                f"{os.fsdecode(name)!r} cannot be the name of a variable, or its value has a NUL in it"
            )
    return found


def checked_directory(directory: Path | None) -> bytes | None:
    """Raises UsageError."""
    if directory is None:
        return None
    try:
        path = os.fsencode(directory)
    except (TypeError, UnicodeEncodeError):
        raise UsageError(f"directory is a path, and {directory!r} is none") from None
    if not path or b"\0" in path:
        raise UsageError(f"directory is a path, and {directory!r} is none")
    return path


def checked_streams(*streams: codec.HasFileno | int | None) -> Streams:
    """stdin, stdout, stderr. Raises UsageError: one of them is not open."""
    found: dict[str, int | None] = {}
    for name, file in zip(Streams._fields, streams, strict=True):
        try:
            found[name] = None if file is None else codec.descriptor_of(file)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
        try:
            if file is not None:
                os.fstat(codec.descriptor_of(file))
        except OSError:
            raise UsageError(f"{name}: descriptor {found[name]} is not open") from None
    return Streams(**found)


def refuse_for_functions(*given: object) -> None:
    """given: what only commands have, in the order of `_FOR_COMMANDS`. Raises UsageError."""
    for name, value in zip(_FOR_COMMANDS, given, strict=True):
        if value is not None:
            raise UsageError(f"{name} is for commands: a function has what its owner has")
