#!/usr/bin/env python3
"""The main job, shown on a real server: `make demo`.

Ctrl-C at any moment ends it with nothing left behind: the handler only notes the wish, and the step in hand is
finished first. (The terminal sends Ctrl-C to the wrapper as well, which stops the server it is starting.)
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = os.path.dirname(os.path.relpath(__file__))
SERVER = os.path.join(HERE, "http_server.py")
GOOD = "# an ordinary configuration\ngreeting = good day\nwarm-up = 0.5\n"
BAD = "# the same with a mistake\ngreeting = good day\ncolour = blue\n"
PAINT = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

interrupted: list[int] = []


def paint(code: str, text: str) -> str:
    """Bold or dim on a terminal, plain anywhere else."""
    return f"\033[{code}m{text}\033[0m" if PAINT else text


def stop_if_interrupted() -> None:
    """End here if somebody has pressed Ctrl-C; what is running is stopped on the way out."""
    if interrupted:
        print("\ninterrupted; nothing is left running", flush=True)
        sys.exit(128 + interrupted[0])


def heading(number: int, text: str) -> None:
    """Begin a step, unless somebody has pressed Ctrl-C."""
    stop_if_interrupted()
    print("\n" + paint("1", f"{number}. {text}"), flush=True)


def typed(text: str) -> None:
    """Show what one would type."""
    print(f"   $ {text}", flush=True)


def quote(text: str) -> None:
    """Show what another program said."""
    print("   " + paint("2", "| ") + text.rstrip("\n"), flush=True)


def note(text: str) -> None:
    """Show what we make of it."""
    print("   " + paint("32", text), flush=True)


def find_command(name: str = "daemonize") -> str:
    """The command that belongs to this interpreter, or the one on PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return beside if os.path.exists(beside) else shutil.which(name) or name


def launch(name: str, config: str) -> tuple[dict[str, Any], list[str], float]:
    """Start the example server with the real command; what it reports, what the server said, and how long it took."""
    typed(f"daemonize --name {name} python3 {SERVER} --config {os.path.basename(config)}")
    command = [find_command(), "--name", name, "--json", sys.executable, SERVER, "--config", config]
    began = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as wrapper:
        said = []
        for line in wrapper.stderr or ():
            said.append(line.replace(os.path.dirname(config) + os.sep, ""))
            quote(said[-1])
        report = json.loads((wrapper.stdout and wrapper.stdout.read()) or "{}")
    if report.get("outcome") != "ready":
        stop_if_interrupted()  # which is then the reason
    return report, said, time.monotonic() - began


def control(verb: str, name: str, directory: str) -> None:
    """Do something with a daemon, by its name. It has to succeed."""
    typed(f"daemonctl {verb} {name}")
    done = subprocess.run(
        [find_command("daemonctl"), verb, name],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        stop_if_interrupted()  # which is then the reason
        sys.exit(f"   {done.stdout}")
    for line in done.stdout.splitlines():
        quote(line.replace(directory + os.sep, ""))


@contextlib.contextmanager
def stopped_at_the_end(pid: int) -> Iterator[None]:
    """The server is running for this block at most, and not a moment longer."""
    pidfd = os.pidfd_open(pid)
    try:
        yield
    finally:
        stop(pidfd)
        os.close(pidfd)


def stop(pidfd: int) -> None:
    """SIGTERM, and wait until it is gone. Harmless if it is gone already."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        if select.select([pidfd], [], [], 10)[0]:
            return


def request(url: str) -> None:
    """One request, which has to succeed at the first attempt."""
    typed(f"curl {url}")
    began = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  (our own server)
            quote(answer.read().decode())
    except urllib.error.URLError as error:
        sys.exit(f"   the server was not ready: {error.reason}")
    note(f"answered in {(time.monotonic() - began) * 1000:.0f} ms: no sleep, no second attempt")


def last_line(path: str) -> str:
    """The end of a log."""
    with open(path) as file:
        return file.read().splitlines()[-1]


def show(directory: str) -> None:
    """The whole demonstration."""
    good, bad = os.path.join(directory, "good.conf"), os.path.join(directory, "bad.conf")
    for path, text in ((good, GOOD), (bad, BAD)):
        with open(path, "w") as file:
            file.write(text)

    heading(1, "Start a server that needs a while to load")
    report, said, seconds = launch("greeter", good)
    if report.get("outcome") != "ready":
        sys.exit(f"   it did not start: {report.get('message')}")
    with stopped_at_the_end(report["pid"]):
        note(f"status 0: ready after {seconds:.2f} s, as pid {report['pid']}")

        heading(2, "Use it in the next moment")
        request(said[0].split()[-1])

        heading(3, "What it says from now on is in its log")
        log = report["files"]["stderr"]
        typed(f"tail -1 {os.path.basename(log)}")
        quote(last_line(log))

        heading(4, "Start one that cannot: its own words, its own status")
        report, _, seconds = launch("painter", bad)
        note(f"status {report['status']} after {seconds:.2f} s, not after a timeout")

        heading(5, "Ask for the first one by its name: tomorrow, from another terminal")
        control("status", "greeter", directory)

        heading(6, "Stop it")
        began = time.monotonic()
        control("stop", "greeter", directory)
        note(f"gone after {(time.monotonic() - began) * 1000:.0f} ms; nothing is left running")
    command = os.path.relpath(shutil.which(find_command()) or "daemonize")
    print(f"\nNext: {command} --help, README.md, and your own server.")


def main() -> None:
    """Run the demonstration in a directory that is gone afterwards."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: interrupted.append(number))
    with tempfile.TemporaryDirectory(prefix="daemonize-demo-") as directory:
        os.environ["DAEMONIZE_STATE_DIR"] = os.path.join(directory, "state")
        os.environ["DAEMONIZE_RUNTIME_DIR"] = os.path.join(directory, "run")
        show(directory)


if __name__ == "__main__":
    main()
