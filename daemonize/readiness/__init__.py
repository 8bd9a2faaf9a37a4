"""Readiness specs: `parse(spec)` gives the probe that watches for it. Each is a row here, and all but the default one file.

What every probe is: an object that is told what happens and says when its spec holds.

    prepare                                             before anything is started or written
    executed, streams_closed, daemonized, said, tick    while the server starts
    ended                                               when it has ended: what it told us last is still to be read
    close                                               when the launch is over, however

All of it happens in the wrapper, in its one loop, which no hook may hold up. An exception in a hook (`prepare` apart) means
"not yet": it becomes `problem`, which -v shows and the message of a launch that fails.
"""

from __future__ import annotations

from daemonize.errors import UsageError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from daemonize.posix.fds import Descriptors
    from daemonize.posix.loop import Loop
    from daemonize.posix.sockdiag import Bound, Listener

    class Launch(Protocol):
        """What a probe sees of its launch, and may ask of it (launcher/surroundings.py).

        owner: of descriptors that are to be closed when the launch is over. environment, directory: the caller's. uid: who
        the server runs as. parent: pid of the process that everybody of the server's tree is below, 0 before there is one.
        helpers: pids of processes that belong to the launch, and not to the server. taken: descriptor numbers at which the
        server is to have something; whoever takes one more adds it. kept: descriptors that it inherits.
        """

        loop: Loop
        owner: Descriptors
        environment: Mapping[bytes, bytes]
        directory: bytes
        uid: int
        helpers: set[int]
        taken: set[int]
        kept: Sequence[int]

        @property
        def parent(self) -> int:
            """See above."""

        @property
        def main(self) -> int:
            """Pid of the main process, 0 where there is none, or nobody can say who it is."""

        def watch(self, probe: Probe, fd: int, callback: Callable[[], None]) -> None:
            """Call when fd is readable, until `loop.forget(fd)`; an exception means "not yet"."""

        def members(self) -> list[int]:
            """The server's tree: pids of all that have not ended. Empty where /proc does not tell."""

        def owns(self, pid: int) -> bool:
            """Whether a living process belongs to the server's tree."""

        def note(self, text: str) -> None:
            """Say it under -v."""

        def extend(self, seconds: float) -> None:
            """The server asks for more time: from now on it has at least so much."""

        def name_main(self, pid: int) -> bool:
            """The server says which process is its main one. False: that one is none of the tree."""

        def tell(self, fact: str, value: str | int) -> None:
            """What the server said about itself: `status`, `errno`, `exit_status`."""

        @property
        def pass_on(self) -> Callable[[Mapping[bytes, bytes]], None]:
            """To be called with all that the server said: there may be a service manager who wants to know."""


#: Form as shown to users, module (none: this one), class. A form with a colon takes an argument after it.
FORMS = (
    ("streams", "", "Streams"),
    ("started", "started", "Started"),
    ("exit", "exit", "Exit"),
    ("alive:DURATION", "alive", "Alive"),
    ("notify", "notify", "Notify"),
    ("fd:N", "fd", "Fd"),
    ("fdvar:NAME", "fdvar", "FdVar"),
    ("port", "port", "Port"),
    ("port:[HOST:]PORT", "port", "Port"),
    ("unix:PATH", "unix", "Unix"),
    ("http://HOST[:PORT][/PATH]", "http", "Http"),
    ("https://HOST[:PORT][/PATH]", "https", "Https"),
    ("log:REGEX", "log", "Log"),
    ("file:PATH", "file", "File"),
    ("exec:COMMAND", "command", "Command"),
)


class Probe:
    """Watches for one readiness spec. All hooks do nothing by default.

    held: the spec has been met (it stays so). uses_pipes: the server's streams must be pipes to the wrapper.
    hears_output: `said` is to be called. needs_launch: `prepare` is to be called. least: seconds that it takes at least.
    due: the monotonic time at which `tick` wants to be called, or None. problem: why it has not held yet, as shown to
    people. found: what made it hold, where that is of interest. variables: for the server's environment. placed: what the
    server is to have at which descriptor number; ours is closed when it has its own. number: the descriptor that is asked
    for by number, or 0.
    """

    uses_pipes = hears_output = needs_launch = False
    least = 0.0
    number = 0

    def __init__(self, spec: str, argument: str) -> None:
        self.spec, self.argument = spec, argument
        self.held = False
        self.due: float | None = None
        self.problem = self.found = ""
        self.variables: dict[bytes, bytes] = {}
        self.placed: dict[int, int] = {}

    def met_by(self, sockets: Sequence[Listener | Bound]) -> bool:
        """Whether it would hold at once, because the server is given these sockets, which listen. Raises OSError."""
        return False

    def prepare(self, launch: Launch) -> None:
        """Make what the server is to find. Raises UsageError, AlreadyRunning, SetupError, OSError: nothing is started."""

    def executed(self, now: float) -> None:
        """exec(2) has succeeded."""

    def streams_closed(self) -> None:
        """Both streams are closed and the server is alive."""

    def daemonized(self) -> None:
        """The server exited 0 and left a daemon of its own behind."""

    def said(self, stream: str, data: bytes) -> None:
        """The server has written to `out` or `err`."""

    def tick(self, now: float) -> None:
        """`due` has passed."""

    def again(self, now: float, pause: float) -> None:
        """It has held: find out whether it holds now. pause: seconds to leave it alone, at least, between two looks."""

    def ended(self) -> None:
        """The main process has ended."""

    def close(self) -> None:
        """Give back what `owner` does not."""


class Streams(Probe):
    """`streams`, the default: both are closed and the server is alive, or it left a daemon of its own behind.

    Whether a server that closed its streams lives is judged by the wrapper (launcher/verdict.py). It is in here because a
    file of its own would be 0.25 ms of every launch.
    """

    uses_pipes = True

    def streams_closed(self) -> None:
        """Ready."""
        self.held = True

    def daemonized(self) -> None:
        """Ready: the parent's exit is how such a server says so."""
        self.held = True


def parse(spec: str) -> Probe:
    """The probe for a readiness spec. Raises UsageError, with the forms it could have had."""
    word, colon, argument = spec.partition(":")
    for form, module, name in FORMS:
        if form.partition(":")[0] == word and bool(colon) == (":" in form):
            try:
                return _load(module, name)(spec, argument)
            except UsageError as error:
                raise UsageError(
                    f"'{printable(spec)}' is not a readiness spec of the form {form}: {error}"
                ) from None
    forms = ", ".join(form for form, _, _ in FORMS)
    raise UsageError(f"'{printable(spec)}' is not a readiness spec; it can be {forms}")


def _load(module: str, name: str) -> type[Probe]:
    # Only what is asked for is imported: the default launch pays for no file but this one.
    if not module:
        return Streams
    return getattr(__import__(f"daemonize.readiness.{module}", fromlist=(name,)), name)  # type: ignore[no-any-return]
