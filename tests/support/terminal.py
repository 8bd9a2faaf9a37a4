"""A shell in a real terminal (tmux): what a user types, and what then stands on the screen."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Self

import pytest

from tests.support import procs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Shells without anybody's settings, and with the prompt `$ `. Each tells tmux when it shows its prompt.
_TELL = 'tmux -S "$TERMINAL" wait-for -S prompt'
SHELLS = {
    "bash": ["bash", "--noprofile", "--norc"],
    "zsh": ["zsh", "-f"],
    "fish": ["fish", "--no-config"],
}
_SETTINGS = {
    "zsh": f"precmd() {{ {_TELL}; }}; PS1='$ '; autoload -Uz compinit; compinit -D -u",
    "fish": f"function fish_prompt; echo -n '$ '; end; function tell --on-event fish_prompt; {_TELL}; end",
}


class Terminal:
    """A terminal of 200 columns. become: words before a command that make it another user's. It is a context manager."""

    def __init__(
        self,
        directory: str,
        environment: Mapping[str, str],
        *,
        shell: str = "bash",
        become: Sequence[str] = (),
        columns: int = 200,
    ) -> None:
        for program in ("tmux", SHELLS[shell][0]):
            if not shutil.which(program):
                pytest.skip(f"{program} is not installed (make test-servers)")
        self._directory = directory
        self._mark = f"TEST_TERMINAL_{secrets.token_hex(8)}"
        place = os.path.join(directory, "terminal")
        self._environment = {
            **environment,
            self._mark: "1",
            "TERMINAL": place,
            "PS1": "$ ",
            "PROMPT_COMMAND": _TELL,
        }
        self._tmux = [*become, "tmux", "-S", place, "-f", "/dev/null"]
        self._do("new-session", "-d", "-x", str(columns), "-y", "50", *SHELLS[shell])
        if shell in _SETTINGS:
            self.keys(_SETTINGS[shell] + "\n")
        self.prompted()

    def _do(self, *words: str) -> str:
        return subprocess.run(
            [*self._tmux, *words],
            cwd=self._directory, env=self._environment, check=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, text=True, timeout=30,
        ).stdout  # fmt: skip

    def keys(self, text: str) -> None:
        """Press these; a line feed is Enter, a tab Tab, 0x03 Ctrl-C."""
        self._do("send-keys", "-l", text.replace("\n", "\r"))

    def prompted(self) -> None:
        """Return when the shell has asked for the next command."""
        self._do("wait-for", "prompt")
        # It tells just before that; what is typed too early is echoed by the terminal, and again by the shell.
        self.shows(re.compile(r"^\$\n\Z", re.MULTILINE))

    def type(self, line: str) -> None:
        """Type a command, and return when it is done."""
        self.keys(line + "\n")
        self.prompted()

    @property
    def screen(self) -> str:
        """All that has been shown, lines that were too long for one row joined."""
        rows = self._do("capture-pane", "-p", "-J", "-S", "-").splitlines()
        return "\n".join(row.rstrip() for row in rows).rstrip() + "\n"

    def shows(self, pattern: re.Pattern[str], patience: float = 10) -> None:
        """This is on the screen, sooner or later; an AssertionError if it is not after so many seconds."""

        def check() -> None:
            found = self.screen
            assert pattern.search(found), f"{found}\nhas no\n{pattern.pattern}"

        procs.eventually(check, patience)

    def __enter__(self) -> Self:
        """For `with`."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """End it, and whatever was started in it."""
        for process in procs.carrying(self._mark):
            procs.stop(process.pid, signal.SIGKILL)
