"""The units that the README and the manual page show start as they stand, but for the names of programs and files."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import ports, procs, python_servers
from tests.support.namespaces import COMMAND, PLACE
from tests.support.systemd import USER, inner_pid, program

if TYPE_CHECKING:
    from tests.support.systemd import Manager, Unit

pytestmark = pytest.mark.systemd

ROOT = Path(__file__).parents[2]
PID_FILE = "/run/server/pid"


def units(text: str, kind: str = "Service") -> list[str]:
    """The lines of each [Service] section in a document, or of another kind; not of one that is shown in part ("...")."""
    found = re.findall(rf"^\[{kind}\]\n(.*?)^(?:```|\.EE)$", text, re.MULTILINE | re.DOTALL)
    return [lines for lines in found if "..." not in lines.splitlines()]


README = (ROOT / "README.md").read_text()
DOCUMENTS = {
    "README": README,
    "daemonize.1": (ROOT / "man" / "daemonize.1").read_text().replace("\\-", "-"),
    "daemonize.7": (ROOT / "man" / "daemonize.7").read_text().replace("\\-", "-"),
}
DOCUMENTED = {name: units(text) for name, text in DOCUMENTS.items()}
SOCKETS = [(name, unit) for name, text in DOCUMENTS.items() for unit in units(text, "Socket")]
#: Those of a server that anybody might have, in the background and in the foreground, and those of one that takes part.
COMMANDS = {
    name: [text for text in found if re.search(r"bin/daemonize (?!-f)", text)]
    for name, found in DOCUMENTED.items()
}
FOREGROUND = [
    (name, text) for name, found in DOCUMENTED.items() for text in found if "bin/daemonize -f" in text
]
#: Of these, those that a socket unit activates.
ACTIVATED = [(name, text) for name, text in FOREGROUND if "{fd}" in text]
ALONE = [found for found in FOREGROUND if found not in ACTIVATED]
OWN = [(name, text) for name, found in DOCUMENTED.items() for text in found if "bin/daemonize " not in text]


def test_the_documents_have_units() -> None:
    """Negative control: what is not found is not tested."""
    assert {name: len(found) for name, found in COMMANDS.items()} == {
        "README": 1,
        "daemonize.1": 1,
        "daemonize.7": 0,
    }
    for found in (ACTIVATED, ALONE, SOCKETS):
        assert sorted(name for name, _ in found) == ["README", "daemonize.1"]
    kinds = [(name, *re.findall(r"^Type=(\w+)", text, re.MULTILINE)) for name, text in OWN]
    assert kinds == [(name, kind) for name in ("README", "daemonize.7") for kind in ("notify", "forking")]


@pytest.mark.parametrize("document", ["README", "daemonize.1"])
def test_a_documented_unit(system_manager: Manager, document: str) -> None:
    """It starts, its pid file names its main process, and it serves until it is stopped."""
    (service,) = COMMANDS[document]
    command = program("repoints", "hello")
    service = service.replace("/opt/daemonize/bin/daemonize", COMMAND).replace("/usr/bin/server", command)
    unit = system_manager.add(service)
    unit.start()
    main = unit.main()
    with open(system_manager.path(PID_FILE)) as file:
        written = file.read()

    assert main
    assert written == f"{inner_pid(main.pid)}\n"
    assert unit.processes() == [main]
    assert procs.command_line(main.pid) == command
    assert "hello" in unit.journal()
    assert not [line for line in unit.journal() if "PID file" in line or "not our child" in line]


def http_server() -> tuple[str, int]:
    """A server that knows nothing of systemd: its command line, and the port where it is going to serve."""
    port = ports.free_port()
    return f"{PLACE}/venv/bin/python -m http.server --bind {ports.HOST} {port}", port


def of_the_machine(text: str, command: str, port: int) -> str:
    """What is documented, with the names that there are here: of daemonize, of the server, of its port."""
    text = text.replace("\\e\n", "\\\n").replace("/opt/daemonize/bin/daemonize", COMMAND)
    return text.replace("/usr/bin/server", command).replace("8080", str(port))


@pytest.mark.parametrize(("document", "service"), ALONE)
def test_a_documented_unit_around_a_server_that_knows_nothing_of_systemd(
    system_manager: Manager, document: str, service: str
) -> None:
    """When `systemctl start` returns it serves; `status` has the words; it ends as a server that was stopped."""
    command, port = http_server()
    unit = system_manager.add(of_the_machine(service, command, port))
    unit.start()
    answer = ports.get(port)
    kind, text = unit.show("Type", "StatusText")
    assert unit.ctl("stop") == 0
    state, result = unit.show("ActiveState", "Result")

    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert kind == "notify"
    assert re.fullmatch(rf"ready after .* s: port:{port} \({ports.HOST}:{port}\)", text)
    assert (state, result) == ("inactive", "success")
    assert not unit.complaints()


@pytest.fixture
def applications(system_manager: Manager) -> str:
    """A directory with an application for gunicorn, and one for uvicorn, and these themselves."""
    directory = f"{system_manager.inside.directory}/applications"
    for name in ("gunicorn", "packaging", "uvicorn", "h11", "click"):
        source = importlib.import_module(name).__file__
        assert source
        shutil.copytree(os.path.dirname(source), f"{directory}/{name}", dirs_exist_ok=True)
    for name, application in (("gunicorn", python_servers.WSGI), ("uvicorn", python_servers.ASGI)):
        with open(f"{directory}/{name}_app.py", "w") as file:
            file.write(application)
    return f"{PLACE}/applications"


@pytest.mark.parametrize(
    ("socket", "service"),
    [
        pytest.param(socket, service, id=name)
        for (name, socket), (_, service) in zip(SOCKETS, ACTIVATED, strict=True)
    ],
)
def test_a_documented_pair_of_units(
    system_manager: Manager, applications: str, socket: str, service: str
) -> None:
    """The first client starts the server, and is answered by it; and so is the one that comes when it has been stopped."""
    port = ports.free_port()
    ((program_name, name),) = re.findall(r"(/usr/bin/(\w+)) ", service)
    text = of_the_machine(service, "", port).replace(program_name, f"{PLACE}/venv/bin/python -m {name}")
    text = text.replace(" app:app", f" {name}_app:application").replace("/srv/app", "/run")
    unit = system_manager.add(f"Environment=PYTHONPATH={applications}\n{text}")
    listener = unit.name.replace(".service", ".socket")
    path = f"{system_manager.inside.directory}/units/{listener}"
    with open(path, "w") as file:
        file.write(
            f"[Unit]\nDefaultDependencies=no\n[Socket]\n{socket.replace('8080', f'{ports.HOST}:{port}')}"
        )
    try:
        system_manager.ctl("daemon-reload", check=True)
        system_manager.ctl("start", listener, check=True)
        before = unit.show("ActiveState")
        answers = [ports.get(port)]
        procs.eventually(lambda: _assert_is_active(unit))  # a client may be answered before we have asked
        system_manager.ctl("stop", unit.name, check=True)
        answers.append(ports.get(port))
    finally:
        system_manager.ctl("stop", listener, unit.name)
        os.unlink(path)

    assert before == ["inactive"]
    assert all(f"{name} is here".encode() in answer for answer in answers), unit.journal()
    assert not unit.complaints()


def _assert_is_active(unit: Unit) -> None:
    assert unit.show("ActiveState") == ["active"]


def test_the_readme_shows_it_with_systemd_run(system_manager: Manager) -> None:
    """The command lines of the recipe, as root: the first client is answered, and the words are those that are shown."""
    (text,) = re.findall(r"^```sh\n(sudo systemd-run .*?)^```$", README, re.MULTILINE | re.DOTALL)
    port = ports.free_port()
    typed = (
        text.replace("/opt/daemonize/bin/daemonize", COMMAND).replace("8000", str(port)).replace("sudo ", "")
    )
    done = system_manager.run("bash", "-c", f"set -e; PATH={PLACE}/venv/bin:$PATH; {typed}")

    lines = done.stdout.splitlines()
    assert done.returncode == 0, done
    assert [line.rstrip() for line in lines[:1]] == ["HTTP/1.0 200 OK"]
    assert re.fullmatch(rf"StatusText=ready after .* s: port:{port} \({ports.HOST}:{port}\)", lines[1])


def test_control_a_unit_whose_server_never_listens_there(system_manager: Manager) -> None:
    """Negative control: it is the port that is waited for."""
    (service,) = [text for name, text in ALONE if name == "README"]
    unit = system_manager.add(
        of_the_machine(service, "/bin/sleep 1000", ports.free_port()).replace("-t 80s", "-t 500ms")
    )

    assert unit.ctl("start") != 0


@pytest.fixture
def server(system_manager: Manager) -> tuple[str, int]:
    """The server of the README that takes part: its command line, and the port where it is going to serve."""
    (text,) = re.findall(r"^```python\n(# serve\.py\n.*?)^```$", README, re.MULTILINE | re.DOTALL)
    port = ports.free_port()
    with open(f"{system_manager.inside.directory}/serve.py", "w") as file:
        file.write(text)
    return f"{PLACE}/venv/bin/python {PLACE}/serve.py --port {port}", port


@pytest.mark.parametrize(("document", "service"), OWN)
def test_a_documented_unit_of_a_server_that_takes_part(
    system_manager: Manager, document: str, service: str, server: tuple[str, int]
) -> None:
    """When it has started, the first request is answered; if it has a pid file, that names its main process."""
    command, port = server
    unit = system_manager.add(service.replace("/usr/bin/server", command))
    unit.start()
    answer = ports.get(port)
    main = unit.main()

    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert main
    assert unit.processes() == [main]
    assert f"serving on port {port}" in unit.journal()
    assert not [line for line in unit.journal() if "PID file" in line or "not our child" in line]
    if "PIDFile=" in service:
        with open(system_manager.path(PID_FILE)) as file:
            assert file.read() == f"{inner_pid(main.pid)}\n"


def test_a_server_that_takes_part_has_a_directory_for_its_log(
    system_manager: Manager, server: tuple[str, int]
) -> None:
    """By what the README adds, it goes on in a log that its user may write to."""
    (service,) = [text for name, text in OWN if name == "README" and "Type=forking" in text]
    command, port = server
    more = f"{of_readme('LogsDirectory=')}\nProtectSystem=strict\n"
    service = service.replace(" --daemonize", f" --daemonize {of_readme('--log-file ')}")
    unit = system_manager.add(more + service.replace("/usr/bin/server", command))
    unit.start()
    ports.get(port)

    def logged() -> None:
        with open(system_manager.path("/var/log/server/log")) as file:
            assert '"GET / HTTP/1.0" 200' in file.read()

    procs.eventually(logged)


def test_control_one_that_is_not_told_to_is_not_forking(
    system_manager: Manager, server: tuple[str, int]
) -> None:
    """Negative control: without --daemonize systemd waits in vain."""
    (service,) = [text for name, text in OWN if name == "README" and "Type=forking" in text]
    service = service.replace("/usr/bin/server", server[0]).replace(
        " --daemonize --pid-file /run/server/pid", ""
    )
    unit = system_manager.add(service.replace("Restart=on-failure", "TimeoutStartSec=1"))

    assert unit.ctl("start") != 0


def later_words(manager: Manager, lines: str, options: str, turn: str) -> Unit:
    """A unit that cannot write to its log, of a server that says "early", turns its streams, and says "later".

    lines: more of the unit. options: those of the command, or a shell's command with … in their place.
    """
    server = f'-p {PID_FILE} /bin/sh -c "echo early; {turn}; echo later; exec sleep 1000"'
    command = options.replace("…", server) if "…" in options else f"ExecStart={COMMAND} {options} {server}"
    unit = manager.add(
        f"""
        Type=forking
        User={USER}
        RuntimeDirectory=server
        PIDFile={PID_FILE}
        ProtectSystem=strict
        {command.replace("/opt/daemonize/bin/daemonize", COMMAND)}
        """
        + lines
    )
    unit.start()
    procs.eventually(lambda: _assert_says(unit.journal(), "early"))
    return unit


def _assert_says(lines: list[str], word: str) -> None:
    assert word in lines


def of_readme(pattern: str) -> str:
    """What the README shows between code marks."""
    (found,) = set(re.findall(rf"`({pattern}[^`]*)`", README))
    return str(found)


def test_the_journal_can_be_handed_down(system_manager: Manager) -> None:
    """The server goes on in the journal, by the two lines that the README shows."""
    unit = later_words(system_manager, "", of_readme("ExecStart="), of_readme("exec >&3"))

    procs.eventually(lambda: _assert_says(unit.journal(), "later"))


def test_a_server_that_keeps_its_streams_has_the_journal(system_manager: Manager) -> None:
    """Where no log can be kept. When there is a pid file, nobody relays any more."""
    until_ready = f"until test -s {PID_FILE}; do sleep 0.01; done"
    unit = later_words(system_manager, "", "-r alive:200ms", until_ready)

    procs.eventually(lambda: _assert_says(unit.journal(), "later"))


def test_a_directory_for_logs(system_manager: Manager) -> None:
    """The server goes on in DAEMONIZE_STDOUT, which is there."""
    lines = "\n".join([of_readme("LogsDirectory="), of_readme("Environment=")])
    later_words(system_manager, lines, "", "exec >>$$DAEMONIZE_STDOUT 2>&1")

    with open(system_manager.path("/var/log/server/sh.out")) as file:
        procs.eventually(lambda: _assert_says(file.read().splitlines(), "later"))


def test_control_without_them_later_words_are_lost(system_manager: Manager) -> None:
    """Negative control: DAEMONIZE_STDOUT is /dev/null."""
    unit = later_words(system_manager, "", "", "echo $$DAEMONIZE_STDOUT; exec >>$$DAEMONIZE_STDOUT 2>&1")

    procs.eventually(lambda: _assert_says(unit.journal(), "/dev/null"))
    assert "later" not in unit.journal()


def test_control_a_unit_with_another_pid_file_is_seen(system_manager: Manager) -> None:
    """Negative control: where the two do not agree, systemd waits for its own in vain."""
    (service,) = COMMANDS["daemonize.1"]
    service = service.replace("/opt/daemonize/bin/daemonize", COMMAND).replace(
        "/usr/bin/server", program("repoints", "hello")
    )
    unit = system_manager.add(service.replace(f"-p {PID_FILE}", f"-p {PID_FILE}2") + "TimeoutStartSec=1\n")

    assert unit.ctl("start") != 0
