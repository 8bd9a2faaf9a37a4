"""`daemonctl show`: all that is known of a daemon, for people to read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from daemonize.cli.overview import amount, command_line
from daemonize.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Of more descriptors only so many are listed.
_MOST_OPEN = 50
_WIDTH = 12


def text(details: Mapping[str, Any]) -> str:
    """Lines, each ended: what is known, by name; then a tree of the processes, and what the main one has open.

    details: those of launcher.details, and `state`.

    Variables that were given with -E are shown with their values, as in the record, which is its owner's alone.
    """
    rows = [*_who(details), *_where(details), *_settings(details["settings"])]
    lines = [f"{label + ':':{_WIDTH}} {value}" for label, value in rows]
    lines += (
        ["", "processes:", *(f"  {line}" for line in _tree(details["processes"]))]
        if details["processes"]
        else []
    )
    if details["open"]:
        lines += ["", "open in the main process:", *(f"  {line}" for line in _open(details["open"]))]
    return "".join(f"{line}\n" for line in lines)


def _who(details: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "name", printable(details["name"])
    yield "state", _state(details)
    if details["pid"] is not None:
        yield "pid", str(details["pid"]) if details["running"] else f"{details['pid']} (until it ended)"
    yield "command", command_line(details["settings"]["command"])
    if details["program"]:
        yield "program", printable(details["program"])
    if details["directory"]:
        yield "started in", printable(details["directory"])
    if details["memory"] is not None:
        yield "memory", amount(details["memory"])
    if details["cpu"] is not None:
        yield "CPU time", f"{details['cpu']:.2f} s"


def _state(details: Mapping[str, Any]) -> str:
    how = "in the foreground, " if details["foreground"] else ""
    ready = f"ready after {details['seconds']:.3f} s" if details["ready"] else "not ready in time"
    stopped = (
        ""
        if details["running"] or details["stopped"] is None
        else f", stopped at {_time(details['stopped'])}"
    )
    return f"{details['state']} ({how}{ready}, at {_time(details['began'])}{stopped})"


def _where(details: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "stdout", printable(details["stdout"])
    yield "stderr", printable(details["stderr"])
    if details["drain"] is not None and details["running"]:
        yield "drain", str(details["drain"])
    if details["pid_file"]:
        yield "pid file", printable(details["pid_file"])
    for address in details["listen"]:
        yield "given", printable(address)
    if details["listening"] is None and details["running"]:
        yield "listens on", "(may not be looked at)"
    for address in details["listening"] or ():
        yield "listens on", printable(address)
    for spec, found in details["found"].items():
        yield "found", f"{printable(spec)}: {printable(found)}"


def _settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was asked for, by the names of the long options."""
    for name, value in settings.items():
        label = printable(name.replace("_", " "))
        if name in ("command", "name", "stdout", "stderr", "pid_file"):  # told above
            continue
        if name == "environment":
            yield from (("variable", printable(f"{key}={content}")) for key, content in value.items())
        elif name == "limits":
            yield from (("limit", f"{printable(key)}={_limit(bound)}") for key, bound in value.items())
        elif name == "umask":
            yield label, f"{value:03o}"
        elif name == "log_rotate":
            yield label, f"{amount(value[0])}, {value[1]} kept"
        elif name in ("timeout", "stop_timeout"):
            yield label, "infinity" if value == "infinity" else f"{value:g} s"
        elif isinstance(value, (list, tuple)):
            yield from ((label, printable(str(one))) for one in value)
        else:
            yield label, "yes" if value is True else printable(str(value))


def _limit(bound: Any) -> str:
    numbers = bound if isinstance(bound, (list, tuple)) else [bound]
    return ":".join("unlimited" if number == -1 else str(number) for number in numbers if number is not None)


def _tree(processes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line a process, below its parent; those whose parent is none of them side by side."""
    pids = {facts["pid"] for facts in processes}
    below: dict[int | None, list[Mapping[str, Any]]] = {}
    for facts in processes:
        below.setdefault(facts["ppid"] if facts["ppid"] in pids else None, []).append(facts)

    def draw(parent: int | None, lead: str) -> Iterator[str]:
        children = below.get(parent, [])
        for number, facts in enumerate(children, 1):
            last = number == len(children)
            branch = "" if parent is None else "└─ " if last else "├─ "
            yield f"{lead}{branch}{_process(facts)}"
            yield from draw(facts["pid"], lead + ("" if parent is None else "   " if last else "│  "))

    return draw(None, "")


def _process(facts: Mapping[str, Any]) -> str:
    words = list(facts["command"] or ())
    while words and not words[-1]:  # a server that shows its state there has no use for them
        words.pop()
    command = command_line(words) if words else f"[{printable(facts['name'] or '?')}]"
    about = [
        facts["user"],
        facts["state"],
        None if facts["started"] is None else f"since {_time(facts['started'])}",
        None if facts["memory"] is None else amount(facts["memory"]),
        None if facts["cpu"] is None else f"{facts['cpu']:.2f} s",
        None if facts["threads"] in (None, 1) else f"{facts['threads']} threads",
        None if facts["descriptors"] is None else f"{facts['descriptors']} open",
    ]
    told = ", ".join(printable(one) for one in about if one)
    return f"{facts['pid']} {command}" + (f" ({told})" if told else "")


def _open(descriptors: Mapping[str, str]) -> Iterator[str]:
    for number, target in list(descriptors.items())[:_MOST_OPEN]:
        yield f"{number:>3} {printable(target)}"
    if len(descriptors) > _MOST_OPEN:
        yield f"and {len(descriptors) - _MOST_OPEN} more"


def _time(when: float) -> str:
    return datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
