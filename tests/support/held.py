"""Run `daemonize` with one of its steps held back: a moment of a launch as long as a test needs it.

python held.py STEP DIRECTORY [OPTIONS] [--] COMMAND...
python held.py STEP DIRECTORY --app PROGRAM.py ARGUMENTS...      a program with the option, instead of the command

Whoever comes to the step says its pid on DIRECTORY/reached, and goes on when a byte arrives on DIRECTORY/release.

    intermediate   the intermediate parent, before it forks the server: between the forks
    streams        the server, before it has its streams, all signals blocked
    gate           the server at the gate: the wrapper never opens it
    exec           the server, through the gate, before exec, or before the program goes on
    last-look      the wrapper, before it looks for the last time at a server that is ready
    detach         the wrapper, before it lets go of a ready server
    leave          the wrapper, when it has

STEP can also be `no-fork-N`: the Nth fork fails (1: of the intermediate parent, 2: of the server).
"""

from __future__ import annotations

import errno
import os
import runpy
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Patch the step, then be `daemonize`."""
    step, directory = sys.argv[1:3]
    sys.argv[1:] = sys.argv[3:]

    def held(function: Callable[..., Any]) -> Callable[..., Any]:
        waits = True

        def wait_first(*args: Any, **kwargs: Any) -> Any:
            nonlocal waits
            if (
                waits
            ):  # a step may be taken again: the last look at a server of whose end there is no word yet
                waits = False
                tell(directory)
                release = os.open(f"{directory}/release", os.O_RDWR)
                os.read(release, 1)
                os.close(release)
            return function(*args, **kwargs)

        return wait_first

    from daemonize.cli.main import main as command
    from daemonize.launcher import family, intermediate, wrapper
    from daemonize.posix import child, continuation

    if step.startswith("no-fork-"):
        fail_fork(int(step.rpartition("-")[2]))
    elif step == "gate":
        family.Family.let_through = lambda *_: tell(directory)  # type: ignore[method-assign]
    else:
        places: dict[str, list[tuple[Any, str]]] = {
            "intermediate": [(intermediate, "_start")],
            "streams": [(child, "_place_streams")],
            "exec": [(child.Program, "start"), (continuation.Continuation, "start")],
            "last-look": [(wrapper.Wrapper, "_is_overtaken")],
            "detach": [(wrapper.Wrapper, "_detach")],
            "leave": [(wrapper.Wrapper, "_close")],
        }
        for owner, name in places[step]:
            setattr(owner, name, held(getattr(owner, name)))
    if sys.argv[1] == "--app":
        del sys.argv[:2]
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        command()


def fail_fork(at: int) -> None:
    """Let this one fork fail as it does when there are too many processes. The count goes on in the children."""
    fork, count = os.fork, 0

    def counted() -> int:
        nonlocal count
        count += 1
        if count == at:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = counted


def tell(directory: str) -> None:
    """Say who has come to the step."""
    reached = os.open(f"{directory}/reached", os.O_WRONLY)
    os.write(reached, b"%d\n" % os.getpid())
    os.close(reached)


if __name__ == "__main__":
    main()
