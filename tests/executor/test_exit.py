"""The interpreter exits without a shutdown: what was submitted is done first, as by the standard library's executors."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PRELUDE = "import atexit, os, sys, time\nfrom daemonize import ForkExecutor\n"


def run(script: str) -> subprocess.CompletedProcess[bytes]:
    """A program."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + script], capture_output=True, timeout=50, check=False
    )


@pytest.mark.parametrize("end", ["", "t.shutdown(wait=False)\n", "del t\n", "raise SystemExit(3)\n"])
def test_pending_work_is_finished(end: str) -> None:
    """Nothing is said of it."""
    done = run(f"t = ForkExecutor(1)\nfor name in 'apple', 'pear': t.submit(print, name, flush=True)\n{end}")

    assert (done.stdout, done.stderr) == (b"apple\npear\n", b"")
    assert done.returncode == (3 if "3" in end else 0)


def test_nothing_is_taken_then() -> None:
    """By an executor that has worked, nor by one that has not; also from callbacks."""
    done = run(
        "def last():\n"
        "    for executor in t, ForkExecutor():\n"
        "        try: executor.submit(int)\n"
        "        except RuntimeError as error: print(error)\n"
        "atexit.unregister(sys.modules['daemonize.executor.dispatcher']._exit)\n"
        "atexit.register(last)\n"
        "atexit.register(sys.modules['daemonize.executor.dispatcher']._exit)\n"
        "t = ForkExecutor(1)\nt.submit(int).add_done_callback(lambda _: None)\n"
    )

    words = b"cannot schedule new futures after interpreter shutdown\n"
    assert (done.stdout, done.stderr) == (words * 2, b"")


def test_a_task_that_has_an_executor_of_its_own_at_exit() -> None:
    """It is a process of its own, which does not exit."""
    done = run(
        "def task():\n    with ForkExecutor() as inner: print(inner.submit(abs, -4).result(), flush=True)\n"
        "t = ForkExecutor(1)\nt.submit(time.sleep, 0.1)\nt.submit(task)\n"
    )

    assert (done.stdout, done.stderr) == (b"4\n", b"")


def test_a_forked_child_exits_alone() -> None:
    """What was submitted is its parent's."""
    done = run(
        "t = ForkExecutor(1)\nt.submit(time.sleep, 0.2)\n"
        "if os.fork() == 0: sys.exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)\n"
    )

    assert (done.stdout, done.stderr) == (b"0\n", b"")


def test_an_impatient_user() -> None:
    """Ctrl-C ends the wait of the exit; the kernel ends the tasks."""
    script = (
        PRELUDE
        + "t = ForkExecutor(1)\nt.submit(time.sleep, 1000)\nt.submit(int)\nprint('over', flush=True)\n"
    )
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import threading\nthreading._shutdown = lambda: print('exits', flush=True)\n" + script,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"over\n"
        assert process.stdout.readline() == b"exits\n"
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        assert b"KeyboardInterrupt" in process.stderr.read() if process.stderr else False
