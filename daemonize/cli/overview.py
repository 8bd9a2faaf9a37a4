"""What `daemonctl list` and `daemonctl status` say of a daemon: facts, a table, a few lines."""

from __future__ import annotations

import os
import shlex
import shutil
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Any

from daemonize.daemon_errors import NotPossible
from daemonize.errors import printable
from daemonize.launcher.daemon import DEAD, RUNNING, STARTING, STOPPED
from daemonize.launcher.details import memory
from daemonize.launcher.members import left_of
from daemonize.launcher.relaunch import refuse_unrepeatable
from daemonize.logs.streams import last_lines
from daemonize.posix.identity import read_stat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemonize.registry.record import Record

    Marks = Mapping[bytes, list[tuple[int, str]]]

_COLUMNS = ("NAME", "STATE", "PID", "UPTIME", "READY", "MEMORY", "COMMAND")
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))

_POWERS = "BKMGT"
#: So many of the processes that a dead daemon has left are named.
_MOST_LEFT = 5


def facts(record: Record, state: str) -> dict[str, Any]:
    """Of one daemon, as `--json` prints them: pid and what follows from it only of one that runs; seconds and bytes."""
    runs = state == RUNNING
    stat = read_stat(record.pid) if runs and record.pid else None
    return {
        "name": record.name,
        "state": state,
        "pid": record.pid if runs else None,
        "process": stat.name if stat else None,
        "suspended": bool(stat and stat.state in "Tt"),
        "ready": record.ready and runs,
        "ready_after": record.seconds,
        "since": record.began,
        "uptime": max(0.0, time() - record.began) if runs else None,
        "stopped": None if runs else record.stopped,
        "memory": memory(record.pid) if runs and record.pid else None,
        "command": record.command,
        "found": record.found,
        "listen": record.listen,
        "stdout": record.stdout,
        "stderr": record.stderr,
        "pid_file": record.pid_file,
    }


def of_launch(name: str, pid: int | None) -> dict[str, Any]:
    """Facts of a daemon that is being started, for the first time. pid: of the launch, if that is known."""
    return {"name": name, "state": STARTING, "pid": None, "launch": pid}


def duration(seconds: float) -> str:
    """As people read it: the two largest units of it."""
    left = int(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def amount(size: float | None) -> str:
    """Bytes, as people read them."""
    if size is None:
        return "-"
    power = 0
    while size >= 1024 and power < len(_POWERS) - 1:
        size, power = size / 1024, power + 1
    return f"{size:.1f}{_POWERS[power]}" if power else f"{size:.0f}B"


def command_line(words: Sequence[str]) -> str:
    """A command, as one would type it."""
    return printable(shlex.join(words))


def row(known: dict[str, Any]) -> list[str]:
    """One line of the table."""
    uptime, after = known.get("uptime"), known.get("ready_after")
    return [
        printable(known["name"]),
        "suspended" if known.get("suspended") else known["state"],
        str(known["pid"] or "-"),
        "-" if uptime is None else duration(uptime),
        f"{after:.3f}s" if known.get("ready") and after is not None else "-",
        amount(known.get("memory")),
        command_line(known.get("command") or []),
    ]


def table(rows: Sequence[Sequence[str]], *, aligned: bool) -> str:
    """Columns; aligned and cut to the terminal's width for people, separated by tabs and whole for programs."""
    lines = [_COLUMNS, *rows]
    if not aligned:
        return "".join("\t".join(line) + "\n" for line in lines)
    widths = [max(len(line[at]) for line in lines) for at in range(len(_COLUMNS))]
    widths[-1] = 0
    wide = shutil.get_terminal_size().columns
    shown = ("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in lines)
    return "".join((line if len(line) <= wide else line[: wide - 1] + "…") + "\n" for line in shown)


def _moment(epoch: float) -> str:
    return f"{datetime.fromtimestamp(epoch, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _headline(record: Record, known: dict[str, Any]) -> str:
    state, began = known["state"], _moment(record.began)
    if state == RUNNING:
        how = (
            f"ready after {record.seconds:.3f} s" if record.ready else "not ready when it was last looked at"
        )
        halted = ", suspended by a signal (SIGSTOP)" if known["suspended"] else ""
        return f"running since {began} ({duration(known['uptime'])}), {how}{halted}"
    if state == STARTING:
        return "being started"
    if state == STOPPED:
        return f"stopped at {_moment(record.stopped or 0)}; it had run since {began}; {_again(record)}"
    return f"dead; it ran from {began}, and nobody has stopped it; {_again(record)}"


def _again(record: Record) -> str:
    try:
        refuse_unrepeatable(record)
    except NotPossible:
        return "only who started it can start it again"
    return f"to start it again: daemonctl start {printable(record.name)}"


def paragraph(record: Record, known: dict[str, Any], lines: int, marks: Callable[[], Marks]) -> str:
    """What `status` prints. lines: how many of the last lines of its logs. marks: finds who bears the mark of a launch."""
    about = f"{record.pid} ({printable(known['process'] or '?')}), {amount(known['memory'])} of memory"
    held = (f"{printable(spec)}: {printable(found)}" for spec, found in record.found.items())
    facts_shown = [
        ("pid", about if known["pid"] else ""),
        ("left", _left(record, marks()) if known["state"] == DEAD else ""),
        ("command", command_line(record.command)),
        ("ready by", ", ".join(held)),
        ("listens", ", ".join(map(printable, record.listen))),
        ("pid file", printable(record.pid_file or "") if known["pid"] else ""),
        *(
            (stream, _place(record, path))
            for stream, path in (("stdout", record.stdout), ("stderr", record.stderr))
        ),
    ]
    head = f"{printable(record.name)}: {_headline(record, known)}\n"
    body = "".join(f"  {name:9} {value}\n" for name, value in facts_shown if value)
    said = last_lines(record, lines) if lines else []
    return head + body + "".join(f"  {stream}| {_clean(line)}\n" for stream, line in said)


def _left(record: Record, marks: Marks) -> str:
    """What a daemon that has ended by itself has left running."""
    found = [f"{printable(name)} (pid {pid})" for pid, name in left_of(record, marks)]
    more = f" and {len(found) - _MOST_LEFT} more" if len(found) > _MOST_LEFT else ""
    return (
        f"{', '.join(found[:_MOST_LEFT])}{more}; to stop that: daemonctl stop {printable(record.name)}"
        if found
        else ""
    )


def _place(record: Record, path: str) -> str:
    relayed = record.foreground and path == os.devnull
    return "relayed by its parent, which stays (-f)" if relayed else printable(path)


def _clean(line: bytes) -> str:
    return printable(os.fsdecode(line.rstrip(b"\n")).replace("\t", "    "))
