"""CPython's own tests of executors, with a `ForkExecutor`: a program, for a Python that has its tests (`test`).

Every test of the mixins in TABLE is run, or has a reason in NOT_HERE. Of the other modules, none applies:

    test_thread_pool, the rest of test_shutdown   threads that are counted, named and used again: there is one
    test_process_pool                             processes that are used again, start methods, max_tasks_per_child: there
                                                  are none. test_killed_child wants the pool to be broken; ours goes on
                                                  (tests/executor/test_tasks.py); so for chunks and tracebacks
    test_init                                     initializers: a task has what its caller has
    test_deadlock                                 arguments that cannot be pickled or read: they are not. Deaths and results
                                                  that cannot be read: tests/executor/test_tasks.py
    test_future                                   futures that the tests resolve themselves: ours belong to an executor
"""

from __future__ import annotations

import importlib
import sys
import unittest
from concurrent import futures
from typing import Any

from daemonize import ForkExecutor

#: Module (a package from 3.12 on; one file before), and the mixin in it.
TABLE = (
    ("executor", "ExecutorTest"),
    ("test_wait", "WaitTests"),
    ("test_as_completed", "AsCompletedTests"),
    ("test_shutdown", "ExecutorShutdownTest"),
)
_BY_NAME = "it imports the executor by its name from concurrent.futures in another interpreter: tests/executor/test_exit.py"
#: What does not apply, and why.
NOT_HERE = {
    "test_interpreter_shutdown": _BY_NAME,
    "test_submit_after_interpreter_shutdown": _BY_NAME,
    "test_hang_gh83386": _BY_NAME,
    "test_hang_gh94440": _BY_NAME,
}


class _Mixin:
    """In place of CPython's ExecutorMixin, which knows kinds of pools."""

    executor_type, worker_count = ForkExecutor, 5

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.executor: Any = ForkExecutor(max_workers=self.worker_count)

    def tearDown(self) -> None:
        self.executor.shutdown()
        self.executor = None
        super().tearDown()  # type: ignore[misc]


def mixins() -> dict[str, type]:
    """By name. Raises ImportError: this Python does not have its tests."""
    package: Any = importlib.import_module("test.test_concurrent_futures")
    found = {}
    for module, name in TABLE:
        home = (
            importlib.import_module(f"{package.__name__}.{module}")
            if hasattr(package, "__path__")
            else package
        )
        found[name] = getattr(home, name)
    return found


def cases() -> unittest.TestSuite:
    """All that apply."""
    suite = unittest.TestSuite()
    for name, mixin in mixins().items():
        case: Any = type(f"ForkExecutor{name}", (_Mixin, mixin, unittest.TestCase), {})
        names = unittest.TestLoader().getTestCaseNames(case)
        suite.addTests(case(test) for test in names if test not in NOT_HERE)
    return suite


if __name__ == "__main__":
    support: Any = importlib.import_module("test.support")
    support.use_resources = ["walltime"]
    assert issubclass(ForkExecutor, futures.Executor)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(cases())
    sys.exit(not result.wasSuccessful())
