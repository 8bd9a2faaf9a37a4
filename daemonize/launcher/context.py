"""The context of a daemon: limits, priority, root, umask, directory, user; for a process that has been forked to be one.

    parent   context(...)      everything is looked up, and wrong settings are refused, while there is somebody to tell
      └ fork ─ child   .open()    limits, nice, groups, umask, root, user, directory; a failed step is known by `stage`

Changes are made by python-daemon's DaemonContext, which is PEP 3143, where they can be. Of what it does, this is not used:

- detaching: its first parent exits at once and would take the exit status of the server along;
- signals: its default leaves TSTP, TTIN and TTOU ignored, through exec, too;
- core limits, unless asked for: it zeroes the hard one as well;
- closing descriptors and redirecting streams: whoever forks knows which are to stay, and has done it (posix/fds.py);
- a new root, and the user in it: it looks the user up inside, where root would load and run the libraries of the user
  database that it finds there. Supplementary groups are found before, for the same reason;
- the directory: it enters it as root. It is entered last, as the user, as systemd does: root's rights must not lead
  through a symlink of the user's, and on NFS root may have none.
"""

from __future__ import annotations

import atexit
import errno
import os
import resource
import sys
from typing import TYPE_CHECKING

import daemon as python_daemon

from daemonize.errors import UsageError, printable
from daemonize.launcher import account
from daemonize.launcher.request import check_settings, encode
from daemonize.posix import fds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daemonize.launcher.request import Limit, StrPath

#: Which step of DaemonContext.open() failed, by the function that raised; it says so nowhere else.
_STAGES = {
    "prevent_core_dump": "limits",
    "change_file_creation_mask": "umask",
    "change_working_directory": "directory",
    "change_process_owner": "user",
}


class _Standard:
    """A standard stream by number: DaemonContext asks `sys.stdout` and its like, which may be None, or not a file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The number."""
        return self._fd


class Context:
    """Settings that are complete and can be used. `open` makes them those of this process; `stage`: the step it is at.

    user: an account, or None to stay who we are. root: new root directory. directory: inside that root; None: stay, or the
    root. umask, nice (added to what it is): None: as they are. core: True: as large as may be, False: none; None: as it is.
    limits: by number of the resource, (soft, hard).
    """

    stage = "limits"

    def __init__(
        self,
        user: account.Account | None,
        root: bytes | None,
        directory: bytes | None,
        umask: int | None,
        nice: int,
        core: bool | None,
        limits: Mapping[str, Limit],
    ) -> None:
        self.user, self.root, self.umask, self.nice, self.core = user, root, umask, nice, core
        self.directory = directory
        self.limits = {name: _resource(name, value) for name, value in limits.items()}
        self._values = dict(limits)

    def describe(self, stage: str) -> str:
        """What a step acts on, as shown to people."""
        name, _, limit = stage.partition(":")
        if limit:
            return f"{limit}={_shown(self._values[limit])}" if limit in self._values else limit
        shown = {
            "root": self.root, "directory": self.directory or b".", "nice": str(self.nice),
            "user": self.user and self.user.shown, "groups": self.user and self.user.shown,
        }  # fmt: skip
        value = shown.get(name) or ""
        return os.fsdecode(value)

    def open(self) -> None:
        """Change this process, for good. Raises OSError; `stage` tells the step."""
        preserved = fds.opened()  # before a limit forbids to look
        for stage in self._first_steps():
            self.stage = stage
        standard = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
        try:
            sys.stdin, sys.stdout, sys.stderr = map(_Standard, range(3))
            context = self._daemon_context(preserved)
            context.open()
            atexit.unregister(context.close)  # it would only remove a pid file of its own
        except python_daemon.daemon.DaemonOSEnvironmentError as error:
            self.stage = _STAGES.get(_raiser(error), "context")
            # It "enters" the directory that we are in, and "sets" the ids that we have, which is not always permitted.
            # What is to be changed comes after that, and nothing of its own.
            if self.stage not in ("directory", "user") or self._changes_user_there:
                raise _cause(error) from None
        finally:
            for name, stream in standard.items():
                setattr(sys, name, stream)
        for stage in self._last_steps():
            self.stage = stage

    @property
    def _changes_user_there(self) -> bool:
        """Whether DaemonContext is to change the user."""
        return self.user is not None and self.root is None and not self.user.is_ours

    def _last_steps(self) -> Iterator[str]:
        """What comes after DaemonContext, likewise."""
        if self.root is not None:
            yield "root"
            os.chdir(self.root)
            os.chroot(b".")
            os.chdir(b"/")
            if self.user:
                yield "user"
                os.setgid(self.user.gid)
                os.setuid(self.user.uid)
        if self.directory is not None:
            yield "directory"
            os.chdir(self.directory)

    def _first_steps(self) -> Iterator[str]:
        """What comes before DaemonContext; the name of each step comes before it."""
        for name, number in self.limits.items():
            yield f"limits:{name}"
            _limit(number, self._values[name])
        if self.core:
            yield "limits:core"
            _, hard = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        if self.nice:
            yield "nice"
            os.nice(self.nice)
        if self.user and os.geteuid() == 0:
            yield "groups"
            os.setgroups(self.user.groups)
        yield "context"

    def _daemon_context(self, preserved: list[int]) -> python_daemon.DaemonContext:
        user = self.user if self._changes_user_there else None
        return python_daemon.DaemonContext(
            working_directory=b".",
            umask=_current_umask() if self.umask is None else self.umask,
            uid=user.uid if user else os.getuid(),
            gid=user.gid if user else os.getgid(),
            initgroups=False,  # see above
            prevent_core=self.core is False,
            detach_process=False,
            signal_map={},
            files_preserve=preserved,
            stdin=_Standard(0),
            stdout=_Standard(1),
            stderr=_Standard(2),
        )


