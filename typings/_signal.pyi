# `signal` without its enums, which is what the launch path can afford to load. For mypy: typeshed has no _signal.

from collections.abc import Callable, Iterable
from signal import SIGALRM as SIGALRM
from signal import SIGCHLD as SIGCHLD
from signal import SIGCONT as SIGCONT
from signal import SIGHUP as SIGHUP
from signal import SIGINT as SIGINT
from signal import SIGKILL as SIGKILL
from signal import SIGPIPE as SIGPIPE
from signal import SIGQUIT as SIGQUIT
from signal import SIGSTOP as SIGSTOP
from signal import SIGTERM as SIGTERM
from signal import SIGTSTP as SIGTSTP
from signal import SIGUSR1 as SIGUSR1
from signal import SIGUSR2 as SIGUSR2
from signal import SIGWINCH as SIGWINCH
from types import FrameType
from typing import TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None

SIG_BLOCK: int
SIG_UNBLOCK: int
SIG_SETMASK: int
SIG_DFL: int
SIG_IGN: int
NSIG: int

def alarm(seconds: int, /) -> int: ...
def default_int_handler(number: int, frame: FrameType | None, /) -> object: ...
def getsignal(number: int, /) -> Handler: ...
def pidfd_send_signal(pidfd: int, number: int, siginfo: None = None, flags: int = 0, /) -> None: ...
def pthread_sigmask(how: int, mask: Iterable[int], /) -> set[int]: ...
def raise_signal(number: int, /) -> None: ...
def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int: ...
def signal(number: int, handler: Handler, /) -> Handler: ...
def sigpending() -> set[int]: ...
def valid_signals() -> set[int]: ...
