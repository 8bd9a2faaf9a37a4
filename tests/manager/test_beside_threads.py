"""A handler that raises, beside another thread: the kernel gives the signal to that, and Python calls the handler here."""

from __future__ import annotations

import subprocess
import sys

#: A Ctrl-C at a random moment of tasks that are started and waited for; then, what is left.
PROGRAM = """
import os, random, signal, sys, threading, time, warnings
from daemonize import ProcessManager
from daemonize.posix.blocked import Blocked
{control}
warnings.simplefilter("ignore")
over = threading.Event()
threading.Thread(target=over.wait).start()
random.seed(1)
waiting = children = 0
for _ in range({rounds}):
    manager = ProcessManager().setup()
    try:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        # Again and again: Python throws away what is raised in a finalizer.
        signal.setitimer(signal.ITIMER_REAL, random.random() * 2e-3 + 1e-5, 1)
        while True:
            manager.create_process(int)
            manager.step(0)
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
    end = time.monotonic() + 1
    while manager.process_count and time.monotonic() < end:
        manager.step(0.1)
    if manager.process_count:
        waiting += 1
        manager._held.processes.clear()
    manager.teardown()
    try:
        while True:
            os.waitpid(-1, 0)
            children += 1
    except ChildProcessError:
        pass
over.set()
print(waiting, children)
"""


def run(rounds: int, control: str = "") -> list[int]:
    """How many managers would wait for ever, and how many children nobody knew of."""
    words = [sys.executable, "-c", PROGRAM.format(rounds=rounds, control=control)]
    return [int(word) for word in subprocess.run(words, capture_output=True, check=True).stdout.split()]


def test_a_ctrl_c_loses_no_task() -> None:
    """It comes before a step of ours, or after it."""
    assert run(60) == [0, 0]


def test_control_signals_that_are_blocked_in_this_thread_alone() -> None:
    """Negative control: tasks are lost."""
    assert sum(run(15, "Blocked._hold = lambda self: None")) > 0
