"""The installed `daemonctl` command, run as a person runs it, and daemons for it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from tests.support import cli, users

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from tests.support.users import Account

#: The command that `make` installed beside `daemonize`.
COMMAND = os.path.join(os.path.dirname(cli.COMMAND), "daemonctl")


def run(*args: cli.Word, **how: Any) -> cli.Result:
    """As cli.run: to its end, and to the end of file of both its streams."""
    return cli.run(*args, executable=COMMAND, **how)


def popen(*args: cli.Word, **how: Any) -> subprocess.Popen[bytes]:
    """As cli.popen: left running."""
    return cli.popen(*args, executable=COMMAND, **how)


def started(name: str, *words: cli.Word, **how: Any) -> int:
    """Start a daemon of that name, with options and command; its pid when it is ready."""
    result = cli.run("--json", "--name", name, *words, **how)
    assert result.status == 0, result
    return int(result.json["pid"])


def record(name: str) -> dict[str, Any]:
    """What the registry has of a daemon of this test's."""
    with open(record_path(name)) as file:
        fields: dict[str, Any] = json.load(file)
    return fields


def record_path(name: str) -> str:
    """Where that is."""
    return os.path.join(os.environ["DAEMONIZE_RUNTIME_DIR"], f"{name}.json")


def change_record(name: str, **changes: object) -> None:
    """Put down something else of a daemon than what is true."""
    fields = {**record(name), **changes}
    with open(record_path(name), "w") as file:
        file.write(json.dumps(fields) + "\n")


class Person:
    """An ordinary user with a registry of his own in `directory`."""

    def __init__(self, account: Account, directory: str) -> None:
        self._account = account
        self._places = {
            "DAEMONIZE_STATE_DIR": f"{directory}/state",
            "DAEMONIZE_RUNTIME_DIR": f"{directory}/run",
        }

    def daemonize(self, *words: cli.Word) -> cli.Result:
        """Run `daemonize`."""
        return self._run("-m", "daemonize", *words)

    def daemonctl(self, *words: cli.Word) -> cli.Result:
        """Run `daemonctl`."""
        return self._run("-c", "from daemonize.cli.daemonctl import main; main()", *words)

    def _run(self, *words: cli.Word) -> cli.Result:
        environment: Mapping[str, str] = {**users.environ(), **self._places}
        front = [*users.become(self._account), users.python()]
        return cli.run_command([*front, *words], env=environment, cwd="/")