def context(
    *,
    user: str | int | None = None,
    chroot: StrPath | None = None,
    cwd: StrPath | None = None,
    umask: int | None = None,
    nice: int = 0,
    core: bool | None = None,
    limits: Mapping[str, Limit] | None = None,
) -> Context:
    """The context of a daemon, looked up and checked; its `open()` makes it that of the calling process.

    user: `USER[:GROUP]`, or a number. chroot: new root directory. cwd: directory to run in, inside the new root. umask: file
    mode creation mask. nice: added to the priority, as nice(1) does. core: whether core files are written. limits: by name
    of the resource, as setrlimit(2) without RLIMIT_: soft, or (soft, hard).

    Raises UsageError for what cannot be, SetupError for a user that does not exist or may not be used.
    """
    if core is not None and "core" in (limits or {}):
        raise UsageError("--core, --no-core and a limit of core exclude each other")
    check_settings(user=user, umask=umask, nice=nice, core=core, limits=limits)
    found = account.find(str(user)) if user is not None else None
    root, directory = (None if path is None else encode(path, "a path") for path in (chroot, cwd))
    if b"" in (root, directory):
        raise UsageError("a path cannot be empty")
    return Context(found, root, directory, umask, nice, core, limits or {})


def _raiser(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_name if trace else ""


def _cause(error: BaseException) -> OSError:
    """The system's own error behind one of python-daemon, whose text is not for people."""
    cause = error.__cause__
    return cause if isinstance(cause, OSError) else OSError(errno.EINVAL, str(cause))


def _current_umask() -> int:
    """There is no way to read it without changing it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _resource(name: str, value: Limit) -> int:
    """The number of a resource whose limit can be set to a value. Raises UsageError."""
    number = getattr(resource, f"RLIMIT_{name.upper()}", None) if name == name.lower() else None
    if number is None:
        known = sorted(word[7:].lower() for word in dir(resource) if word.startswith("RLIMIT_"))
        raise UsageError(f"'{printable(name)}' is not a resource limit; there are: {', '.join(known)}")
    soft, hard = value if isinstance(value, tuple) else (value, None)
    if hard is not None and _is_above(soft, hard):
        raise UsageError(f"the soft limit of {name} must not be above the hard one: {_shown(value)}")
    return int(number)


def _shown(value: Limit) -> str:
    numbers = value if isinstance(value, tuple) else (value,)
    return ":".join("unlimited" if number == -1 else str(number) for number in numbers if number is not None)


def _limit(number: int, value: Limit) -> None:
    """setrlimit(2). Without a hard limit the one there is stays, unless it is lower. Raises OSError."""
    soft, hard = value if isinstance(value, tuple) else (value, None)
    if hard is None:
        _, hard = resource.getrlimit(number)
        hard = soft if _is_above(soft, hard) else hard
    try:
        resource.setrlimit(number, (soft, hard))
    except ValueError:  # what Python makes of both errors
        raise OSError(errno.EINVAL if _is_above(soft, hard) else errno.EPERM, "") from None


def _is_above(limit: int, other: int) -> bool:
    unlimited = resource.RLIM_INFINITY
    return other != unlimited and (limit == unlimited or limit > other)
