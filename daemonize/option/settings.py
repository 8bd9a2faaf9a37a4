"""What the author of a server sets for its `--daemonize`, and the launch that it amounts to."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from daemonize.errors import UsageError
from daemonize.launcher.request import START_TIMEOUT, STOP_TIMEOUT, Request
from daemonize.posix import arrival
from daemonize.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

    from daemonize.launcher.context import Context
    from daemonize.launcher.request import Limit, StrPath


class Given(TypedDict, total=False):
    """The keywords of an author.

    timeout: seconds (or "90s") to become ready, None: no limit. stop_timeout: seconds between SIGTERM and SIGKILL. strict:
    anything on stderr before ready is a failure. user, cwd, umask, nice, core, limits: as of `daemonize.context`, entered
    where the server begins: after the group callbacks, before the command's.
    """

    timeout: float | str | None
    stop_timeout: float | str
    strict: bool
    user: str | int | None
    cwd: StrPath | None
    umask: int | None
    nice: int
    core: bool | None
    limits: Mapping[str, Limit] | None


#: What leads to a stream, and is another one in another process.
STREAMS = ("/dev/std", "/dev/fd/", "/proc/self/fd/")
_CONTEXT = ("user", "cwd", "umask", "nice", "core", "limits")


class Settings:
    """The keywords, checked. Raises UsageError for those that cannot be."""

    def __init__(self, **given: Unpack[Given]) -> None:
        self._timeout = _seconds(given.pop("timeout", START_TIMEOUT))
        self._stop_timeout = _seconds(given.pop("stop_timeout", STOP_TIMEOUT))
        self._strict = given.pop("strict", False)
        unknown = sorted(given.keys() - set(_CONTEXT))
        if unknown:
            raise TypeError(f"no such setting: {', '.join(unknown)}")
        self._context: dict[str, Any] = dict(given)
        if not isinstance(self._strict, bool):
            raise UsageError(f"strict must be True or False, not {self._strict!r}")
        cwd = given.get("cwd")
        if not isinstance(cwd, str | bytes | os.PathLike | None):
            raise UsageError(f"cwd must be a path, not {cwd!r}")
        self.request(None, None)
        if given.get("limits"):
            from daemonize.launcher.context import context

            context(limits=given["limits"])  # their names

    @property
    def context(self) -> Context | None:
        """What the server becomes, None if nothing is to change. Raises UsageError, SetupError."""
        if not self._context:
            return None
        from daemonize.launcher.context import context

        return context(**self._context)

    def request(
        self, pid_file: StrPath | None, log_file: StrPath | None, base: bytes | None = arrival.DIRECTORY
    ) -> Request:
        """The launch of this program. Raises UsageError, SetupError.

        base: where the files are relative to. A caller means where he is: a group callback may have gone elsewhere.
        """
        if log_file and os.fsdecode(log_file).startswith(STREAMS):
            raise UsageError(
                f"the log cannot be {os.fsdecode(log_file)}: a server in the background lets go of its caller's streams"
            )
        pid_file, log_file = (
            path and os.path.join(base or b"", os.fsencode(path)) for path in (pid_file, log_file)
        )
        context = dict(self._context)
        request = Request(
            [sys.executable or "python", *sys.orig_argv[1:]],
            ready=("streams",),
            timeout=self._timeout,
            stop_timeout=self._stop_timeout,
            strict=self._strict,
            directory=context.pop("cwd", None),
            stdout=log_file,
            stderr=log_file,
            append=log_file is not None,
            pid_file=pid_file,
            **context,
        )
        request.shown_as = os.fsencode(program_name())
        return request

    def request_anew(self, pid_file: StrPath | None, log_file: StrPath | None) -> Request:
        """The launch of the command line of this program, as it was. The server makes its context itself."""
        request = self.request(pid_file, log_file)
        request.directory, request.makes_context = arrival.DIRECTORY, False
        return request


def program_name() -> str:
    """The name of this program: of its module, if it is run as one (-m), else of its file (or archive, or directory)."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec and spec.name != "__main__":
        return str(spec.name.removesuffix(".__main__"))
    name = os.path.basename(sys.argv[0].rstrip("/"))
    return "python" if name in ("", "-", "-c") else name


def _seconds(duration: float | str | None) -> float:
    if duration is None:
        return float("inf")
    return parse_duration(duration) if isinstance(duration, str) else duration


def is_own_command_line(options: Sequence[str], *, typed: bool, abbreviated: bool = False) -> bool:
    """Whether the command line that was parsed is that of this process, and not one that another program carries out.

    options: any of which asked for it. typed: it was an argument, and not a default or a variable. abbreviated: perhaps it
    was not typed in full.
    """
    if typed:
        is_there = any(_may_be(word, option, abbreviated) for word in sys.argv[1:] for option in options)
        return is_there and not any(map(_is_in_memory, (sys.stdout, sys.stderr)))
    return _leads_to(sys.stdout, 1) and _leads_to(sys.stderr, 2)


def _may_be(word: str, option: str, abbreviated: bool) -> bool:
    """Whether an argument may be this option: abbreviated, with a value, among other letters."""
    if option.startswith("--"):
        name = word.partition("=")[0]
        return name == option or (abbreviated and len(name) > 2 and option.startswith(name))
    return option[:1] == word[:1] and not word.startswith("--") and option[1:] in word


def _is_in_memory(stream: TextIO | None) -> bool:
    """Whether what is written ends in memory: CliRunner's streams, StringIO. One of the author's that hands on does not."""
    return isinstance(stream, io.StringIO) or isinstance(getattr(stream, "buffer", None), io.BytesIO)


def _leads_to(stream: TextIO | None, number: int) -> bool:
    """Whether a stream is this process's own; CliRunner's and pytest's are not. None: it was closed, as it may be."""
    try:
        return stream is None or stream.fileno() == number
    except (OSError, AttributeError):
        return False
