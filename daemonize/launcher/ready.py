"""The outcome that is not an error."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Ready:
    """The server is ready and on its own. pid: of the main process, None where /proc cannot say. start: clock ticks.

    session: id of the session it was started in. token: `NAME=value` that marks its environment. files: paths of stdout
    and stderr. pid_file: path, or None; pid_file_is_locked: it is the lock file, too. found: what made a readiness spec
    hold, where that is of interest (`port`: where it listens). listen: where the sockets listen that it was given. drain:
    pid of the drain, where one was left. seconds: how long the launch took. record: what the registry has of it.
    """

    outcome = "ready"
    exit_status = 0
    drain: int | None = None
    seconds = 0.0
    record: Mapping[str, object] = {}

    def __init__(self, pid: int | None, start: int, session: int, token: bytes) -> None:
        self.pid, self.start, self.session, self.token = pid, start, session, token
        self.name = ""
        self.files: list[str] = []
        self.pid_file: str | None = None
        self.pid_file_is_locked = False
        self.found: dict[str, str] = {}
        self.listen: list[str] = []
