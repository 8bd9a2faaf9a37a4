"""The command `daemonctl`: what most ask of it in the usual way is done at once, and all else left to click."""

from __future__ import annotations

import os
import sys

from daemonize.cli import named
from daemonize.errors import STATUS_UNMET, DaemonizeError, printable
from daemonize.posix import signals
from daemonize.posix.fds import Descriptors, occupy_standard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def run(arguments: list[str]) -> int:
    """The exit status of `daemonctl ARGUMENTS`. Raises DaemonizeError."""
    verb, *names = arguments or [""]
    if verb == "stop" and names and not any(name.startswith("-") for name in names):
        return named.stop(names)
    import gc

    from daemonize.cli import control

    gc.enable()  # some go on for long, or look at many
    return control.run(arguments)


def main() -> NoReturn:
    """Run with sys.argv and exit."""
    occupy_standard(Descriptors())  # before the first file of ours is opened
    status = STATUS_UNMET
    try:
        status = run(sys.argv[1:])
        if sys.stdout is not None:  # the caller had closed it: nobody wants to read
            sys.stdout.flush()
    except DaemonizeError as error:
        named.complain(error)
        status = error.exit_status
    except KeyboardInterrupt:
        signals.die_of(signals.SIGINT)
    except BrokenPipeError:
        status = 0  # who reads our output has seen enough
    except SystemExit as ended:  # click's completion ends so
        status = ended.code if isinstance(ended.code, int) else 0
    except OSError as error:
        named.complain(f"cannot write: {error.strerror}" if error.filename is None else printable(str(error)))
    except Exception as error:  # noqa: BLE001 (a user gets one line, whatever it is)
        named.complain(f"internal error: {type(error).__name__}: {printable(str(error))}")
    finally:
        os._exit(status)
