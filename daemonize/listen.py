"""The server's side of sockets that whoever started it has opened for it, as sd_listen_fds(3) has it.

They are at descriptors 3, 4, ...; LISTEN_FDS says how many, LISTEN_PID for which process, LISTEN_FDNAMES their names.
"""

from __future__ import annotations

import os

FIRST = 3
COUNT, PID, NAMES = b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES"
VARIABLES = (COUNT, PID, NAMES)
#: With it, newer managers name the process a second time. It says nothing more to us.
_REMOVED = (*VARIABLES, b"LISTEN_PIDFDID")
_UNNAMED = "unknown"
#: Digits of a pid, or of a number of descriptors.
_LONGEST_NUMBER = 10


def listen_fds(*, unset_environment: bool = False) -> list[int]:
    """The descriptors of the sockets that this process was given; none, where it was given none, or the variables are wrong.

    No program that is executed from now on inherits them. unset_environment: nor the variables, and a second call gives
    nothing. They are this process's alone: a child that it has forked is given none.
    """
    try:
        return _take()
    finally:
        _forget(unset_environment)


def listen_fds_with_names(*, unset_environment: bool = False) -> dict[int, str]:
    """As `listen_fds`, each with its name: that of NAME=ADDR, or `listen`; `unknown` where there are no names."""
    try:
        given, numbers = os.environb.get(NAMES), _take()
        names = [_UNNAMED] * len(numbers) if given is None else os.fsdecode(given).split(":")
        return dict(zip(numbers, names, strict=True)) if len(names) == len(numbers) else {}
    finally:
        _forget(unset_environment)


def is_addressed() -> bool:
    """Whether the variables are for this process, and no other that it was started by."""
    return _number(PID) == os.getpid() and COUNT in os.environb


def numbers() -> range:
    """At which descriptors they are, if the variables are right."""
    return range(FIRST, FIRST + _number(COUNT) if is_addressed() else FIRST)


def _take() -> list[int]:
    try:
        for fd in numbers():
            os.set_inheritable(fd, False)
    except (OSError, OverflowError):
        return []  # one of them is not open
    return list(numbers())


def _forget(variables: bool) -> None:
    for name in _REMOVED if variables else ():
        os.environb.pop(name, None)


def _number(name: bytes) -> int:
    value = os.environb.get(name, b"")
    return int(value) if value.isdigit() and len(value) <= _LONGEST_NUMBER else 0
