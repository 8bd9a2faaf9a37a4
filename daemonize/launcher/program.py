"""From what is asked for to what is executed: descriptors, files to try, environment."""

from __future__ import annotations

import os
import stat

from daemonize.errors import SetupError
from daemonize.launcher.environment import server_environment
from daemonize.notify import ID, STDERR, STDOUT, STREAMS, streams_value
from daemonize.posix import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemonize.launcher.account import Account
    from daemonize.launcher.outputs import Outputs
    from daemonize.launcher.request import Request
    from daemonize.posix.fds import Descriptors


_READ = os.O_RDONLY | os.O_NONBLOCK


def find_context(request: Request) -> tuple[child.Context, Account | None]:
    """What the server becomes, and whom it runs as if that is asked for. Raises UsageError, SetupError."""
    if not request.needs_context:
        return child.Directory(request.directory), None
    from daemonize.launcher.context import context

    found = context(
        user=request.user, chroot=request.chroot, cwd=request.directory, umask=request.umask,
        nice=request.nice, core=request.core, limits=request.limits,
    )  # fmt: skip
    return (found if request.makes_context else child.Directory(request.directory)), found.user


def build(
    request: Request,
    outer: Mapping[bytes, bytes],
    token: bytes,
    outputs: Outputs,
    owner: Descriptors,
    *,
    context: child.Context,
    account: Account | None,
    keep: Sequence[int],
    kind: Callable[..., child.Program],
    variables: Mapping[bytes, bytes],
    placed: Mapping[int, int],
) -> child.Program:
    """The program of a request, whose outputs are open.

    token: `NAME=value` that marks it. keep: descriptors of ours that it inherits. kind: makes the program of its parts.
    variables, placed: what its probes want it to have, in its environment and at which descriptor numbers.
    Raises SetupError, Unsafe.
    """
    own = {ID: token.partition(b"=")[2], **variables}
    if outputs.protocol and request.moves_streams:
        own[STREAMS] = streams_value(outputs.program_stdout, outputs.program_stderr)
        if not request.chroot:  # the names mean nothing in another root
            own |= dict(zip((STDOUT, STDERR), outputs.ways, strict=True))
    if account:
        own |= account.variables
    environment = server_environment(outer, request.environment, own, clear=request.clear_environment)
    guarded = account is not None and not account.is_ours
    stdin, fifo = _open_stdin(request, owner, guarded=guarded)
    base = request.chroot and (request.directory or b"/")
    paths = child.search(request.program or request.command[0], environment, base)
    if request.safe and os.geteuid() == 0:
        from daemonize.launcher.safe import check

        paths = [check(paths, request.chroot, account.uid if account else 0)] if paths else []
    return kind(
        request.command, paths, environment, context=context, stdin=stdin, fifo=fifo,
        stdout=outputs.program_stdout, stderr=outputs.program_stderr,
        keep=(*request.keep_fds, *keep), placed=placed, dies_with_parent=request.foreground, assigns_pid=request.assigns_pid,
    )  # fmt: skip


def _open_stdin(request: Request, owner: Descriptors, *, guarded: bool) -> tuple[int | None, bytes | None]:
    """The descriptor for stdin (None: the caller's), or the fifo that the server opens itself.

    guarded: the server runs as somebody else.
    """
    path = request.stdin
    if path is None and request.foreground:
        return None, None
    try:
        fd = _open_to_read(path, owner) if path and guarded else owner.open(path or b"/dev/null", _READ)
        if path and stat.S_ISFIFO(os.fstat(fd).st_mode):
            # To open it is to wait for a writer: let the server wait, we have a timeout to keep.
            if guarded:
                return None, b"/proc/self/fd/%d" % fd
            owner.shut(fd)
            return None, path
        os.set_blocking(fd, True)
        return fd, None
    except OSError as error:
        raise SetupError("open", os.fsdecode(path or b"/dev/null"), error) from None


def _open_to_read(path: bytes, owner: Descriptors) -> int:
    from daemonize.posix.paths import open_guarded

    fd, _ = open_guarded(path, _READ, owner)
    return fd
