"""Which message, and which signal, calls what."""

from __future__ import annotations

import inspect
import signal
from typing import TYPE_CHECKING, Any, TypeVar, overload

from daemonize.errors import UsageError, signal_name
from daemonize.offspring.mortal import OWNER_ENDED

if TYPE_CHECKING:
    from collections.abc import Callable

    SignalHandler = Callable[[int, Any], object] | signal.Handlers

F = TypeVar("F", bound="Callable[..., object]")
_MARK = "_daemonize_messages"
_LATER = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)


@overload
def message_handler(name: F) -> F: ...
@overload
def message_handler(name: str | None = None) -> Callable[[F], F]: ...
def message_handler(name: Any = None) -> Any:
    """Decorate a method of a `ChildServer` that handles messages of this name; without one, of the method's own.

    What it returns is not sent: it writes its answer to `client`. A method that overrides it handles them then. Raises
    UsageError.
    """
    if callable(name):
        return _marked(name, getattr(name, "__name__", None))
    return lambda function: _marked(function, getattr(function, "__name__", None) if name is None else name)


def _marked(function: Any, name: object) -> Any:
    refuse_async(function)
    names = [*getattr(function, _MARK, ()), checked_name(name)]
    try:
        setattr(function, _MARK, names)
    except AttributeError:
        raise UsageError(f"message_handler decorates a method, and {function!r} is none") from None
    return function


def refuse_async(handler: object) -> None:
    """Raises UsageError: what a handler begins, nobody would go on with."""
    if any(test(handler) for test in _LATER):
        raise UsageError(
            f"a handler is called, and done when it returns; {handler!r} is async, or a generator"
        )


def declared(kind: type) -> dict[str, str]:
    """The messages that methods of a class handle, and the name of each method. Raises UsageError: two for one message."""
    found: dict[str, str] = {}
    for above in reversed(kind.__mro__):
        here: dict[str, str] = {}
        for attribute, value in vars(above).items():
            names = vars(value).get(_MARK, ()) if hasattr(value, "__dict__") else ()
            for name in names:
                if here.setdefault(name, attribute) != attribute:
                    raise UsageError(
                        f"{above.__name__} has two handlers for the message '{name}': {here[name]} and {attribute}"
                    )
        found.update(here)
    return found


def checked_name(name: object) -> str:
    """Of a message. Raises UsageError."""
    if isinstance(name, str):
        return name
    raise UsageError(f"the name of a message is text, and {name!r} is not")


def checked_signal(number: object) -> int:
    """Of a signal that a server may handle. Raises UsageError."""
    if isinstance(number, str):
        # Not of the module: SIG_IGN is 1 there, as is SIGHUP.
        name = number if number.startswith("SIG") else f"SIG{number}"
        number = signal.Signals.__members__.get(name, number)
    if not isinstance(number, int) or number not in signal.valid_signals():
        raise UsageError(f"there is no signal {number!r}: write signal.SIGUSR1, or 'SIGUSR1'")
    if number in (signal.SIGKILL, signal.SIGSTOP):
        raise UsageError(f"no process can handle {signal_name(number)}")
    if number == OWNER_ENDED:
        raise UsageError(
            f"{signal_name(number)} tells a server that its owner has ended, and nothing else can be it"
        )
    return int(number)


def checked_handler(handler: object) -> SignalHandler:
    """Of a signal. Raises UsageError."""
    if callable(handler) or handler in (signal.SIG_IGN, signal.SIG_DFL):
        return handler  # type: ignore[return-value]
    raise UsageError(
        f"a handler of a signal is called with its number and a frame, or is SIG_IGN or SIG_DFL, not {handler!r}"
    )
